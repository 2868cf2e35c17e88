//! What all nodes of the cluster have agreed to use.

use crate::PersistentMap;

/// The feature whose level says which types and versions of records may be written.
pub const METADATA_VERSION: &str = "metadata.version";

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
