//! Ratios of contenders that took turns, and how far they can be trusted.

/// How often passes are drawn anew for the range of a ratio.
const DRAWS: usize = 2_000;

/// The middle of `values`; the mean of the two middle ones of an even number. NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(value), Some(below)) if sorted.len().is_multiple_of(2) => f64::midpoint(*value, *below),
        (Some(value), _) => *value,
        (None, _) => f64::NAN,
    }
}

/// A ratio: the median over the passes, and the range in which 90 % of the medians of redrawn passes lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Ratio {
    /// `over` by `under`, pass by pass.
    pub(crate) fn of(over: &[f64], under: &[f64]) -> Self {
        let ratios: Vec<f64> = over.iter().zip(under).map(|(over, under)| over / under).collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut medians: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn: Vec<f64> = ratios.iter().filter_map(|_| draw(&mut state, &ratios)).collect();
                median(&drawn)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians.get((share * DRAWS as f64) as usize).copied().unwrap_or(f64::NAN);
        Self { median: median(&ratios), low: at(0.05), high: at(0.95) }
    }
}

/// One of `values` (xorshift).
fn draw(state: &mut u64, values: &[f64]) -> Option<f64> {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    values.get((*state >> 33) as usize % values.len().max(1)).copied()
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, low, high } = self;
        write!(f, "{median:.2} [{low:.2} .. {high:.2}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn one_wild_pass_does_not_move_a_ratio() {
        let ratio = Ratio::of(&[2.0, 4.0, 6.0, 80.0, 10.0], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ratio.median, 2.0);
        assert!(ratio.low == 2.0 && ratio.high >= 2.0, "{ratio}");
    }
}
