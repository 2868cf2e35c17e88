//! Leaders are killed, and nothing that was acknowledged is lost, doubled or moved.
//!
//! Three nodes, each broker and controller, replicate every partition three times; unmodified producers of three kinds of
//! client write to all partitions with idempotence and `acks=all`, while one node after the other is killed, stopped in order,
//! held, or loses its disk. After each fault everything heals; when all are over, every record is where its producer was told,
//! the replicas are equal byte for byte, and so are the high watermarks.
//!
//! Then the same while the power fails, of several nodes at once, so that what they had not flushed is gone.
//!
//! How the long forms are run is in `docs/development.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod campaign;
mod containers;
mod judge;
mod own_client;
mod power;
mod producers;
mod reckoning;
mod replicas;
mod report;
mod rig;
mod schedule;
mod server;

use std::env;
use std::path::PathBuf;

use klamm_tests::cluster::Cluster;
use klamm_tests::kafka::{Kafka, KafkaSpec};
use klamm_tests::skip;
use klamm_types::{PartitionId, TopicName, TopicPartition};

use campaign::{Plan, run};
use producers::Tools;
use schedule::{Counts, Kind};
use server::Server;

const TOPIC: &str = "orders";
/// As many as there are nodes: each leads one.
const PARTITIONS: usize = 3;

fn partitions() -> impl Iterator<Item = TopicPartition> {
    let topic = TopicName::new(TOPIC).unwrap();
    (0..).take(PARTITIONS).map(move |partition| TopicPartition::new(topic.clone(), PartitionId(partition)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_lose_nothing_that_was_acknowledged_whatever_befalls_a_node() {
    let test = "clients_lose_nothing_that_was_acknowledged_whatever_befalls_a_node";
    let Some(tools) = skip::unless(test, Tools::install().await) else { return };
    let plan = plan(Counts::of(&[
        (Kind::Calm, 1),
        (Kind::Leader, 2),
        (Kind::Follower, 1),
        (Kind::LeaderAndController, 1),
        (Kind::Term, 1),
        (Kind::Pause, 1),
        (Kind::Wipe, 1),
    ]));
    let cluster = Cluster::start(&rig::three()).await.unwrap();
    run(Server::Klamm(cluster), &tools, plan).await;
}

/// The figures of `docs/benchmarks.md`.
#[ignore = "takes half an hour"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_lose_nothing_in_four_hundred_faults() {
    let test = "clients_lose_nothing_in_four_hundred_faults";
    let Some(tools) = skip::unless(test, Tools::install().await) else { return };
    let plan = plan(Counts::of(&[
        (Kind::Calm, 20),
        (Kind::Leader, 200),
        (Kind::Follower, 50),
        (Kind::LeaderAndController, 50),
        (Kind::Term, 50),
        (Kind::Pause, 30),
        (Kind::Wipe, 10),
    ]));
    let cluster = Cluster::start(&rig::three()).await.unwrap();
    run(Server::Klamm(cluster), &tools, plan).await;
}

/// The same driver, for comparison.
#[ignore = "starts three nodes of Apache Kafka, and takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_of_apache_kafka() {
    let test = "the_same_of_apache_kafka";
    let Some(tools) = skip::unless(test, Tools::install().await) else { return };
    let plan = plan(Counts::of(&[(Kind::Calm, 2), (Kind::Leader, 5)]));
    let three =
        KafkaSpec::as_shipped(3).with("default.replication.factor", "3").with("min.insync.replicas", "2");
    let kafka = Kafka::start(&tools.jars, &three).await.unwrap();
    run(Server::Kafka(kafka), &tools, plan).await;
}

/// `KLAMM_CHAOS_SEED`, or a new one.
#[expect(clippy::disallowed_methods, reason = "who repeats a run says which; otherwise each is another")]
fn seed() -> u64 {
    let said = env::var("KLAMM_CHAOS_SEED").ok().filter(|text| !text.is_empty());
    said.map(|text| text.parse().expect("KLAMM_CHAOS_SEED is a number")).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        now.as_micros() as u64
    })
}

/// The plan with these counts, as far as the environment does not say otherwise: `KLAMM_CHAOS_SEED` (a number; otherwise each
/// run has its own), `KLAMM_CHAOS_FAULTS` (such as `leader=20,pause=3`), `KLAMM_CHAOS_LINES` (a file for the faults' lines).
#[expect(clippy::disallowed_methods, reason = "who starts a long run by hand says what it shall be")]
fn plan(counts: Counts) -> Plan {
    let said = |name| env::var(name).ok().filter(|text| !text.is_empty());
    let counts = said("KLAMM_CHAOS_FAULTS").map_or(counts, |text| text.parse().unwrap());
    let lines =
        said("KLAMM_CHAOS_LINES").map_or_else(|| env::temp_dir().join("klamm-chaos.jsonl"), PathBuf::from);
    Plan { seed: seed(), counts, lines }
}
