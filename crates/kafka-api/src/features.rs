//! The features of the cluster, as clients are told of them (KIP-584).
//!
//! Klamm counts the levels of `metadata.version` from 1, as its records have nothing to do with Kafka's. Kafka's tools
//! print a level by the name of the release that it came with and know no level below 7. So clients see levels that
//! are shifted: our fourth is told as that of Kafka 4.3, and what they send is shifted back.

use std::sync::Arc;

use klamm_metadata::{FeatureRange, METADATA_VERSION};

use crate::cluster::Cluster;
use crate::handlers::api_versions::{FeatureSource, Features, FinalizedFeature, SupportedFeature};

/// What is added to a level of `metadata.version`: 4 becomes 30, which Kafka calls 4.3-IV0.
const METADATA_SHIFT: i16 = 26;

/// A level as clients see it.
pub(crate) fn shown_level(feature: &str, level: u16) -> i16 {
    let level = i16::try_from(level).unwrap_or(i16::MAX);
    let is_shifted = feature == METADATA_VERSION && level > 0;
    if is_shifted { level.saturating_add(METADATA_SHIFT) } else { level }
}

/// The level that clients mean; `None` if the feature has no such level, as a level of `metadata.version` that is
/// Kafka's and older than any of ours.
pub(crate) fn meant_level(feature: &str, level: i16) -> Option<u16> {
    let level = u16::try_from(level).ok()?;
    if feature != METADATA_VERSION || level == 0 {
        return Some(level);
    }
    level.checked_sub(METADATA_SHIFT.unsigned_abs()).filter(|level| *level > 0)
}

/// The features of the newest image.
pub(crate) struct ClusterFeatures {
    cluster: Arc<Cluster>,
    supported: Vec<SupportedFeature>,
}

impl ClusterFeatures {
    /// Features of a build that supports these.
    pub(crate) fn new(cluster: Arc<Cluster>, supported: Vec<FeatureRange>) -> Self {
        let supported = supported.into_iter().map(|range| SupportedFeature {
            level_min: shown_level(&range.name, range.level_min),
            level_max: shown_level(&range.name, range.level_max),
            name: range.name,
        });
        Self { cluster, supported: supported.collect() }
    }
}

impl FeatureSource for ClusterFeatures {
    fn features(&self) -> Features {
        let image = self.cluster.metadata.image();
        let finalized = image.features.levels();
        let finalized = finalized
            .map(|(name, level)| FinalizedFeature { name: name.to_owned(), level: shown_level(name, level) });
        Features {
            supported: self.supported.clone(),
            finalized: finalized.collect(),
            finalized_epoch: image.provenance.last_offset.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_metadata::{MetadataRecord, supported_features};

    use super::*;
    use crate::fixture::Bed;

    #[test]
    fn levels_of_the_metadata_are_told_as_kafkas_and_understood_again() {
        for (ours, kafkas) in [(0, 0), (1, 27), (2, 28), (3, 29), (4, 30), (5, 31)] {
            assert_eq!(shown_level(METADATA_VERSION, ours), kafkas);
            assert_eq!(meant_level(METADATA_VERSION, kafkas), Some(ours));
        }
        assert_eq!(meant_level(METADATA_VERSION, 7), None);
        assert_eq!(meant_level(METADATA_VERSION, -1), None);
        assert_eq!((shown_level("other", 2), meant_level("other", 2)), (2, Some(2)));
    }

    #[test]
    fn the_newest_level_is_that_of_kafka_4_3() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.learn(&[MetadataRecord::FeatureLevelSet { name: METADATA_VERSION.to_owned(), level: 4 }]);
        let features = ClusterFeatures::new(bed.cluster(), supported_features()).features();
        let metadata = features.supported.iter().find(|feature| feature.name == METADATA_VERSION).unwrap();
        assert_eq!(metadata.level_max, 30, "a new level needs its place among Kafka's names");
        assert_eq!(features.finalized, [FinalizedFeature { name: METADATA_VERSION.to_owned(), level: 30 }]);
        assert_eq!(features.finalized_epoch, 1);
    }
}
