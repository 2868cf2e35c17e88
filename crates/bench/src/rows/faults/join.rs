//! F5: a replica that is empty, or behind, catches up while a producer goes on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_client::PartitionView;
use klamm_types::BrokerId;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{ENTRIES, named, rounds};
use crate::bed::nodes::{PATIENCE, at, impatient, wait_shown};
use crate::load::steady::{Rate, Steady, quantile_and_max};
use crate::load::{Produce, Tool};
use crate::rows::{Entry, Run, replicated};

/// MiB that the replica lacks.
const BEHIND_MIB: u64 = 1024;
/// 10 MiB/s beside it.
const RATE: Rate = Rate { per_second: 640, record_size: 16 << 10 };
/// How long the producer runs without anybody who catches up, and is left out of its first moments.
const ALONE: Duration = Duration::from_secs(4);
const WARM: Duration = Duration::from_secs(1);

/// What the replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// All: its files were removed while it was down.
    All,
    /// What was written while it was down.
    Missed,
}

/// What one contender showed, round by round.
#[derive(Clone, Default)]
struct Shown {
    rate: Vec<f64>,
    seconds: Vec<f64>,
    p99_alone: Vec<f64>,
    p99_beside: Vec<f64>,
}

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    for lack in [Lack::All, Lack::Missed] {
        let mut shown = vec![Shown::default(); ENTRIES.len()];
        // One round takes minutes.
        for _ in 0..rounds(run, run.options.passes.div_ceil(4)) {
            for (entry, shown) in ENTRIES.iter().zip(&mut shown) {
                join_once(run, entry, lack, shown).await.with_context(|| entry.name)?;
            }
        }
        let mib = run.scaled(BEHIND_MIB);
        let who = if lack == Lack::All { "an emptied replica" } else { "a replica that was down" };
        let what = |text: &str| format!("{text}, {who} that lacks {mib} MiB, producer at 10 MiB/s");
        let values = |of: fn(&Shown) -> &Vec<f64>| {
            named(&shown.iter().map(|shown| of(shown).clone()).collect::<Vec<_>>())
        };
        run.report.rate(row, &what("MiB/s from its first byte until it is in sync"), &values(|s| &s.rate))?;
        let whole = what("s from its start until it is in sync");
        run.report.figure(row, &whole, &values(|shown| &shown.seconds))?;
        let beside = what("p99 ms of the producer meanwhile");
        run.report.figure(row, &beside, &values(|shown| &shown.p99_beside))?;
        let alone = what("p99 ms of the producer before it starts");
        run.report.figure(row, &alone, &values(|shown| &shown.p99_alone))?;
    }
    Ok(())
}

async fn join_once(run: &mut Run<'_>, entry: &Entry, lack: Lack, shown: &mut Shown) -> anyhow::Result<()> {
    let system = entry.system;
    let victim = run.bed.broker_only(system).await?;
    let (topic, side) = (run.topic_name(), run.bed.side(system));
    let replicas = run.bed.ids().filter(|id| *id != victim).chain([victim]).collect();
    side.create_at(&topic, vec![replicas], entry.topic).await?;
    let load = Produce { records: run.scaled(BEHIND_MIB) * 1024, ..replicated::MIB_BATCH };
    let files = run.bed.data(system, victim).join(format!("{topic}-0"));
    if lack == Lack::All {
        load.run(Tool::Perf, run.tools, &side, &topic)?;
    }
    run.bed.signal(system, victim, Signal::KILL)?;
    run.bed.bury(system, victim)?;
    let cluster = run.bed.others(system, victim);
    let has_victim =
        |partition: &PartitionView| partition.in_sync_replicas.contains(&BrokerId(i32::from(victim)));
    wait_shown(&cluster, &topic, "who is down is out of sync", |view| {
        !view.partitions.iter().any(has_victim)
    })
    .await?;
    match lack {
        Lack::All => fs::remove_dir_all(&files).context("empty the replica")?,
        Lack::Missed => {
            let side = run.bed.side(system);
            load.run(Tool::Perf, run.tools, &side, &topic)?;
        }
    }
    // The disk does not have to catch up beside it.
    rustix::fs::sync();
    let producer = Steady::start(&impatient(side.endpoints()?), &at(&topic, 0)?, RATE);
    sleep(WARM).await;
    let alone = Instant::now();
    sleep(ALONE).await;
    let (before, start) = (log_bytes(&files), Instant::now());
    run.bed.start_again(system, victim)?;
    let first = first_byte(&files, before).await?;
    wait_shown(&cluster, &topic, "who was down is in sync", |view| view.partitions.iter().all(has_victim))
        .await?;
    let end = Instant::now();
    let served = producer.stop().await?;
    let (copied, taken) = (log_bytes(&files).saturating_sub(before), end - first);
    ensure!(copied >= load.records << 9, "{copied} bytes were copied, which is not what was missing");
    shown.rate.push(copied as f64 / f64::from(1 << 20) / taken.as_secs_f64());
    shown.seconds.push((end - start).as_secs_f64());
    shown.p99_alone.push(quantile_and_max(&served, alone..start, 0.99)?.0);
    shown.p99_beside.push(quantile_and_max(&served, first..end, 0.99)?.0);
    run.bed.wait_ready(system).await?;
    run.bed.delete(system, &topic).await
}

/// Waits until a replica's log is longer than `before`: what follows is the copying alone, without the node's start.
async fn first_byte(files: &Path, before: u64) -> anyhow::Result<Instant> {
    let start = Instant::now();
    while log_bytes(files) <= before {
        ensure!(start.elapsed() < PATIENCE, "nothing is copied to {}", files.display());
        sleep(Duration::from_millis(2)).await;
    }
    Ok(Instant::now())
}

/// The length of all segments; none of a partition that is not there.
fn log_bytes(files: &Path) -> u64 {
    let entries = fs::read_dir(files).into_iter().flatten().flatten();
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "log"));
    segments.filter_map(|segment| segment.metadata().ok()).map(|metadata| metadata.len()).sum()
}
