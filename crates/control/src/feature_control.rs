//! What all nodes agree to use (KIP-584).

use std::collections::BTreeSet;

use klamm_metadata::{METADATA_VERSION, MetadataImage, MetadataRecord, QUORUM_ID_LEVEL};
use klamm_types::{BrokerId, QuorumId};

use crate::{ControlConfig, ControlResult, Refusal, Refused};

/// A wanted level of one feature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureUpdate {
    /// The feature.
    pub name: String,
    /// The level; 0 turns it off.
    pub level: u16,
    /// What the administrator knows this to be.
    pub kind: FeatureUpdateKind,
}

/// Which way an update may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeatureUpdateKind {
    /// Up.
    Upgrade,
    /// Down, if nothing is lost by it.
    SafeDowngrade,
    /// Down, whatever is lost.
    UnsafeDowngrade,
}

/// Why features stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeatureError {
    /// `INVALID_REQUEST`.
    #[error("feature {name} is named twice")]
    NamedTwice {
        /// The feature.
        name: String,
    },
    /// `INVALID_UPDATE_VERSION`: a level below the finalized one needs a downgrade, one above it an upgrade.
    #[error("feature {name} is at level {current}, so that {level} is not {wanted:?}")]
    WrongDirection {
        /// The feature.
        name: String,
        /// The finalized level.
        current: u16,
        /// The wanted level.
        level: u16,
        /// What the administrator took it for.
        wanted: FeatureUpdateKind,
    },
    /// `INVALID_UPDATE_VERSION`: this controller's binary does not know that level.
    #[error("the controller does not support {name} at level {level}")]
    UnsupportedByController {
        /// The feature.
        name: String,
        /// The wanted level.
        level: u16,
    },
    /// `INVALID_UPDATE_VERSION`: a registered broker's binary does not know that level.
    #[error("broker {broker} does not support {name} at level {level}")]
    UnsupportedByBroker {
        /// The first such broker.
        broker: BrokerId,
        /// The feature.
        name: String,
        /// The wanted level.
        level: u16,
    },
    /// `FEATURE_UPDATE_FAILED`: records of the higher level may be in the log and could not be read again.
    #[error("{METADATA_VERSION} cannot go back from {current} to {level}")]
    MetadataDowngrade {
        /// The finalized level.
        current: u16,
        /// The wanted level.
        level: u16,
    },
}

impl Refused for FeatureError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::NamedTwice { .. } => Refusal::InvalidRequest,
            Self::MetadataDowngrade { .. } => Refusal::FeatureUpdateFailed,
            Self::WrongDirection { .. }
            | Self::UnsupportedByController { .. }
            | Self::UnsupportedByBroker { .. } => Refusal::InvalidUpdateVersion,
        }
    }
}

/// Decisions about feature levels, on one image.
#[derive(Clone, Copy, Debug)]
pub struct FeatureControl<'a> {
    image: &'a MetadataImage,
    config: &'a ControlConfig,
}

impl<'a> FeatureControl<'a> {
    /// Decisions on `image`, the newest one, by a binary that supports what `config` says.
    #[must_use]
    pub fn new(image: &'a MetadataImage, config: &'a ControlConfig) -> Self {
        Self { image, config }
    }

    /// The first facts of a new cluster: everything at the highest level of this binary, and `drawn` as the id of the
    /// quorum, which nobody may have seen before. A quorum that has come to level 3 of `metadata.version` without an
    /// id gets it; otherwise there is nothing to add.
    pub fn bootstrap(&self, drawn: QuorumId) -> ControlResult<()> {
        let mut level = self.image.features.level(METADATA_VERSION);
        let mut records = Vec::new();
        if level == 0 {
            for range in &self.config.features {
                if range.name == METADATA_VERSION {
                    level = range.level_max;
                }
                records.push(MetadataRecord::FeatureLevelSet {
                    name: range.name.clone(),
                    level: range.level_max,
                });
            }
        }
        if self.image.quorum_id.is_none() && level >= QUORUM_ID_LEVEL {
            records.push(MetadataRecord::QuorumFounded { id: drawn });
        }
        ControlResult::atomic(records, ())
    }

    /// Sets levels, all or none. The answer names the features whose level changes.
    ///
    /// # Errors
    /// [`FeatureError`] with the first update that cannot be.
    pub fn update_features(
        &self,
        updates: &[FeatureUpdate],
    ) -> Result<ControlResult<Vec<String>>, FeatureError> {
        let mut names = BTreeSet::new();
        let mut records = Vec::new();
        let mut changed = Vec::new();
        for update in updates {
            if !names.insert(&update.name) {
                return Err(FeatureError::NamedTwice { name: update.name.clone() });
            }
            self.validate(update)?;
            if update.level != self.image.features.level(&update.name) {
                changed.push(update.name.clone());
                records
                    .push(MetadataRecord::FeatureLevelSet { name: update.name.clone(), level: update.level });
            }
        }
        Ok(ControlResult::atomic(records, changed))
    }

    fn validate(&self, update: &FeatureUpdate) -> Result<(), FeatureError> {
        let FeatureUpdate { name, level, kind } = update.clone();
        let current = self.image.features.level(&name);
        let upgrade = kind == FeatureUpdateKind::Upgrade;
        if (upgrade && level < current) || (!upgrade && level > current) {
            return Err(FeatureError::WrongDirection { name, current, level, wanted: kind });
        }
        if name == METADATA_VERSION && level < current {
            return Err(FeatureError::MetadataDowngrade { current, level });
        }
        let own = self.config.features.iter().find(|range| range.name == name);
        if own.is_none_or(|range| !range.supports(level)) {
            return Err(FeatureError::UnsupportedByController { name, level });
        }
        let supports = |range: Option<&klamm_metadata::FeatureRange>| match range {
            Some(range) => range.supports(level),
            None => level == 0,
        };
        match self.image.cluster.brokers().find(|broker| !supports(broker.feature(&name))) {
            Some(broker) => Err(FeatureError::UnsupportedByBroker { broker: broker.id, name, level }),
            None => Ok(()),
        }
    }
}
