//! What the client knows of topics and their leaders.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::messages::MetadataResponse;
use klamm_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use klamm_types::{BrokerId, LeaderEpoch, PartitionId, TopicPartition};

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{ApiError, ClientError};

/// One partition as a broker last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub partition: PartitionId,
    /// Its leader, if it has one.
    pub leader: Option<BrokerId>,
    /// The leader's epoch; [`LeaderEpoch::NONE`] if the broker does not tell.
    pub leader_epoch: LeaderEpoch,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas that are in sync.
    pub in_sync_replicas: Vec<BrokerId>,
    /// The replicas on brokers that are not there.
    pub offline_replicas: Vec<BrokerId>,
}

/// One topic as a broker last described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its identity; zero if the broker is too old to tell.
    pub topic_id: Uuid,
    /// Whether the cluster made it for itself.
    pub is_internal: bool,
    /// Its partitions by ascending number.
    pub partitions: Vec<PartitionView>,
}

/// Where a partition is led, and a connection to there.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The broker.
    pub broker: BrokerId,
    /// Its epoch as leader.
    pub epoch: LeaderEpoch,
    /// The topic's identity; zero if unknown.
    pub topic_id: Uuid,
    /// The connection to the broker.
    pub connection: Connection,
}

impl TopicView {
    pub(crate) fn from_wire(topic: &MetadataResponseTopic) -> Self {
        let mut partitions: Vec<_> = topic.partitions.iter().map(PartitionView::from_wire).collect();
        partitions.sort_unstable_by_key(|partition| partition.partition);
        Self {
            name: topic.name.clone().unwrap_or_default(),
            topic_id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions,
        }
    }

    /// The partition of this number.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&PartitionView> {
        let at = self.partitions.binary_search_by_key(&partition, |known| known.partition).ok()?;
        self.partitions.get(at)
    }

    /// Keeps what is known of partitions whose leader epoch `old` knows to be newer: the broker that was asked may lag.
    fn keep_newer(&mut self, old: &Self) {
        if old.topic_id != self.topic_id {
            return;
        }
        for partition in &mut self.partitions {
            if let Some(known) = old.partition(partition.partition)
                && known.leader_epoch > partition.leader_epoch
                && partition.leader_epoch != LeaderEpoch::NONE
            {
                *partition = known.clone();
            }
        }
    }
}

impl PartitionView {
    fn from_wire(partition: &MetadataResponsePartition) -> Self {
        let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
        Self {
            partition: PartitionId(partition.partition_index),
            leader: (partition.leader_id >= 0).then_some(BrokerId(partition.leader_id)),
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            replicas: ids(&partition.replica_nodes),
            in_sync_replicas: ids(&partition.isr_nodes),
            offline_replicas: ids(&partition.offline_replicas),
        }
    }
}

/// Everything that has been learnt, replaced piece by piece.
#[derive(Debug, Default)]
pub(crate) struct ClusterView {
    pub(crate) cluster_id: Option<String>,
    pub(crate) brokers: BTreeMap<BrokerId, Endpoint>,
    topics: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    view: Arc<TopicView>,
    /// Whether a broker has contradicted it.
    is_stale: bool,
}

impl ClusterView {
    /// Takes in an answer. Topics that it reports as missing are forgotten; the first other fault of a topic in
    /// `wanted` is given back.
    pub(crate) fn learn(
        &mut self,
        answer: &MetadataResponse,
        wanted: Option<&str>,
    ) -> Result<(), ClientError> {
        self.cluster_id.clone_from(&answer.cluster_id);
        let endpoint = |host: &str, port| Endpoint::from_wire(host, port);
        let brokers = answer.brokers.iter();
        let known = brokers.filter_map(|b| Some((BrokerId(b.node_id), endpoint(&b.host, b.port)?)));
        let known: BTreeMap<_, _> = known.collect();
        if !known.is_empty() {
            self.brokers = known;
        }
        let mut result = Ok(());
        for topic in &answer.topics {
            let name = topic.name.as_deref().unwrap_or_default();
            if let Err(error) = ApiError::check(topic.error_code, None) {
                self.topics.remove(name);
                if wanted == Some(name) {
                    result = Err(error.into());
                }
                continue;
            }
            let mut view = TopicView::from_wire(topic);
            if let Some(old) = self.topics.get(name) {
                view.keep_newer(&old.view);
            }
            self.topics.insert(name.to_owned(), Entry { view: Arc::new(view), is_stale: false });
        }
        result
    }

    /// The topic, unless nothing is known of it or what is known is out of date.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<TopicView>> {
        self.topics.get(name).filter(|entry| !entry.is_stale).map(|entry| Arc::clone(&entry.view))
    }

    pub(crate) fn mark_stale(&mut self, name: &str) {
        if let Some(entry) = self.topics.get_mut(name) {
            entry.is_stale = true;
        }
    }

    /// Takes a broker's hint at the current leader (KIP-951). `false` if it tells nothing new.
    pub(crate) fn learn_leader(
        &mut self,
        at: &TopicPartition,
        broker: BrokerId,
        epoch: LeaderEpoch,
        endpoint: Option<Endpoint>,
    ) -> bool {
        if broker.0 < 0 {
            return false;
        }
        if let Some(endpoint) = endpoint {
            self.brokers.insert(broker, endpoint);
        }
        let Some(entry) = self.topics.get_mut(at.topic.as_str()) else { return false };
        let view = Arc::make_mut(&mut entry.view);
        let position = view.partitions.binary_search_by_key(&at.partition, |known| known.partition);
        let Some(partition) = position.ok().and_then(|at| view.partitions.get_mut(at)) else { return false };
        if epoch <= partition.leader_epoch || !self.brokers.contains_key(&broker) {
            return false;
        }
        partition.leader = Some(broker);
        partition.leader_epoch = epoch;
        entry.is_stale = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::metadata_response::MetadataResponseBroker;
    use klamm_types::TopicName;

    use super::*;

    fn answer(leader_id: i32, leader_epoch: i32) -> MetadataResponse {
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: "localhost".to_owned(),
            port: 9000 + node_id,
            rack: None,
        };
        let partition =
            MetadataResponsePartition { leader_id, leader_epoch, ..MetadataResponsePartition::default() };
        let topic = MetadataResponseTopic {
            name: Some("orders".to_owned()),
            partitions: vec![partition],
            ..MetadataResponseTopic::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![topic],
            ..MetadataResponse::default()
        }
    }

    fn leader(view: &ClusterView) -> Option<BrokerId> {
        view.topic("orders")?.partition(PartitionId(0))?.leader
    }

    #[test]
    fn an_answer_from_a_lagging_broker_changes_no_leader() {
        let mut view = ClusterView::default();
        view.learn(&answer(1, 5), None).unwrap();
        view.learn(&answer(2, 4), None).unwrap();
        assert_eq!(leader(&view), Some(BrokerId(1)));
        view.learn(&answer(2, 6), None).unwrap();
        assert_eq!(leader(&view), Some(BrokerId(2)));
    }

    #[test]
    fn a_hint_counts_only_with_a_newer_epoch_and_a_known_broker() {
        let mut view = ClusterView::default();
        view.learn(&answer(1, 5), None).unwrap();
        let at = TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(0));
        assert!(!view.learn_leader(&at, BrokerId(2), LeaderEpoch(5), None));
        assert!(!view.learn_leader(&at, BrokerId(3), LeaderEpoch(6), None));
        assert!(!view.learn_leader(&at, BrokerId(-1), LeaderEpoch(6), None));
        view.mark_stale("orders");
        assert_eq!(leader(&view), None);
        let endpoint = Endpoint { host: "localhost".to_owned(), port: 9003 };
        assert!(view.learn_leader(&at, BrokerId(3), LeaderEpoch(6), Some(endpoint)));
        assert_eq!(leader(&view), Some(BrokerId(3)));
    }

    #[test]
    fn a_topic_that_is_gone_is_forgotten() {
        let mut view = ClusterView::default();
        view.learn(&answer(1, 5), None).unwrap();
        let mut gone = answer(1, 5);
        gone.topics.iter_mut().for_each(|topic| topic.error_code = 3);
        assert!(view.learn(&gone, None).is_ok());
        assert_eq!(leader(&view), None);
        assert!(view.learn(&gone, Some("orders")).is_err());
    }
}
