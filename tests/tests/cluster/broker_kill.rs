//! A broker is killed: its leaderships go to others.

use std::time::Duration;

use klamm_tests::cluster::{Cluster, ClusterSpec, wait_for};
use klamm_tests::distribution::Distribution;
use tokio::time::{Instant, sleep};

use super::views::{View, Viewer, agreed};
use super::{SECOND, create, follower, three};

/// Controllers act on evidence of death against a minority of the brokers in any second, here against one; a second
/// kill within that time would be found out by silence only.
const BRAKE: Duration = Duration::from_millis(1_100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderships_of_a_killed_broker_go_to_others() {
    let times = run(&three(), 2, 6).await;
    eprintln!("from the kill of a broker to the election of all new leaders, as clients see it: {times}");
    assert!(times.max() < 20 * SECOND, "{times}");
}

/// The figures of `docs/benchmarks.md`.
#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_brokers_are_killed() {
    for partitions in [1, 100] {
        let times = run(&three(), 50, partitions).await;
        println!(
            "from the kill of a broker to the election of new leaders of {partitions} partitions: {times}"
        );
    }
}

/// The partitions that `id` leads.
fn led_by(view: &View, id: u16) -> Vec<(String, i32, i32)> {
    let partitions = view
        .topics
        .iter()
        .flat_map(|(name, (_, partitions))| partitions.values().map(move |partition| (name, partition)));
    partitions
        .filter(|(_, partition)| partition.leader_id == i32::from(id))
        .map(|(name, partition)| (name.clone(), partition.partition_index, partition.leader_epoch))
        .collect()
}

async fn run(spec: &ClusterSpec, kills: usize, partitions: i32) -> Distribution {
    let mut cluster = Cluster::start(spec).await.unwrap();
    let admin = cluster.admin();
    create(&admin, "orders", partitions * 3).await;
    let mut times = Distribution::default();
    for _ in 0..kills {
        let view = agreed(&cluster).await;
        let active = cluster.active_controller().await.unwrap();
        // The one that leads most, the active controller excepted.
        let victim = cluster.ids().filter(|id| *id != active).max_by_key(|id| led_by(&view, *id).len());
        let victim = victim.unwrap();
        let led = led_by(&view, victim);
        assert!(!led.is_empty(), "node {victim} leads nothing");
        let viewer = Viewer::open(cluster.endpoint(active)).await.unwrap();
        sleep(BRAKE).await;

        let moment = Instant::now();
        cluster.node(victim).send_kill().unwrap();
        let finished = wait_for("new leaders", 30 * SECOND, async || {
            let view = viewer.look().await?;
            for (name, partition, epoch) in &led {
                let now = view.topics.get(name).and_then(|(_, partitions)| partitions.get(partition));
                let now = now.ok_or("the topic is gone")?;
                if now.leader_id < 0 || now.leader_id == i32::from(victim) || now.leader_epoch <= *epoch {
                    return Err(format!("{name}-{partition}: {now:?}"));
                }
            }
            Ok(Instant::now())
        })
        .await
        .unwrap();
        times.add(finished - moment);

        cluster.node(victim).kill().unwrap();
        cluster.node(victim).restart().unwrap();
        cluster.wait_ready().await.unwrap();
        all_in_sync(&cluster).await;
        admin.elect_leaders(false, None).await.unwrap();
    }
    times
}

/// Waits until every replica is in sync.
pub(crate) async fn all_in_sync(cluster: &Cluster) {
    let id = follower(cluster).await;
    wait_for("all replicas are in sync", Duration::from_secs(60), async || {
        let view = Viewer::open(cluster.endpoint(id)).await?.look().await?;
        for (name, (_, partitions)) in &view.topics {
            let behind = partitions.values().find(|p| p.isr_nodes.len() < p.replica_nodes.len());
            if let Some(behind) = behind {
                return Err(format!("{name}: {behind:?}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
}
