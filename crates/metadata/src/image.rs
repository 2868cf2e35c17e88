//! The view of the cluster that the facts up to some offset add up to.

mod cluster;
mod configs;
mod features;
mod offline;
mod producer_ids;
mod topics;

pub use cluster::ClusterImage;
pub use configs::ConfigurationsImage;
pub use features::{
    FeaturesImage, METADATA_VERSION, METADATA_VERSION_LEVELS, OFFLINE_REPLICAS_LEVEL, QUORUM_ID_LEVEL,
    UNCLEAN_EPOCH_LEVEL, supported_features,
};
use klamm_types::{Offset, QuorumId};
pub use offline::OfflineReplicasImage;
pub use producer_ids::ProducerIdsImage;
pub(crate) use topics::EpochPair;
pub use topics::{BrokerLoad, TopicImage, TopicsImage};

/// Which prefix of the metadata log an image stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetadataProvenance {
    /// The last offset that was replayed, inclusive; -1 for the empty log.
    pub last_offset: Offset,
    /// The term of the entry at that offset; -1 for the empty log.
    pub last_epoch: i64,
}

impl MetadataProvenance {
    /// Nothing has been replayed.
    pub const EMPTY: Self = Self { last_offset: Offset(-1), last_epoch: -1 };
}

impl Default for MetadataProvenance {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Everything known about the cluster at one offset. Immutable; a copy costs a few pointers.
///
/// It changes only by [`MetadataDelta::replay`](crate::MetadataDelta::replay). Two images with equal
/// provenance are equal, and so are the bytes of their snapshots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    /// What was replayed.
    pub provenance: MetadataProvenance,
    /// Topics and partitions.
    pub topics: TopicsImage,
    /// Brokers.
    pub cluster: ClusterImage,
    /// Replicas that their brokers cannot serve.
    pub offline: OfflineReplicasImage,
    /// Settings.
    pub configs: ConfigurationsImage,
    /// Feature levels.
    pub features: FeaturesImage,
    /// Producer ids given away.
    pub producer_ids: ProducerIdsImage,
    /// Which quorum this is; `None` only before its first facts, or below level 3 of `metadata.version`.
    pub quorum_id: Option<QuorumId>,
}

impl MetadataImage {
    /// The view of an empty log.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }
}
