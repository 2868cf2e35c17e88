//! Positions of records in a partition.

use std::fmt;

/// The position of a record in its partition, from 0. Also used as an exclusive end of a range.
///
/// An offset, once it has named a record, names no other record for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// The offset that follows this one.
    ///
    /// # Panics
    /// At 2^63 - 1: no log can hold that many records.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The offset `count` records further on.
    ///
    /// # Panics
    /// If the sum passes 2^63 - 1. Check with [`checked_plus`](Self::checked_plus) where `count` is foreign.
    #[must_use]
    pub fn plus(self, count: i64) -> Self {
        self.checked_plus(count).expect("an offset passes 2^63 - 1")
    }

    /// The offset `count` records further on, or `None` past 2^63 - 1.
    #[must_use]
    pub fn checked_plus(self, count: i64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }

    /// How many offsets lie in `self..end`; zero if `end` is not past `self`.
    #[must_use]
    pub fn distance_to(self, end: Self) -> u64 {
        if end.0 > self.0 { end.0.abs_diff(self.0) } else { 0 }
    }

    /// Moves forward to `to` and tells whether that changed anything; never moves back.
    pub fn advance_to(&mut self, to: Self) -> bool {
        let grows = to > *self;
        if grows {
            *self = to;
        }
        grows
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_never_negative() {
        assert_eq!(Offset(3).distance_to(Offset(10)), 7);
        assert_eq!(Offset(10).distance_to(Offset(3)), 0);
        assert_eq!(Offset(i64::MIN).distance_to(Offset(i64::MAX)), u64::MAX);
    }

    #[test]
    fn an_offset_only_advances() {
        let mut end = Offset(5);
        assert!(!end.advance_to(Offset(4)));
        assert!(end.advance_to(Offset(6)));
        assert_eq!(end, Offset(6));
    }
}
