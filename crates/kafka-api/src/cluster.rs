//! The cluster as clients are told of it: what several handlers have in common.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_config::ServerSettings;
use klamm_metadata::{BrokerRegistration, MetadataImage, PartitionRegistration, TopicImage};
use klamm_protocol::ErrorCode;
use klamm_types::{BrokerId, PartitionId, TopicId, TopicName};

use crate::ports::{ClusterMetadata, ControllerGateway};
use crate::submission::Refused;

/// Stands for "not asked for" where operations are told.
pub(crate) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
/// Every operation that a topic has, as bits by their numbers in Kafka's ACLs: read, write, create, delete, alter,
/// describe, describe configs, alter configs.
pub(crate) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// The same for the cluster: create, alter, describe, cluster action, describe configs, alter configs, idempotent
/// write.
pub(crate) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The topics that the cluster itself keeps its state in.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// The name of the log of the metadata quorum, which is no topic but is asked for as one.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether `topic` is one that the cluster itself keeps its state in.
pub(crate) fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// The node that answers, and its ways to the metadata and the controller. Shared by all handlers.
pub struct Cluster {
    /// This broker.
    pub broker: BrokerId,
    /// The cluster's id, 22 characters of URL-safe base64.
    pub cluster_id: Arc<str>,
    /// The metadata that this broker has applied.
    pub metadata: Arc<dyn ClusterMetadata>,
    /// The way to the active controller.
    pub controller: Arc<dyn ControllerGateway>,
    /// What this node was started with.
    pub settings: Arc<ServerSettings>,
}

impl Cluster {
    /// Whether a request that may name a cluster means this one.
    pub(crate) fn check_id(&self, cluster_id: Option<&str>) -> Result<(), Refused> {
        match cluster_id {
            Some(other) if *other != *self.cluster_id => {
                Err(Refused::plain(ErrorCode::InconsistentClusterId))
            }
            _ => Ok(()),
        }
    }

    /// The cluster as a client of `listener` sees it now.
    pub(crate) fn view(&self, listener: &Arc<str>) -> ClusterView {
        ClusterView { image: self.metadata.image(), broker: self.broker, listener: listener.clone() }
    }
}

/// One image, seen through one listener.
#[derive(Clone, Debug)]
pub(crate) struct ClusterView {
    pub(crate) image: Arc<MetadataImage>,
    broker: BrokerId,
    listener: Arc<str>,
}

/// Where a client finds a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    pub(crate) id: BrokerId,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
    pub(crate) fenced: bool,
}

impl ClusterView {
    /// The brokers with an endpoint on the client's listener, fenced ones included, by id.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeAddress> {
        self.image.cluster.brokers().filter_map(|broker| {
            let endpoint = broker.endpoint(&self.listener)?;
            Some(NodeAddress {
                id: broker.id,
                host: endpoint.host.clone(),
                port: i32::from(endpoint.port),
                rack: broker.rack.clone(),
                fenced: broker.fenced,
            })
        })
    }

    /// The brokers that clients may use.
    pub(crate) fn usable_nodes(&self) -> impl Iterator<Item = NodeAddress> {
        self.nodes().filter(|node| !node.fenced)
    }

    /// The brokers that clients are told of: those that they may use and those that are `lately_dead`, or, if there is none,
    /// the one that answers. Told of no broker at all, librdkafka (2.16) gives up the addresses that it has and never
    /// comes back. Told of a new leader by an answer that lacks the old one, its thread for the old one may have the
    /// last word, and take the partition from the new leader, for a second.
    pub(crate) fn told_nodes(&self, lately_dead: &BTreeSet<BrokerId>) -> Vec<NodeAddress> {
        let has_usable = self.usable_nodes().next().is_some();
        let is_told = |node: &NodeAddress| {
            !node.fenced || lately_dead.contains(&node.id) || (!has_usable && node.id == self.broker)
        };
        self.nodes().filter(is_told).collect()
    }

    /// The broker that clients are told is the controller. Brokers pass on what only the controller can do, so any
    /// usable one will do, and this one spares a hop. `None` if there is none.
    pub(crate) fn controller(&self) -> Option<BrokerId> {
        let mut first = None;
        for node in self.usable_nodes() {
            if node.id == self.broker {
                return Some(node.id);
            }
            first = first.or(Some(node.id));
        }
        first
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.image.topics.topic_by_name(&TopicName::new(name).ok()?)
    }

    /// Topics in the order of their names.
    pub(crate) fn topics_by_name(&self) -> Vec<&Arc<TopicImage>> {
        let mut topics: Vec<_> = self.image.topics.topics().collect();
        topics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        topics
    }

    /// Whether clients of this listener can reach `broker`.
    pub(crate) fn has_endpoint(&self, broker: BrokerId) -> bool {
        self.image.cluster.broker(broker).is_some_and(|known| known.endpoint(&self.listener).is_some())
    }

    /// Whether `broker` is registered, whatever its listeners.
    pub(crate) fn is_registered(&self, broker: BrokerId) -> bool {
        self.image.cluster.broker(broker).is_some()
    }

    /// The partition's leader, if clients of this listener can reach it.
    pub(crate) fn leader(&self, partition: &PartitionRegistration) -> Option<BrokerId> {
        partition.leader.filter(|leader| self.has_endpoint(*leader))
    }

    /// The replicas that clients of this listener cannot use: those of brokers that are fenced or elsewhere, and those
    /// whose log directory has failed.
    pub(crate) fn offline_replicas(
        &self,
        topic: TopicId,
        number: PartitionId,
        partition: &PartitionRegistration,
    ) -> Vec<i32> {
        let is_online =
            |broker: &BrokerRegistration| !broker.fenced && broker.endpoint(&self.listener).is_some();
        let is_offline = |id: &BrokerId| {
            !self.image.cluster.broker(*id).is_some_and(|broker| is_online(broker))
                || self.image.offline.contains(*id, topic, number)
        };
        ids(&partition.replicas.iter().copied().filter(is_offline).collect::<Vec<_>>())
    }
}

/// Broker ids as the wire has them.
pub(crate) fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

/// The longest that a handler waits for the controller, whatever the client allows: a request that is passed on
/// holds its connection's place.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// A timeout from a request. A negative one is none at all.
pub(crate) fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(TIMEOUT_MAX)
}
