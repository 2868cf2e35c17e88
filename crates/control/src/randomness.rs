//! Chance as a parameter.

/// A source of random bits. The body passes one that nobody can predict, a test one with a seed.
pub trait Randomness {
    /// 64 bits, each as likely 0 as 1.
    fn next_u64(&mut self) -> u64;

    /// A number in `0..end`, or 0 if `end` is 0. The bias is below 2^-32 for every `end` that fits into 32 bits.
    fn below(&mut self, end: usize) -> usize {
        let product = u128::from(self.next_u64()) * end as u128;
        (product >> 64) as usize
    }
}

/// A small generator with a seed (Steele, Lea and Flood, 2014): every seed gives one sequence, on every machine.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Randomness for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Puts `items` into an order that is as likely as any other.
pub(crate) fn shuffle<T>(items: &mut [T], randomness: &mut dyn Randomness) {
    for unplaced in (2..=items.len()).rev() {
        items.swap(unplaced - 1, randomness.below(unplaced));
    }
}
