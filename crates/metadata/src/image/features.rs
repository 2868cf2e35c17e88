//! What all nodes of the cluster have agreed to use.

use crate::{FeatureRange, PersistentMap};

/// The feature whose level says which types and versions of records may be written.
pub const METADATA_VERSION: &str = "metadata.version";

/// The levels of [`METADATA_VERSION`] that this code reads and writes; both ends inclusive.
///
/// | level | adds |
/// | --- | --- |
/// | 1 | everything else |
/// | 2 | [`PartitionRegistration::last_unclean_epoch`](crate::PartitionRegistration::last_unclean_epoch) |
/// | 3 | [`MetadataRecord::QuorumFounded`](crate::MetadataRecord::QuorumFounded) |
/// | 4 | [`MetadataRecord::ReplicasOffline`](crate::MetadataRecord::ReplicasOffline) |
pub const METADATA_VERSION_LEVELS: (u16, u16) = (1, 4);

/// The level of `metadata.version` from which a partition may remember its last unclean election.
pub const UNCLEAN_EPOCH_LEVEL: u16 = 2;

/// The level of `metadata.version` from which the quorum has an id.
pub const QUORUM_ID_LEVEL: u16 = 3;

/// The level of `metadata.version` from which a broker can be known to serve some of its replicas and not others.
pub const OFFLINE_REPLICAS_LEVEL: u16 = 4;

/// What a node that is built from this code supports, for its registration: `metadata.version` and nothing else yet.
#[must_use]
pub fn supported_features() -> Vec<FeatureRange> {
    let (level_min, level_max) = METADATA_VERSION_LEVELS;
    vec![FeatureRange { name: METADATA_VERSION.to_owned(), level_min, level_max }]
}

/// Finalized feature levels (KIP-584).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeaturesImage {
    levels: PersistentMap<String, u16>,
}

impl FeaturesImage {
    /// The level of `feature`; 0 if it is off.
    #[must_use]
    pub fn level(&self, feature: &str) -> u16 {
        self.levels.get(feature).copied().unwrap_or(0)
    }

    /// All features that are on, ordered by name.
    pub fn levels(&self) -> impl Iterator<Item = (&str, u16)> {
        self.levels.iter().map(|(name, level)| (name.as_str(), *level))
    }

    pub(crate) fn set(&mut self, name: &str, level: u16) {
        if level == 0 {
            self.levels.remove(name);
        } else {
            self.levels.insert(name.to_owned(), level);
        }
    }
}
