//! What faults cost, with three nodes and three replicas: F1, F2, F3, F5, and thousands of partitions.

mod controller;
mod join;
mod leader;
mod partitions;
mod pause;

use std::time::Duration;

use super::replicated::{KAFKA, KLAMM, KLAMM_CACHED};
use super::{Entry, Run};
use crate::bed::System;
use crate::bed::nodes::wait_shown;

/// The contenders of faults to which the disk matters.
const ENTRIES: [Entry; 3] = [KLAMM, KLAMM_CACHED, KAFKA];
const SYSTEMS: [System; 2] = [System::Klamm, System::Kafka];
const MIN_ISR: (&str, &str) = ("min.insync.replicas", "2");

/// Which fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// F1.
    Controller,
    /// F2.
    Leader,
    /// F3.
    Pause,
    /// F5.
    Join,
    /// Idle, and a broker of three dies.
    Partitions,
}

pub(super) async fn run(run: &mut Run<'_>, row: &'static str, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Controller => controller::run(run, row).await,
        Fault::Leader => leader::run(run, row).await,
        Fault::Pause => pause::run(run, row).await,
        Fault::Join => join::run(run, row).await,
        Fault::Partitions => partitions::run(run, row).await,
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The value that so large a part of `values` has at most.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let index = ((part * sorted.len() as f64).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Brings a node back that was killed, and waits until the topic's replicas there are in sync again.
async fn restore(run: &mut Run<'_>, system: System, victim: u16, topic: &str) -> anyhow::Result<()> {
    run.bed.bury(system, victim)?;
    run.bed.start_again(system, victim)?;
    run.bed.wait_ready(system).await?;
    let cluster = run.bed.others(system, victim);
    wait_shown(&cluster, topic, "the node that was killed is in sync", |view| {
        view.partitions.iter().all(|partition| partition.in_sync_replicas.len() == 3)
    })
    .await?;
    Ok(())
}

/// Values of contenders, by their names, as a report takes them.
fn named(values: &[Vec<f64>]) -> Vec<(&'static str, Vec<f64>)> {
    ENTRIES.iter().map(|entry| entry.name).zip(values.iter().cloned()).collect()
}

/// Values of systems, ours first.
fn of_systems([klamm, kafka]: [Vec<f64>; 2]) -> [(&'static str, Vec<f64>); 2] {
    [("Klamm", klamm), ("Kafka", kafka)]
}

/// How often a fault befalls each contender.
fn rounds(run: &Run<'_>, max: usize) -> usize {
    run.options.passes.min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_occurred() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (3.0, 5.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
