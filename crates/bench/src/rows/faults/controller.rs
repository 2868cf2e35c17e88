//! F1: the active controller is killed; how long is it until a topic can be created?

use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_client::{Admin, ClientOptions, Cluster, NewTopic};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{MIN_ISR, SYSTEMS, ms, of_systems, restore, rounds};
use crate::bed::System;
use crate::bed::nodes::PATIENCE;
use crate::rows::Run;

/// Partitions of three replicas that there are.
const PARTITIONS: u64 = 1_000;
/// How long one try may take before another one begins.
const TRY_TIME_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn run(run: &mut Run<'_>, row: &'static str) -> anyhow::Result<()> {
    let partitions = i32::try_from(run.scaled(PARTITIONS))?;
    let topic = run.topic_name();
    for system in SYSTEMS {
        let side = run.bed.side(system);
        side.create(&topic, partitions, 3, &[MIN_ISR]).await?;
        side.settled(&topic, 3).await?;
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds(run, 2) {
        for (system, times) in SYSTEMS.into_iter().zip(&mut times) {
            times.push(ms(kill_once(run, system, &topic).await?));
        }
    }
    for system in SYSTEMS {
        run.bed.delete(system, &topic).await?;
    }
    let what = format!(
        "ms from kill -9 of the active controller until a topic is created, {partitions} partitions of three replicas"
    );
    run.report.figure(row, &what, &of_systems(times))
}

async fn kill_once(run: &mut Run<'_>, system: System, topic: &str) -> anyhow::Result<Duration> {
    let victim = run.bed.controller(system).await?;
    let mut admins = Vec::new();
    // Each of the others is asked by itself, by a connection that is there already.
    for id in run.bed.ids().filter(|id| *id != victim) {
        let options = ClientOptions {
            connect_timeout: TRY_TIME_MAX,
            request_timeout: TRY_TIME_MAX,
            operation_timeout: TRY_TIME_MAX,
            ..ClientOptions::default()
        };
        let cluster = Cluster::connect(vec![run.bed.endpoint(system, id)], options).await?;
        admins.push(Admin::new(cluster));
    }
    let moment = Instant::now();
    run.bed.signal(system, victim, Signal::KILL)?;
    let mut tries = JoinSet::new();
    for admin in admins {
        tries.spawn(create(admin, run.topic_name()));
    }
    let (mut first, mut created) = (None, Vec::new());
    while let Some(done) = tries.join_next().await {
        let (name, at) = done.context("a try has ended")??;
        created.push(name);
        first.get_or_insert(at - moment);
    }
    restore(run, system, victim, topic).await?;
    for name in created {
        run.bed.delete(system, &name).await?;
    }
    first.context("nobody tried")
}

/// Tries until a topic is created; gives its name, and when it was.
async fn create(admin: Admin, prefix: String) -> anyhow::Result<(String, Instant)> {
    let start = Instant::now();
    for number in 0_u32.. {
        // An answer that does not come may mean that it was created: each try has a name of its own.
        let name = format!("{prefix}-{number}");
        let topic = NewTopic { partitions: Some(1), replication_factor: Some(2), ..NewTopic::named(&name) };
        let answer = admin.create_topics(&[topic], false).await;
        if answer.is_ok_and(|results| results.iter().all(|(_, result)| result.is_ok())) {
            return Ok((name, Instant::now()));
        }
        ensure!(start.elapsed() < PATIENCE, "no topic can be created");
        sleep(PAUSE).await;
    }
    anyhow::bail!("numbers are used up")
}
