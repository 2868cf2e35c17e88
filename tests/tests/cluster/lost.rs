//! Everybody who had everything loses the disk: the longest log that is left leads.

use std::fs;

use bytes::Bytes;
use klamm_client::{
    Cluster as Client, Isolation, NewTopic, OffsetSpec, OwnedRecord, Producer, ProducerOptions,
};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_types::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

use super::{SECOND, broker, three};

async fn write(client: &Client, at: &TopicPartition, count: usize) {
    let producer = Producer::new(client.clone(), ProducerOptions::default());
    for _ in 0..count {
        let (timestamp, value) = (Timestamp(1_700_000_000_000), Some(Bytes::from_static(b"value")));
        let record = OwnedRecord { timestamp, key: None, value, headers: Vec::new() };
        producer.send(at, record).await.unwrap().wait().await.unwrap();
    }
}

async fn end(client: &Client, at: &TopicPartition) -> Result<Option<Offset>, String> {
    let query = [(at.clone(), OffsetSpec::Latest)];
    let told = client.offsets(&query, Isolation::ReadUncommitted).await;
    let (_, end) = told.into_iter().next().ok_or("no answer")?;
    end.map(|end| end.offset).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_still_has_outlives_the_disks_of_those_in_sync() {
    // Who votes, and for what, lies elsewhere.
    let mut cluster = Cluster::start(&three().with("metadata.log.dir", "metadata")).await.unwrap();
    let (client, admin) = (cluster.client(), cluster.admin());
    let topic = NewTopic { assignment: vec![[1, 2, 3].map(broker).to_vec()], ..NewTopic::named("orders") };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders("orders").await.unwrap();
    let at = TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0));
    write(&client, &at, 100).await;
    cluster.node(3).kill().unwrap();
    // Only the others have these.
    write(&client, &at, 50).await;
    for id in [1, 2] {
        cluster.node(id).kill().unwrap();
        fs::remove_dir_all(cluster.home(id).join("data")).unwrap();
    }
    // Those that come back empty are first.
    for id in [1, 2] {
        cluster.node(id).restart().unwrap();
    }
    wait_for("they serve", 60 * SECOND, async || {
        let brokers = admin.describe_cluster().await.map_err(|error| error.to_string())?.brokers;
        let serving = brokers.iter().filter(|node| !node.is_fenced).count();
        if serving == 2 { Ok(()) } else { Err(format!("{brokers:?}")) }
    })
    .await
    .unwrap();
    cluster.node(3).restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let led = wait_for("all follow who has most", 60 * SECOND, async || {
        let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
        let partition = &topic.partitions[0];
        let is_whole = partition.leader == Some(broker(3)) && partition.in_sync_replicas.len() == 3;
        if is_whole { Ok(()) } else { Err(format!("{partition:?}")) }
    });
    led.await.unwrap();
    let found = wait_for("the end is told", 30 * SECOND, async || end(&client, &at).await).await.unwrap();
    assert_eq!(found, Some(Offset(100)));
    write(&client, &at, 1).await;
    assert_eq!(end(&client, &at).await.unwrap(), Some(Offset(101)));
}
