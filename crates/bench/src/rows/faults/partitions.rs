//! Thousands of partitions with three replicas: what they cost while nothing happens, and how long it takes until all of
//! them have leaders when a broker dies that led a third.

use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_client::NewTopic;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{MIN_ISR, SYSTEMS, ms, of_systems, rounds};
use crate::bed::System;
use crate::bed::nodes::PATIENCE;
use crate::rows::Run;
use crate::{machine, sockets};

/// Partitions of each topic.
const PER_TOPIC: u64 = 1_000;
const IDLE: Duration = Duration::from_secs(10);
/// How long everything may settle before it is called idle.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for topics in [1, 10] {
        let per_topic = i32::try_from(run.scaled(PER_TOPIC))?;
        while names.len() < topics {
            let name = run.topic_name();
            for system in SYSTEMS {
                create(run, system, &name, per_topic).await?;
            }
            names.push(name);
        }
        for system in SYSTEMS {
            wait_led(run, system, &names, None).await?;
        }
        let count = topics as u64 * u64::from(per_topic.unsigned_abs());
        idle(run, row, count).await?;
        // Whoever dies with ten thousand partitions takes minutes to recover, and nobody waits for it.
        let is_last = topics > 1;
        let times = if is_last { 1 } else { rounds(run, 2) };
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..times {
            for (system, taken) in SYSTEMS.into_iter().zip(&mut taken) {
                let victim = arrange(run, system, &names, count).await?;
                let moment = Instant::now();
                run.bed.signal(system, victim, Signal::KILL)?;
                taken.push(ms(wait_led(run, system, &names, Some(victim)).await? - moment));
                run.bed.bury(system, victim)?;
                if !is_last {
                    run.bed.start_again(system, victim)?;
                    run.bed.wait_ready(system).await?;
                    wait_led(run, system, &names, None).await?;
                }
            }
        }
        let what = format!(
            "ms from kill -9 of a broker that leads a third until all have leaders, {count} partitions of three replicas"
        );
        run.report.figure(row, &what, &of_systems(taken))?;
    }
    Ok(())
}

/// Waits until a broker leads a third again that is not the active controller; tells which.
async fn arrange(run: &mut Run<'_>, system: System, names: &[String], count: u64) -> anyhow::Result<u16> {
    let start = Instant::now();
    loop {
        let admin = run.bed.side(system).admin;
        drop(admin.elect_leaders(false, None).await?);
        let victim = run.bed.broker_only(system).await?;
        let answer = admin.cluster().metadata(Some(names)).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let led = partitions.filter(|partition| partition.leader_id == i32::from(victim)).count();
        // Where partitions cannot be shared out evenly, the first broker has one more.
        if led as u64 + 1 >= count / 3 {
            return Ok(victim);
        }
        ensure!(start.elapsed() < PATIENCE, "node {victim} leads {led} of {count} partitions only");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn create(run: &mut Run<'_>, system: System, name: &str, partitions: i32) -> anyhow::Result<()> {
    let config = (MIN_ISR.0.to_owned(), MIN_ISR.1.to_owned());
    let topic = NewTopic {
        partitions: Some(partitions),
        replication_factor: Some(3),
        configs: vec![config],
        ..NewTopic::named(name)
    };
    for (name, result) in run.bed.side(system).admin.create_topics(&[topic], false).await? {
        result.with_context(|| format!("create {name}"))?;
    }
    Ok(())
}

/// Waits until all partitions have leaders; those that are in sync must be all, or, if there is a `victim`, it must lead
/// none.
async fn wait_led(
    run: &mut Run<'_>,
    system: System,
    names: &[String],
    victim: Option<u16>,
) -> anyhow::Result<Instant> {
    let cluster = run.bed.others(system, victim.unwrap_or(0));
    let start = Instant::now();
    let dead = victim.map(i32::from);
    loop {
        // Whoever is asked may be late itself.
        if let Ok(answer) = cluster.metadata(Some(names)).await {
            let is_led = answer.topics.iter().flat_map(|topic| &topic.partitions).all(|partition| {
                let is_whole = dead.is_some() || partition.isr_nodes.len() == 3;
                partition.leader_id >= 0 && Some(partition.leader_id) != dead && is_whole
            });
            let is_known =
                answer.topics.iter().all(|topic| topic.error_code == 0 && !topic.partitions.is_empty());
            if is_led && is_known && answer.topics.len() == names.len() {
                return Ok(Instant::now());
            }
        }
        ensure!(start.elapsed() < PATIENCE, "not all partitions are led after {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Both at the same time: who is idle does not disturb the other, and bytes are counted by connection.
async fn idle(run: &mut Run<'_>, row: &'static str, partitions: u64) -> anyhow::Result<()> {
    sleep(SETTLE).await;
    let mut before = Vec::new();
    for system in SYSTEMS {
        let pids = run.bed.side(system).pids;
        before.push((machine::cpu_of(&pids)?, sockets::bytes(&run.bed.ports(system))?));
    }
    sleep(IDLE).await;
    let (mut cores, mut network) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut memory = [Vec::new(), Vec::new()];
    for (index, (system, (cpu, bytes))) in SYSTEMS.into_iter().zip(before).enumerate() {
        let pids = run.bed.side(system).pids;
        let seconds = IDLE.as_secs_f64();
        cores[index].push((machine::cpu_of(&pids)? - cpu) / seconds);
        let bytes = sockets::bytes(&run.bed.ports(system))?.saturating_sub(bytes);
        network[index].push(bytes as f64 / 1024.0 / seconds);
        memory[index].push(machine::memory_kib(&pids, "VmRSS")? / 1024.0);
    }
    let what = |text: &str| format!("{text}, {partitions} idle partitions of three replicas, three nodes");
    run.report.figure(row, &what("share of a core"), &of_systems(cores))?;
    run.report.figure(row, &what("KiB/s over all connections (TCP's own counters)"), &of_systems(network))?;
    run.report.figure(row, &what("MiB resident"), &of_systems(memory))
}
