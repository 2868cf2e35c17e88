//! Kafka clients as their makers publish them, against a live cluster: what one writes, all read back byte for byte.
//!
//! The drivers, one for each client, are in `tests/clients`, with a description of the lines that they speak. The list of
//! cases and the judge are here, once for all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod batches;
mod client;
mod data_set;
mod every_client;
mod judge;
mod rack;
mod records;
mod tail;
mod work;

use std::time::Duration;

use klamm_tests::cluster::{Cluster, ClusterSpec};

/// Three nodes that replicate everything three times; a topic that is created by its name gets as many partitions as
/// every client's topic.
fn three() -> ClusterSpec {
    ClusterSpec::default()
        .with("default.replication.factor", "3")
        .with("min.insync.replicas", "2")
        .with("num.partitions", &work::PARTITIONS.to_string())
}

/// The addresses of all nodes, as clients take them.
fn bootstrap(cluster: &Cluster) -> String {
    let addresses = cluster.bootstrap().into_iter().map(|at| format!("{}:{}", at.host, at.port));
    addresses.collect::<Vec<_>>().join(",")
}

/// How long one run of a driver may take.
const DRIVER_TIME_MAX: Duration = Duration::from_secs(300);
