//! Producing to three replicas on three nodes: P4 to P7, P9, S1.

pub(super) mod keyed;
pub(super) mod latency;

use std::process::Child;

use anyhow::{Context, ensure};
use klamm_tests::ports;

use super::{BARE, Entry, Run};
use crate::bed::System;
use crate::load::{Produce, Sample, Tool, bare_line, measured, this_program};
use crate::report::Figures;

/// With three replicas, two must have a batch (in the durable contender: on disk) before it is acknowledged.
pub(super) const KLAMM: Entry = Entry { topic: &[("min.insync.replicas", "2")], replicas: 3, ..super::KLAMM };
pub(super) const KLAMM_CACHED: Entry = Entry {
    topic: &[("min.insync.replicas", "2"), ("write.caching", "true")],
    replicas: 3,
    ..super::KLAMM_CACHED
};
pub(super) const KAFKA: Entry = Entry { topic: &[("min.insync.replicas", "2")], replicas: 3, ..super::KAFKA };
const KAFKA_SYNCED: Entry = Entry {
    topic: &[("min.insync.replicas", "2"), ("flush.messages", "1")],
    replicas: 3,
    ..super::KAFKA_SYNCED
};
/// The same load on the same nodes for one replica: what the other two cost.
const KLAMM_ALONE: Entry = Entry { name: "Klamm, one replica", ..super::KLAMM };

/// One table of a row.
pub(super) struct Case {
    what: &'static str,
    load: Produce,
    /// What Kafka is given of it: rates are told, and a pass shall not take minutes.
    kafka_share: f64,
    partitions: i32,
    entries: &'static [Entry],
    /// Which programs load, besides our own.
    tools: &'static [Tool],
}

/// The three copies of a pass stay below 1.2 GiB, as they do with one replica, and for the same reason.
pub(super) const MIB_BATCH: Produce = Produce {
    records: 400_000,
    record_size: 1024,
    batch_size: 1_000_000,
    codec: "none",
    acks: "all",
    in_flight: 5,
    connections: 1,
};
const KIB_BATCH: Produce = Produce { records: 150_000, batch_size: 16 << 10, ..MIB_BATCH };
const RECORD: Produce = Produce { records: 30_000, batch_size: 1, ..MIB_BATCH };

pub(super) const LARGE: [Case; 1] = [Case {
    what: "one partition, acks=all, batches of 1,000,000 bytes of records of 1 KiB, 5 in flight",
    load: MIB_BATCH,
    kafka_share: 1.0,
    partitions: 1,
    entries: &[KLAMM, KLAMM_CACHED, KAFKA, BARE, KLAMM_ALONE],
    tools: &[Tool::Librdkafka],
}];

pub(super) const SMALL: [Case; 1] = [Case {
    what: "one partition, acks=all, batches of 16 KiB of records of 1 KiB, 5 in flight",
    load: KIB_BATCH,
    kafka_share: 0.4,
    partitions: 1,
    entries: &[KLAMM, KLAMM_CACHED, KAFKA, BARE, KLAMM_ALONE],
    tools: &[Tool::Librdkafka],
}];

pub(super) const MANY: [Case; 1] = [Case {
    what: "64 partitions on three leaders with a connection each, acks=all, batches of 16 KiB, 5 in flight to each partition; bare: one leader, 64 in flight",
    load: Produce { records: 300_000, ..KIB_BATCH },
    kafka_share: 0.4,
    partitions: 64,
    entries: &[KLAMM, KLAMM_CACHED, KAFKA, BARE],
    tools: &[],
}];

pub(super) const SINGLE: [Case; 2] = [
    Case {
        what: "one partition, acks=all, one record of 1 KiB per request, 1 connection with 5 in flight",
        load: RECORD,
        kafka_share: 0.3,
        partitions: 1,
        entries: &[KLAMM, KLAMM_CACHED, KAFKA, BARE],
        tools: &[],
    },
    Case {
        what: "the same, 64 connections with 1 in flight each",
        load: Produce { records: 80_000, in_flight: 1, connections: 64, ..RECORD },
        kafka_share: 0.5,
        partitions: 1,
        entries: &[KLAMM, KLAMM_CACHED, KAFKA],
        tools: &[],
    },
];

pub(super) const SYNCED: [Case; 3] = [
    Case {
        what: "acks=all, on disk before the acknowledgement; one partition, batches of 16 KiB, 5 in flight",
        load: Produce { records: 60_000, ..KIB_BATCH },
        kafka_share: 0.4,
        partitions: 1,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: &[],
    },
    Case {
        what: "the same with 64 partitions, 5 in flight to each",
        load: Produce { records: 150_000, ..KIB_BATCH },
        kafka_share: 0.3,
        partitions: 64,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: &[],
    },
    Case {
        what: "the same with one partition and batches of 1,000,000 bytes",
        load: MIB_BATCH,
        kafka_share: 0.6,
        partitions: 1,
        entries: &[KLAMM, KAFKA_SYNCED, KAFKA],
        tools: &[],
    },
];

pub(super) async fn run(run: &mut Run<'_>, row: &'static str, cases: &[Case]) -> anyhow::Result<()> {
    let wanted = run.options.tools.clone();
    for case in cases {
        for tool in [Tool::Perf].iter().chain(case.tools).filter(|tool| wanted.contains(tool)) {
            table(run, row, case, *tool).await?;
        }
    }
    Ok(())
}

async fn table(run: &mut Run<'_>, row: &'static str, case: &Case, tool: Tool) -> anyhow::Result<()> {
    let is_ours = tool == Tool::Perf;
    let entries = case.entries.iter().copied();
    // Foreign tools stand beside ours once.
    let entries: Vec<Entry> =
        entries.filter(|entry| is_ours || entry.system != System::Bare && entry.replicas > 1).collect();
    let passes = if is_ours { run.options.passes } else { run.options.passes.min(2) };
    let lines = run.turns(&entries, passes, async |run, entry| {
        let share = if entry.system == System::Kafka { case.kafka_share } else { 1.0 };
        let records = run.scaled((case.load.records as f64 * share * tool.share()) as u64);
        let load = Produce { records, ..case.load };
        match entry.system {
            System::Bare => bare(run, case, &load),
            System::Klamm | System::Kafka => sample(run, entry, case.partitions, &load, tool).await,
        }
    });
    let lines = lines.await.with_context(|| format!("{}: {}", tool.name(), case.what))?;
    run.tell(row, case.what.to_owned(), tool, Figures::Throughput, lines)
}

/// One run of a load, on a topic of its own whose replicas are all in sync.
pub(super) async fn sample(
    run: &mut Run<'_>,
    entry: &Entry,
    partitions: i32,
    load: &Produce,
    tool: Tool,
) -> anyhow::Result<Sample> {
    let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
    side.create(&topic, partitions, entry.replicas, entry.topic).await?;
    side.settled(&topic, usize::try_from(entry.replicas)?).await?;
    let sample = load.run(tool, run.tools, &side, &topic)?;
    run.bed.delete(entry.system, &topic).await?;
    Ok(sample)
}

/// The same batches through a leader to two followers: received once, written three times, sent twice.
fn bare(run: &Run<'_>, case: &Case, load: &Produce) -> anyhow::Result<Sample> {
    let ports: Vec<String> = ports::free(3)?.iter().map(u16::to_string).collect();
    let [leader, first, second] = ports.as_slice() else { anyhow::bail!("no ports are free") };
    let file = |name: &str| run.bed.scratch().join(name);
    let mut nodes: Vec<Child> = Vec::new();
    for port in [first, second] {
        nodes.push(this_program(&["sink", port], Some(&file(port)))?.spawn()?);
        super::consume::wait_listening(port)?;
    }
    nodes.push(this_program(&["relay", leader, first, second], Some(&file(leader)))?.spawn()?);
    super::consume::wait_listening(leader)?;
    let (size, batch) = (load.record_size.to_string(), load.batch_size.to_string());
    let in_flight = if case.partitions > 1 { 64 } else { load.in_flight };
    let (in_flight, records) = (in_flight.to_string(), load.records.to_string());
    let mut command = this_program(&["send", leader, &size, &batch, &in_flight, &records], None)?;
    let pids: Vec<u32> = nodes.iter().map(Child::id).collect();
    let sample = measured(&mut command, &pids, load.record_size, |text| bare_line(text, load.record_size));
    // The leader ends with its client, and the followers with the leader; what they did until then was counted.
    for mut node in nodes.into_iter().rev() {
        let status = node.wait()?;
        ensure!(status.success(), "a bare node: {status}");
    }
    for port in &ports {
        std::fs::remove_file(file(port))?;
    }
    sample
}
