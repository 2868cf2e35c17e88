//! How long something took, many times.

use std::fmt;
use std::time::Duration;

/// Times, to be told in percentiles.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    times: Vec<Duration>,
}

impl Distribution {
    /// Adds one time.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// How many times were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The least time that at least this part (0 to 1) of all times does not exceed; zero if there is none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let rank = (part * times.len() as f64).ceil() as usize;
        times.get(rank.clamp(1, times.len().max(1)) - 1).copied().unwrap_or_default()
    }

    /// The longest time.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        write!(
            f,
            "{} times: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.len(),
            ms(self.quantile(0.5)),
            ms(self.quantile(0.9)),
            ms(self.quantile(0.99)),
            ms(self.max())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let mut distribution = Distribution::default();
        assert_eq!(distribution.quantile(0.5), Duration::ZERO);
        for ms in (1..=100).rev() {
            distribution.add(Duration::from_millis(ms));
        }
        let at = |part| distribution.quantile(part).as_millis();
        assert_eq!((at(0.0), at(0.5), at(0.99), at(1.0)), (1, 50, 99, 100));
        assert_eq!(
            distribution.to_string(),
            "100 times: p50 50.0 ms, p90 90.0 ms, p99 99.0 ms, max 100.0 ms"
        );
    }
}
