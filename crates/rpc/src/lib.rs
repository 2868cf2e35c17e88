//! gRPC between nodes: stubs, channels in lanes, deadlines, and who may call.
//!
//! **For:** the plumbing that `controller` and `broker` share. **Not for:** what the calls mean.
//!
//! **Called by:** `controller`, `broker`, `node`. **Calls:** `pb`, `types`.

pub mod stubs;
