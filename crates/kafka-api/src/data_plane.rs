//! What the handlers that touch records have in common: the partitions of this broker, and how requests name them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::{PartitionHandle, PartitionUnavailable, ReplicaManager};
use klamm_metadata::{MetadataImage, TopicImage};
use klamm_protocol::ErrorCode;
use klamm_types::{LeaderEpoch, PartitionId, TopicName};

use crate::closest_replica::ReplicaSelector;
use crate::cluster::Cluster;
use crate::fetch_session::{FetchSessions, SessionLimits, TopicKey};
use crate::refused_sequences::RefusedSequences;

/// How long a fetch session is safe from being replaced, Kafka's value.
const SESSION_PROTECTED_FOR: Duration = Duration::from_secs(120);

/// Settings of the handlers that touch records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// `fetch.max.bytes`: the most bytes of records in one Fetch answer, 55 MiB by default; the first batch is given
    /// whatever its size.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`: how many fetch sessions there may be, 1,000 by default.
    pub fetch_sessions_max: usize,
    /// How many bytes all fetch sessions may take together, roughly; 64 MiB by default.
    pub fetch_session_bytes_max: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { fetch_bytes_max: 55 << 20, fetch_sessions_max: 1000, fetch_session_bytes_max: 64 << 20 }
    }
}

/// The partitions of this broker, as requests see them.
pub struct DataPlane {
    pub(crate) config: DataConfig,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) sessions: FetchSessions,
    /// Of producers whose batches were refused for now.
    pub(crate) refused: RefusedSequences,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) selector: ReplicaSelector,
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("config", &self.config).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// The partitions that `replicas` has, named as in the metadata of `cluster`.
    pub fn new(config: DataConfig, replicas: Arc<ReplicaManager>, cluster: Arc<Cluster>) -> Arc<Self> {
        let sessions = FetchSessions::new(SessionLimits {
            sessions_max: config.fetch_sessions_max,
            bytes_max: config.fetch_session_bytes_max,
            protected_for: SESSION_PROTECTED_FOR,
        });
        let selector = ReplicaSelector::of(&cluster.settings);
        Arc::new(Self { config, replicas, sessions, refused: RefusedSequences::default(), cluster, selector })
    }

    /// The newest metadata.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.cluster.metadata.image()
    }

    /// The topic that a request names.
    ///
    /// # Errors
    /// The code for a topic that this broker does not know.
    pub(crate) fn topic(image: &MetadataImage, key: &TopicKey) -> Result<Arc<TopicImage>, ErrorCode> {
        match key {
            TopicKey::Id(id) => image.topics.topic(*id).cloned().ok_or(ErrorCode::UnknownTopicId),
            TopicKey::Name(name) => {
                let name = TopicName::new(name).ok();
                let topic = name.and_then(|name| image.topics.topic_by_name(&name).cloned());
                topic.ok_or(ErrorCode::UnknownTopicOrPartition)
            }
        }
    }

    /// This broker's replica of a partition.
    ///
    /// # Errors
    /// The code for a partition that is not here.
    pub(crate) fn partition(&self, topic: &TopicImage, partition: i32) -> Result<PartitionHandle, ErrorCode> {
        let partition = PartitionId(partition);
        if topic.partition(partition).is_none() {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        self.replicas.partition(topic.id, partition).map_err(|error| match error {
            // The metadata is ahead of the replicas for a moment, or behind.
            PartitionUnavailable::UnknownTopicId
            | PartitionUnavailable::UnknownTopicOrPartition
            | PartitionUnavailable::NotReplica => ErrorCode::NotLeaderOrFollower,
            PartitionUnavailable::Offline => ErrorCode::KafkaStorageError,
        })
    }
}

/// The leader epoch that a client believes in, `None` if it does not say.
pub(crate) fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}
