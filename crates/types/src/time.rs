//! Wall-clock time as Kafka carries it.

use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z. -1 means "no timestamp".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wire value for "no timestamp" (-1).
    pub const NONE: Self = Self(-1);

    /// Milliseconds from `earlier` to this instant, clamped to the range of `i64`; negative if `earlier` is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant moved by `millis`, clamped to the range of `i64`.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_do_not_wrap() {
        assert_eq!(Timestamp(i64::MAX).millis_since(Timestamp(-5)), i64::MAX);
        assert_eq!(Timestamp(i64::MAX).plus_millis(1), Timestamp(i64::MAX));
    }
}
