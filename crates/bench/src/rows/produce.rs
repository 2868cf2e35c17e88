//! Producing: P1, P2, P3, P7, S1, and what durability costs.

use anyhow::Context;
use klamm_tests::ports;

use super::{BARE, Entry, KAFKA, KAFKA_SYNCED, KLAMM, KLAMM_CACHED, Run};
use crate::bed::System;
use crate::load::{Produce, Sample, Tool, bare_line, measured, this_program};
use crate::report::Figures;

/// One table of a row.
pub(super) struct Case {
    what: &'static str,
    load: Produce,
    partitions: i32,
    entries: &'static [Entry],
    /// Which programs load, besides our own.
    tools: &'static [Tool],
}

const BOTH: &[Tool] = &[Tool::Librdkafka, Tool::Java];
const RECORD: usize = 1024;
/// No pass writes more than half a gigabyte, and each deletes what it wrote: a virtual machine may give free memory back
/// to its host, and then whoever touches it next waits for the host, which made writing a file five times as expensive.
const MIB_BATCH: Produce = Produce {
    records: 400_000,
    record_size: RECORD,
    batch_size: 1_000_000,
    codec: "none",
    acks: "1",
    in_flight: 5,
    connections: 1,
};
const KIB_BATCH: Produce = Produce { records: 300_000, batch_size: 16 << 10, ..MIB_BATCH };

pub(super) const LARGE: [Case; 1] = [Case {
    what: "one partition, acks=1, batches of 1,000,000 bytes of records of 1 KiB, 5 in flight",
    load: MIB_BATCH,
    partitions: 1,
    entries: &[KLAMM, KAFKA, BARE],
    tools: BOTH,
}];

pub(super) const SMALL: [Case; 1] = [Case {
    what: "one partition, acks=1, batches of 16 KiB of records of 1 KiB, 5 in flight",
    load: KIB_BATCH,
    partitions: 1,
    entries: &[KLAMM, KAFKA, BARE],
    tools: BOTH,
}];

pub(super) const COMPRESSED: [Case; 4] = [
    Case {
        what: "as P1 with lz4; rates and bytes are of the records as they are before compression",
        load: Produce { codec: "lz4", ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "as P1 with zstd",
        load: Produce { codec: "zstd", ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA],
        tools: &[Tool::Java],
    },
    Case {
        what: "as P2 with lz4",
        load: Produce { codec: "lz4", ..KIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "as P2 with zstd",
        load: Produce { codec: "zstd", ..KIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA],
        tools: &[Tool::Java],
    },
];

pub(super) const SINGLE: [Case; 2] = [
    Case {
        what: "one partition, acks=1, one record of 1 KiB per request, 1 connection with 5 in flight",
        load: Produce { records: 60_000, batch_size: 1, ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA, BARE],
        tools: BOTH,
    },
    Case {
        what: "the same, 64 connections with 1 in flight each",
        load: Produce { records: 120_000, batch_size: 1, in_flight: 1, connections: 64, ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA],
        // Sixty-four Java machines would measure their start.
        tools: &[Tool::Librdkafka],
    },
];

pub(super) const SYNCED: [Case; 3] = [
    Case {
        what: "acks=all, on disk before the acknowledgement; one partition, batches of 16 KiB, 5 in flight",
        load: Produce { records: 50_000, acks: "all", ..KIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "the same with 64 partitions, 5 in flight to each",
        load: Produce { records: 200_000, acks: "all", ..KIB_BATCH },
        partitions: 64,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "the same with one partition and batches of 1,000,000 bytes",
        load: Produce { records: 400_000, acks: "all", ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: BOTH,
    },
];

pub(super) const DURABLE: [Case; 3] = [
    Case {
        what: "acks=all, batches of 16 KiB, 16 in flight",
        load: Produce { records: 300_000, acks: "all", in_flight: 16, ..KIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KLAMM_CACHED, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "acks=all, batches of 16 KiB, 64 in flight",
        load: Produce { records: 300_000, acks: "all", in_flight: 64, ..KIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KLAMM_CACHED, KAFKA],
        tools: BOTH,
    },
    Case {
        what: "acks=all, batches of 1,000,000 bytes, 16 in flight",
        load: Produce { records: 400_000, acks: "all", in_flight: 16, ..MIB_BATCH },
        partitions: 1,
        entries: &[KLAMM, KLAMM_CACHED, KAFKA],
        tools: BOTH,
    },
];

pub(super) async fn run(run: &mut Run<'_>, row: &'static str, cases: &[Case]) -> anyhow::Result<()> {
    let wanted = run.options.tools.clone();
    for case in cases.iter().filter(|_| wanted.contains(&Tool::Perf)) {
        table(run, row, case, Tool::Perf).await?;
    }
    for case in cases {
        for tool in case.tools.iter().filter(|tool| wanted.contains(tool)) {
            table(run, row, case, *tool).await?;
        }
    }
    Ok(())
}

async fn table(run: &mut Run<'_>, row: &'static str, case: &Case, tool: Tool) -> anyhow::Result<()> {
    // Foreign tools stand beside ours once, and know nothing of the bare sink.
    let (is_ours, passes) = (tool == Tool::Perf, run.options.passes);
    let entries = case.entries.iter().copied().filter(|entry| is_ours || entry.system != System::Bare);
    let entries: Vec<Entry> = entries.collect();
    let passes = if is_ours { passes } else { passes.min(3) };
    let records = (case.load.records as f64 * tool.share()) as u64;
    let load = Produce { records: run.scaled(records), ..case.load };
    let lines = run.turns(&entries, passes, async |run, entry| match entry.system {
        System::Bare => bare(run, &load),
        _ => sample(run, entry, case, &load, tool).await,
    });
    let lines = lines.await.with_context(|| format!("{}: {}", tool.name(), case.what))?;
    run.tell(row, case.what.to_owned(), tool, Figures::Throughput, lines)
}

async fn sample(
    run: &mut Run<'_>,
    entry: &Entry,
    case: &Case,
    load: &Produce,
    tool: Tool,
) -> anyhow::Result<Sample> {
    let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
    side.create(&topic, case.partitions, 1, entry.topic).await?;
    let sample = load.run(tool, run.tools, &side, &topic)?;
    run.bed.delete(entry.system, &topic).await?;
    Ok(sample)
}

/// The same batches through a socket into a file.
fn bare(run: &Run<'_>, load: &Produce) -> anyhow::Result<Sample> {
    let port = ports::free(1)?.first().copied().context("no port is free")?.to_string();
    let file = run.bed.scratch().join("bare");
    let mut sink = this_program(&["sink", &port], Some(&file))?.spawn()?;
    super::consume::wait_listening(&port)?;
    let (size, batch) = (load.record_size.to_string(), load.batch_size.to_string());
    let (in_flight, records) = (load.in_flight.to_string(), load.records.to_string());
    let mut command = this_program(&["send", &port, &size, &batch, &in_flight, &records], None)?;
    let sample =
        measured(&mut command, &[sink.id()], load.record_size, |text| bare_line(text, load.record_size));
    // It ends with its connection; what it did until then was counted.
    let status = sink.wait()?;
    std::fs::remove_file(&file)?;
    anyhow::ensure!(status.success(), "the bare sink: {status}");
    sample
}
