//! The log on a disk that forgets, tears, fills up and fails.

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
