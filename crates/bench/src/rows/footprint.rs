//! Memory and start: Z1, Z2.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_client::Endpoint;
use tokio::time::{Instant, sleep};

use super::Run;
use crate::bed::System;
use crate::load::{Produce, Tool};
use crate::machine;

const IDLE: Duration = Duration::from_secs(10);
const START_TIME_MAX: Duration = Duration::from_secs(120);
const SYSTEMS: [System; 2] = [System::Klamm, System::Kafka];

pub(super) async fn run(run: &mut Run<'_>) -> anyhow::Result<()> {
    let nodes = run.bed.nodes;
    let mut fresh = [Vec::new(), Vec::new()];
    let mut cores = [Vec::new(), Vec::new()];
    sleep(IDLE).await;
    let mut before = Vec::new();
    for system in SYSTEMS {
        before.push(machine::cpu_of(&run.bed.side(system).pids)?);
    }
    sleep(IDLE).await;
    for (index, system) in SYSTEMS.iter().enumerate() {
        let pids = run.bed.side(*system).pids;
        fresh[index].push(machine::memory_kib(&pids, "VmRSS")? / 1024.0);
        cores[index].push((machine::cpu_of(&pids)? - before[index]) / IDLE.as_secs_f64());
    }
    tell(run, "Z1", &format!("MiB resident, {nodes} nodes that have just started"), fresh)?;
    tell(run, "Z1", &format!("share of a core, {nodes} idle nodes"), cores)?;
    loaded(run).await?;
    started(run).await?;
    let size = [vec![stripped_mib(&run.tools.klamm)?], vec![directory_mib(run.tools.jars.directory())?]];
    tell(run, "Z2", "MB of program: the stripped binary; Kafka's jars without Java", size)
}

fn tell(run: &mut Run<'_>, row: &str, what: &str, values: [Vec<f64>; 2]) -> anyhow::Result<()> {
    let [klamm, kafka] = values;
    run.report.figure(row, what, &[("Klamm", klamm), ("Kafka", kafka)])
}

/// Memory after load: the replicas of every record are on all nodes.
async fn loaded(run: &mut Run<'_>) -> anyhow::Result<()> {
    let load = Produce {
        records: run.scaled(1_000_000),
        record_size: 1024,
        batch_size: 64 << 10,
        codec: "none",
        acks: "all",
        in_flight: 5,
        connections: 2,
    };
    let replicas = i16::try_from(run.bed.nodes.min(3))?;
    let (mut after, mut peak) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for (index, system) in SYSTEMS.iter().enumerate() {
        let (topic, side) = (run.topic_name(), run.bed.side(*system));
        side.create(&topic, 12, replicas, &[]).await?;
        load.run(Tool::Perf, run.tools, &side, &topic)?;
        after[index].push(machine::memory_kib(&side.pids, "VmRSS")? / 1024.0);
        peak[index].push(machine::memory_kib(&side.pids, "VmHWM")? / 1024.0);
        run.bed.delete(*system, &topic).await?;
    }
    let what = |text: &str| {
        format!(
            "MiB resident, {text} {} MiB with {replicas} replicas, acks=all, 12 partitions",
            load.records >> 10
        )
    };
    tell(run, "Z1", &what("right after"), after)?;
    tell(run, "Z1", &what("at most while or before taking"), peak)
}

/// From the start of all processes, whose directories are formatted, to their open ports, and to a record that all
/// replicas have.
async fn started(run: &mut Run<'_>) -> anyhow::Result<()> {
    let (mut open, mut acked) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let replicas = i16::try_from(run.bed.nodes.min(3))?;
    let topic = run.topic_name();
    for system in SYSTEMS {
        run.bed.side(system).create(&topic, 1, replicas, &[]).await?;
    }
    for _ in 0..run.options.passes.min(5) {
        for (index, system) in SYSTEMS.iter().enumerate() {
            let (ports_ms, acked_ms) = start_once(run, *system, &topic).await?;
            open[index].push(ports_ms);
            acked[index].push(acked_ms);
        }
    }
    let what = |text: &str| format!("ms from the start of {} formatted nodes to {text}", run.bed.nodes);
    let (to_ports, to_ack) = (what("open ports"), what("a record acknowledged by all replicas"));
    tell(run, "Z2", &to_ports, open)?;
    tell(run, "Z2", &to_ack, acked)
}

async fn start_once(run: &mut Run<'_>, system: System, topic: &str) -> anyhow::Result<(f64, f64)> {
    let ids: Vec<u16> = run.bed.klamm.ids().collect();
    if system == System::Kafka {
        run.bed.kafka.terminate_all(START_TIME_MAX).await?;
    } else {
        // All at once, as the other.
        for id in &ids {
            run.bed.klamm.node(*id).send_terminate()?;
        }
        for id in &ids {
            run.bed.klamm.node(*id).ended(START_TIME_MAX).await?;
        }
    }
    let start = Instant::now();
    for id in ids {
        if system == System::Kafka { run.bed.kafka.restart(id)? } else { run.bed.klamm.node(id).restart()? }
    }
    let side = run.bed.side(system);
    for endpoint in Endpoint::parse_list(&side.bootstrap)? {
        wait_open(SocketAddr::from(([127, 0, 0, 1], endpoint.port)), start).await?;
    }
    let ports_ms = start.elapsed().as_secs_f64() * 1000.0;
    side.acknowledged(topic, START_TIME_MAX).await?;
    let acked_ms = start.elapsed().as_secs_f64() * 1000.0;
    if system == System::Kafka {
        run.bed.kafka.wait_ready().await?;
    } else {
        run.bed.klamm.wait_ready().await?;
    }
    Ok((ports_ms, acked_ms))
}

async fn wait_open(address: SocketAddr, start: Instant) -> anyhow::Result<()> {
    while TcpStream::connect(address).is_err() {
        ensure!(start.elapsed() < START_TIME_MAX, "{address} does not open");
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn stripped_mib(program: &Path) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("stripped");
    let status = Command::new("strip").arg("-o").arg(&copy).arg(program).status().context("strip")?;
    ensure!(status.success(), "strip: {status}");
    Ok(fs::metadata(copy)?.len() as f64 / 1e6)
}

fn directory_mib(directory: &Path) -> anyhow::Result<f64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum as f64 / 1e6)
}
