//! A consumer in another rack than the leader reads from the follower in its own (KIP-392).

use std::process::Stdio;

use bytes::Bytes;
use klamm_client::{Endpoint, OwnedRecord, Producer, ProducerOptions};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::requests::admin_page;
use klamm_tests::{skip, tools};
use klamm_types::Timestamp;
use tokio::process::Command;
use tokio::time::timeout;

use super::{SECOND, create, three};

const RECORDS: usize = 2000;
const VALUE_LEN: usize = 1000;

/// Reads the whole partition, and prints how many records it has.
const CONSUMER: &str = r#"
import sys
from confluent_kafka import Consumer, TopicPartition
bootstrap, rack, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
consumer = Consumer({
    "bootstrap.servers": bootstrap, "client.rack": rack, "group.id": "none", "enable.auto.commit": False,
    "enable.auto.offset.store": False, "check.crcs": True,
})
consumer.assign([TopicPartition("orders", 0, 0)])
offsets = []
while len(offsets) < count:
    message = consumer.poll(30)
    if message is None:
        sys.exit("nothing came for 30 s, after %d records" % len(offsets))
    if message.error():
        sys.exit(str(message.error()))
    offsets.append(message.offset())
assert offsets == list(range(count)), "out of order"
print(len(offsets))
"#;

#[tokio::test]
async fn librdkafka_reads_from_the_replica_in_its_rack() {
    let test = "librdkafka_reads_from_the_replica_in_its_rack";
    let python = tokio::task::spawn_blocking(|| {
        tools::PythonEnvironment::with("confluent-kafka", &["confluent-kafka==2.16.1"])
    });
    let Some(python) = skip::unless(test, python.await.unwrap()) else { return };
    let spec = three()
        .with("broker.rack", "rack{node}")
        .with("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");
    let cluster = Cluster::start(&spec).await.unwrap();
    let admin = cluster.admin();
    let orders = create(&admin, "orders", 1).await;
    let producer = Producer::new(cluster.client(), ProducerOptions::default());
    let mut deliveries = Vec::new();
    for _ in 0..RECORDS {
        let value = Some(Bytes::from(vec![7; VALUE_LEN]));
        let record =
            OwnedRecord { timestamp: Timestamp(1_700_000_000_000), key: None, value, headers: Vec::new() };
        deliveries.push(producer.send(&orders[0], record).await.unwrap());
    }
    for delivery in deliveries {
        delivery.wait().await.unwrap();
    }
    let topic = admin.wait_for_leaders("orders").await.unwrap();
    let leader = u16::try_from(topic.partitions[0].leader.unwrap().0).unwrap();
    let near = cluster.ids().find(|id| *id != leader).unwrap();

    let before = given_to_consumers(&cluster).await;
    let bootstrap: Vec<_> = cluster.bootstrap().iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
    let mut command = Command::from(python.command());
    command.args(["-c", CONSUMER, &bootstrap.join(","), &format!("rack{near}"), &RECORDS.to_string()]);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(120 * SECOND, running).await.expect("the consumer ends").unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), RECORDS.to_string());
    let after = given_to_consumers(&cluster).await;

    let all = (RECORDS * VALUE_LEN) as u64;
    for (id, before, after) in
        before.iter().zip(&after).map(|((id, before), (_, after))| (*id, before, after))
    {
        let given = after - before;
        if id == near {
            assert!(given >= all, "node {id}, in the consumer's rack, gave {given} bytes of {all}");
        } else {
            assert_eq!(given, 0, "node {id}; the leader is {leader}, the consumer is near {near}");
        }
    }
}

/// The bytes of records that each node has given to consumers.
async fn given_to_consumers(cluster: &Cluster) -> Vec<(u16, u64)> {
    let mut given = Vec::new();
    for id in cluster.ids() {
        let at = cluster.admin_endpoint(id);
        let bytes = wait_for("a node tells its metrics", 30 * SECOND, async || bytes_out(&at).await);
        given.push((id, bytes.await.unwrap()));
    }
    given
}

async fn bytes_out(at: &Endpoint) -> Result<u64, String> {
    let told = admin_page(at, "/metrics").await.map_err(|error| error.to_string())?;
    let sample = told.lines().find_map(|line| line.strip_prefix("klamm_broker_bytes_out_total "));
    let value = sample.ok_or_else(|| format!("no such metric in {told}"))?;
    value.trim().parse().map_err(|_| format!("no number: {value}"))
}
