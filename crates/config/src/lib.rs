//! Every setting of Kafka 4.3 by its name: type, default, range, what it is for, and what Klamm does with it.
//!
//! **For:** one table that start-up validation, `DescribeConfigs`, the controller's checks and the configuration
//! reference are all made from. **Not for:** reading files or the environment (`node` does).
//!
//! **Called by:** `node`, `kafka-api`, `broker`, `controller`. **Calls:** `types`.
