//! A small asynchronous Kafka client for our own tools and tests.
//!
//! **For:** administration, producing and consuming over the public protocol. **Not for:** applications.
//!
//! **Called by:** `cli`, tests. **Calls:** `protocol`, `record`.
