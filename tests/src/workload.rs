//! Writers that remember what was acknowledged, and the check that all of it is in the log.
//!
//! Each partition has one writer, which numbers its records and sends them in order, many at a time. A log that kept
//! its promise then has strictly ascending numbers, and every acknowledged number at the offset that was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{
    Cluster, ConsumedRecord, Consumer, ConsumerOptions, Delivery, Isolation, OffsetSpec, OwnedRecord,
    Position, ProduceError, Producer, ProducerOptions,
};
use klamm_types::{Offset, Timestamp, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cluster::HarnessError;

/// How many records of one partition may await their acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 64;
/// How many bytes a record's number has.
const NUMBER_LEN: usize = 8;
/// How long reading all logs may take.
const READ_TIME_MAX: Duration = Duration::from_secs(120);
/// How many findings are told.
const FINDINGS_MAX: usize = 8;

/// What became of one record.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It was acknowledged.
    Acknowledged {
        /// Where, if the broker told.
        offset: Option<Offset>,
        /// When.
        at: Instant,
    },
    /// It was refused: it must not be in the log.
    Refused(ProduceError),
    /// It may be in the log or not.
    Unknown(ProduceError),
}

/// The fates of all records of each partition; a record's number is its place in the list.
pub type Ledger = BTreeMap<TopicPartition, Vec<Fate>>;

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<(TopicPartition, JoinHandle<Vec<Fate>>)>,
}

impl Writers {
    /// Starts a writer for each partition, which pauses between two records for `pause`, and otherwise writes as fast as
    /// it may.
    #[must_use]
    pub fn start(
        cluster: &Cluster,
        options: &ProducerOptions,
        partitions: &[TopicPartition],
        pause: Duration,
    ) -> Self {
        Self::with_values_of(NUMBER_LEN, cluster, options, partitions, pause)
    }

    /// As [`start`](Self::start), with values of at least so many bytes.
    #[must_use]
    pub fn with_values_of(
        len: usize,
        cluster: &Cluster,
        options: &ProducerOptions,
        partitions: &[TopicPartition],
        pause: Duration,
    ) -> Self {
        let padding = vec![0; len.saturating_sub(NUMBER_LEN)];
        let producer = Producer::new(cluster.clone(), options.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = partitions.iter().map(|at| {
            let writer = Writer {
                producer: producer.clone(),
                at: at.clone(),
                padding: padding.clone(),
                stop: Arc::clone(&stop),
                pause,
            };
            (at.clone(), tokio::spawn(writer.run()))
        });
        let tasks = tasks.collect();
        Self { stop, tasks }
    }

    /// Lets the writers finish what they have sent, and gives what became of it.
    ///
    /// # Panics
    /// If a writer did.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::new();
        for (at, task) in self.tasks {
            let fates = task.await.unwrap_or_else(|error| panic!("the writer of {at}: {error}"));
            ledger.insert(at, fates);
        }
        ledger
    }
}

struct Writer {
    producer: Producer,
    at: TopicPartition,
    /// What comes after the number.
    padding: Vec<u8>,
    stop: Arc<AtomicBool>,
    pause: Duration,
}

impl Writer {
    async fn run(self) -> Vec<Fate> {
        let (sent, mut under_way) = mpsc::channel::<Delivery>(UNACKNOWLEDGED_MAX);
        let fates = tokio::spawn(async move {
            let mut fates = Vec::new();
            while let Some(delivery) = under_way.recv().await {
                fates.push(match delivery.wait().await {
                    Ok(delivered) => Fate::Acknowledged { offset: delivered.offset, at: Instant::now() },
                    Err(error) if error.is_definite() => Fate::Refused(error),
                    Err(error) => Fate::Unknown(error),
                });
            }
            fates
        });
        for number in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // The number is the time, too: a test needs no clock.
            let timestamp = Timestamp(1_700_000_000_000 + number.cast_signed());
            let value = [&number.to_be_bytes(), &self.padding[..]].concat();
            let record = OwnedRecord::of_value(timestamp, Bytes::from(value));
            let Ok(delivery) = self.producer.send(&self.at, record).await else { break };
            if sent.send(delivery).await.is_err() {
                break;
            }
            if !self.pause.is_zero() {
                sleep(self.pause).await;
            }
        }
        drop(sent);
        fates.await.unwrap_or_else(|error| panic!("the reader of fates of {}: {error}", self.at))
    }
}

/// What the check of a ledger against the logs came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How many records were acknowledged.
    pub acknowledged: usize,
    /// How many were refused.
    pub refused: usize,
    /// How many have an unknown fate.
    pub unknown: usize,
    /// How many records the logs hold.
    pub read: usize,
    /// What is wrong, the first few; none in a log that keeps its promise.
    pub findings: Vec<String>,
    /// How many things are wrong.
    pub finding_count: usize,
}

impl Verdict {
    fn find(&mut self, finding: impl FnOnce() -> String) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }

    /// Compares the fates of one partition's records with the records of its log, in order of offsets.
    fn judge(&mut self, at: &TopicPartition, fates: &[Fate], log: &[(Offset, u64)]) {
        self.read += log.len();
        for pair in log.windows(2) {
            let [(before, first), (after, second)] = pair else { continue };
            if first >= second {
                self.find(|| format!("{at}: number {second} at {after} comes after {first} at {before}"));
            }
        }
        let places: HashMap<u64, Offset> = log.iter().map(|(offset, number)| (*number, *offset)).collect();
        for (number, fate) in (0_u64..).zip(fates) {
            let place = places.get(&number);
            match (fate, place) {
                (Fate::Acknowledged { offset, .. }, place) => {
                    self.acknowledged += 1;
                    match (offset, place) {
                        (_, None) => {
                            self.find(|| {
                                format!("{at}: number {number}, acknowledged at {offset:?}, is lost")
                            });
                        }
                        (Some(told), Some(found)) if told != found => {
                            self.find(|| format!("{at}: number {number}, told at {told}, is at {found}"));
                        }
                        (_, Some(_)) => {}
                    }
                }
                (Fate::Refused(error), place) => {
                    self.refused += 1;
                    if let Some(found) = place {
                        self.find(|| format!("{at}: number {number}, refused ({error}), is at {found}"));
                    }
                }
                (Fate::Unknown(_), _) => self.unknown += 1,
            }
        }
        let sent = fates.len() as u64;
        if let Some((offset, number)) = log.iter().find(|(_, number)| *number >= sent) {
            self.find(|| format!("{at}: number {number} at {offset} was never sent"));
        }
    }
}

/// Reads all partitions of `ledger` from the beginning, and compares.
///
/// # Errors
/// As those of [`read_all`].
pub async fn verify(cluster: &Cluster, ledger: &Ledger) -> Result<Verdict, HarnessError> {
    let mut verdict = Verdict::default();
    for (at, log) in read_all(cluster, ledger.keys().cloned()).await? {
        let numbered = log.iter().map(|record| (record.offset, number_of(record)));
        let fates = ledger.get(&at).map(Vec::as_slice).unwrap_or_default();
        verdict.judge(&at, fates, &numbered.collect::<Vec<_>>());
    }
    Ok(verdict)
}

/// All records of the partitions, up to the ends that they have now.
///
/// # Errors
/// [`HarnessError`] if a partition cannot be read, or not within two minutes.
pub async fn read_all(
    cluster: &Cluster,
    partitions: impl Iterator<Item = TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Vec<ConsumedRecord>>, HarnessError> {
    let mut logs: BTreeMap<TopicPartition, Vec<ConsumedRecord>> =
        partitions.map(|at| (at, Vec::new())).collect();
    let queries: Vec<_> = logs.keys().map(|at| (at.clone(), OffsetSpec::Latest)).collect();
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    let mut ends = BTreeMap::new();
    for (at, end) in cluster.offsets(&queries, Isolation::ReadUncommitted).await {
        ends.insert(at.clone(), end?.offset.unwrap_or(Offset::ZERO));
        consumer.assign(at, Position::Beginning);
    }
    let is_read = |consumer: &Consumer| {
        ends.iter().all(|(at, end)| consumer.position(at).is_some_and(|position| position >= *end))
    };
    let deadline = Instant::now() + READ_TIME_MAX;
    while !is_read(&consumer) {
        if Instant::now() >= deadline {
            let behind = ends.iter().map(|(at, end)| format!("{at}: {:?} of {end}", consumer.position(at)));
            return Err(HarnessError::Late {
                what: "all logs are read".to_owned(),
                limit: READ_TIME_MAX,
                last: behind.collect::<Vec<_>>().join(", "),
            });
        }
        for record in consumer.poll(Duration::from_secs(1)).await? {
            logs.entry(record.partition.clone()).or_default().push(record);
        }
    }
    Ok(logs)
}

fn number_of(record: &ConsumedRecord) -> u64 {
    let value = record.value.as_deref().unwrap_or_default();
    // Not a number of ours: more than was ever sent.
    match value.split_first_chunk() {
        Some((number, padding)) if padding.iter().all(|byte| *byte == 0) => u64::from_be_bytes(*number),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use klamm_types::{PartitionId, TopicName};

    use super::*;

    fn at() -> TopicPartition {
        TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0))
    }

    fn acknowledged(offset: i64) -> Fate {
        Fate::Acknowledged { offset: Some(Offset(offset)), at: Instant::now() }
    }

    fn judge(fates: &[Fate], log: &[(i64, u64)]) -> Vec<String> {
        let log: Vec<_> = log.iter().map(|(offset, number)| (Offset(*offset), *number)).collect();
        let mut verdict = Verdict::default();
        verdict.judge(&at(), fates, &log);
        assert_eq!(verdict.finding_count, verdict.findings.len());
        verdict.findings
    }

    fn is_found(findings: &[String], what: &str) -> bool {
        findings.iter().any(|finding| finding.contains(what))
    }

    #[tokio::test]
    async fn a_log_that_keeps_its_promise_is_found_good() {
        let fates = [acknowledged(0), Fate::Unknown(ProduceError::Closed), acknowledged(1), acknowledged(5)];
        assert!(judge(&fates, &[(0, 0), (1, 2), (5, 3)]).is_empty());
        assert!(judge(&[acknowledged(0), Fate::Unknown(ProduceError::Closed)], &[(0, 0), (1, 1)]).is_empty());
    }

    #[tokio::test]
    async fn each_fault_is_found() {
        let two = [acknowledged(0), acknowledged(1)];
        assert!(is_found(&judge(&two, &[(0, 0)]), "is lost"));
        assert!(is_found(&judge(&two, &[(0, 0), (1, 1), (2, 1)]), "comes after"));
        assert!(is_found(&judge(&two, &[(0, 1), (1, 0)]), "comes after"));
        assert!(is_found(&judge(&two, &[(0, 0), (2, 1)]), "is at 2"));
        assert!(is_found(&judge(&two, &[(0, 0), (1, 1), (2, 9)]), "never sent"));
        assert!(is_found(&judge(&[Fate::Refused(ProduceError::Closed)], &[(0, 0)]), "refused"));
    }
}
