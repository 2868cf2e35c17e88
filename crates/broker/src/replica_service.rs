//! Serves the fetches of other brokers' followers.
