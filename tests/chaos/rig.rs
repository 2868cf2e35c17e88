//! The nodes under test: who leads what, and what is done to them.

use std::fs;
use std::time::Duration;

use klamm_client::{ClientOptions, Connection, NewTopic};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_tests::cluster::{ClusterSpec, wait_for};
use klamm_types::BrokerId;

use super::schedule::{Chance, Kind};
use super::server::Server;
use super::{PARTITIONS, TOPIC, partitions};

/// How long a state may take to come about. Apache Kafka's need ten seconds and more.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// A running cluster, whichever server it is.
pub(crate) struct Rig {
    pub(crate) server: Server,
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
        Self { server }
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

    /// Waits until every replica is in sync and every partition is led as the first of its replicas says, where `victim`,
    /// if there is one, leads nothing; all nodes show the same then.
    pub(crate) async fn arrange(&self, idle: Option<u16>) {
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

    /// Arranges leaderships for a fault of this kind, and gives the node that it is to befall, and the active controller.
    pub(crate) async fn prepare(&self, kind: Kind, chance: &mut Chance) -> (u16, u16) {
        let ids = self.server.ids();
        let any = chance.place(ids.len());
        let other = chance.place(ids.len() - 1);
        loop {
            let active = self.server.active_controller().await;
            let others: Vec<u16> = ids.iter().copied().filter(|id| *id != active).collect();
            let victim = match kind {
                Kind::LeaderAndController => active,
                Kind::Leader | Kind::Follower => others[other],
                Kind::Calm | Kind::Term | Kind::Pause | Kind::Wipe => ids[any],
            };
            self.arrange((kind == Kind::Follower).then_some(victim)).await;
            // The quorum may have had an election of its own meanwhile.
            if self.server.active_controller().await == active {
                return (victim, active);
            }
        }
    }

    /// The partitions that a node leads, and those that it follows, when leaderships are as arranged for this kind.
    pub(crate) fn led_and_followed(kind: Kind, victim: u16) -> (Vec<usize>, Vec<usize>) {
        let orders = orders((kind == Kind::Follower).then_some(victim));
        (0..PARTITIONS).partition(|partition| orders[*partition][0] == victim)
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

/// The replicas of each partition, who leads first: each node leads one, or nothing if it is to be `idle`.
fn orders(idle: Option<u16>) -> Vec<Vec<u16>> {
    let order = |partition: u16| {
        let mut order: Vec<u16> = (0..3).map(|step| (partition + step) % 3 + 1).collect();
        if order.first() == idle.as_ref() {
            order.rotate_left(1);
        }
        order
    };
    (0..PARTITIONS as u16).map(order).collect()
}
