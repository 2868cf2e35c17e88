//! Leaders are killed and restarted under writers that want all replicas' word.

use std::time::Duration;

use klamm_client::ProducerOptions;
use klamm_tests::cluster::Cluster;
use klamm_tests::distribution::Distribution;
use klamm_tests::workload::{Verdict, Writers, gap_around, verify};
use tokio::time::{Instant, sleep};

use super::broker_kill::all_in_sync;
use super::views::{Viewer, agreed};
use super::{SECOND, create, three};

/// How long after a kill an interruption counts as its consequence.
const SETTLE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_reordered_when_leaders_are_killed() {
    let (verdict, gaps) = kill_leaders(3).await;
    eprintln!("{} acknowledged; without acknowledgement around a kill: {gaps}", verdict.acknowledged);
}

/// The figures of `docs/benchmarks.md`.
#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_leaders_are_killed_under_load() {
    let (verdict, gaps) = kill_leaders(50).await;
    println!("{} acknowledged; without acknowledgement around a kill: {gaps}", verdict.acknowledged);
}

async fn kill_leaders(kills: usize) -> (Verdict, Distribution) {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let admin = cluster.admin();
    let partitions = create(&admin, "orders", 3).await;
    let client = cluster.client();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));
    let first = partitions.first().unwrap();
    let mut moments = Vec::new();
    for _ in 0..kills {
        sleep(SECOND).await;
        let leader = leader_of(&cluster).await;
        moments.push(Instant::now());
        cluster.node(leader).kill().unwrap();
        sleep(SETTLE).await;
        cluster.node(leader).restart().unwrap();
        cluster.wait_ready().await.unwrap();
        all_in_sync(&cluster).await;
    }
    sleep(SECOND).await;
    let ledger = writers.stop().await;
    let verdict = verify(&cluster.client(), &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused), (0, 0), "{verdict:#?}");
    assert!(verdict.acknowledged > kills * 100, "{verdict:?}");
    agreed(&cluster).await;
    let mut gaps = Distribution::default();
    let fates = ledger.get(first).unwrap();
    moments.into_iter().for_each(|moment| gaps.add(gap_around(fates, moment, SETTLE)));
    (verdict, gaps)
}

/// The leader of the first partition.
async fn leader_of(cluster: &Cluster) -> u16 {
    let mut leader = None;
    for id in cluster.ids() {
        let view = match Viewer::open(cluster.endpoint(id)).await {
            Ok(viewer) => viewer.look().await.unwrap_or_default(),
            Err(_) => continue,
        };
        let partition = view.topics.get("orders").and_then(|(_, partitions)| partitions.get(&0));
        leader = partition.and_then(|partition| u16::try_from(partition.leader_id).ok()).or(leader);
    }
    leader.unwrap()
}

/// Every node in turn is stopped in order and started again, while clients write: they see no fault, only retries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut cluster = Cluster::start(&three()).await.unwrap();
    let partitions = create(&cluster.admin(), "orders", 3).await;
    let client = cluster.client();
    let writers = Writers::start(&client, &ProducerOptions::default(), &partitions, Duration::from_millis(1));
    for id in cluster.ids() {
        cluster.node(id).terminate(60 * SECOND).await.unwrap();
        cluster.node(id).restart().unwrap();
        cluster.wait_ready().await.unwrap();
        all_in_sync(&cluster).await;
    }
    let ledger = writers.stop().await;
    let verdict = verify(&cluster.client(), &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused, verdict.unknown), (0, 0, 0), "{verdict:#?}");
    assert!(verdict.acknowledged > 100, "{verdict:?}");
}
