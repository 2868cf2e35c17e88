//! A node with two log directories of which one goes away: what lies in the other is served as before.
//!
//! The directory is renamed under the running node: the first file that is to be made in it fails it. That needs no rights
//! and no device.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use klamm_client::{
    Admin, Cluster as Client, Isolation, NewTopic, OffsetSpec, PartitionView, ProducerOptions,
};
use klamm_tests::cluster::{Cluster, wait_for};
use klamm_tests::workload::{Writers, verify};
use klamm_types::{BrokerId, PartitionId, TopicName, TopicPartition};

use super::lag::metric;
use super::{SECOND, broker, follower, three};

const PARTITIONS: i32 = 12;

/// The partitions of the topic that have their logs in `dir`.
fn partitions_in(dir: &Path) -> BTreeSet<i32> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("orders-")?.parse().ok()).collect()
}

/// Partitions of which each has replicas on all nodes, led in turn, and which begin a new file every few hundred records.
async fn create(admin: &Admin) -> Vec<TopicPartition> {
    let topic = NewTopic {
        partitions: Some(PARTITIONS),
        replication_factor: Some(3),
        configs: vec![("internal.segment.bytes".to_owned(), "16384".to_owned())],
        ..NewTopic::named("orders")
    };
    for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    admin.wait_for_leaders("orders").await.unwrap();
    let name = TopicName::new("orders").unwrap();
    (0..PARTITIONS).map(|partition| TopicPartition::new(name.clone(), PartitionId(partition))).collect()
}

/// The lowest and the highest end that consumers see of the partitions.
async fn ends_of(client: &Client, partitions: &[TopicPartition]) -> Result<(i64, i64), String> {
    let queries: Vec<_> = partitions.iter().map(|at| (at.clone(), OffsetSpec::Latest)).collect();
    let (mut lowest, mut highest) = (i64::MAX, 0);
    for (at, end) in client.offsets(&queries, Isolation::ReadUncommitted).await {
        let end = end.map_err(|error| format!("{at}: {error}"))?;
        let end = end.offset.map_or(0, |offset| offset.0);
        (lowest, highest) = (lowest.min(end), highest.max(end));
    }
    Ok((lowest, highest))
}

/// Waits until every partition is at least as long.
pub(crate) async fn until_written(client: &Client, partitions: &[TopicPartition], end: i64) {
    wait_for("every partition is written to", 30 * SECOND, async || {
        let (lowest, _) = ends_of(client, partitions).await?;
        if lowest >= end { Ok(()) } else { Err(format!("{lowest} of {end}")) }
    })
    .await
    .unwrap();
}

/// Waits until all nodes tell that `hurt` cannot serve `lost`, and has its place in all other partitions.
async fn until_lost(cluster: &Cluster, hurt: BrokerId, lost: &BTreeSet<i32>) -> Vec<PartitionView> {
    let mut told = Vec::new();
    for id in cluster.ids() {
        let admin = Admin::new(cluster.client_at(id));
        told = wait_for("the replicas are where they belong", 30 * SECOND, async || {
            let topic = admin.wait_for_leaders("orders").await.map_err(|error| error.to_string())?;
            let is_right = |partition: &PartitionView| {
                let in_sync = partition.in_sync_replicas.len();
                if lost.contains(&partition.partition.0) {
                    partition.offline_replicas == [hurt]
                        && in_sync == 2
                        && !partition.in_sync_replicas.contains(&hurt)
                        && partition.leader != Some(hurt)
                } else {
                    partition.offline_replicas.is_empty() && in_sync == 3
                }
            };
            match topic.partitions.iter().find(|partition| !is_right(partition)) {
                None => Ok(topic.partitions),
                Some(wrong) => Err(format!("node {id}: {wrong:?}")),
            }
        })
        .await
        .unwrap();
    }
    told
}

async fn assert_metrics(cluster: &Cluster, hurt: u16, lost: &BTreeSet<i32>) {
    let (at, count) = (cluster.admin_endpoint(hurt), lost.len() as u64);
    assert_eq!(metric(&at, "klamm_broker_offline_replicas").await, Ok(count));
    assert_eq!(metric(&at, "klamm_broker_offline_log_dirs").await, Ok(1));
    for id in cluster.ids() {
        let at = cluster.admin_endpoint(id);
        assert_eq!(metric(&at, "klamm_controller_offline_replicas").await, Ok(count), "node {id}");
        assert_eq!(metric(&at, "klamm_controller_fenced_brokers").await, Ok(0), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_goes_away_takes_its_replicas_along_and_no_others() {
    let spec = three().with("log.dirs", "data,disk");
    let mut cluster = Cluster::start(&spec).await.unwrap();
    let admin = cluster.admin();
    let partitions = create(&admin).await;
    let hurt = follower(&cluster).await;
    let (disk, away) = (cluster.home(hurt).join("disk"), cluster.home(hurt).join("away"));
    let lost = wait_for("all logs are there", 30 * SECOND, async || {
        let (one, other) = (partitions_in(&cluster.home(hurt).join("data")), partitions_in(&disk));
        let count = one.len() + other.len();
        if count == PARTITIONS.unsigned_abs() as usize { Ok(other) } else { Err(format!("{count}")) }
    })
    .await
    .unwrap();
    let before = until_lost(&cluster, broker(hurt), &BTreeSet::new()).await;
    let led = |partition: &&PartitionView| partition.leader == Some(broker(hurt));
    let (led_lost, led_kept): (Vec<_>, Vec<_>) =
        before.iter().filter(led).partition(|partition| lost.contains(&partition.partition.0));
    assert!(!led_lost.is_empty() && !led_kept.is_empty(), "{lost:?} of {before:?}");

    let client = cluster.client();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));
    until_written(&client, &partitions, 500).await;
    fs::rename(&disk, &away).unwrap();
    let after = until_lost(&cluster, broker(hurt), &lost).await;
    for (before, after) in before.iter().zip(&after) {
        let may_move = led_lost.iter().any(|lost| lost.partition == before.partition);
        let stays = (before.leader, before.leader_epoch) == (after.leader, after.leader_epoch);
        assert_eq!(stays, !may_move, "{before:?} {after:?}");
    }
    assert_metrics(&cluster, hurt, &lost).await;
    let (_, written) = ends_of(&client, &partitions).await.unwrap();
    until_written(&client, &partitions, written + 100).await;
    let ledger = writers.stop().await;
    let verdict = verify(&client, &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused), (0, 0), "{verdict:?}");
    assert!(verdict.acknowledged > 0, "{verdict:?}");

    // The directory is still missing when the node starts anew.
    cluster.node(hurt).kill().unwrap();
    if disk.exists() {
        fs::remove_dir_all(&disk).unwrap();
    }
    fs::write(&disk, "no directory").unwrap();
    cluster.node(hurt).restart().unwrap();
    cluster.wait_ready().await.unwrap();
    until_lost(&cluster, broker(hurt), &lost).await;
    assert_metrics(&cluster, hurt, &lost).await;

    // With the directory back, everything is.
    cluster.node(hurt).kill().unwrap();
    fs::remove_file(&disk).unwrap();
    fs::rename(&away, &disk).unwrap();
    cluster.node(hurt).restart().unwrap();
    cluster.wait_ready().await.unwrap();
    until_lost(&cluster, broker(hurt), &BTreeSet::new()).await;
    let shown = metric(&cluster.admin_endpoint(hurt), "klamm_controller_offline_replicas").await;
    assert_eq!(shown, Ok(0));
    let verdict = verify(&client, &ledger).await.unwrap();
    assert_eq!(verdict.finding_count, 0, "{verdict:?}");
}
