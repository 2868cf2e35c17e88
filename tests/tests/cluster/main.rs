//! Three real nodes, real faults.
//!
//! Each case runs in a short form; the long forms, whose figures are in `docs/benchmarks.md`, are ignored unless asked
//! for: `cargo test --release -p klamm-tests --test cluster -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broker_kill;
mod changes;
mod closest;
mod controller_kill;
mod digests;
mod directories;
mod elect;
mod first_batches;
mod full_disk;
mod idle;
mod lag;
mod librdkafka;
mod lost;
mod moves;
mod pause;
mod verbs;
mod views;

use std::time::Duration;

use klamm_client::{Admin, NewTopic};
use klamm_tests::cluster::{Cluster, ClusterSpec};
use klamm_types::{BrokerId, PartitionId, TopicName, TopicPartition};

/// Three nodes that replicate everything three times.
fn three() -> ClusterSpec {
    ClusterSpec::default().with("default.replication.factor", "3").with("min.insync.replicas", "2")
}

/// Creates a topic with three replicas, and waits for its leaders.
async fn create(admin: &Admin, name: &str, partitions: i32) -> Vec<TopicPartition> {
    create_with(admin, name, partitions, 3).await
}

/// Creates a topic, and waits for its leaders.
async fn create_with(admin: &Admin, name: &str, partitions: i32, replicas: i16) -> Vec<TopicPartition> {
    let topic = NewTopic {
        partitions: Some(partitions),
        replication_factor: Some(replicas),
        ..NewTopic::named(name)
    };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders(name).await.unwrap();
    let name = TopicName::new(name).unwrap();
    (0..partitions).map(|partition| TopicPartition::new(name.clone(), PartitionId(partition))).collect()
}

fn broker(id: u16) -> BrokerId {
    BrokerId(i32::from(id))
}

/// A running node that is not the active controller.
async fn follower(cluster: &Cluster) -> u16 {
    let active = cluster.active_controller().await.unwrap();
    cluster.ids().find(|id| *id != active).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
