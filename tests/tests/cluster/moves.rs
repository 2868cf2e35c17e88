//! Replicas that move to another node under load, while nodes die and their operator thinks better of it.

use std::path::PathBuf;
use std::time::Duration;

use klamm_client::{
    Admin, ConfigOperation, ConfigResource, NewTopic, PartitionView, ProducerOptions, Reassignment,
};
use klamm_tests::cluster::{Cluster, ClusterSpec, HarnessError, wait_for};
use klamm_tests::replicas;
use klamm_tests::workload::{Writers, verify};
use klamm_types::{BrokerId, PartitionId, TopicName, TopicPartition};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::directories::until_written;
use super::{SECOND, broker, three};

/// So many records of so many bytes do not come over in the one answer that a held replica gets.
const ENOUGH: i64 = 1_000;
const VALUE_LEN: usize = 4_096;
const TOPIC: &str = "orders";
/// How often the partition is looked at, to see that it never has too few replicas.
const LOOK: Duration = Duration::from_millis(5);

fn brokers(ids: &[u16]) -> Vec<BrokerId> {
    ids.iter().copied().map(broker).collect()
}

/// Looks at the partition all the time, and fails if it ever has fewer than three replicas, or, while nobody dies, nobody
/// who leads.
struct Watcher {
    stop: watch::Sender<bool>,
    looks: JoinHandle<usize>,
}

impl Watcher {
    fn start(cluster: &Cluster, is_always_led: bool) -> Self {
        let admin = cluster.admin();
        let (stop, stopped) = watch::channel(false);
        let looks = tokio::spawn(async move {
            let mut looks = 0;
            while !*stopped.borrow() {
                // A node may have been killed under it.
                if let Ok(partition) = look(&admin).await {
                    assert!(partition.replicas.len() >= 3, "{partition:?}");
                    assert!(!is_always_led || partition.leader.is_some(), "{partition:?}");
                    looks += 1;
                }
                sleep(LOOK).await;
            }
            looks
        });
        Self { stop, looks }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        assert!(self.looks.await.unwrap() > 0, "nobody has looked");
    }
}

/// The partition as one broker shows it at this moment, led or not.
async fn look(admin: &Admin) -> Result<PartitionView, String> {
    let topics = admin.describe_topics(&[TOPIC.to_owned()]).await.map_err(|error| error.to_string())?;
    let (_, topic) = topics.into_iter().next().ok_or("no answer")?;
    let topic = topic.map_err(|error| error.to_string())?;
    topic
        .partitions
        .into_iter()
        .next()
        .map(|partition| partition.view)
        .ok_or_else(|| "no partition".to_owned())
}

/// The moves of one partition.
struct Moves {
    admin: Admin,
    at: TopicPartition,
}

impl Moves {
    /// Creates the topic, with its only partition on nodes 1, 2 and 3.
    async fn of_new_topic(cluster: &Cluster) -> Self {
        let admin = cluster.admin();
        let throttled = ("leader.replication.throttled.replicas".to_owned(), "*".to_owned());
        let topic = NewTopic {
            assignment: vec![brokers(&[1, 2, 3])],
            configs: vec![throttled],
            ..NewTopic::named(TOPIC)
        };
        for (name, result) in admin.create_topics(&[topic], false).await.unwrap() {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        admin.wait_for_leaders(TOPIC).await.unwrap();
        Self { admin, at: TopicPartition::new(TopicName::new(TOPIC).unwrap(), PartitionId(0)) }
    }

    /// Gives replicas out of sync next to nothing, so that no move ends; or all that they ask for.
    async fn hold(&self, is_held: bool) {
        let operation = if is_held { ConfigOperation::Set("1".to_owned()) } else { ConfigOperation::Delete };
        let change = ("leader.replication.throttled.rate".to_owned(), operation);
        self.admin.alter_configs(&ConfigResource::AllBrokers, &[change]).await.unwrap();
    }

    async fn start(&self, wanted: Option<&[u16]>) {
        self.admin.reassign(&[(self.at.clone(), wanted.map(brokers))]).await.unwrap();
    }

    /// Fails unless exactly this is under way.
    async fn are(&self, replicas: &[u16], adding: &[u16], removing: &[u16]) {
        let expected = Reassignment {
            partition: self.at.clone(),
            replicas: brokers(replicas),
            adding: brokers(adding),
            removing: brokers(removing),
        };
        assert_eq!(self.admin.list_reassignments().await.unwrap(), [expected]);
    }

    /// Waits until nothing is under way, and the partition has exactly these replicas, all in sync.
    async fn until(&self, replicas: &[u16]) {
        wait_for("the move is over", 60 * SECOND, async || {
            let under_way = self.admin.list_reassignments().await.map_err(|error| error.to_string())?;
            let partition = look(&self.admin).await?;
            let mut in_sync = partition.in_sync_replicas.clone();
            in_sync.sort_unstable();
            let mut all = brokers(replicas);
            let is_over = under_way.is_empty() && partition.replicas == all;
            all.sort_unstable();
            if is_over && in_sync == all { Ok(()) } else { Err(format!("{under_way:?}, {partition:?}")) }
        })
        .await
        .unwrap();
    }
}

/// Kills a node, and waits until it serves again; what was under way goes on without it.
async fn kill_and_restart(cluster: &mut Cluster, id: u16) -> Result<(), HarnessError> {
    cluster.node(id).kill()?;
    wait_for("others lead", 30 * SECOND, async || {
        let partition = look(&cluster.admin()).await?;
        let is_replaced = partition.leader.is_some_and(|leader| leader != broker(id));
        if is_replaced { Ok(()) } else { Err(format!("{partition:?}")) }
    })
    .await?;
    cluster.node(id).restart()?;
    cluster.wait_ready().await
}

fn directory(cluster: &Cluster, id: u16) -> PathBuf {
    cluster.home(id).join("data").join(format!("{TOPIC}-0"))
}

async fn until_gone(cluster: &Cluster, id: u16) {
    let directory = directory(cluster, id);
    wait_for("the replica that is no longer wanted is removed", 30 * SECOND, async || {
        if directory.exists() { Err(directory.display().to_string()) } else { Ok(()) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_under_load_while_nodes_die() {
    // Leaderships move when the test says so.
    let spec = ClusterSpec { nodes: 4, ..three() }.with("auto.leader.rebalance.enable", "false");
    let mut cluster = Cluster::start(&spec).await.unwrap();
    let moves = Moves::of_new_topic(&cluster).await;
    let client = cluster.client();
    let at = [moves.at.clone()];
    let (options, pause) = (ProducerOptions::default(), Duration::from_millis(2));
    let writers = Writers::with_values_of(VALUE_LEN, &client, &options, &at, pause);
    let watcher = Watcher::start(&cluster, false);

    until_written(&client, &at, ENOUGH).await;

    // The newcomer dies on the way, and then the move is called off.
    moves.hold(true).await;
    moves.start(Some(&[4, 2, 3])).await;
    moves.are(&[4, 2, 3, 1], &[4], &[1]).await;
    kill_and_restart(&mut cluster, 4).await.unwrap();
    moves.are(&[4, 2, 3, 1], &[4], &[1]).await;
    moves.start(None).await;
    moves.until(&[2, 3, 1]).await;
    until_gone(&cluster, 4).await;

    // Another one, of which the goal changes; then the leader dies, which is to go.
    moves.start(Some(&[1, 2, 4])).await;
    moves.start(Some(&[4, 2, 3])).await;
    moves.are(&[4, 2, 3, 1], &[4], &[1]).await;
    let leader = look(&moves.admin).await.unwrap().leader;
    assert_eq!(leader, Some(broker(1)));
    kill_and_restart(&mut cluster, 1).await.unwrap();
    moves.are(&[4, 2, 3, 1], &[4], &[1]).await;
    moves.hold(false).await;
    moves.until(&[4, 2, 3]).await;
    until_gone(&cluster, 1).await;

    // And one in which the leader leaves while it lives.
    let leader = look(&moves.admin).await.unwrap().leader.unwrap();
    let stay: Vec<u16> = [4, 2, 3].into_iter().filter(|id| broker(*id) != leader).collect();
    let wanted = [&[1], &stay[..]].concat();
    let led = Watcher::start(&cluster, true);
    moves.start(Some(&wanted)).await;
    moves.until(&wanted).await;
    led.stop().await;

    watcher.stop().await;
    let ledger = writers.stop().await;
    let verdict = verify(&client, &ledger).await.unwrap();
    assert_eq!((verdict.finding_count, verdict.refused), (0, 0), "{verdict:?}");
    assert!(verdict.acknowledged > 0, "{verdict:?}");
    for id in cluster.ids() {
        cluster.node(id).terminate(60 * SECOND).await.unwrap();
    }
    let directories: Vec<_> = wanted.iter().map(|id| directory(&cluster, *id)).collect();
    assert!(replicas::compare(&directories).unwrap() > 0);
}
