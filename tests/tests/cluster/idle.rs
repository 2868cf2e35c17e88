//! Partitions that nobody has written to for a while.

use std::time::Duration;

use bytes::Bytes;
use klamm_client::{OwnedRecord, Producer, ProducerOptions};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::requests::admin_page;
use klamm_types::{Timestamp, TopicPartition};

use super::{SECOND, create, three};

/// The lag window. Longer than what a busy machine does to a sound follower.
const LAG_TIME_MAX: Duration = Duration::from_secs(5);

/// Followers fetch once and are answered when there is something; by the age of that fetch they were thrown out of the
/// in-sync set with the first record after the lag window.
#[tokio::test]
async fn a_partition_that_was_idle_keeps_its_in_sync_set_when_it_is_written_to_again() {
    let lag_ms = LAG_TIME_MAX.as_millis().to_string();
    let cluster = Cluster::start(&three().with("replica.lag.time.max.ms", &lag_ms)).await.unwrap();
    let partitions = create(&cluster.admin(), "orders", 20).await;
    let producer = Producer::new(cluster.client(), ProducerOptions::default());
    write_to_each(&producer, &partitions).await;
    let before = shrinks(&cluster).await;
    // The passing of time is what this is about.
    tokio::time::sleep(LAG_TIME_MAX + SECOND).await;
    write_to_each(&producer, &partitions).await;
    assert_eq!(shrinks(&cluster).await, before, "in-sync sets shrank");
}

async fn write_to_each(producer: &Producer, partitions: &[TopicPartition]) {
    for at in partitions {
        let record = OwnedRecord::of_value(Timestamp(0), Bytes::from_static(b"record"));
        producer.send(at, record).await.unwrap().wait().await.unwrap();
    }
}

/// How often in-sync sets have shrunk.
async fn shrinks(cluster: &Cluster) -> u64 {
    let mut sum = 0;
    for id in cluster.ids() {
        let at = cluster.admin_endpoint(id);
        let count = wait_for("a node tells its metrics", 30 * SECOND, async || {
            let told = admin_page(&at, "/metrics").await.map_err(|error| error.to_string())?;
            let sample = told.lines().find_map(|line| line.strip_prefix("klamm_broker_isr_shrinks_total "));
            sample.and_then(|value| value.trim().parse::<u64>().ok()).ok_or_else(|| format!("none in {told}"))
        });
        sum += count.await.unwrap();
    }
    sum
}
