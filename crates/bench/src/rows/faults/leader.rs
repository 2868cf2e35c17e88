//! F2: a broker that leads a third of the partitions is killed under load; how long is each of them not served?

use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_types::{BrokerId, TopicPartition};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{ENTRIES, ms, named, quantile, restore, rounds};
use crate::bed::System;
use crate::bed::nodes::{at, impatient};
use crate::load::lanes::Lanes;
use crate::rows::{Entry, Run};

const PARTITIONS: u64 = 1_000;
/// Records per second to all partitions together.
const RATE: u32 = 1_000;
/// How long the load runs before.
const BEFORE: Duration = Duration::from_secs(2);

/// What the kills of one contender came to, kill by kill.
#[derive(Clone, Default)]
struct Gaps {
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: Vec<f64>,
    acknowledged: usize,
    led: usize,
    /// What a contender did with acknowledged records that it should not have done.
    findings: Vec<String>,
}

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let mut gaps = vec![Gaps::default(); ENTRIES.len()];
    for _ in 0..rounds(run, 2) {
        for (entry, gaps) in ENTRIES.iter().zip(&mut gaps) {
            kill_once(run, entry, gaps).await.with_context(|| entry.name)?;
        }
    }
    let (led, acknowledged): (usize, usize) =
        (gaps.iter().map(|gaps| gaps.led).sum(), gaps.iter().map(|gaps| gaps.acknowledged).sum());
    let what = |part: &str| {
        format!(
            "ms from kill -9 of a leader until a record that was sent after it is acknowledged, {part} of the partitions that it led; {} partitions, {RATE} records/s",
            run.scaled(PARTITIONS)
        )
    };
    let (p50, p99, max) = (what("p50"), what("p99"), what("the last"));
    let values =
        |of: fn(&Gaps) -> &Vec<f64>| named(&gaps.iter().map(|gaps| of(gaps).clone()).collect::<Vec<_>>());
    run.report.figure(row, &p50, &values(|gaps| &gaps.p50))?;
    run.report.figure(row, &p99, &values(|gaps| &gaps.p99))?;
    run.report.figure(row, &max, &values(|gaps| &gaps.max))?;
    println!("| {row} | {led} partitions lost their leaders; {acknowledged} records were acknowledged |");
    for (entry, gaps) in ENTRIES.iter().zip(&gaps) {
        match gaps.findings.as_slice() {
            [] => println!("| {row} | {}: all of them are there, once |", entry.name),
            [first, ..] => {
                println!("| {row} | {}: {} findings, such as: {first} |", entry.name, gaps.findings.len());
            }
        }
    }
    Ok(())
}

async fn kill_once(run: &mut Run<'_>, entry: &Entry, gaps: &mut Gaps) -> anyhow::Result<()> {
    let system = entry.system;
    let (topic, side, count) =
        (run.topic_name(), run.bed.side(system), i32::try_from(run.scaled(PARTITIONS))?);
    side.create(&topic, count, entry.replicas, entry.topic).await?;
    side.settled(&topic, 3).await?;
    let cluster = impatient(side.endpoints()?);
    let all = (0..count).map(|partition| at(&topic, partition)).collect::<anyhow::Result<Vec<_>>>()?;
    let interval = Duration::from_secs_f64(f64::from(count) / f64::from(RATE)).max(Duration::from_millis(20));
    let mut lanes = Lanes::start(&cluster, &all, interval);
    lanes.served_after(Instant::now(), &all).await?;
    sleep(BEFORE).await;
    let victim = run.bed.broker_only(system).await?;
    let view = side.admin.wait_for_leaders(&topic).await?;
    let is_led = |view: &&klamm_client::PartitionView| view.leader == Some(BrokerId(i32::from(victim)));
    let led = view.partitions.iter().filter(is_led).map(|view| at(&topic, view.partition.0));
    let led = led.collect::<anyhow::Result<Vec<TopicPartition>>>()?;
    ensure!(!led.is_empty(), "node {victim} leads nothing");
    let moment = Instant::now();
    run.bed.signal(system, victim, Signal::KILL)?;
    lanes.urge();
    let times: Vec<f64> = lanes.served_after(moment, &led).await?.into_iter().map(ms).collect();
    for (values, part) in [(&mut gaps.p50, 0.5), (&mut gaps.p99, 0.99), (&mut gaps.max, 1.0)] {
        values.push(quantile(&times, part));
    }
    gaps.led += led.len();
    restore(run, system, victim, &topic).await?;
    let kept = lanes.stop_and_verify(&cluster).await?;
    // What others lose is a figure; what we lose is a failure.
    ensure!(system != System::Klamm || kept.findings.is_empty(), "{:?}", kept.findings);
    gaps.acknowledged += kept.acknowledged;
    gaps.findings.extend(kept.findings);
    run.bed.delete(system, &topic).await
}
