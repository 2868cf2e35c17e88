//! Loads by the clock: `klamm perf latency` with batches, `klamm perf keyed`, and the bare disk.

use anyhow::Context;

use super::{Found, Sample, Tools, measured, perf, perf_line, this_program};
use crate::bed::Side;

/// What a record is until it is counted: one byte of it is nobody's.
const BARE_SYNC: usize = 4096;

/// Batches at a fixed rate, read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paced {
    /// Records per second.
    pub(crate) rate: f64,
    pub(crate) record_size: usize,
    /// Bytes of each batch; one record at least.
    pub(crate) batch_size: usize,
    pub(crate) seconds: u64,
}

/// Two views of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacedSample {
    /// From when a batch was due until it was acknowledged.
    pub(crate) acknowledged: Sample,
    /// From when a batch was due until a consumer had it.
    pub(crate) read: Sample,
}

impl Paced {
    pub(crate) fn run(&self, tools: &Tools, side: &Side, topic: &str) -> anyhow::Result<PacedSample> {
        let mut command = perf(tools, "latency", side, topic);
        for (name, value) in [
            ("--rate", self.rate.to_string()),
            ("--record-size", self.record_size.to_string()),
            ("--batch-size", self.batch_size.to_string()),
            ("--duration", self.seconds.to_string()),
            ("--acks", "all".to_owned()),
        ] {
            command.args([name, &value]);
        }
        let mut second = None;
        let acknowledged = measured(&mut command, &side.pids, self.record_size, |text| {
            second = Some(perf_line(text, 1, 1)?);
            perf_line(text, 0, 1)
        })?;
        let Found { p50_ms, p99_ms, .. } = second.context("no result of the reader")?;
        Ok(PacedSample { acknowledged, read: Sample { p50_ms, p99_ms, ..acknowledged } })
    }
}

/// Many producers, whose records' keys choose the partitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    pub(crate) producers: u16,
    /// Records per second of all together.
    pub(crate) rate: f64,
    pub(crate) record_size_max: usize,
    pub(crate) batch_records_max: u16,
    pub(crate) seconds: u64,
}

impl Keyed {
    /// Sizes in the sample are of batches as they are sent.
    pub(crate) fn run(&self, tools: &Tools, side: &Side, topic: &str) -> anyhow::Result<Sample> {
        let mut command = perf(tools, "keyed", side, topic);
        for (name, value) in [
            ("--producers", self.producers.to_string()),
            ("--rate", self.rate.to_string()),
            ("--record-size-max", self.record_size_max.to_string()),
            ("--batch-records-max", self.batch_records_max.to_string()),
            ("--duration", self.seconds.to_string()),
        ] {
            command.args([name, &value]);
        }
        // Values are as frequent from an eighth of the largest size to the largest.
        let record_size = self.record_size_max * 9 / 16;
        measured(&mut command, &side.pids, record_size, |text| perf_line(text, 0, 1))
    }
}

/// Appends of four kilobytes to a file, each waited for until it is on the disk; `count` of them, `rate` in a second.
pub(crate) fn bare_sync(file: &std::path::Path, count: u64, rate: f64) -> anyhow::Result<Sample> {
    let (count, rate) = (count.to_string(), rate.to_string());
    let mut command = this_program(&["sync", &count, &rate], Some(file))?;
    let sample = measured(&mut command, &[], BARE_SYNC, |text| perf_line(text, 0, 1));
    std::fs::remove_file(file)?;
    sample
}
