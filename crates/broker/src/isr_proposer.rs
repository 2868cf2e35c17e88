//! Sends proposals of in-sync sets to the active controller.
