//! Consuming chosen partitions, without groups.
//!
//! One fetch at most is under way at each leader; it goes on between two calls of [`Consumer::poll`]. Positions move
//! only past records that were handed out (or that nobody may see).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use klamm_protocol::messages::FetchResponse;
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::{ErrorCode, Uuid};
use klamm_types::{BrokerId, LeaderEpoch, Offset, Timestamp, TopicPartition};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::error::{ApiError, ClientError};
use crate::offsets::{Isolation, OffsetSpec};

mod decode;
mod fetch;

use fetch::Share;

/// Where to begin with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At the first record that is kept.
    Beginning,
    /// Behind the last record.
    End,
    /// At this offset, or the first one after it that there is.
    Offset(Offset),
    /// At the first record at or after this time; behind the last one if there is none.
    Time(Timestamp),
}

/// What to do when a position is outside of what the leader keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// Report it.
    #[default]
    Error,
    /// Go on at the first record that is kept.
    Earliest,
    /// Go on behind the last record.
    Latest,
}

/// Settings of a [`Consumer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Which records are seen; default all below the high watermark.
    pub isolation: Isolation,
    /// What happens when a position is out of range; default an error.
    pub reset: Reset,
    /// How long a leader may wait for `bytes_min`; default 500 ms.
    pub wait_max: Duration,
    /// How many bytes a leader waits for; default 1.
    pub bytes_min: i32,
    /// How many bytes one answer may have; default 16 MiB. The first batch is always whole.
    pub bytes_max: i32,
    /// How many bytes one partition may have in one answer; default 1 MiB. The first batch is always whole.
    pub partition_bytes_max: i32,
    /// How many bytes one batch may have when decompressed; default 256 MiB.
    pub decompressed_bytes_max: u64,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            reset: Reset::default(),
            wait_max: Duration::from_millis(500),
            bytes_min: 1,
            bytes_max: 16 << 20,
            partition_bytes_max: 1 << 20,
            decompressed_bytes_max: 256 << 20,
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its place there.
    pub offset: Offset,
    /// The epoch of the leader that took it.
    pub leader_epoch: LeaderEpoch,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What is known of one partition that is read.
#[derive(Debug)]
struct Assigned {
    start: Position,
    /// The next offset; `None` until `start` is looked up.
    next: Option<Offset>,
    high_watermark: Option<Offset>,
    log_start: Option<Offset>,
    /// Whether a fetch is under way.
    is_busy: bool,
    /// When it may be tried again after a fault.
    not_before: Instant,
}

type Fetching = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// What came of one fetch.
struct Fetched {
    broker: BrokerId,
    /// The partitions that were asked for, with the offset asked for, and their topics' ids.
    asked: Vec<(TopicPartition, Offset, Uuid)>,
    answer: Result<FetchResponse, ClientError>,
}

/// Reads the partitions that were assigned to it.
pub struct Consumer {
    cluster: Cluster,
    options: ConsumerOptions,
    partitions: BTreeMap<TopicPartition, Assigned>,
    fetching: FuturesUnordered<Fetching>,
    busy: BTreeSet<BrokerId>,
}

impl Consumer {
    /// A consumer without partitions. It has connections of its own, as its fetches wait.
    #[must_use]
    pub fn new(cluster: &Cluster, options: ConsumerOptions) -> Self {
        Self {
            cluster: cluster.apart(),
            options,
            partitions: BTreeMap::new(),
            fetching: FuturesUnordered::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Begins with a partition, or anew if it is read already.
    pub fn assign(&mut self, at: TopicPartition, start: Position) {
        let next = match start {
            Position::Offset(offset) => Some(offset),
            Position::Beginning | Position::End | Position::Time(_) => None,
        };
        let is_busy = self.partitions.get(&at).is_some_and(|known| known.is_busy);
        let not_before = Instant::now();
        let assigned = Assigned { start, next, high_watermark: None, log_start: None, is_busy, not_before };
        self.partitions.insert(at, assigned);
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, at: &TopicPartition) {
        self.partitions.remove(at);
    }

    /// The offset that is read next; `None` if the partition is not read, or its start is not looked up yet.
    #[must_use]
    pub fn position(&self, at: &TopicPartition) -> Option<Offset> {
        self.partitions.get(at)?.next
    }

    /// The high watermark that the leader told last.
    #[must_use]
    pub fn high_watermark(&self, at: &TopicPartition) -> Option<Offset> {
        self.partitions.get(at)?.high_watermark
    }

    /// The log start offset that the leader told last.
    #[must_use]
    pub fn log_start(&self, at: &TopicPartition) -> Option<Offset> {
        self.partitions.get(at)?.log_start
    }

    /// The next records of any partition, in order of offsets within each; none if there are none within `limit`.
    /// Faults that pass are waited out.
    ///
    /// # Errors
    /// [`ClientError`] for what does not pass: a damaged batch, a position out of range without [`Reset`], a refusal.
    pub async fn poll(&mut self, limit: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            self.resolve_starts().await?;
            self.start_fetches().await?;
            let now = Instant::now();
            let retries = self.partitions.values().filter(|p| !p.is_busy && p.not_before > now);
            let wake_at = retries.map(|p| p.not_before).min().unwrap_or(deadline).min(deadline);
            tokio::select! {
                Some(fetched) = self.fetching.next() => {
                    let records = self.on_fetched(fetched)?;
                    if !records.is_empty() {
                        return Ok(records);
                    }
                }
                () = sleep_until(wake_at) => {}
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// Looks up where to begin, for partitions that do not know.
    async fn resolve_starts(&mut self) -> Result<(), ClientError> {
        let unresolved = self.partitions.iter().filter(|(_, assigned)| assigned.next.is_none());
        let queries: Vec<_> =
            unresolved.map(|(at, assigned)| (at.clone(), OffsetSpec::from(assigned.start))).collect();
        if queries.is_empty() {
            return Ok(());
        }
        let mut found = self.cluster.offsets(&queries, self.options.isolation).await;
        let behind_all: Vec<_> = found
            .iter()
            .filter(|(_, result)| result.as_ref().is_ok_and(|found| found.offset.is_none()))
            .map(|(at, _)| (at.clone(), OffsetSpec::Latest))
            .collect();
        if !behind_all.is_empty() {
            found.extend(self.cluster.offsets(&behind_all, self.options.isolation).await);
        }
        for (at, result) in found {
            let offset = result?.offset;
            if let Some(assigned) = self.partitions.get_mut(&at) {
                assigned.next = Some(offset.unwrap_or(Offset::ZERO));
            }
        }
        Ok(())
    }

    /// Sends a fetch to each leader that has none under way and leads a partition that may be read.
    async fn start_fetches(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        let ready = self.partitions.iter().filter(|(_, p)| !p.is_busy && p.not_before <= now);
        let ready: Vec<_> = ready.filter_map(|(at, p)| Some((at.clone(), p.next?))).collect();
        let mut shares: BTreeMap<BrokerId, Share> = BTreeMap::new();
        for (at, next) in ready {
            match self.cluster.leader(&at).await {
                Ok(leader) if self.busy.contains(&leader.broker) => {}
                Ok(leader) => {
                    let share = shares.entry(leader.broker).or_insert_with(|| Share::new(&leader));
                    share.asked.push((at, next, leader.topic_id));
                }
                Err(error) if error.is_retryable() => self.pause(&at),
                Err(error) => return Err(error),
            }
        }
        for (broker, share) in shares {
            for (at, ..) in &share.asked {
                if let Some(assigned) = self.partitions.get_mut(at) {
                    assigned.is_busy = true;
                }
            }
            self.busy.insert(broker);
            self.fetching.push(Box::pin(share.fetch(self.options.clone())));
        }
        Ok(())
    }

    /// Takes the records out of an answer.
    fn on_fetched(&mut self, fetched: Fetched) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.busy.remove(&fetched.broker);
        for (at, ..) in &fetched.asked {
            if let Some(assigned) = self.partitions.get_mut(at) {
                assigned.is_busy = false;
            }
        }
        let mut records = Vec::new();
        let answer = match fetched.answer.and_then(|answer| {
            ApiError::check(answer.error_code, None)?;
            Ok(answer)
        }) {
            Ok(answer) => answer,
            Err(error) if error.is_retryable() => {
                for (at, ..) in &fetched.asked {
                    self.cluster.mark_stale(at);
                    self.pause(at);
                }
                return Ok(records);
            }
            Err(error) => return Err(error),
        };
        for (at, from, topic_id) in &fetched.asked {
            let topic = answer.responses.iter().find(|topic| {
                topic.topic == at.topic.as_str() || (!topic_id.is_zero() && topic.topic_id == *topic_id)
            });
            let partition = topic.and_then(|topic| {
                topic.partitions.iter().find(|partition| partition.partition_index == at.partition.0)
            });
            match partition {
                Some(partition) => self.on_partition(at, *from, partition, &answer, &mut records)?,
                None => self.pause(at),
            }
        }
        Ok(records)
    }

    fn on_partition(
        &mut self,
        at: &TopicPartition,
        from: Offset,
        partition: &PartitionData,
        answer: &FetchResponse,
        records: &mut Vec<ConsumedRecord>,
    ) -> Result<(), ClientError> {
        if let Err(error) = ApiError::check(partition.error_code, None) {
            return self.on_refusal(at, error, partition, answer);
        }
        // It may have been assigned anew, or no longer be, since the fetch was sent.
        let Some(assigned) = self.partitions.get_mut(at).filter(|p| p.next == Some(from)) else {
            return Ok(());
        };
        let offset = |offset: i64| (offset >= 0).then_some(Offset(offset));
        assigned.high_watermark = offset(partition.high_watermark).or(assigned.high_watermark);
        assigned.log_start = offset(partition.log_start_offset).or(assigned.log_start);
        let next = decode::records(at, from, partition, &self.options, records);
        assigned.next = Some(next.map_err(|source| ClientError::Batch { partition: at.clone(), source })?);
        Ok(())
    }

    fn on_refusal(
        &mut self,
        at: &TopicPartition,
        error: ApiError,
        partition: &PartitionData,
        answer: &FetchResponse,
    ) -> Result<(), ClientError> {
        if error.code == ErrorCode::OffsetOutOfRange {
            let start = match self.options.reset {
                Reset::Error => return Err(error.into()),
                Reset::Earliest => Position::Beginning,
                Reset::Latest => Position::End,
            };
            if self.partitions.contains_key(at) {
                self.assign(at.clone(), start);
            }
            return Ok(());
        }
        if !error.is_retryable() {
            return Err(error.into());
        }
        let hint = &partition.current_leader;
        let endpoint = answer.node_endpoints.iter().find(|node| node.node_id == hint.leader_id);
        let endpoint = endpoint.map(|node| (node.host.as_str(), node.port));
        if !self.cluster.learn_leader(at, hint.leader_id, hint.leader_epoch, endpoint) {
            self.cluster.mark_stale(at);
            self.pause(at);
        }
        Ok(())
    }

    /// Leaves a partition alone for a moment.
    fn pause(&mut self, at: &TopicPartition) {
        if let Some(assigned) = self.partitions.get_mut(at) {
            let pause = self.cluster.options().retry_backoff.max(Duration::from_millis(20));
            assigned.not_before = Instant::now() + pause;
        }
    }
}

impl From<Position> for OffsetSpec {
    fn from(position: Position) -> Self {
        match position {
            Position::Beginning => Self::Earliest,
            Position::End => Self::Latest,
            Position::Time(timestamp) => Self::At(timestamp),
            // Such a position is never looked up.
            Position::Offset(_) => Self::Earliest,
        }
    }
}
