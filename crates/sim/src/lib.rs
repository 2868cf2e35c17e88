//! A deterministic world in which the real replica, control and log code runs under a seed.
//!
//! **Called by:** its own binary and tests. **Calls:** `replica`, `control`, `log`.
