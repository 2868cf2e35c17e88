//! Idempotent producers of librdkafka write with `acks=all` while their only node is killed, or stopped in order, and started
//! again.

use std::process::Stdio;

use klamm_tests::cluster::{Cluster, ClusterSpec, wait_for};
use klamm_tests::{skip, tools};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{SECOND, create_with};

const PARTITIONS: i32 = 3;
/// What a log that kept its promise comes to.
const KEPT: &str = "missing 0 twice 0 moved 0 refused 0 []";
/// How many records more must have been acknowledged before the next fault.
const STEP: usize = 2_000;

/// The producers, a program of their own.
struct Producers {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Producers {
    fn start(python: &tools::PythonEnvironment, cluster: &Cluster, topic: &str) -> Self {
        let nodes = cluster.bootstrap();
        let bootstrap: Vec<_> = nodes.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
        let mut command = Command::from(python.command());
        command.args(["-c", include_str!("idempotent_producers.py"), &bootstrap.join(","), topic]);
        command.arg(PARTITIONS.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, orders, answers }
    }

    async fn ask(&mut self, order: &str) -> String {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let answer = timeout(180 * SECOND, self.answers.next_line()).await.expect("the producers answer");
        answer.unwrap().expect("the producers run")
    }

    /// Waits until `more` records are acknowledged beyond those that were when it was called.
    async fn acknowledge(&mut self, more: usize) {
        let begin: usize = self.ask("count").await.parse().unwrap();
        wait_for("the producers go on", 60 * SECOND, async || {
            let count: usize = self.ask("count").await.parse().unwrap();
            if count >= begin + more { Ok(()) } else { Err(format!("{begin}, then {count} acknowledged")) }
        })
        .await
        .unwrap();
    }
}

async fn python(test: &str) -> Option<tools::PythonEnvironment> {
    let python = tokio::task::spawn_blocking(|| {
        tools::PythonEnvironment::with("confluent-kafka", &["confluent-kafka==2.16.1"])
    });
    skip::unless(test, python.await.unwrap())
}

#[tokio::test]
async fn a_single_node_that_is_killed_keeps_what_librdkafka_was_told() {
    let test = "a_single_node_that_is_killed_keeps_what_librdkafka_was_told";
    single_node(test, 5).await;
}

#[ignore = "takes minutes"]
#[tokio::test]
async fn a_single_node_that_is_killed_fifty_times_keeps_what_librdkafka_was_told() {
    let test = "a_single_node_that_is_killed_fifty_times_keeps_what_librdkafka_was_told";
    single_node(test, 50).await;
}

async fn single_node(test: &str, kills: usize) {
    let Some(python) = python(test).await else { return };
    let mut cluster = Cluster::start(&ClusterSpec { nodes: 1, ..ClusterSpec::default() }).await.unwrap();
    create_with(&cluster.admin(), "orders", PARTITIONS, 1).await;
    let mut producers = Producers::start(&python, &cluster, "orders");
    for kill in 0..kills {
        producers.acknowledge(STEP).await;
        // Each time elsewhere between two writes.
        producers.acknowledge(1 + kill * 37 % 500).await;
        cluster.node(1).kill().unwrap();
        cluster.node(1).restart().unwrap();
        cluster.wait_ready().await.unwrap();
    }
    producers.acknowledge(STEP).await;
    assert_eq!(producers.ask("stop").await, KEPT);
}

#[tokio::test]
async fn a_single_node_that_is_restarted_in_order_keeps_what_librdkafka_was_told() {
    let test = "a_single_node_that_is_restarted_in_order_keeps_what_librdkafka_was_told";
    let Some(python) = python(test).await else { return };
    let mut cluster = Cluster::start(&ClusterSpec { nodes: 1, ..ClusterSpec::default() }).await.unwrap();
    create_with(&cluster.admin(), "orders", PARTITIONS, 1).await;
    let mut producers = Producers::start(&python, &cluster, "orders");
    for _ in 0..2 {
        producers.acknowledge(STEP).await;
        cluster.node(1).terminate(60 * SECOND).await.unwrap();
        cluster.node(1).restart().unwrap();
        cluster.wait_ready().await.unwrap();
    }
    producers.acknowledge(STEP).await;
    assert_eq!(producers.ask("stop").await, KEPT);
}
