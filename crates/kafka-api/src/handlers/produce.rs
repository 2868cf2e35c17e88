//! Produce (0): appends one record batch to each of some partitions.
//!
//! The batches are written before the next request of the connection is taken, so that a client's requests take
//! effect in their order. Small ones are written on the connection's task; where compression makes it long, on a
//! thread that may take its time. The answer waits for the acknowledgements that `acks` asks for.
//!
//! An idempotent producer whose batch is refused for now will send it again; what it sent after that has to wait
//! (`refused_sequences.rs`).
//!
//! With `acks=0` nobody reads an answer; a failure ends the connection, so that the client learns of it at all.
//! Batches of transactions are refused: there are no transactions yet, so none can be open.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use klamm_broker::partition::{
    Acks, AppendFailure, AppendOptions, AppendOrigin, Appended, FirstSequence, PartitionHandle, PendingAppend,
};
use klamm_metadata::TopicImage;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{ErrorCode, Uuid, VersionRange};
use klamm_record::{BatchHeader, Codec};
use klamm_types::{TopicId, TopicName};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::is_internal;
use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::fetch_session::{PartitionKey, TopicKey};
use crate::leader_hints::LeaderHints;
use crate::partition_codes::append_code;
use crate::refused_sequences::{Sequenced, comes_again};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Topic ids instead of names (KIP-516).
const BY_ID_SINCE: i16 = 13;
/// Clients may send zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// Answers carry leaders (KIP-951).
const HINTS_SINCE: i16 = 10;
/// Batches up to this many bytes are written on the connection's task even if they must be decompressed.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// The longest that a client may have an append wait.
const TIMEOUT_MS_MAX: u64 = 60 * 60 * 1000;

/// The handler.
#[derive(Debug)]
pub(crate) struct ProduceHandler {
    plane: Arc<DataPlane>,
}

impl ProduceHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }
}

impl Handler for ProduceHandler {
    type Request = ProduceRequest;

    const VERSIONS: VersionRange = ProduceRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Write);
    const KEEPS_FRAME: bool = true;

    fn handle(&self, context: RequestContext, request: ProduceRequest) -> Ticket<ProduceResponse> {
        let job = Job { plane: Arc::clone(&self.plane), context };
        let Some(acks) = acks_of(request.acks) else {
            let topics = refuse_all(request, ErrorCode::InvalidRequiredAcks);
            return Ticket::ready(Answer::Response(job.response(topics)));
        };
        if job.takes_long(&request) {
            return job.append_aside(acks, request);
        }
        let written = job.append_all(acks, request);
        if acks == Acks::None || written.iter().all(TopicAppends::is_known) {
            return Ticket::ready(job.answer_now(acks, written));
        }
        job.context.memory.release();
        Ticket::later(async move { job.answer(acks, written).await })
    }
}

fn acks_of(acks: i16) -> Option<Acks> {
    match acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    }
}

/// One request at work.
struct Job {
    plane: Arc<DataPlane>,
    context: RequestContext,
}

/// The appends to one topic, in the order of the request.
struct TopicAppends {
    name: String,
    id: Uuid,
    partitions: Vec<(i32, PartitionAppend)>,
}

enum PartitionAppend {
    Refused(Failure),
    Written(PendingAppend),
}

impl TopicAppends {
    fn is_known(&self) -> bool {
        self.partitions.iter().all(|(_, append)| match append {
            PartitionAppend::Refused(_) => true,
            PartitionAppend::Written(pending) => pending.known().is_some(),
        })
    }
}

/// The outcomes for one topic, in the order of the request.
struct TopicOutcomes {
    name: String,
    id: Uuid,
    partitions: Vec<(i32, Result<Appended, Failure>)>,
}

/// Why a batch was not acknowledged.
struct Failure {
    code: ErrorCode,
    message: Option<String>,
    record: Option<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record: None }
    }
}

impl From<AppendFailure> for Failure {
    fn from(failure: AppendFailure) -> Self {
        let code = append_code(&failure);
        if let AppendFailure::Early(_) = failure {
            return Self { code, message: Some(failure.to_string()), record: None };
        }
        let AppendFailure::Log(error) = &failure else { return code.into() };
        let text = error.to_string();
        let record = match error {
            klamm_log::AppendError::Invalid(invalid) => invalid.record_index(),
            _ => None,
        };
        let record = record.map(|index| BatchIndexAndErrorMessage {
            batch_index: i32::try_from(index).unwrap_or(i32::MAX),
            batch_index_error_message: Some(text.clone()),
        });
        Self { code, message: Some(text), record }
    }
}

fn refuse_all(request: ProduceRequest, code: ErrorCode) -> Vec<TopicOutcomes> {
    let refuse = |topic: TopicProduceData| TopicOutcomes {
        name: topic.name,
        id: topic.topic_id,
        partitions: topic.partition_data.iter().map(|data| (data.index, Err(code.into()))).collect(),
    };
    request.topic_data.into_iter().map(refuse).collect()
}

impl Job {
    /// Whether the batches take longer than a connection's task should be busy.
    fn takes_long(&self, request: &ProduceRequest) -> bool {
        let image = self.plane.image();
        request.topic_data.iter().any(|topic| {
            let mut large = topic.partition_data.iter().filter_map(|data| {
                let records = records_of(data).filter(|records| records.len() > INLINE_BYTES_MAX)?;
                // Where there is no header, there will be a refusal, and soon.
                Some((data.index, header_of(records)?))
            });
            let compresses = |index| {
                let topic = DataPlane::topic(&image, &self.key_of(topic));
                let partition = topic.and_then(|topic| self.plane.partition(&topic, index));
                partition.is_ok_and(|partition| partition.compresses())
            };
            large.any(|(index, header)| {
                header.attributes().compression() != Ok(Codec::None) || compresses(index)
            })
        })
    }

    fn key_of(&self, topic: &TopicProduceData) -> TopicKey {
        if self.context.version >= BY_ID_SINCE {
            TopicKey::Id(topic.topic_id.into())
        } else {
            TopicKey::Name(topic.name.as_str().into())
        }
    }

    /// Writes the batches on a thread that may block. The connection takes its next request after that.
    fn append_aside(self, acks: Acks, request: ProduceRequest) -> Ticket<ProduceResponse> {
        let (writing, written) = oneshot::channel::<()>();
        let appending = tokio::task::spawn_blocking(move || {
            let appends = self.append_all(acks, request);
            drop(writing);
            (self, appends)
        });
        let accepted = async move {
            // It is dropped, not sent to, when all is written.
            drop(written.await);
        };
        let done = async move {
            let Ok((job, appends)) = appending.await else { return Answer::Close };
            job.context.memory.release();
            job.answer(acks, appends).await
        };
        Ticket::staged(accepted, done)
    }

    /// Writes all batches. The request, and with it what it holds of the frame, is gone after that.
    fn append_all(&self, acks: Acks, request: ProduceRequest) -> Vec<TopicAppends> {
        let timeout = u64::try_from(request.timeout_ms).unwrap_or(0).min(TIMEOUT_MS_MAX);
        let options = AppendOptions {
            acks,
            timeout: Duration::from_millis(timeout),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        let mut seen = HashSet::new();
        let topics = request.topic_data.into_iter();
        topics.map(|topic| self.append_to_topic(topic, &options, &mut seen)).collect()
    }

    fn append_to_topic(
        &self,
        topic: TopicProduceData,
        options: &AppendOptions,
        seen: &mut HashSet<(TopicId, i32)>,
    ) -> TopicAppends {
        let key = self.key_of(&topic);
        let found = DataPlane::topic(&self.plane.image(), &key).and_then(|topic| {
            let is_internal = is_internal(topic.name.as_str());
            if is_internal { Err(ErrorCode::InvalidTopicException) } else { Ok(topic) }
        });
        let TopicProduceData { name, topic_id, partition_data } = topic;
        let append = |data: PartitionProduceData| {
            let index = data.index;
            let header = records_of(&data).and_then(|records| header_of(records));
            let outcome = found.as_ref().map_err(|code| Failure::from(*code)).and_then(|topic| {
                // Two batches for one partition in one request have no order.
                let is_first = seen.insert((topic.id, index));
                let again = || ErrorCode::InvalidRequest.into();
                if is_first { self.append(topic, data, header.as_ref(), options) } else { Err(again()) }
            });
            if let Some(batch) = header.as_ref().and_then(Sequenced::of) {
                self.note_order(found.as_deref().map_err(|_| &key), index, batch, &outcome);
            }
            (index, outcome.map_or_else(PartitionAppend::Refused, PartitionAppend::Written))
        };
        let partitions = partition_data.into_iter().map(append).collect();
        TopicAppends { name, id: topic_id, partitions }
    }

    fn append(
        &self,
        topic: &TopicImage,
        data: PartitionProduceData,
        header: Option<&BatchHeader>,
        options: &AppendOptions,
    ) -> Result<PendingAppend, Failure> {
        let index = data.index;
        let partition: PartitionHandle = self.plane.partition(topic, index)?;
        let records = records_of(&data).cloned().unwrap_or_default();
        drop(data);
        // A header that cannot be read is refused by the log, which tells why.
        if let Some(header) = header {
            let is_zstd = header.attributes().compression() == Ok(Codec::Zstd);
            if is_zstd && self.context.version < ZSTD_SINCE {
                return Err(ErrorCode::UnsupportedCompressionType.into());
            }
            if header.attributes().is_transactional() && header.has_producer_id() {
                return Err(ErrorCode::InvalidTxnState.into());
            }
        }
        let batch = header.and_then(Sequenced::of);
        let first_sequence = batch.and_then(|batch| self.refused_before(topic, index, batch));
        Ok(partition.append(records, &AppendOptions { first_sequence, ..*options }))
    }

    /// The sequence of a batch that was refused, will come again, and belongs before this one.
    fn refused_before(&self, topic: &TopicImage, index: i32, batch: Sequenced) -> Option<FirstSequence> {
        let refused = &self.plane.refused;
        if refused.is_empty() {
            return None;
        }
        refused.before(&names_of(topic, index), batch, Instant::now())
    }

    /// Remembers a batch that was refused and will come again, or that it did. The topic is the one that there is, or
    /// what the request calls it.
    fn note_order(
        &self,
        topic: Result<&TopicImage, &TopicKey>,
        index: i32,
        batch: Sequenced,
        outcome: &Result<PendingAppend, Failure>,
    ) {
        let refused = &self.plane.refused;
        let code = match outcome {
            Err(failure) => Some(failure.code),
            Ok(pending) => match pending.known() {
                // It has to come after others, not before any.
                Some(Err(AppendFailure::Early(_))) => return,
                Some(Err(error)) => Some(append_code(error)),
                Some(Ok(_)) | None => None,
            },
        };
        match (code, topic) {
            (None, Ok(topic)) if !refused.is_empty() => {
                refused.forget(&names_of(topic, index), batch, Instant::now());
            }
            (Some(code), Ok(topic)) if comes_again(code) => {
                let name = PartitionKey { topic: TopicKey::Id(topic.id), partition: index };
                refused.remember(name, batch, Instant::now());
            }
            (Some(code), Err(key)) if comes_again(code) && may_be_topic(key) => {
                let name = PartitionKey { topic: key.clone(), partition: index };
                refused.remember(name, batch, Instant::now());
            }
            _ => {}
        }
    }

    /// The answer, all of whose parts are known, or not asked for.
    fn answer_now(&self, acks: Acks, written: Vec<TopicAppends>) -> Answer<ProduceResponse> {
        let known = |append: PartitionAppend| match append {
            PartitionAppend::Refused(failure) => Some(Err(failure)),
            PartitionAppend::Written(pending) => {
                pending.done().now_or_never().map(|known| known.map_err(Failure::from))
            }
        };
        let outcomes = written.into_iter().map(|topic| {
            let TopicAppends { name, id, partitions } = topic;
            let known = |(index, append)| known(append).map(|outcome| (index, outcome));
            TopicOutcomes { name, id, partitions: partitions.into_iter().filter_map(known).collect() }
        });
        self.close_or_respond(acks, outcomes.collect())
    }

    /// The answer, once all of its parts are known.
    async fn answer(self, acks: Acks, written: Vec<TopicAppends>) -> Answer<ProduceResponse> {
        let mut outcomes = Vec::with_capacity(written.len());
        for TopicAppends { name, id, partitions } in written {
            let mut known = Vec::with_capacity(partitions.len());
            for (index, append) in partitions {
                let outcome = match append {
                    PartitionAppend::Refused(failure) => Err(failure),
                    PartitionAppend::Written(pending) => pending.done().await.map_err(Failure::from),
                };
                known.push((index, outcome));
            }
            outcomes.push(TopicOutcomes { name, id, partitions: known });
        }
        self.close_or_respond(acks, outcomes)
    }

    fn close_or_respond(&self, acks: Acks, outcomes: Vec<TopicOutcomes>) -> Answer<ProduceResponse> {
        if acks != Acks::None {
            return Answer::Response(self.response(outcomes));
        }
        let mut partitions = outcomes.iter().flat_map(|topic| &topic.partitions);
        // What was appended before is there.
        let is_refusal = |failure: &Failure| failure.code != ErrorCode::DuplicateSequenceNumber;
        if partitions.any(|(_, outcome)| outcome.as_ref().is_err_and(is_refusal)) {
            Answer::Close
        } else {
            Answer::Nothing
        }
    }

    fn response(&self, outcomes: Vec<TopicOutcomes>) -> ProduceResponse {
        let image = self.plane.image();
        let mut hints = LeaderHints::new(&image, &self.context.listener);
        let with_hints = self.context.version >= HINTS_SINCE;
        let mut responses = Vec::with_capacity(outcomes.len());
        for TopicOutcomes { name, id, partitions } in outcomes {
            let topic = DataPlane::topic(&image, &self.key_of_answer(&name, id)).ok();
            let answer = |(index, outcome): (i32, Result<Appended, Failure>)| match outcome {
                Ok(appended) => acknowledgement(index, appended),
                Err(failure) => {
                    let hinted = topic.as_ref().filter(|_| with_hints && LeaderHints::apply_to(failure.code));
                    let leader = hinted.and_then(|topic| hints.leader(topic.id, index));
                    let leader = leader.map(|l| LeaderIdAndEpoch { leader_id: l.id, leader_epoch: l.epoch });
                    refusal(index, failure, leader.unwrap_or_default())
                }
            };
            let partition_responses = partitions.into_iter().map(answer).collect();
            responses.push(TopicProduceResponse { name, topic_id: id, partition_responses });
        }
        let node_endpoints = hints.into_endpoints().map(|endpoint| NodeEndpoint {
            node_id: endpoint.id,
            host: endpoint.host,
            port: endpoint.port,
            rack: endpoint.rack,
        });
        ProduceResponse { responses, node_endpoints: node_endpoints.collect(), throttle_time_ms: 0 }
    }

    fn key_of_answer(&self, name: &str, id: Uuid) -> TopicKey {
        if self.context.version >= BY_ID_SINCE {
            TopicKey::Id(id.into())
        } else {
            TopicKey::Name(name.into())
        }
    }
}

/// What a request may call the partition.
fn names_of(topic: &TopicImage, partition: i32) -> [PartitionKey; 2] {
    let name = TopicKey::Name(topic.name.as_str().into());
    [TopicKey::Id(topic.id), name].map(|topic| PartitionKey { topic, partition })
}

/// Whether there can be such a topic.
fn may_be_topic(key: &TopicKey) -> bool {
    match key {
        TopicKey::Id(id) => *id != TopicId::ZERO,
        TopicKey::Name(name) => TopicName::new(name).is_ok(),
    }
}

fn records_of(data: &PartitionProduceData) -> Option<&Bytes> {
    data.records.as_ref().and_then(|records| records.as_bytes())
}

fn header_of(records: &[u8]) -> Option<BatchHeader> {
    BatchHeader::parse(records).ok()
}

fn acknowledgement(index: i32, appended: Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: ErrorCode::None as i16,
        base_offset: appended.base_offset.0,
        log_append_time_ms: appended.append_time.0,
        log_start_offset: appended.log_start_offset.0,
        ..PartitionProduceResponse::default()
    }
}

fn refusal(index: i32, failure: Failure, current_leader: LeaderIdAndEpoch) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: failure.code as i16,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors: failure.record.into_iter().collect(),
        error_message: failure.message,
        current_leader,
    }
}

#[cfg(test)]
#[path = "produce_test.rs"]
mod tests;
