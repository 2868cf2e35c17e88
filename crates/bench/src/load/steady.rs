//! Records by the clock to one partition, by this process, for as long as it is wanted.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use klamm_client::{Cluster, Delivery, OwnedRecord, Producer, ProducerOptions};
use klamm_types::{Timestamp, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How many records may await their acknowledgement: more than any fault holds up.
const UNACKNOWLEDGED_MAX: usize = 1 << 16;
const BUFFER_BYTES: usize = 1 << 29;

/// How much of what, how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) record_size: usize,
}

/// A producer at work.
pub(crate) struct Steady {
    stop: watch::Sender<()>,
    task: JoinHandle<anyhow::Result<Vec<Served>>>,
}

/// One record's times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    due: Instant,
    acknowledged: Instant,
}

impl Steady {
    pub(crate) fn start(cluster: &Cluster, at: &TopicPartition, rate: Rate) -> Self {
        let options = ProducerOptions { buffer_bytes: BUFFER_BYTES, ..ProducerOptions::default() };
        let producer = Producer::new(cluster.clone(), options);
        let (stop, stopped) = watch::channel(());
        let (sent, under_way) = mpsc::channel(UNACKNOWLEDGED_MAX);
        tokio::spawn(send(producer, at.clone(), rate, stopped, sent));
        Self { stop, task: tokio::spawn(gather(under_way)) }
    }

    /// Sends no more, and gives the times of all records. Fails if one of them was not taken.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Served>> {
        drop(self.stop);
        self.task.await.context("the producer has ended")?
    }
}

async fn send(
    producer: Producer,
    at: TopicPartition,
    rate: Rate,
    mut stopped: watch::Receiver<()>,
    sent: mpsc::Sender<(Instant, Delivery)>,
) {
    let start = Instant::now();
    let value = Bytes::from(vec![b'.'; rate.record_size]);
    for index in 0_u64.. {
        let due = start + Duration::from_secs_f64(index as f64 / f64::from(rate.per_second.max(1)));
        tokio::select! {
            _ = stopped.changed() => return,
            () = sleep_until(due) => {}
        }
        let record = OwnedRecord::of_value(Timestamp(0), value.clone());
        let Ok(delivery) = producer.send(&at, record).await else { return };
        if sent.send((due, delivery)).await.is_err() {
            return;
        }
    }
}

/// Records of one partition are acknowledged in order.
async fn gather(mut under_way: mpsc::Receiver<(Instant, Delivery)>) -> anyhow::Result<Vec<Served>> {
    let mut served = Vec::new();
    while let Some((due, delivery)) = under_way.recv().await {
        delivery.wait().await?;
        served.push(Served { due, acknowledged: Instant::now() });
    }
    Ok(served)
}

/// The time that so large a part of the records due in a span took at most, and the longest one, in milliseconds.
pub(crate) fn quantile_and_max(
    served: &[Served],
    span: std::ops::Range<Instant>,
    part: f64,
) -> anyhow::Result<(f64, f64)> {
    let in_span = served.iter().filter(|served| span.contains(&served.due));
    let mut times: Vec<f64> =
        in_span.map(|served| (served.acknowledged - served.due).as_secs_f64() * 1000.0).collect();
    times.sort_unstable_by(f64::total_cmp);
    ensure!(!times.is_empty(), "no record was due in that time");
    let index = ((part * times.len() as f64).ceil() as usize).saturating_sub(1);
    let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
    Ok((at(index), at(times.len() - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_the_span_count() {
        let start = Instant::now();
        let ms = |ms: u64| start + Duration::from_millis(ms);
        let served: Vec<Served> = (0..200)
            .map(|index| Served { due: ms(index), acknowledged: ms(index + index % 100 + 1) })
            .collect();
        let (p99, max) = quantile_and_max(&served, ms(0)..ms(100), 0.99).unwrap();
        assert!((p99 - 99.0).abs() < 1e-6 && (max - 100.0).abs() < 1e-6, "{p99} {max}");
        let (_, max) = quantile_and_max(&served, ms(0)..ms(10), 0.99).unwrap();
        assert!((max - 10.0).abs() < 1e-6, "{max}");
        assert!(quantile_and_max(&served, ms(500)..ms(600), 0.99).is_err());
    }
}
