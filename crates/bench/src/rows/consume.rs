//! C2: reading all of a topic.

use std::fs::{self, File};
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use klamm_tests::ports;
use tokio::time::Instant;

use super::{BARE, Entry, KAFKA, KLAMM, Run};
use crate::bed::System;
use crate::load::{Consume, Produce, Sample, Tool, bare_line, measured, this_program};
use crate::report::Figures;

const LISTEN_TIME_MAX: Duration = Duration::from_secs(10);

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    // Both topics and the bare file stay in the page cache.
    let load = Produce {
        records: run.scaled(2_000_000),
        record_size: 1024,
        batch_size: 64 << 10,
        codec: "none",
        acks: "1",
        in_flight: 5,
        connections: 1,
    };
    let topic = run.topic_name();
    for system in [System::Klamm, System::Kafka] {
        let side = run.bed.side(system);
        side.create(&topic, 1, 1, &[]).await?;
        load.run(Tool::Perf, run.tools, &side, &topic)?;
    }
    let file = run.bed.scratch().join("bare");
    write_file(&file, load.records * load.record_size as u64)?;
    // Nothing is written to the disk while they are read.
    rustix::fs::sync();
    let read = Consume { records: load.records, record_size: load.record_size, fetch_size: 1 << 20 };
    for (tool, entries) in [
        (Tool::Perf, &[KLAMM, KAFKA, BARE][..]),
        (Tool::Librdkafka, &[KLAMM, KAFKA][..]),
        (Tool::Java, &[KLAMM, KAFKA][..]),
    ] {
        if !run.options.tools.contains(&tool) {
            continue;
        }
        let passes = if tool == Tool::Perf { run.options.passes } else { run.options.passes.min(3) };
        let lines = run.turns(entries, passes, async |run, entry: &Entry| match entry.system {
            System::Bare => bare(&file, read.record_size),
            system => read.run(tool, run.tools, &run.bed.side(system), &topic),
        });
        let lines = lines.await.with_context(|| tool.name())?;
        let what = format!(
            "one partition, {} MiB in batches of 64 KiB, one reader, answers of 1 MiB, from the page cache",
            (read.records * read.record_size as u64) >> 20
        );
        run.tell(row, what, tool, Figures::Throughput, lines)?;
    }
    fs::remove_file(&file)?;
    for system in [System::Klamm, System::Kafka] {
        run.bed.delete(system, &topic).await?;
    }
    Ok(())
}

fn write_file(path: &std::path::Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let chunk = vec![b'.'; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&chunk)?;
    }
    Ok(())
}

fn bare(file: &std::path::Path, record_size: usize) -> anyhow::Result<Sample> {
    let port = ports::free(1)?.first().copied().context("no port is free")?.to_string();
    let mut server = this_program(&["serve", &port], Some(file))?.spawn()?;
    wait_listening(&port)?;
    let mut command = this_program(&["take", &port], None)?;
    let sample = measured(&mut command, &[server.id()], record_size, |text| bare_line(text, record_size));
    let status = server.wait()?;
    anyhow::ensure!(status.success(), "the bare server: {status}");
    sample
}

/// Waits until somebody listens, without connecting: whoever listens takes one connection only.
pub(super) fn wait_listening(port: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let wanted = format!("0100007F:{:04X} 00000000:0000 0A", port.parse::<u16>()?);
    while start.elapsed() < LISTEN_TIME_MAX {
        if fs::read_to_string("/proc/net/tcp")?.contains(&wanted) {
            return Ok(());
        }
        sleep(Duration::from_millis(2));
    }
    bail!("nobody listens on port {port}")
}
