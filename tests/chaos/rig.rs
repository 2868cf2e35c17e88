//! The nodes under test: who leads what, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use klamm_client::{ClientOptions, Connection, NewTopic};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_tests::cluster::{ClusterSpec, wait_for};
use klamm_types::BrokerId;
use tokio::time::{Instant, sleep_until};

use super::schedule::{Chance, Kind};
use super::server::Server;
use super::{PARTITIONS, TOPIC, partitions};

/// How long a state may take to come about. Apache Kafka's need ten seconds and more.
const PATIENCE: Duration = Duration::from_secs(120);

/// So long a node leads nothing after it came back, as it would by itself: a cluster moves leaderships back after 30 s. A client
/// that tried it in vain may not try it again for ten seconds (`reconnect.backoff.max.ms` of librdkafka).
const SETTLING: Duration = Duration::from_secs(10);

/// Three nodes that replicate everything three times.
pub(crate) fn three() -> ClusterSpec {
    ClusterSpec::default().with("default.replication.factor", "3").with("min.insync.replicas", "2")
}

/// One partition, as a node shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Partition {
    pub(crate) leader: u16,
    replicas: Vec<u16>,
    in_sync: Vec<u16>,
}

/// What a fault is to befall, when leaderships are arranged for it.
pub(crate) struct Prepared {
    pub(crate) victim: u16,
    pub(crate) was_active: bool,
    /// The partitions that the victim leads.
    pub(crate) led: Vec<usize>,
    /// Those that it follows.
    pub(crate) followed: Vec<usize>,
}

/// A running cluster, whichever server it is.
pub(crate) struct Rig {
    pub(crate) server: Server,
    /// When a node that came back is settled.
    settled: BTreeMap<u16, Instant>,
}

impl Rig {
    /// Creates the topic on nodes that serve.
    pub(crate) async fn new(server: Server) -> Self {
        let count = i32::try_from(PARTITIONS).unwrap();
        let topic =
            NewTopic { partitions: Some(count), replication_factor: Some(3), ..NewTopic::named(TOPIC) };
        for (name, result) in server.admin().create_topics(&[topic], false).await.unwrap() {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        server.admin().wait_for_leaders(TOPIC).await.unwrap();
        Self { server, settled: BTreeMap::new() }
    }

    /// What one node shows, asked of that node alone.
    async fn look(&self, id: u16) -> Result<Vec<Partition>, String> {
        let text = |error: klamm_client::ClientError| error.to_string();
        let options = ClientOptions {
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        };
        let connection = Connection::open(self.server.endpoint(id), &options).await.map_err(text)?;
        let topic = MetadataRequestTopic { name: Some(TOPIC.to_owned()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let shown = read(&connection.call(&request).await.map_err(text)?);
        if shown.len() == PARTITIONS { Ok(shown) } else { Err(format!("node {id} shows {shown:?}")) }
    }

    /// Nodes that came back a moment ago.
    pub(crate) fn unsettled(&self) -> BTreeSet<u16> {
        let now = Instant::now();
        self.settled.iter().filter(|(_, settled)| now < **settled).map(|(id, _)| *id).collect()
    }

    /// Waits until every replica is in sync and every partition is led as the first of its replicas says, where the `idle`
    /// lead nothing; all nodes show the same then.
    pub(crate) async fn arrange(&self, idle: &BTreeSet<u16>) {
        let orders = orders(idle);
        let admin = self.server.admin();
        let first = self.server.ids()[0];
        let is_ordered = |shown: &[Partition]| shown.iter().map(|at| &at.replicas).eq(&orders);
        let shown = wait_for("a node shows the topic", PATIENCE, async || self.look(first).await).await;
        if !is_ordered(&shown.unwrap()) {
            let ids = |order: &Vec<u16>| Some(order.iter().map(|id| BrokerId(i32::from(*id))).collect());
            let moves: Vec<_> = partitions().zip(orders.iter().map(ids)).collect();
            admin.reassign(&moves).await.unwrap();
        }
        let arranged =
            wait_for("all nodes show all replicas in sync, led as arranged", PATIENCE, async || {
                for id in self.server.ids() {
                    let shown = self.look(id).await?;
                    let in_sync = shown.iter().all(|at| at.in_sync.len() == 3);
                    if !is_ordered(&shown) || !in_sync {
                        return Err(format!("node {id}: {shown:?}, not {orders:?}"));
                    }
                    if shown.iter().zip(&orders).any(|(at, order)| at.leader != order[0]) {
                        let elected = admin.elect_leaders(false, None).await;
                        return Err(format!("node {id}: {shown:?}, not {orders:?}; election: {elected:?}"));
                    }
                }
                Ok(())
            });
        arranged.await.unwrap();
    }

    /// Arranges leaderships for a fault of this kind, which leaves a settled node to take over.
    pub(crate) async fn prepare(&self, kind: Kind, chance: &mut Chance) -> Prepared {
        let ids = self.server.ids();
        loop {
            let active = self.server.active_controller().await;
            let mut idle = self.unsettled();
            let may_be_victim = |id: &u16| match kind {
                Kind::LeaderAndController => *id == active && !idle.contains(id),
                Kind::Leader => *id != active && !idle.contains(id),
                Kind::Follower => *id != active,
                Kind::Calm | Kind::Term | Kind::Pause | Kind::Wipe => !idle.contains(id),
            };
            let victims: Vec<u16> = ids.iter().copied().filter(may_be_victim).collect();
            if victims.is_empty() || ids.len() < idle.len() + 2 {
                let next = self.settled.values().filter(|settled| Instant::now() < **settled).min();
                sleep_until(*next.expect("all nodes serve, and settle")).await;
                continue;
            }
            let victim = victims[chance.place(victims.len())];
            if kind == Kind::Follower {
                idle.insert(victim);
            }
            self.arrange(&idle).await;
            // The quorum may have had an election of its own meanwhile.
            if self.server.active_controller().await == active {
                let orders = orders(&idle);
                let (led, followed) = (0..PARTITIONS).partition(|partition| orders[*partition][0] == victim);
                return Prepared { victim, was_active: victim == active, led, followed };
            }
        }
    }

    /// Waits until all other nodes show that the victim leads nothing, and, if it `is_gone`, is in no in-sync set.
    pub(crate) async fn wait_replaced(&self, victim: u16, is_gone: bool) {
        let others: Vec<u16> = self.server.ids().into_iter().filter(|id| *id != victim).collect();
        let replaced = wait_for("others have taken over", PATIENCE, async || {
            for id in &others {
                let shown = self.look(*id).await?;
                let is_over = |at: &Partition| {
                    at.leader != victim
                        && others.contains(&at.leader)
                        && !(is_gone && at.in_sync.contains(&victim))
                };
                if !shown.iter().all(is_over) {
                    return Err(format!("node {id}: {shown:?}"));
                }
            }
            Ok(())
        });
        replaced.await.unwrap();
    }

    /// Lets the fault befall the victim. Whoever ends is gone when this returns.
    pub(crate) async fn strike(&mut self, kind: Kind, victim: u16) {
        match kind {
            Kind::Calm => {}
            Kind::Leader | Kind::Follower | Kind::LeaderAndController | Kind::Wipe => {
                self.server.kill(victim);
            }
            Kind::Term => self.server.klamm().node(victim).terminate(PATIENCE).await.unwrap(),
            Kind::Pause => self.server.klamm().node(victim).pause().unwrap(),
        }
    }

    /// Brings the victim back.
    pub(crate) fn restore(&mut self, kind: Kind, victim: u16) {
        match kind {
            Kind::Calm => {}
            Kind::Pause => self.server.klamm().node(victim).resume().unwrap(),
            Kind::Leader | Kind::Follower | Kind::LeaderAndController | Kind::Term => {
                self.server.restart(victim);
            }
            Kind::Wipe => {
                // Kafka would have to be formatted anew.
                fs::remove_dir_all(self.server.klamm().home(victim).join("data")).unwrap();
                self.server.restart(victim);
            }
        }
        if kind != Kind::Calm {
            self.settled.insert(victim, Instant::now() + SETTLING);
        }
    }
}

fn read(answer: &MetadataResponse) -> Vec<Partition> {
    let id = |id: i32| u16::try_from(id).unwrap_or(0);
    let mut partitions: Vec<_> = answer.topics.iter().flat_map(|topic| &topic.partitions).collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let partition =
        |partition: &&klamm_protocol::messages::metadata_response::MetadataResponsePartition| Partition {
            leader: id(partition.leader_id),
            replicas: partition.replica_nodes.iter().copied().map(id).collect(),
            in_sync: partition.isr_nodes.iter().copied().map(id).collect(),
        };
    partitions.iter().map(partition).collect()
}

/// The replicas of each partition, who leads first: each node leads one, or nothing if it is `idle`.
fn orders(idle: &BTreeSet<u16>) -> Vec<Vec<u16>> {
    let order = |partition: u16| {
        let mut order: Vec<u16> = (0..3).map(|step| (partition + step) % 3 + 1).collect();
        order.sort_by_key(|id| idle.contains(id));
        order
    };
    (0..PARTITIONS as u16).map(order).collect()
}
