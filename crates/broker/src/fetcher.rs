//! Fetching from leaders, for the followers of this broker.
