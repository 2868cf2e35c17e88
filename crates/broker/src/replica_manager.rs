//! All replicas of this broker: which there are, and what the metadata makes of them.

mod apply;
mod housekeeping;
mod lags;
mod offline;
mod settings;
mod wakeups;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use klamm_log::LogManager;
use klamm_metadata::MetadataImage;
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicName};
use tokio::sync::Notify;

use crate::config::BrokerConfig;
use crate::log_dirs::LogDirs;
use crate::metrics::{BrokerMetrics, PartitionGauges};
use crate::partition::{PartitionHandle, Surroundings};

pub use lags::{LaggingReplica, ReplicaLags};
pub(crate) use offline::UnreportedReplica;
pub(crate) use wakeups::Wakeups;

/// One partition, by identity.
type Key = (TopicId, PartitionId);

/// The replicas of a broker.
#[derive(Debug)]
pub struct ReplicaManager {
    config: BrokerConfig,
    around: Surroundings,
    dirs: Arc<LogDirs>,
    wakeups: Wakeups,
    hosted: RwLock<HashMap<Key, Hosted, foldhash::fast::FixedState>>,
    image: ArcSwap<MetadataImage>,
    /// The registered incarnation; replicas are made for it.
    broker_epoch: AtomicI64,
    /// Held throughout by whoever applies an image.
    applying: Mutex<()>,
    /// An image has been applied: every log has its topic's settings, and retention may act on them.
    has_settings: AtomicBool,
    /// More replicas may have gone offline, or what is done about it may be another thing.
    offline_news: Notify,
    /// There may be replicas here of partitions that nobody leads.
    leaderless_news: Notify,
}

/// A replica that the metadata gives to this broker.
#[derive(Clone, Debug)]
enum Hosted {
    /// It is there.
    Online(PartitionHandle),
    /// Its log could not be opened or made, or its directory is out of service. Another attempt is made whenever its
    /// partition changes, but not once the controller has been told: that counts until the broker registers anew.
    Offline { is_reported: bool },
}

/// Why there is no such partition to work with here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartitionUnavailable {
    /// No topic has this identity, as far as this broker knows. Kafka: UNKNOWN_TOPIC_ID.
    #[error("no topic has this id")]
    UnknownTopicId,
    /// There is no such topic or partition, as far as this broker knows. Kafka: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("there is no such topic or partition")]
    UnknownTopicOrPartition,
    /// The partition exists, and this broker has no replica of it. Kafka: NOT_LEADER_OR_FOLLOWER.
    #[error("this broker has no replica of the partition")]
    NotReplica,
    /// The replica's log is out of service. Kafka: KAFKA_STORAGE_ERROR.
    #[error("the log of this broker's replica is out of service")]
    Offline,
}

impl ReplicaManager {
    /// A manager of the logs in `dirs`, without replicas: they come with the first image.
    #[must_use]
    pub fn new(config: BrokerConfig, dirs: Arc<LogDirs>, around: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            wakeups: Wakeups::new(around.clock),
            config,
            around,
            dirs,
            hosted: RwLock::default(),
            image: ArcSwap::default(),
            broker_epoch: AtomicI64::new(BrokerEpoch::NONE.0),
            applying: Mutex::new(()),
            has_settings: AtomicBool::new(false),
            offline_news: Notify::new(),
            leaderless_news: Notify::new(),
        })
    }

    /// The replica of a partition.
    ///
    /// # Errors
    /// [`PartitionUnavailable`].
    pub fn partition(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<PartitionHandle, PartitionUnavailable> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        match hosted.get(&(topic, partition)) {
            Some(Hosted::Online(handle)) => Ok(handle.clone()),
            Some(Hosted::Offline { .. }) => Err(PartitionUnavailable::Offline),
            None => {
                let image = self.image.load();
                match image.topics.topic(topic).map(|known| known.partition(partition)) {
                    None => Err(PartitionUnavailable::UnknownTopicId),
                    Some(None) => Err(PartitionUnavailable::UnknownTopicOrPartition),
                    Some(Some(_)) => Err(PartitionUnavailable::NotReplica),
                }
            }
        }
    }

    /// The replica of a partition, by the topic's name.
    ///
    /// # Errors
    /// [`PartitionUnavailable`].
    pub fn partition_by_name(
        &self,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Result<PartitionHandle, PartitionUnavailable> {
        let id = self.image.load().topics.topic_by_name(topic).map(|known| known.id);
        self.partition(id.ok_or(PartitionUnavailable::UnknownTopicOrPartition)?, partition)
    }

    /// All replicas that are in service, in no order.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionHandle> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let online = hosted.values().filter_map(|hosted| match hosted {
            Hosted::Online(handle) => Some(handle.clone()),
            Hosted::Offline { .. } => None,
        });
        online.collect()
    }

    /// The log directories.
    #[must_use]
    pub fn log_dirs(&self) -> &Arc<LogDirs> {
        &self.dirs
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<BrokerMetrics> {
        &self.around.metrics
    }

    /// The broker epoch that replicas are made for.
    #[must_use]
    pub fn broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.broker_epoch.load(Ordering::Acquire))
    }

    /// How the partitions are at this moment.
    #[must_use]
    pub fn gauges(&self) -> PartitionGauges {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let mut gauges = PartitionGauges::default();
        for replica in hosted.values() {
            gauges.partitions += 1;
            gauges.offline += usize::from(replica.is_offline());
            let Hosted::Online(handle) = replica else { continue };
            let role = handle.role();
            if role.is_leader {
                let (in_sync, minimum) = (role.in_sync_replicas.len(), role.min_in_sync_replicas);
                gauges.leaders += 1;
                gauges.under_replicated += usize::from(in_sync < role.replicas);
                gauges.under_min_isr += usize::from(in_sync < minimum);
                gauges.at_min_isr += usize::from(in_sync == minimum);
            }
        }
        gauges
    }

    /// The image that was last applied.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    pub(crate) fn node_id(&self) -> BrokerId {
        self.config.node_id
    }

    fn logs(&self) -> &LogManager {
        &self.dirs.manager
    }
}
