//! Many topics, many partitions, many connections: M1, M2, N1, N3.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_client::{Endpoint, NewTopic};
use tokio::time::{Instant, sleep};

use super::Run;
use crate::bed::{Side, System};
use crate::machine;

/// Topics per request.
const PER_REQUEST: usize = 100;
/// How long an idle broker is watched.
const IDLE: Duration = Duration::from_secs(10);
const LED_TIME_MAX: Duration = Duration::from_secs(120);
/// A system that uses less than this share of a core has done what it was asked for.
const AT_REST: f64 = 0.25;
/// So much that waits to be written to the disk does not matter.
const UNWRITTEN_MIB_MAX: f64 = 100.0;
const REST_WATCHED: Duration = Duration::from_millis(400);
const REST_TIME_MAX: Duration = Duration::from_secs(120);
const START_TIME_MAX: Duration = Duration::from_secs(300);
const SYSTEMS: [System; 2] = [System::Klamm, System::Kafka];
/// ApiVersions in version 0 without a client's name, behind its length.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

/// What one system showed, chunk by chunk or try by try.
#[derive(Default)]
struct Shown {
    per_second: Vec<f64>,
    led_ms: Vec<f64>,
    metadata_ms: Vec<f64>,
    fresh_kib: f64,
    full_kib: f64,
    open_files: f64,
    idle_cores: f64,
    start_ms: f64,
}

/// Creates topics of one partition; returns how many per second, and how long it took until all had leaders, in
/// milliseconds from the first request.
async fn create(side: &Side, names: &[String], replicas: i16) -> anyhow::Result<(f64, f64)> {
    let start = Instant::now();
    for chunk in names.chunks(PER_REQUEST) {
        let topic = |name: &String| NewTopic {
            partitions: Some(1),
            replication_factor: Some(replicas),
            ..NewTopic::named(name)
        };
        let topics: Vec<NewTopic> = chunk.iter().map(topic).collect();
        for (name, result) in side.admin.create_topics(&topics, false).await? {
            result.with_context(|| format!("create {name}"))?;
        }
    }
    let per_second = names.len() as f64 / start.elapsed().as_secs_f64();
    wait_led(side, names, start, LED_TIME_MAX).await?;
    Ok((per_second, start.elapsed().as_secs_f64() * 1000.0))
}

/// Waits until both systems have done what they still had to do in the background, and the kernel what it had to write:
/// both share the machine and its disk.
async fn at_rest(run: &mut Run<'_>) -> anyhow::Result<()> {
    let mut pids = Vec::new();
    for system in SYSTEMS {
        pids.extend(run.bed.side(system).pids);
    }
    let start = Instant::now();
    loop {
        let before = machine::cpu_of(&pids)?;
        sleep(REST_WATCHED).await;
        let is_idle = machine::cpu_of(&pids)? - before < AT_REST * REST_WATCHED.as_secs_f64();
        if is_idle && machine::unwritten_mib()? < UNWRITTEN_MIB_MAX {
            return Ok(());
        }
        ensure!(start.elapsed() < REST_TIME_MAX, "somebody is still busy after {REST_TIME_MAX:?}");
    }
}

async fn wait_led(side: &Side, names: &[String], start: Instant, limit: Duration) -> anyhow::Result<()> {
    loop {
        if let Ok(answer) = side.admin.cluster().metadata(Some(names)).await {
            let led = |topic: &klamm_protocol::messages::metadata_response::MetadataResponseTopic| {
                topic.error_code == 0 && topic.partitions.iter().all(|partition| partition.leader_id >= 0)
            };
            if answer.topics.len() == names.len() && answer.topics.iter().all(led) {
                return Ok(());
            }
        }
        ensure!(start.elapsed() < limit, "not all topics have leaders after {} s", limit.as_secs());
        sleep(Duration::from_millis(5)).await;
    }
}

fn names(first: u64, count: u64) -> Vec<String> {
    (first..first + count).map(|index| format!("scale-{index:06}")).collect()
}

/// M1 with one replica, N1, M2.
pub(super) async fn partitions(run: &mut Run<'_>) -> anyhow::Result<()> {
    let chunks = 10;
    let chunk = run.scaled(1_000);
    let mut shown = [Shown::default(), Shown::default()];
    for (system, shown) in SYSTEMS.iter().zip(&mut shown) {
        shown.fresh_kib = machine::memory_kib(&run.bed.side(*system).pids, "VmRSS")?;
    }
    for index in 0..chunks {
        let names = names(index * chunk, chunk);
        for (system, shown) in SYSTEMS.iter().zip(&mut shown) {
            at_rest(run).await?;
            let (per_second, led_ms) = create(&run.bed.side(*system), &names, 1).await?;
            shown.per_second.push(per_second);
            shown.led_ms.push(led_ms);
        }
    }
    for _ in 0..=run.options.passes {
        for (system, shown) in SYSTEMS.iter().zip(&mut shown) {
            shown.metadata_ms.push(metadata_ms(&run.bed.side(*system), chunks * chunk).await?);
        }
    }
    idle(run, &mut shown).await?;
    let all = names(0, chunks * chunk);
    restart(run, &all, &mut shown).await?;
    let what = |text: &str| format!("{text}, {} partitions of one replica, one node", chunks * chunk);
    let created = what("ms to create a topic, 100 per request");
    figure(run, "M1", &created, &shown, |shown| shown.per_second.iter().map(|rate| 1000.0 / rate).collect())?;
    figure(run, "M1", &what("ms until 1/10 of them are created and led"), &shown, |shown| {
        shown.led_ms.clone()
    })?;
    let metadata = what("ms for Metadata of all topics, decoding included");
    figure(run, "M2", &metadata, &shown, |shown| shown.metadata_ms.get(1..).unwrap_or_default().to_vec())?;
    let each = (chunks * chunk) as f64;
    figure(run, "N1", &what("KiB resident, all"), &shown, |shown| vec![shown.full_kib])?;
    let per_partition = what("KiB resident for each partition");
    figure(run, "N1", &per_partition, &shown, |shown| vec![(shown.full_kib - shown.fresh_kib) / each])?;
    figure(run, "N1", &what("files open"), &shown, |shown| vec![shown.open_files])?;
    figure(run, "N1", &what("share of a core, idle"), &shown, |shown| vec![shown.idle_cores])?;
    figure(run, "N1", &what("ms from start to leaders, after an orderly end"), &shown, |shown| {
        vec![shown.start_ms]
    })?;
    for system in SYSTEMS {
        let side = run.bed.side(system);
        for chunk in all.chunks(PER_REQUEST) {
            drop(side.admin.delete_topics(chunk).await?);
        }
    }
    Ok(())
}

fn figure(
    run: &mut Run<'_>,
    row: &str,
    what: &str,
    shown: &[Shown; 2],
    values: impl Fn(&Shown) -> Vec<f64>,
) -> anyhow::Result<()> {
    let [klamm, kafka] = shown;
    run.report.figure(row, what, &[("Klamm", values(klamm)), ("Kafka", values(kafka))])
}

async fn metadata_ms(side: &Side, topics: u64) -> anyhow::Result<f64> {
    let start = Instant::now();
    let answer = side.admin.cluster().metadata(None).await?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    ensure!(answer.topics.len() as u64 >= topics, "{} topics of {topics}", answer.topics.len());
    Ok(ms)
}

/// What both hold and use while nobody asks anything of them.
async fn idle(run: &mut Run<'_>, shown: &mut [Shown; 2]) -> anyhow::Result<()> {
    sleep(IDLE).await;
    let mut before = Vec::new();
    for system in SYSTEMS {
        before.push(machine::cpu_of(&run.bed.side(system).pids)?);
    }
    sleep(IDLE).await;
    for ((system, shown), before) in SYSTEMS.iter().zip(shown).zip(before) {
        let side = run.bed.side(*system);
        shown.idle_cores = (machine::cpu_of(&side.pids)? - before) / IDLE.as_secs_f64();
        shown.full_kib = machine::memory_kib(&side.pids, "VmRSS")?;
        shown.open_files = machine::open_files(&side.pids)? as f64;
    }
    Ok(())
}

async fn restart(run: &mut Run<'_>, names: &[String], shown: &mut [Shown; 2]) -> anyhow::Result<()> {
    let limit = START_TIME_MAX;
    for (system, shown) in SYSTEMS.iter().zip(shown) {
        let start = if *system == System::Kafka {
            run.bed.kafka.terminate_all(limit).await?;
            let start = Instant::now();
            run.bed.kafka.restart(1)?;
            start
        } else {
            run.bed.klamm.node(1).terminate(limit).await?;
            let start = Instant::now();
            run.bed.klamm.node(1).restart()?;
            start
        };
        wait_led(&run.bed.side(*system), names, start, limit).await?;
        shown.start_ms = start.elapsed().as_secs_f64() * 1000.0;
    }
    Ok(())
}

/// N3.
pub(super) async fn connections(run: &mut Run<'_>) -> anyhow::Result<()> {
    let count = run.scaled(10_000);
    let mut shown = [Shown::default(), Shown::default()];
    for (system, shown) in SYSTEMS.iter().zip(&mut shown) {
        let side = run.bed.side(*system);
        let endpoint = Endpoint::parse_list(&side.bootstrap)?.into_iter().next().context("no broker")?;
        shown.fresh_kib = machine::memory_kib(&side.pids, "VmRSS")?;
        let mut open = Vec::new();
        let start = Instant::now();
        for _ in 0..count {
            open.push(introduced(&endpoint)?);
        }
        shown.start_ms = start.elapsed().as_secs_f64() * 1000.0 / count as f64;
        sleep(IDLE).await;
        let before = machine::cpu_of(&side.pids)?;
        sleep(IDLE).await;
        shown.idle_cores = (machine::cpu_of(&side.pids)? - before) / IDLE.as_secs_f64();
        shown.full_kib = machine::memory_kib(&side.pids, "VmRSS")?;
    }
    let what = |text: &str| format!("{text}, {count} idle connections");
    figure(run, "N3", &what("KiB resident for each"), &shown, |shown| {
        vec![(shown.full_kib - shown.fresh_kib) / count as f64]
    })?;
    figure(run, "N3", &what("share of a core, idle"), &shown, |shown| vec![shown.idle_cores])?;
    figure(run, "N3", &what("ms to open one, ApiVersions answered"), &shown, |shown| vec![shown.start_ms])
}

/// A connection that has asked for the versions, as every client does.
fn introduced(endpoint: &Endpoint) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port))?;
    socket.set_nodelay(true)?;
    socket.write_all(&API_VERSIONS)?;
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(len))?];
    socket.read_exact(&mut answer)?;
    ensure!(answer.get(..6) == Some(&[0, 0, 0, 7, 0, 0]), "ApiVersions was refused");
    Ok(socket)
}

/// M1 with three replicas.
pub(super) async fn topics(run: &mut Run<'_>, row: &str) -> anyhow::Result<()> {
    let count = run.scaled(1_000);
    let mut shown = [Shown::default(), Shown::default()];
    for pass in 0..=run.options.passes.min(3) {
        let names = names(pass as u64 * count, count);
        for (system, shown) in SYSTEMS.iter().zip(&mut shown) {
            at_rest(run).await?;
            let side = run.bed.side(*system);
            let (per_second, led_ms) = create(&side, &names, 3).await?;
            if pass > 0 {
                shown.per_second.push(per_second);
                shown.led_ms.push(led_ms);
            }
            for chunk in names.chunks(PER_REQUEST) {
                drop(side.admin.delete_topics(chunk).await?);
            }
        }
    }
    let what =
        |text: &str| format!("{text}, {count} topics of one partition and three replicas, three nodes");
    let created = what("ms to create a topic, 100 per request");
    figure(run, row, &created, &shown, |shown| shown.per_second.iter().map(|rate| 1000.0 / rate).collect())?;
    figure(run, row, &what("ms until all are created and led"), &shown, |shown| shown.led_ms.clone())
}
