//! P9: many producers, small uneven batches to many partitions, by the clock.

use super::{KAFKA, KLAMM, KLAMM_CACHED};
use crate::bed::Side;
use crate::load::paced::Keyed;
use crate::load::{Sample, Tool};
use crate::report::Figures;
use crate::rows::{Entry, Run};

const ENTRIES: [Entry; 3] = [KLAMM, KLAMM_CACHED, KAFKA];
const PARTITIONS: i32 = 300;
/// Records per second that all contenders shall sustain.
const RATE: f64 = 4_000.0;
/// By how much the rate grows from try to try.
const STEP: f64 = 1.6;
const TRIES_MAX: usize = 12;
/// A rate is sustained if nearly all of it is done in its time, and acknowledged within a second.
const DONE_SHARE: f64 = 0.95;
const P99_MAX_MS: f64 = 1_000.0;

fn load(run: &Run<'_>, rate: f64) -> Keyed {
    let seconds = run.scaled(4).max(2);
    Keyed { producers: 100, rate, record_size_max: 1024, batch_records_max: 16, seconds }
}

pub(in crate::rows) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let passes = run.options.passes.min(2);
    let lines = run.turns(&ENTRIES, passes, async |run, entry| sample(run, entry).await).await?;
    let load = load(run, RATE);
    let what = format!(
        "acks=all, {} producers, {PARTITIONS} partitions, batches of 1 to {} records of 128 to {} bytes to the partitions of their keys, {RATE} records per second by the clock, {} s per pass; from when a batch is due until it is acknowledged",
        load.producers, load.batch_records_max, load.record_size_max, load.seconds
    );
    run.tell(row, what, Tool::Perf, Figures::Latency, lines)?;
    let mut sustained = Vec::new();
    for entry in &ENTRIES {
        sustained.push((entry.name, vec![highest(run, entry).await?]));
    }
    let what = format!(
        "MiB/s of the highest rate that is sustained (p99 at most {P99_MAX_MS} ms), growing by {STEP} from {RATE} records/s, {} s each",
        load.seconds
    );
    run.report.rate(row, &what, &sustained)
}

async fn sample(run: &mut Run<'_>, entry: &Entry) -> anyhow::Result<Sample> {
    let (topic, side) = create(run, entry).await?;
    let sample = load(run, RATE).run(run.tools, &side, &topic)?;
    run.bed.delete(entry.system, &topic).await?;
    Ok(sample)
}

async fn create(run: &mut Run<'_>, entry: &Entry) -> anyhow::Result<(String, Side)> {
    let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
    side.create(&topic, PARTITIONS, entry.replicas, entry.topic).await?;
    side.settled(&topic, usize::try_from(entry.replicas)?).await?;
    Ok((topic, side))
}

/// What was done, in MiB/s, at the highest rate that was sustained; nothing if not even the first one was.
async fn highest(run: &mut Run<'_>, entry: &Entry) -> anyhow::Result<f64> {
    let (topic, side) = create(run, entry).await?;
    let (mut rate, mut highest) = (RATE, 0.0);
    for _ in 0..TRIES_MAX {
        // Who cannot keep up may let requests time out, which fails the load.
        let sample = match load(run, rate).run(run.tools, &side, &topic) {
            Ok(sample) => sample,
            Err(error) if highest > 0.0 => {
                eprintln!("{} at {rate} records/s: {error:#}", entry.name);
                break;
            }
            Err(error) => return Err(error),
        };
        let is_late = sample.p99_ms.is_none_or(|p99| p99 > P99_MAX_MS);
        if is_late || sample.records_per_second < rate * DONE_SHARE {
            break;
        }
        highest = sample.mib_per_second;
        rate *= STEP;
    }
    run.bed.delete(entry.system, &topic).await?;
    Ok(highest)
}
