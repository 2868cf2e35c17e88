//! gRPC between nodes: stubs, channels in lanes, deadlines, and who may call.
//!
//! **For:** the plumbing that `controller` and `broker` share. **Not for:** what the calls mean.
//!
//! ```text
//!   caller:  ChannelPool::channel(address, lane) -> stub -> Deadline::{request, run} -> answer | RpcError
//!   server:  accept -> first_bytes -> serve(routes, ..) -> NodeIdentity::admit* -> answer | status::*
//! ```
//!
//! **Called by:** `controller`, `broker`, `node`. **Calls:** `pb`, `types`.

mod address;
mod backoff;
mod channel;
mod deadline;
mod first_bytes;
mod identity;
mod known_quorum;
mod lane;
mod line_budget;
mod refused_calls;
mod server;
pub mod status;
pub mod stubs;

pub use address::{AddressError, NodeAddress};
pub use backoff::Backoff;
pub use channel::{ChannelConfig, ChannelPool};
pub use deadline::Deadline;
pub use first_bytes::{FirstBytesError, Protocol, first_bytes, likely_protocol};
pub use identity::NodeIdentity;
pub use known_quorum::{ForeignQuorum, KnownQuorum};
pub use lane::{Lane, LaneLimits};
pub use line_budget::LineBudget;
pub use refused_calls::RefusedCalls;
pub use server::{ServeError, ServerConfig, serve};
pub use status::{ControllerLocation, RpcError};
