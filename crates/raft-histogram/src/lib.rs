//! Histograms for the statistics that `openraft` keeps of itself, in place of the published crate of this name.
//!
//! Nobody reads them in this workspace (the feature `runtime-stats` is off), but `openraft` records into a dozen of them
//! all the same. The published crate builds tables for sixteen resolutions with the first record, 25 MiB that no process
//! ever gives back; here a histogram is its counters, and a bucket is found by arithmetic. What is here is what
//! `openraft` names: the numbers stand in buckets a quarter of a power of two wide, so that a percentile is at most 25 %
//! below the value it stands for.

use std::fmt;
use std::marker::PhantomData;

/// Two bits behind the leading one choose among the buckets of a power of two.
const PART_BITS: u32 = 2;
/// So many buckets has a power of two. Values below have one each.
const PARTS: usize = 1 << PART_BITS;
/// The exact ones, and four for each power of two from 4 to 2^63.
const BUCKETS: usize = PARTS + (64 - PART_BITS as usize) * PARTS;

/// Counts values of 64 bits in buckets that grow with the value. Constant size: 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    samples: u64,
    kind: PhantomData<T>,
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram{}", self.percentile_stats())
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    if value < PARTS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - PART_BITS;
    (shift as usize) * PARTS + (value >> shift) as usize
}

/// The least value of a bucket.
fn floor(bucket: usize) -> u64 {
    if bucket < 2 * PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    ((bucket % PARTS + PARTS) as u64) << shift
}

impl<T> Histogram<T> {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), samples: 0, kind: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if let Some(counter) = self.counts.get_mut(bucket(value)) {
            *counter = counter.saturating_add(count);
            self.samples = self.samples.saturating_add(count);
        }
    }

    /// The percentiles; all zero if nothing was counted.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let at = |per_mille| self.at(per_mille);
        PercentileStats {
            samples: self.samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The least value of the bucket in which the sample of this rank lies.
    fn at(&self, per_mille: u128) -> u64 {
        let rank = (u128::from(self.samples) * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        found.map_or(0, floor)
    }
}

/// Values below which, in ascending order, given shares of all samples lie; each rounded down to its bucket's floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were counted.
    pub samples: u64,
    /// The value of the first of a thousand.
    pub p0_1: u64,
    /// The value of the first of a hundred.
    pub p1: u64,
    /// The value of the first of twenty.
    pub p5: u64,
    /// The value of the first of ten.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// Nine of ten are not above it.
    pub p90: u64,
    /// 99 of 100 are not above it.
    pub p99: u64,
    /// 999 of 1,000 are not above it.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p99, p99_9, .. } = self;
        write!(f, "{{ samples: {samples}, p50: {p50}, p99: {p99}, p99.9: {p99_9} }}")
    }
}

/// Several histograms, one line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// One without lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the callers hand over clones")]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.rows.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name:>24} {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_hold_their_values() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for index in 0..BUCKETS {
            assert_eq!(bucket(floor(index)), index);
            if index > 0 {
                assert_eq!(bucket(floor(index) - 1), index - 1);
            }
        }
        for value in (0..64).flat_map(|bits| [1 << bits, (1 << bits) + (1_u64 << bits) / 3]) {
            let low = floor(bucket(value));
            assert!(low <= value && value - low <= low / 4, "{value} in the bucket from {low}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.percentile_stats().samples, histogram.percentile_stats().p99), (0, 0));
        histogram.record_n(2, 900);
        (0..99).for_each(|_| histogram.record(1024));
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p90), (1000, 2, 2, 2));
        assert_eq!((stats.p99, stats.p99_9), (1024, 1024));
        assert_eq!(AsciiChart::new().add("writes", histogram).to_string().trim(), format!("writes {stats}"));
    }
}
