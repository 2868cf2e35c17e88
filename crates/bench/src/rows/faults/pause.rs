//! F3: a follower stands still under load, and goes on; how long until it is in sync again?

use std::time::Duration;

use anyhow::Context;
use klamm_client::{Cluster, PartitionView};
use klamm_types::BrokerId;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{ENTRIES, SYSTEMS, ms, named, rounds};
use crate::bed::System;
use crate::bed::nodes::{at, impatient, wait_shown};
use crate::load::steady::{Rate, Steady, quantile_and_max};
use crate::rows::{Entry, Run};

const PAUSE: Duration = Duration::from_secs(30);
/// Longer than Kafka's session (9 s), however little is measured.
const PAUSE_MIN: Duration = Duration::from_secs(15);
const RATE: Rate = Rate { per_second: 1_000, record_size: 1024 };
const BEFORE: Duration = Duration::from_secs(2);

/// One contender's topic and its producer.
struct Watched {
    topic: String,
    cluster: Cluster,
    producer: Steady,
}

/// What the pauses came to, contender by contender.
#[derive(Default)]
struct Shown {
    return_ms: Vec<Vec<f64>>,
    p99_ms: Vec<Vec<f64>>,
    max_ms: Vec<Vec<f64>>,
}

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let pause = PAUSE.mul_f64(run.options.scale.min(1.0)).max(PAUSE_MIN);
    let empty = || ENTRIES.iter().map(|_| Vec::new()).collect();
    let mut shown = Shown { return_ms: empty(), p99_ms: empty(), max_ms: empty() };
    // One round takes a minute.
    for _ in 0..rounds(run, run.options.passes.div_ceil(4)) {
        pause_once(run, pause, &mut shown).await?;
    }
    let what = |text: &str| {
        format!(
            "ms {text}; a follower that stood still for {} s, {} records of 1 KiB per second, acks=all",
            pause.as_secs(),
            RATE.per_second
        )
    };
    let (until, p99, max) = (
        what("from SIGCONT until it is in sync"),
        what("p99 of the producer from the pause until then"),
        what("of the producer's slowest record from the pause until then"),
    );
    run.report.figure(row, &until, &named(&shown.return_ms))?;
    run.report.figure(row, &p99, &named(&shown.p99_ms))?;
    run.report.figure(row, &max, &named(&shown.max_ms))
}

/// Both systems pause at the same time, as a pause costs no work; they go on one after the other.
async fn pause_once(run: &mut Run<'_>, pause: Duration, shown: &mut Shown) -> anyhow::Result<()> {
    let mut victims = Vec::new();
    let mut watched = Vec::new();
    for system in SYSTEMS {
        let victim = run.bed.broker_only(system).await?;
        for entry in ENTRIES.iter().filter(|entry| entry.system == system) {
            watched.push(watch(run, entry, victim).await?);
        }
        victims.push((system, victim));
    }
    sleep(BEFORE).await;
    let begun = Instant::now();
    for (system, victim) in &victims {
        run.bed.signal(*system, *victim, Signal::STOP)?;
    }
    let returned = return_after(run, &victims, &watched, pause).await;
    // A failure must not leave anybody standing.
    for (system, victim) in &victims {
        run.bed.signal(*system, *victim, Signal::CONT)?;
    }
    for (index, (watched, (moment, back))) in watched.into_iter().zip(returned?).enumerate() {
        let served = watched.producer.stop().await?;
        let (p99, max) = quantile_and_max(&served, begun..back, 0.99)?;
        for (values, value) in
            [(&mut shown.return_ms, ms(back - moment)), (&mut shown.p99_ms, p99), (&mut shown.max_ms, max)]
        {
            values.get_mut(index).context("no such contender")?.push(value);
        }
        run.bed.delete(ENTRIES.get(index).context("no such contender")?.system, &watched.topic).await?;
    }
    Ok(())
}

/// A partition that `victim` follows, with a producer.
async fn watch(run: &mut Run<'_>, entry: &Entry, victim: u16) -> anyhow::Result<Watched> {
    let (topic, side) = (run.topic_name(), run.bed.side(entry.system));
    let replicas = run.bed.ids().filter(|id| *id != victim).chain([victim]).collect();
    side.create_at(&topic, vec![replicas], entry.topic).await?;
    let producer = Steady::start(&impatient(side.endpoints()?), &at(&topic, 0)?, RATE);
    Ok(Watched { topic, cluster: run.bed.others(entry.system, victim), producer })
}

/// For each topic, when its follower went on, and when it was in sync again.
async fn return_after(
    run: &mut Run<'_>,
    victims: &[(System, u16)],
    watched: &[Watched],
    pause: Duration,
) -> anyhow::Result<Vec<(Instant, Instant)>> {
    sleep(pause).await;
    let mut returned = Vec::new();
    let has =
        |partition: &PartitionView, id: u16| partition.in_sync_replicas.contains(&BrokerId(i32::from(id)));
    for (system, victim) in victims {
        let of_system = ENTRIES.iter().zip(watched).filter(|(entry, _)| entry.system == *system);
        let of_system: Vec<&Watched> = of_system.map(|(_, watched)| watched).collect();
        for Watched { cluster, topic, .. } in &of_system {
            wait_shown(cluster, topic, "who stands still is out of sync", |view| {
                view.partitions.iter().all(|partition| !has(partition, *victim))
            })
            .await?;
        }
        let moment = Instant::now();
        run.bed.signal(*system, *victim, Signal::CONT)?;
        for Watched { cluster, topic, .. } in &of_system {
            wait_shown(cluster, topic, "who goes on is in sync", |view| {
                view.partitions.iter().all(|partition| has(partition, *victim))
            })
            .await?;
            returned.push((moment, Instant::now()));
        }
    }
    Ok(returned)
}
