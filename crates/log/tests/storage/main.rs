//! The log on a disk that forgets, tears, fills up and fails.

mod batches;
mod crash;
mod faults;
mod node;
mod oracle;
mod plain_log;
mod random;
mod timeline;
mod workload;
