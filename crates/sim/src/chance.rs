//! Everything that is left to chance, from one seed.

use klamm_control::{Randomness, SplitMix64};

/// The dice of one run.
#[derive(Clone, Debug)]
pub(crate) struct Chance(SplitMix64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed ^ 0x6b6c_616d_6d00_0000))
    }

    /// Whether something of a probability in thousandths comes true.
    pub(crate) fn per_mille(&mut self, probability: u32) -> bool {
        self.0.below(1_000) < probability as usize
    }

    /// A number in `low..=high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        let width = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX - 1);
        low + self.0.below(width + 1) as u64
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The source itself, for brains that want one.
    pub(crate) fn source(&mut self) -> &mut dyn Randomness {
        &mut self.0
    }
}
