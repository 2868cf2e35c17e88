//! A node: configuration, roles, shutdown, telemetry. Wiring, nothing else.
//!
//! ```text
//!   Sources (file, environment, command line) ─▶ LoadedSettings ─▶ NodeConfig, DerivedSettings
//!   run ─▶ directories ─▶ controller (its own threads) ─▶ broker ─▶ registered, caught up, unfenced ─▶ listeners
//!   signal ─▶ leaderships handed over ─▶ clients drained ─▶ logs closed ─▶ controller ─▶ admin listener
//! ```
//!
//! **For:** turning settings into a running process, and ending it in order. **Not for:** anything that a part of
//! the node can do for itself.
//!
//! **Called by:** the binary. **Calls:** `controller`, `broker`, `kafka-api`.
//!
//! - The quorum and the broker's session with it run on threads of their own: load on the data path cannot make them
//!   miss their time.
//! - Clients are served only once the controller has let the broker serve: before that its metadata is old.
//! - Every wrong setting stops the start, with its name, where it was written, and what is allowed.
#![forbid(unsafe_code)]

mod admin_http;
mod broker_role;
mod client_listeners;
mod config_error;
mod controller_role;
mod derived;
mod endpoint;
mod error;
mod handlers;
mod metrics;
mod node_config;
mod resolve;
mod schema;
mod server;
mod signals;
mod sources;
mod storage;
mod telemetry;

pub use admin_http::{AdminListener, NodeView};
pub use config_error::ConfigError;
pub use derived::DerivedSettings;
pub use endpoint::{Endpoint, Voter, host_and_port};
pub use error::{ConfigErrors, ForeignDirectories, NodeError};
pub use klamm_config::property_of_variable;
pub use node_config::{ListenerPlan, LogFormat, NodeConfig, Quorum, Roles};
pub use schema::TableSchema;
pub use server::{ServerOptions, run};
pub use signals::{EXIT_FORCED, StopReason, stop_reason, stop_requests};
pub use sources::{LoadedSettings, Origin, Sources};
pub use storage::{StorageError, StoredIdentity, controller_dir, format_directories, random_cluster_id};
pub use telemetry::{LevelError, Levels, Telemetry};
