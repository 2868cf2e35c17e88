//! The task that sends the records of one partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::produce_response::PartitionProduceResponse;
use klamm_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use klamm_protocol::{ApiKey, ErrorCode, Records};
use klamm_record::{BatchBuilder, BuildError, NewRecord};
use klamm_types::{ProducerEpoch, ProducerId, TopicPartition};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::window::{Batch, Waiter, Window};
use super::{Acks, Delivered, OwnedRecord, ProduceError, ProducerOptions};
use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::error::{ApiError, ClientError};
use crate::view::Leader;

/// How many records may wait for the task; their bytes are bounded by the producer's buffer.
const QUEUE_LEN: usize = 1024;
/// How much longer than the broker the client waits.
const GRACE: Duration = Duration::from_millis(500);

/// A record on its way into a batch.
pub(super) struct Item {
    pub(super) record: OwnedRecord,
    pub(super) done: oneshot::Sender<Result<Delivered, ProduceError>>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What makes batches recognisable (KIP-98). Each partition has a producer id of its own, so that a fault of one
/// partition leaves the sequences of the others alone.
struct Identity {
    id: ProducerId,
    epoch: ProducerEpoch,
    next_sequence: i32,
    /// Whether the leader has taken a batch, and so knows which sequence number comes next. A broker that has never
    /// seen a producer takes any number from it (KIP-360): one that refuses the first batch, because it is about to
    /// learn that it leads, and takes the second would have lost their order.
    is_known: bool,
}

pub(super) struct Lane {
    cluster: Cluster,
    options: Arc<ProducerOptions>,
    at: TopicPartition,
    records: mpsc::Receiver<Item>,
    /// A record that did not fit into the last batch.
    carried: Option<Item>,
    window: Window,
    identity: Option<Identity>,
    /// The retries of the first batch.
    backoff: Option<Backoff>,
}

impl Lane {
    pub(super) fn spawn(
        cluster: Cluster,
        options: Arc<ProducerOptions>,
        at: TopicPartition,
    ) -> mpsc::Sender<Item> {
        let (sender, records) = mpsc::channel(QUEUE_LEN);
        let lane = Self {
            cluster,
            options,
            at,
            records,
            carried: None,
            window: Window::default(),
            identity: None,
            backoff: None,
        };
        tokio::spawn(lane.run());
        sender
    }

    async fn run(mut self) {
        loop {
            if self.window.is_empty() {
                let next = match self.carried.take() {
                    Some(item) => Some(item),
                    None => self.records.recv().await,
                };
                let Some(item) = next else { return };
                self.gather(item).await;
            }
            if let Err(error) = self.send_unsent().await {
                self.retry(error, false).await;
                continue;
            }
            let has_room = self.window.len() < self.window_max();
            if has_room && let Some(item) = self.carried.take() {
                self.gather(item).await;
                continue;
            }
            tokio::select! {
                biased;
                answer = self.window.answer(), if !self.window.is_empty() => self.on_answer(answer).await,
                Some(item) = self.records.recv(), if has_room => self.gather(item).await,
                else => {}
            }
        }
    }

    /// How many batches may be under way: one, until the leader knows the producer.
    fn window_max(&self) -> usize {
        match &self.identity {
            Some(identity) if !identity.is_known => 1,
            _ => self.options.in_flight_max,
        }
    }

    /// Makes a batch of `first` and the records behind it.
    async fn gather(&mut self, first: Item) {
        if let Err(error) = self.identify().await {
            let error = ProduceError::Client { partition: self.at.clone(), error };
            // Nobody may care.
            let _ = first.done.send(Err(error));
            return;
        }
        let mut builder = BatchBuilder::new(self.options.compression);
        if let Some(identity) = &self.identity {
            builder = builder.producer(identity.id, identity.epoch, identity.next_sequence);
        }
        let mut waiters = Vec::new();
        let linger_end = Instant::now() + self.options.linger;
        let mut next = Some(first);
        while let Some(item) = next.take() {
            if builder.record_count() > 0
                && builder_size_with(&builder, &item.record) > self.options.batch_bytes
            {
                self.carried = Some(item);
                break;
            }
            match append(&mut builder, &item.record) {
                Ok(()) => waiters.push(Waiter { done: item.done, _room: item.room }),
                Err(error) => {
                    let error = ProduceError::Build { partition: self.at.clone(), error };
                    // Nobody may care.
                    let _ = item.done.send(Err(error));
                }
            }
            next = match self.records.try_recv() {
                Ok(item) => Some(item),
                Err(_) if self.options.linger.is_zero() => None,
                Err(_) => timeout_at(linger_end, self.records.recv()).await.ok().flatten(),
            };
        }
        self.close(builder, waiters);
    }

    /// Puts a finished batch into the window and counts its sequence numbers.
    fn close(&mut self, builder: BatchBuilder, waiters: Vec<Waiter>) {
        let count = builder.record_count();
        if count == 0 {
            return;
        }
        let deadline = Instant::now() + self.options.delivery_timeout;
        let mut batch = Batch { bytes: Bytes::new(), deadline, waiters, answer: None };
        match builder.build() {
            Ok(bytes) => batch.bytes = bytes.into(),
            Err(error) => {
                return batch.fail(&ProduceError::Build { partition: self.at.clone(), error });
            }
        }
        if let Some(identity) = &mut self.identity {
            identity.next_sequence = sequence_after(identity.next_sequence, count);
        }
        self.window.push(batch);
    }

    /// Gets a producer id if one is needed.
    async fn identify(&mut self) -> Result<(), ClientError> {
        if self.options.acks != Acks::All || self.identity.is_some() {
            return Ok(());
        }
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..InitProducerIdRequest::default()
        };
        let limit = self.cluster.options().request_timeout;
        let mut backoff =
            Backoff::new(self.cluster.options(), Instant::now() + self.options.delivery_timeout);
        loop {
            let answer = self.cluster.ask_any(&request, limit).await;
            let answer =
                answer.and_then(|answer| Ok(ApiError::check(answer.error_code, None).map(|()| answer)?));
            match answer {
                Ok(answer) => {
                    self.identity = Some(Identity {
                        id: ProducerId(answer.producer_id),
                        epoch: ProducerEpoch(answer.producer_epoch),
                        next_sequence: 0,
                        is_known: false,
                    });
                    return Ok(());
                }
                Err(error) if error.is_retryable() => backoff.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what was not sent yet, in order, all to the same leader.
    async fn send_unsent(&mut self) -> Result<(), ClientError> {
        if self.window.next_unsent().is_none() {
            return Ok(());
        }
        let leader = self.cluster.leader(&self.at).await?;
        let timeout = self.cluster.options().request_timeout;
        while let Some(batch) = self.window.next_unsent() {
            let request = request(&self.at, &self.options, batch.bytes.clone(), &leader, timeout);
            let newest = if leader.topic_id.is_zero() { 12 } else { i16::MAX };
            let version = leader.connection.newest(ApiKey::Produce, newest)?;
            if self.options.acks == Acks::None {
                leader.connection.tell(&request, version).await?;
                // Its predecessors were answered likewise: it is the first.
                if let Some(batch) = self.window.pop() {
                    batch.complete(&PartitionProduceResponse { base_offset: -1, ..Default::default() });
                }
            } else {
                let answer = leader.connection.start(&request, version, timeout + GRACE).await?;
                batch.answer = Some(Box::pin(answer.wait()));
            }
        }
        Ok(())
    }

    /// Judges the answer to the first batch.
    async fn on_answer(&mut self, answer: Result<ProduceResponse, ClientError>) {
        let (answer, partition) = match answer {
            Ok(mut answer) => match take_partition(&mut answer) {
                Some(partition) => (answer, partition),
                None => return self.retry(missing(), false).await,
            },
            Err(error) => return self.retry(error, false).await,
        };
        match ApiError::check(partition.error_code, partition.error_message.as_deref()) {
            Ok(()) => self.complete(&partition),
            Err(error) if error.code == ErrorCode::DuplicateSequenceNumber => self.complete(&partition),
            Err(error) if error.is_retryable() => {
                let has_news = self.learn_leader(&answer, &partition);
                self.retry(error.into(), has_news).await;
            }
            Err(error) => {
                self.give_up(ProduceError::Refused { partition: self.at.clone(), error }).await;
            }
        }
    }

    fn complete(&mut self, answer: &PartitionProduceResponse) {
        self.backoff = None;
        if let Some(identity) = &mut self.identity {
            identity.is_known = true;
        }
        if let Some(batch) = self.window.pop() {
            batch.complete(answer);
        }
    }

    /// Takes the hint that comes with a refusal (KIP-951).
    fn learn_leader(&self, answer: &ProduceResponse, partition: &PartitionProduceResponse) -> bool {
        let hint = &partition.current_leader;
        let endpoint = answer.node_endpoints.iter().find(|node| node.node_id == hint.leader_id);
        let endpoint = endpoint.map(|node| (node.host.as_str(), node.port));
        self.cluster.learn_leader(&self.at, hint.leader_id, hint.leader_epoch, endpoint)
    }

    /// Lets everything under way be sent again: at once if the new leader is known, else after a pause.
    async fn retry(&mut self, error: ClientError, has_news: bool) {
        let Some(front) = self.window.front() else { return };
        let deadline = front.deadline;
        if !error.is_retryable() {
            return self.give_up(ProduceError::Client { partition: self.at.clone(), error }).await;
        }
        if !has_news && error.is_stale_view() {
            self.cluster.mark_stale(&self.at);
        }
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(self.cluster.options(), deadline));
        if !has_news && let Err(last) = backoff.pause(error).await {
            let last = Box::new(last);
            return self.give_up(ProduceError::TimedOut { partition: self.at.clone(), last }).await;
        }
        self.window.rewind();
    }

    /// Fails the first batch for good. Batches behind it have their own fates: with sequence numbers the gap makes
    /// the broker refuse them, unless it had them already, and a new producer id starts behind them.
    async fn give_up(&mut self, error: ProduceError) {
        self.backoff = None;
        if let Some(batch) = self.window.pop() {
            batch.fail(&error);
        }
        if self.identity.take().is_none() {
            return;
        }
        while !self.window.is_empty() {
            let was_sent = self.window.front().is_some_and(|batch| batch.answer.is_some());
            let answer = if was_sent { self.window.answer().await.ok() } else { None };
            let partition = answer.and_then(|mut answer| take_partition(&mut answer));
            let Some(batch) = self.window.pop() else { return };
            match partition {
                Some(partition) if partition.error_code == 0 => batch.complete(&partition),
                _ => batch.fail(&ProduceError::Behind { partition: self.at.clone() }),
            }
        }
    }
}

fn missing() -> ClientError {
    ApiError { code: ErrorCode::NetworkException, message: Some("the answer names no partition".to_owned()) }
        .into()
}

fn take_partition(answer: &mut ProduceResponse) -> Option<PartitionProduceResponse> {
    answer.responses.first_mut().and_then(|topic| topic.partition_responses.pop())
}

fn request(
    at: &TopicPartition,
    options: &ProducerOptions,
    batch: Bytes,
    leader: &Leader,
    timeout: Duration,
) -> ProduceRequest {
    let partition = PartitionProduceData { index: at.partition.0, records: Some(Records::from(batch)) };
    let topic = TopicProduceData {
        name: at.topic.to_string(),
        topic_id: leader.topic_id,
        partition_data: vec![partition],
    };
    let acks = match options.acks {
        Acks::None => 0,
        Acks::Leader => 1,
        Acks::All => -1,
    };
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    ProduceRequest { transactional_id: None, acks, timeout_ms, topic_data: vec![topic] }
}

fn builder_size_with(builder: &BatchBuilder, record: &OwnedRecord) -> usize {
    with_borrowed(record, |record| builder.size_with(record))
}

fn append(builder: &mut BatchBuilder, record: &OwnedRecord) -> Result<(), BuildError> {
    with_borrowed(record, |record| builder.append(record))
}

fn with_borrowed<T>(record: &OwnedRecord, use_it: impl FnOnce(&NewRecord<'_>) -> T) -> T {
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        record.headers.iter().map(|(key, value)| (key.as_ref(), value.as_deref())).collect();
    use_it(&NewRecord {
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    })
}

/// Sequence numbers go from 0 to 2^31 - 1 and around.
fn sequence_after(sequence: i32, count: i32) -> i32 {
    let next = i64::from(sequence) + i64::from(count);
    (next & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_go_around() {
        assert_eq!(sequence_after(0, 3), 3);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
