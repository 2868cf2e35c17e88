//! From what a fetch found to its answer.

use std::sync::Arc;

use bytes::Bytes;
use klamm_log::{LogSlice, ReadError};
use klamm_protocol::messages::FetchResponse;
use klamm_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::look::{Found, Search};
use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::fetch_session::{FetchContext, Fetched, PartitionKey, TopicKey};
use crate::leader_hints::LeaderHints;
use crate::partition_codes::log_read_code;
use crate::table::{Answer, Ticket};

/// Answers carry leaders (KIP-951).
const HINTS_SINCE: i16 = 16;
/// Up to this many bytes of records are read on the connection's task.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// How a request is answered.
pub(super) struct Answering {
    pub(super) plane: Arc<DataPlane>,
    pub(super) context: RequestContext,
    pub(super) session: FetchContext,
}

impl Answering {
    /// The answer, at once if there is little to read.
    pub(super) fn respond(self, search: Search, found: Found) -> Ticket<FetchResponse> {
        if found.bytes <= INLINE_BYTES_MAX {
            Ticket::ready(Answer::Response(self.assemble(search, read_all(found))))
        } else {
            Ticket::later(async move { self.response(search, found).await })
        }
    }

    /// The answer, with the records read where that may take its time.
    pub(super) async fn response(self, search: Search, found: Found) -> Answer<FetchResponse> {
        if found.bytes <= INLINE_BYTES_MAX {
            return Answer::Response(self.assemble(search, read_all(found)));
        }
        match tokio::task::spawn_blocking(move || read_all(found)).await {
            Ok(fetched) => Answer::Response(self.assemble(search, fetched)),
            Err(_) => Answer::Close,
        }
    }

    fn assemble(&self, search: Search, mut fetched: Vec<PartitionData>) -> FetchResponse {
        let image = self.plane.image();
        let mut hints = LeaderHints::new(&image, &self.context.listener);
        if self.context.version >= HINTS_SINCE {
            for (data, target) in fetched.iter_mut().zip(&search.targets) {
                let code = ErrorCode::from_code(data.error_code);
                let hinted = target.topic.filter(|_| code.is_some_and(LeaderHints::apply_to));
                let leader = hinted.and_then(|topic| hints.leader(topic, data.partition_index));
                if let Some(leader) = leader {
                    data.current_leader =
                        LeaderIdAndEpoch { leader_id: leader.id, leader_epoch: leader.epoch };
                }
            }
        }
        let keys = search.wishes.iter().map(|(key, _)| key.clone());
        let fetched = keys.zip(fetched).collect();
        let finished = self.plane.sessions.finish(&self.session, &search.wishes, fetched, Instant::now());
        let (session_id, fetched) = match finished {
            Ok(finished) => finished,
            Err(code) => return refusal_of_all(code),
        };
        let node_endpoints = hints.into_endpoints().map(|endpoint| NodeEndpoint {
            node_id: endpoint.id,
            host: endpoint.host,
            port: endpoint.port,
            rack: endpoint.rack,
        });
        FetchResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::None as i16,
            session_id,
            responses: by_topic(fetched),
            node_endpoints: node_endpoints.collect(),
        }
    }
}

/// The answer that refuses a whole request.
pub(super) fn refusal_of_all(code: ErrorCode) -> FetchResponse {
    FetchResponse { error_code: code as i16, ..FetchResponse::default() }
}

/// Partitions of one topic that follow one another share its entry.
pub(super) fn by_topic(fetched: Vec<Fetched>) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut current: Option<TopicKey> = None;
    for (PartitionKey { topic, .. }, data) in fetched {
        if current.as_ref() != Some(&topic) {
            let (name, topic_id) = match &topic {
                TopicKey::Name(name) => (name.to_string(), Uuid::ZERO),
                TopicKey::Id(id) => (String::new(), Uuid::from(*id)),
            };
            topics.push(FetchableTopicResponse { topic: name, topic_id, partitions: Vec::new() });
            current = Some(topic);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(data);
        }
    }
    topics
}

/// Reads the records of all slices into memory.
fn read_all(found: Found) -> Vec<PartitionData> {
    found.partitions.into_iter().map(|(data, slice)| with_records(data, slice.as_ref())).collect()
}

fn with_records(data: PartitionData, slice: Option<&LogSlice>) -> PartitionData {
    let Some(slice) = slice else { return data };
    let read: Result<Vec<u8>, ReadError> = slice.to_vec();
    match read {
        Ok(bytes) => PartitionData { records: Some(Bytes::from(bytes).into()), ..data },
        Err(error) => super::refusal(data.partition_index, log_read_code(&error)),
    }
}
