//! Ranges of message versions.

use std::fmt;

/// The versions from `min` to `max`, both included. A range with `min > max` holds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    min: i16,
    max: i16,
}

impl VersionRange {
    /// The range from `min` to `max`, both included.
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// The oldest version.
    pub const fn min(self) -> i16 {
        self.min
    }

    /// The newest version.
    pub const fn max(self) -> i16 {
        self.max
    }

    /// Whether `version` is in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The versions that two peers share, `None` if there is none.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        (both.min <= both.max).then_some(both)
    }

    /// Every version, oldest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = i16> {
        self.min..=self.max
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_agree_on_the_overlap() {
        let ours = VersionRange::new(3, 13);
        assert_eq!(ours.intersect(VersionRange::new(0, 9)), Some(VersionRange::new(3, 9)));
        assert_eq!(ours.intersect(VersionRange::new(0, 2)), None);
        assert_eq!(ours.intersect(ours), Some(ours));
    }

    #[test]
    fn both_ends_belong_to_the_range() {
        let range = VersionRange::new(3, 5);
        assert_eq!(range.iter().collect::<Vec<_>>(), [3, 4, 5]);
        assert!(!range.contains(2) && range.contains(3) && range.contains(5) && !range.contains(6));
    }
}
