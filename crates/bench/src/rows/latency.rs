//! L1: latency from end to end, at a fixed rate.

use super::{Entry, KAFKA, KLAMM, KLAMM_CACHED, Run};
use crate::load::{Latency, Tool};
use crate::report::Figures;

const ENTRIES: [Entry; 3] = [KLAMM, KLAMM_CACHED, KAFKA];

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    for rate in [200, 1_000] {
        let load = Latency { rate, record_size: 1024, seconds: run.scaled(10).max(2) };
        let passes = run.options.passes.min(3);
        let lines = run.turns(&ENTRIES, passes, async |run, entry| {
            let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
            side.create(&topic, 1, 1, entry.topic).await?;
            let sample = load.run(run.tools, &side, &topic)?;
            run.bed.delete(entry.system, &topic).await?;
            Ok(sample)
        });
        let lines = lines.await?;
        let what = format!(
            "acks=all, {rate} records of 1 KiB per second by the clock, {} s per pass; from when a record is due until its consumer has it",
            load.seconds
        );
        run.tell(row, what, Tool::Perf, Figures::Latency, lines)?;
    }
    Ok(())
}
