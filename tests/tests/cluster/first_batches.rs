//! A new producer's batches are under way when the partition begins to take records: none may overtake another
//! (docs/adr/0006).

use std::process::Stdio;

use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::{skip, tools};
use tokio::process::Command;
use tokio::time::timeout;

use super::{SECOND, broker, create, three};

/// Starts many producers with five batches each under way while their partition has too few replicas in sync, then asks
/// for fewer, again and again. Prints what was reported as delivered and is not there, what is there twice, and what is
/// in another order than it was sent in.
const PRODUCERS: &str = r#"
import sys, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
bootstrap, rounds, each, records = sys.argv[1], int(sys.argv[2]), 25, 8
base = {"bootstrap.servers": bootstrap, "log_level": 0}
admin = AdminClient(base)
def require(replicas):
    entry = ConfigEntry("min.insync.replicas", str(replicas), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "orders", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)
delivered, refused = {}, []
def start(number):
    producer = Producer({**base, "enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 1,
        "retry.backoff.ms": 2, "retry.backoff.max.ms": 2, "message.timeout.ms": 60000})
    def told(error, message):
        if error: refused.append(str(error))
        else: delivered.setdefault(number, []).append(int(message.value().split(b"-")[1]))
    for i in range(records):
        producer.produce("orders", (b"%d-%d-" % (number, i)).ljust(30000, b"x"), partition=0, on_delivery=told)
    return producer
for round in range(rounds):
    require(3)
    producers = [start(round * each + k) for k in range(each)]
    # Long enough for their first batches to be refused; the outcome must be the same wherever they are.
    time.sleep(1.0 + 0.02 * round)
    require(2)
    for producer in producers:
        if producer.flush(90): sys.exit("not all were sent")
consumer = Consumer({**base, "group.id": "none", "enable.auto.commit": False})
end = consumer.get_watermark_offsets(TopicPartition("orders", 0), 30)[1]
consumer.assign([TopicPartition("orders", 0, 0)])
seen = {}
for _ in range(end):
    message = consumer.poll(30)
    if message is None or message.error(): sys.exit("cannot read: %s" % message)
    number, i = message.value().split(b"-")[:2]
    seen.setdefault(int(number), []).append(int(i))
missing = sum(len(set(told) - set(seen.get(number, []))) for number, told in delivered.items())
twice = sum(len(found) - len(set(found)) for found in seen.values())
moved = sum(found != sorted(found) for found in seen.values())
print("missing", missing, "twice", twice, "moved", moved, "refused", len(refused), "read", end)
"#;

#[tokio::test]
async fn librdkafka_loses_no_record_that_it_sends_before_a_partition_takes_any() {
    const ROUNDS: usize = 5;
    let test = "librdkafka_loses_no_record_that_it_sends_before_a_partition_takes_any";
    let python = tokio::task::spawn_blocking(|| {
        tools::PythonEnvironment::with("confluent-kafka", &["confluent-kafka==2.16.1"])
    });
    let Some(python) = skip::unless(test, python.await.unwrap()) else { return };
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    create(&admin, "orders", 1).await;
    let gone = super::follower(&cluster).await;
    cluster.node(gone).kill().unwrap();
    wait_for("the killed node leaves the in-sync set", 30 * SECOND, async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let in_sync = &topic.partitions[0].in_sync_replicas;
        if in_sync.len() == 2 && !in_sync.contains(&broker(gone)) {
            Ok(())
        } else {
            Err(format!("{in_sync:?}"))
        }
    })
    .await
    .unwrap();

    let alive: Vec<_> = cluster.ids().filter(|id| *id != gone).map(|id| cluster.endpoint(id)).collect();
    let bootstrap: Vec<_> = alive.iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
    let mut command = Command::from(python.command());
    command.args(["-c", PRODUCERS, &bootstrap.join(","), &ROUNDS.to_string()]);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(300 * SECOND, running).await.expect("the producers end").unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = format!("missing 0 twice 0 moved 0 refused 0 read {}", ROUNDS * 25 * 8);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
}
