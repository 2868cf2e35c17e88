//! Power cuts, cut networks and elections under load: whatever was acknowledged stays, where it was said to be.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod cluster;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, TOPIC, ZERO, batch, options, until};
use klamm_broker::ReplicaManager;
use klamm_broker::partition::{Acks, AppendOptions};
use klamm_types::{BrokerId, Offset};
use tokio::task::JoinSet;

const NODES: [i32; 3] = [1, 2, 3];
const ROUNDS: usize = 12;

/// What producers were told: the value at each offset.
type Acknowledged = Arc<Mutex<BTreeMap<i64, String>>>;

/// A sequence of numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Sends to whichever broker leads, until told to stop.
async fn produce(
    name: usize,
    network: Arc<cluster::Network>,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
) {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let managers: Vec<Arc<ReplicaManager>> = network.reachable();
        let partitions = managers.iter().filter_map(|manager| manager.partition(TOPIC, ZERO).ok());
        let Some(leader) = partitions.into_iter().find(|partition| partition.role().is_leader) else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        count += 1;
        let value = format!("{name}-{count}");
        let options = AppendOptions { timeout: Duration::from_millis(200), ..options(Acks::All) };
        let pending = leader.append(batch(&[&value]), &options);
        // A broker whose process has ended answers nobody.
        let answer = tokio::time::timeout(2 * options.timeout, pending.done()).await;
        if let Ok(Ok(appended)) = answer {
            let previous = acknowledged.lock().unwrap().insert(appended.base_offset.0, value);
            assert_eq!(previous, None, "two records at {}", appended.base_offset);
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Takes the broker out of the in-sync set and gives the lead to a member that is up, as the controller does.
async fn fail_over(cluster: &Cluster, down: i32) {
    cluster.fence(down, true).await;
    cluster
        .change_if(|partition| {
            let down = BrokerId(down);
            if partition.isr.len() > 1 {
                partition.isr.retain(|member| *member != down);
            }
            if partition.leader == Some(down) {
                partition.leader = partition.isr.iter().copied().find(|member| *member != down);
                partition.leader_epoch = partition.leader_epoch.next().unwrap();
            }
        })
        .await;
}

/// Lets a member lead if nobody does.
async fn fill_the_lead(cluster: &Cluster) {
    cluster
        .change_if(|partition| {
            if partition.leader.is_none() {
                partition.leader = partition.isr.first().copied();
                partition.leader_epoch = partition.leader_epoch.next().unwrap();
            }
        })
        .await;
}

async fn power_cut(cluster: &mut Cluster, id: i32) {
    cluster.crash(id).await;
    fail_over(cluster, id).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.start(id).await;
    fill_the_lead(cluster).await;
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let mut cluster = Cluster::of(&NODES).await;
    cluster.create_topic(&NODES, &[("min.insync.replicas", "2")]).await;
    let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
    let mut producers = JoinSet::new();
    for name in 0..4 {
        let network = Arc::clone(&cluster.network);
        producers.spawn(produce(name, network, Arc::clone(&acknowledged), Arc::clone(&stop)));
    }
    for _ in 0..ROUNDS {
        // Whatever happened before: records are taken again.
        let before = acknowledged.lock().unwrap().len();
        until("appends are acknowledged", || {
            (acknowledged.lock().unwrap().len() >= before + 10).then_some(())
        })
        .await;
        let id = NODES[random.below(3)];
        match random.below(4) {
            0 => power_cut(&mut cluster, id).await,
            1 => {
                cluster.network.cut(id);
                fail_over(&cluster, id).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                cluster.network.heal(id);
                cluster.fence(id, false).await;
            }
            2 => {
                cluster.network.cut(id);
                tokio::time::sleep(Duration::from_millis(30)).await;
                cluster.network.heal(id);
            }
            _ => {
                // The lead moves to another member, while all are well.
                cluster
                    .change_if(|partition| {
                        let other = partition.isr.iter().copied().find(|m| Some(*m) != partition.leader);
                        if let Some(other) = other {
                            partition.leader = Some(other);
                            partition.leader_epoch = partition.leader_epoch.next().unwrap();
                        }
                    })
                    .await;
            }
        }
        fill_the_lead(&cluster).await;
    }
    cluster.until_isr(&NODES).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = producers.join_next().await {
        ended.unwrap();
    }
    for id in NODES {
        power_cut(&mut cluster, id).await;
        cluster.until_isr(&NODES).await;
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    check(&cluster, &acknowledged).await;
}

async fn check(cluster: &Cluster, acknowledged: &BTreeMap<i64, String>) {
    let end = until("somebody leads", || {
        let ends = NODES.map(|id| cluster.partition(id));
        let leader = ends.iter().find(|partition| partition.role().is_leader)?;
        Some(leader.bounds().log_end_offset)
    })
    .await;
    cluster.until_committed(&NODES, end.0).await;
    let logs = NODES.map(|id| cluster::read_from(&cluster.partition(id), Offset::ZERO));
    for (offset, value) in acknowledged {
        let kept = logs[0].get(usize::try_from(*offset).unwrap());
        assert_eq!(kept, Some(value), "the record that was acknowledged at {offset}");
    }
    assert_eq!(logs[0], logs[1]);
    assert_eq!(logs[0], logs[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_what_happens_to_brokers() {
    for seed in [0x5eed_0001, 0x5eed_0002] {
        run(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form"]
async fn acknowledged_records_survive_many_lives() {
    for seed in 1..100 {
        run(seed * 0x9e37_79b9).await;
    }
}
