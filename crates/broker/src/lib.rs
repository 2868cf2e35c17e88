//! The broker: hosts replicas of partitions, follows the metadata, replicates.
//!
//! **For:** carrying out what `replica` decides, on the logs of this node. **Not for:** deciding, and for the clients' protocol.
//!
//! **Called by:** `kafka-api`, `node`. **Calls:** `replica`, `log`, `metadata`, `rpc`.
