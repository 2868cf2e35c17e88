//! L1 and L2 with three replicas: latency at fixed rates.

use super::{KAFKA, KLAMM, KLAMM_CACHED, MIB_BATCH};
use crate::bed::System;
use crate::load::paced::{Paced, PacedSample, bare_sync};
use crate::load::{Produce, Tool};
use crate::report::{Figures, Line};
use crate::rows::{BARE, Entry, Run};

const BARE_SYNC: Entry = Entry { name: "bare fdatasync of 4 KiB", ..BARE };
const ENTRIES: [Entry; 4] = [KLAMM, KLAMM_CACHED, KAFKA, BARE_SYNC];
/// At how many of the records the first pass of P4 looks.
const TRIAL_SHARE: f64 = 0.5;

/// L1: single records, and the disk alone at the same rate.
pub(in crate::rows) async fn slow(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    for rate in [200.0, 1_000.0] {
        let load = Paced { rate, record_size: 1024, batch_size: 1, seconds: run.scaled(6).max(2) };
        let passes = run.options.passes.min(2);
        let found = run.take_turns(&ENTRIES, passes, async |run, entry| match entry.system {
            System::Bare => {
                let file = run.bed.scratch().join("bare");
                let bare = bare_sync(&file, rate as u64, rate)?;
                Ok(PacedSample { acknowledged: bare, read: bare })
            }
            System::Klamm | System::Kafka => sample(run, entry, &load).await,
        });
        let found = found.await?;
        let what = format!("{rate} records of 1 KiB per second, one per request");
        tell(run, row, &what, &load, found)?;
    }
    Ok(())
}

/// L2: batches at 20 % and 50 % of what the slower of the contenders takes without a clock (P4), the same bytes for all.
pub(in crate::rows) async fn shares(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let entries = ENTRIES.get(..3).unwrap_or_default();
    let mut slowest = f64::INFINITY;
    for entry in entries {
        let records = run.scaled((MIB_BATCH.records as f64 * TRIAL_SHARE) as u64);
        let load = Produce { records, ..MIB_BATCH };
        let sample = super::sample(run, entry, 1, &load, Tool::Perf).await?;
        slowest = slowest.min(sample.records_per_second);
    }
    for share in [0.2, 0.5] {
        let rate = (slowest * share).round();
        let seconds = run.scaled(5).max(2);
        let load = Paced { rate, record_size: 1024, batch_size: 64 << 10, seconds };
        let passes = run.options.passes.min(2);
        let found = run.take_turns(entries, passes, async |run, entry| sample(run, entry, &load).await);
        let found = found.await?;
        let what = format!(
            "{:.0} MiB/s ({:.0} % of the slowest's P4) in batches of 64 KiB",
            rate / 1024.0,
            share * 100.0
        );
        tell(run, row, &what, &load, found)?;
    }
    Ok(())
}

async fn sample(run: &mut Run<'_>, entry: &Entry, load: &Paced) -> anyhow::Result<PacedSample> {
    let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
    side.create(&topic, 1, entry.replicas, entry.topic).await?;
    side.settled(&topic, usize::try_from(entry.replicas)?).await?;
    let sample = load.run(run.tools, &side, &topic)?;
    run.bed.delete(entry.system, &topic).await?;
    Ok(sample)
}

/// One table of acknowledgements, one of what consumers saw.
fn tell(
    run: &mut Run<'_>,
    row: &'static str,
    what: &str,
    load: &Paced,
    found: Vec<Vec<PacedSample>>,
) -> anyhow::Result<()> {
    for (until, is_read) in [("it is acknowledged", false), ("its consumer has it", true)] {
        let lines = ENTRIES.iter().zip(&found).map(|(entry, samples)| {
            let view = |sample: &PacedSample| if is_read { sample.read } else { sample.acknowledged };
            Line { contender: entry.name.to_owned(), samples: samples.iter().map(view).collect() }
        });
        let what = format!(
            "one partition, acks=all, {what}, by the clock, {} s per pass; from when a request is due until {until}",
            load.seconds
        );
        run.tell(row, what, Tool::Perf, Figures::Latency, lines.collect())?;
    }
    Ok(())
}
