//! L1: latency from end to end, at a fixed rate.

use super::{Entry, KAFKA, KLAMM, KLAMM_CACHED, Run};
use crate::load::Tool;
use crate::load::latency::Latency;
use crate::report::Figures;

const ENTRIES: [Entry; 3] = [KLAMM, KLAMM_CACHED, KAFKA];

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    for tool in run.options.tools.clone() {
        for rate in [200, 1_000] {
            at_rate(run, row, tool, rate).await?;
        }
    }
    Ok(())
}

async fn at_rate(run: &mut Run<'_>, row: &'static str, tool: Tool, rate: u64) -> anyhow::Result<()> {
    let load = Latency { rate, record_size: 1024, seconds: run.scaled(10).max(2) };
    let passes = run.options.passes.min(3);
    let lines = run.turns(&ENTRIES, passes, async |run, entry| {
        let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
        side.create(&topic, 1, 1, entry.topic).await?;
        let sample = load.run(tool, run.tools, &side, &topic, run.bed.scratch())?;
        run.bed.delete(entry.system, &topic).await?;
        Ok(sample)
    });
    let lines = lines.await?;
    let (seconds, span) = (load.seconds, Latency::span(tool));
    let what =
        format!("acks=all, {rate} records of 1 KiB per second by the clock, {seconds} s per pass; {span}");
    run.tell(row, what, tool, Figures::Latency, lines)
}
