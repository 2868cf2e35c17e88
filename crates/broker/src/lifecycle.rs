//! Registration with the controller, heartbeats, the session.
