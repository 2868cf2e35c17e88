//! The log on a disk that forgets, tears, fills up and fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod batches;
mod crash;
mod faults;
mod model;
mod node;
mod oracle;
mod plain_log;
mod random;
mod rot;
mod timeline;
mod workload;
