//! What it takes to have four kilobytes on the disk.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::time::Instant;

const LEN: usize = 4096;

/// As `klamm perf` prints a result.
#[derive(Serialize)]
pub(super) struct SyncRun {
    seconds: f64,
    records: u64,
    errors: u64,
    latency: Quantiles,
}

#[derive(Serialize)]
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
}

/// Appends and syncs `count` times, `rate` times in a second; each is timed by itself, not from when it was due.
pub(super) fn append_and_sync(count: u64, rate: f64, path: &PathBuf) -> anyhow::Result<SyncRun> {
    ensure!(count > 0 && rate > 0.0, "nothing would be measured");
    let mut file = File::create(path).with_context(|| path.display().to_string())?;
    let start = Instant::now();
    let mut times = Vec::new();
    for index in 0..count {
        let due = start + Duration::from_secs_f64(index as f64 / rate);
        sleep(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        file.write_all(&[b'.'; LEN])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let ms = |part: f64| {
        let index = ((part * times.len() as f64).ceil() as usize).saturating_sub(1);
        times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    let latency = Quantiles { p50_ms: ms(0.5), p99_ms: ms(0.99) };
    Ok(SyncRun { seconds: start.elapsed().as_secs_f64(), records: count, errors: 0, latency })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_written_and_timed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let run = append_and_sync(20, 1_000.0, &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 20 * LEN as u64);
        assert!(run.seconds >= 0.019, "{}", run.seconds);
        assert!(run.latency.p50_ms > 0.0 && run.latency.p50_ms <= run.latency.p99_ms);
    }
}
