//! What a run came to: while it goes on, and in the end.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::super::say;
use crate::output::{Format, json};

/// The longest time that is told apart from longer ones.
const MICROS_MAX: u64 = 3_600_000_000;

/// Latencies in microseconds, with three digits.
#[derive(Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and legal")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("1 to an hour with three digits"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX);
        self.0.saturating_record(micros);
    }

    fn summary(&self) -> LatencyRow {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        LatencyRow {
            samples: self.0.len(),
            mean_ms: self.0.mean() / 1_000.0,
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            p9999_ms: ms(0.9999),
            max_ms: self.0.max() as f64 / 1_000.0,
        }
    }
}

/// The counts of a run so far.
#[derive(Clone)]
struct Counts {
    records: u64,
    bytes: u64,
    requests: u64,
    errors: u64,
    latencies: Latencies,
}

/// Counts a run, from many tasks.
pub(super) struct Meter {
    start: Instant,
    all: Mutex<Counts>,
    /// Since the last line of progress.
    recent: Mutex<Counts>,
}

/// The result of a run, in JSON. Rates are per second, bytes are those of batches as they are sent.
#[derive(Serialize)]
pub(super) struct RunRow {
    pub(super) run: &'static str,
    seconds: f64,
    records: u64,
    bytes: u64,
    requests: u64,
    errors: u64,
    records_per_second: f64,
    mib_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<LatencyRow>,
}

#[derive(Serialize)]
struct LatencyRow {
    samples: u64,
    mean_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    p9999_ms: f64,
    max_ms: f64,
}

impl Counts {
    fn new() -> Self {
        Self { records: 0, bytes: 0, requests: 0, errors: 0, latencies: Latencies::new() }
    }
}

impl Meter {
    pub(super) fn new() -> Self {
        let counts = || Mutex::new(Counts::new());
        Self { start: Instant::now(), all: counts(), recent: counts() }
    }

    /// Counts one request that went well.
    pub(super) fn done(&self, records: u64, bytes: u64, latency: Option<Duration>) {
        for counts in [&self.all, &self.recent] {
            let mut counts = lock(counts);
            counts.records += records;
            counts.bytes += bytes;
            counts.requests += 1;
            if let Some(latency) = latency {
                counts.latencies.record(latency);
            }
        }
    }

    /// Counts one request that did not, and tells why if it is the first.
    pub(super) fn failed(&self, why: &dyn std::fmt::Display) {
        let mut all = lock(&self.all);
        all.errors += 1;
        let is_first = all.errors == 1;
        drop(all);
        lock(&self.recent).errors += 1;
        if is_first {
            say(&format!("the first error: {why}"));
        }
    }

    /// Tells how it goes, every second, for ever.
    pub(super) async fn tell(&self) {
        let second = Duration::from_secs(1);
        let mut ticks = interval(second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let counts = std::mem::replace(&mut *lock(&self.recent), Counts::new());
            let row = row("", &counts, now - last);
            last = now;
            let mut line = format!(
                "{:4.0} s  {:9.0} records/s  {:8.1} MiB/s",
                (now - self.start).as_secs_f64(),
                row.records_per_second,
                row.mib_per_second
            );
            if let Some(latency) = row.latency {
                line.push_str(&format!("  p50 {:.2} ms  p99 {:.2} ms", latency.p50_ms, latency.p99_ms));
            }
            if row.errors > 0 {
                line.push_str(&format!("  {} errors", row.errors));
            }
            say(&line);
        }
    }

    pub(super) fn result(&self, run: &'static str) -> RunRow {
        row(run, &lock(&self.all), self.start.elapsed())
    }
}

fn row(run: &'static str, counts: &Counts, time: Duration) -> RunRow {
    let seconds = time.as_secs_f64().max(1e-9);
    let latency = counts.latencies.summary();
    RunRow {
        run,
        seconds,
        records: counts.records,
        bytes: counts.bytes,
        requests: counts.requests,
        errors: counts.errors,
        records_per_second: counts.records as f64 / seconds,
        mib_per_second: counts.bytes as f64 / seconds / f64::from(1 << 20),
        latency: (latency.samples > 0).then_some(latency),
    }
}

impl RunRow {
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(super) fn print(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        if format == Format::Json {
            return json::line(out, self);
        }
        writeln!(
            out,
            "{}: {} records in {:.2} s: {:.0} records/s, {:.2} MiB/s; {} requests, {} errors",
            self.run,
            self.records,
            self.seconds,
            self.records_per_second,
            self.mib_per_second,
            self.requests,
            self.errors
        )?;
        let Some(latency) = &self.latency else { return Ok(()) };
        writeln!(
            out,
            "{}: latency ms: mean {:.3}  p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  p99.99 {:.3}  max {:.3}",
            self.run,
            latency.mean_ms,
            latency.p50_ms,
            latency.p90_ms,
            latency.p99_ms,
            latency.p999_ms,
            latency.p9999_ms,
            latency.max_ms
        )
    }
}

/// No code that holds the lock can panic half way through a change.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_rates_and_percentiles() {
        let meter = Meter::new();
        for ms in 1..=100 {
            meter.done(10, 1 << 20, Some(Duration::from_millis(ms)));
        }
        meter.failed(&"it failed");
        let row = row("produce", &lock(&meter.all), Duration::from_secs(10));
        assert_eq!((row.records, row.requests, row.errors), (1_000, 100, 1));
        assert!((row.mib_per_second - 10.0).abs() < 1e-9);
        let latency = row.latency.unwrap();
        assert!((latency.p50_ms - 50.0).abs() < 0.1, "{}", latency.p50_ms);
        assert!((latency.p99_ms - 99.0).abs() < 0.1, "{}", latency.p99_ms);
        assert!((latency.max_ms - 100.0).abs() < 0.1, "{}", latency.max_ms);
    }
}
