//! A record now and then to each of many partitions, by this process: how long is each partition without service?

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use klamm_client::{Cluster, OwnedRecord, Producer, ProducerOptions};
use klamm_tests::workload::read_all;
use klamm_types::{Offset, Timestamp, TopicPartition};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

const RECORD_SIZE: usize = 1024;
/// How long a record may take: longer than any fault lasts.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(120);

/// A record that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    at: TopicPartition,
    number: u64,
    offset: Option<Offset>,
    sent: Instant,
    acknowledged: Instant,
}

/// Writers of one partition each. Each has one record under way at most, and numbers its records.
pub(crate) struct Lanes {
    urge: watch::Sender<()>,
    results: mpsc::UnboundedReceiver<anyhow::Result<Acked>>,
    acked: Vec<Acked>,
}

struct Lane {
    producer: Producer,
    at: TopicPartition,
    urge: watch::Receiver<()>,
    results: mpsc::UnboundedSender<anyhow::Result<Acked>>,
}

impl Lanes {
    /// Starts to send a record to each partition in each `interval`, spread over it.
    pub(crate) fn start(cluster: &Cluster, partitions: &[TopicPartition], interval: Duration) -> Self {
        let options = ProducerOptions { delivery_timeout: DELIVERY_TIME_MAX, ..ProducerOptions::default() };
        let producer = Producer::new(cluster.clone(), options);
        let (urge, urged) = watch::channel(());
        let (sender, results) = mpsc::unbounded_channel();
        let start = Instant::now();
        for (index, at) in (0_u32..).zip(partitions) {
            let (producer, at) = (producer.clone(), at.clone());
            let lane = Lane { producer, at, urge: urged.clone(), results: sender.clone() };
            let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
            tokio::spawn(lane.run(start + interval * index / count.max(1), interval));
        }
        Self { urge, results, acked: Vec::new() }
    }

    /// Lets every lane send a record now, behind what it has under way.
    pub(crate) fn urge(&self) {
        self.urge.send_replace(());
    }

    /// Waits until each of the partitions has an acknowledged record that was sent at `moment` or later. Gives how long
    /// after the moment that was, partition by partition.
    pub(crate) async fn served_after(
        &mut self,
        moment: Instant,
        partitions: &[TopicPartition],
    ) -> anyhow::Result<Vec<Duration>> {
        let mut missing: BTreeSet<&TopicPartition> = partitions.iter().collect();
        let mut times = Vec::new();
        let limit = Instant::now() + DELIVERY_TIME_MAX;
        let mut known = self.acked.clone().into_iter();
        while !missing.is_empty() {
            let acked = match known.next() {
                Some(acked) => acked,
                None => {
                    let acked = timeout_at(limit, self.results.recv()).await;
                    let acked =
                        acked.with_context(|| format!("{} partitions are not served", missing.len()))?;
                    let acked = acked.context("all lanes have ended")??;
                    self.acked.push(acked.clone());
                    acked
                }
            };
            if acked.sent >= moment && missing.remove(&acked.at) {
                times.push(acked.acknowledged - moment);
            }
        }
        Ok(times)
    }

    /// Ends all lanes behind what they have under way, and looks whether every acknowledged record is where it was told to
    /// be, and once only.
    pub(crate) async fn stop_and_verify(self, cluster: &Cluster) -> anyhow::Result<Kept> {
        let Self { urge, mut results, mut acked } = self;
        drop(urge);
        while let Some(result) = results.recv().await {
            acked.push(result?);
        }
        let partitions: BTreeSet<TopicPartition> = acked.iter().map(|acked| acked.at.clone()).collect();
        let (mut places, mut findings) = (BTreeMap::new(), Vec::new());
        for (at, records) in read_all(cluster, partitions.into_iter()).await? {
            for record in records {
                let value = record.value.unwrap_or_default();
                // A topic's first record is not one of these.
                let Some(number) = value.first_chunk().filter(|_| value.len() == RECORD_SIZE) else {
                    continue;
                };
                let before = places.insert((at.clone(), u64::from_be_bytes(*number)), record.offset);
                if let Some(before) = before {
                    findings.push(format!("{at} has a record twice, at {before} and {}", record.offset));
                }
            }
        }
        for Acked { at, number, offset, .. } in &acked {
            let found = places.get(&(at.clone(), *number)).copied();
            if found.is_none() {
                findings.push(format!("{at}: number {number}, acknowledged at {offset:?}, is lost"));
            } else if offset.is_some() && *offset != found {
                findings.push(format!("{at}: number {number} is not at {offset:?}"));
            }
        }
        Ok(Kept { acknowledged: acked.len(), findings })
    }
}

/// What became of the records of all lanes.
pub(crate) struct Kept {
    pub(crate) acknowledged: usize,
    /// Each that is lost, doubled or elsewhere.
    pub(crate) findings: Vec<String>,
}

impl Lane {
    async fn run(mut self, first: Instant, interval: Duration) {
        let mut due = first;
        for number in 0_u64.. {
            tokio::select! {
                changed = self.urge.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(due) => {}
            }
            let result = self.send(number).await;
            let has_failed = result.is_err();
            // Nobody may care any more.
            if self.results.send(result).is_err() || has_failed {
                return;
            }
            due = (due + interval).max(Instant::now());
        }
    }

    async fn send(&self, number: u64) -> anyhow::Result<Acked> {
        let mut value = vec![b'.'; RECORD_SIZE];
        if let Some(head) = value.first_chunk_mut() {
            *head = number.to_be_bytes();
        }
        let sent = Instant::now();
        let record = OwnedRecord::of_value(Timestamp(0), Bytes::from(value));
        let delivered = self.producer.send(&self.at, record).await?.wait().await?;
        let acknowledged = Instant::now();
        Ok(Acked { at: self.at.clone(), number, offset: delivered.offset, sent, acknowledged })
    }
}
