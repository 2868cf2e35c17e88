//! A node: configuration, roles, shutdown, telemetry. Wiring, nothing else.
//!
//! **Called by:** the binary. **Calls:** `controller`, `broker`, `kafka-api`.
