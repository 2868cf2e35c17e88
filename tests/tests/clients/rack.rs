//! Java's consumer in another rack than the leader reads from the replica in its own (KIP-392).

use std::time::Duration;

use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::skip;
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::client::{Client, Driver, JAVA};
use super::judge::{by_read, judge_read};
use super::records::{few_records, to_file};
use super::work::{CreateWork, From, ProduceWork, ReadLine, ReadWork, Seen, Written};
use super::{bootstrap, three};

const TEST: &str = "java_reads_from_the_replica_in_its_rack";

/// A line of a reader that has a rack: it ends a read with where it was sent.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RackLine {
    Preferred { preferred: i32 },
    Read(ReadLine),
}

#[tokio::test(flavor = "multi_thread")]
async fn java_reads_from_the_replica_in_its_rack() {
    let driver = spawn_blocking(|| Client::driver(JAVA)).await.unwrap();
    let Some(driver) = skip::unless(TEST, driver) else { return };
    let spec = three()
        .with("broker.rack", "rack{node}")
        .with("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");
    let cluster = Cluster::start(&spec).await.unwrap();
    let bootstrap = bootstrap(&cluster);
    let topic = CreateWork { topic: "orders".to_owned(), partitions: 1, replication: 3 };
    driver.run::<serde_json::Value>("create", &bootstrap, &[topic]).await;
    let (work, _file) = few();
    let written: Vec<Written> = driver.run("produce", &bootstrap, &[work]).await;

    let leader = in_sync(&cluster).await;
    for id in cluster.ids() {
        // A consumer that is near the leader is sent nowhere.
        let near = if id == leader { -1 } else { i32::from(id) };
        let (seen, preferred) = read(&driver, &bootstrap, &format!("rack{id}"), written.len()).await;
        assert_eq!((seen.len(), preferred), (written.len(), near), "from rack{id}; the leader is {leader}");
    }
}

/// The leader, once all replicas are in sync: the others are passed over.
async fn in_sync(cluster: &Cluster) -> u16 {
    let admin = cluster.admin();
    let leader = wait_for("all replicas are in sync", Duration::from_secs(60), async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let partition = &topic.partitions[0];
        match partition.leader {
            Some(leader) if partition.in_sync_replicas.len() == 3 => Ok(leader.0),
            _ => Err(format!("{partition:?}")),
        }
    });
    u16::try_from(leader.await.unwrap()).unwrap()
}

fn few() -> (ProduceWork, NamedTempFile) {
    let file = to_file(&few_records(&JAVA));
    let records = file.path().display().to_string();
    let topic = "orders".to_owned();
    let codec = klamm_record::Codec::Lz4;
    (ProduceWork { topic, partition: 0, codec, idempotent: true, records }, file)
}

/// Reads all records from `rack`, and tells where the consumer was sent.
async fn read(driver: &Driver, bootstrap: &str, rack: &str, count: usize) -> (Vec<Seen>, i32) {
    let until = i64::try_from(count).unwrap();
    let work = ReadWork { read: 0, topic: "orders".to_owned(), partition: 0, from: From::Beginning, until };
    let mut prepared = driver.prepared("consume", bootstrap, &[&work]);
    prepared.command.arg(rack);
    let mut reads = Vec::new();
    let mut preferred = None;
    for line in prepared.run::<RackLine>(rack).await {
        match line {
            RackLine::Preferred { preferred: told } => preferred = Some(told),
            RackLine::Read(line) => reads.push(line),
        }
    }
    let seen = by_read(reads, 1).unwrap().remove(0);
    let expected: Vec<_> = few_records(&JAVA)
        .iter()
        .zip(0..)
        .map(|(record, offset)| record.seen(offset, record.timestamp.unwrap()))
        .collect();
    judge_read(&work, &seen, &expected).unwrap();
    (seen, preferred.unwrap())
}
