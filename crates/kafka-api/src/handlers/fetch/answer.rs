//! From what a fetch found to its answer.

use std::sync::Arc;

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
use crate::file_payload::FilePayloads;
use crate::leader_hints::LeaderHints;
use crate::table::Answer;

/// Answers carry leaders (KIP-951).
const HINTS_SINCE: i16 = 16;
/// How a request is answered.
pub(super) struct Answering {
    pub(super) plane: Arc<DataPlane>,
    pub(super) context: RequestContext,
    pub(super) session: FetchContext,
}

impl Answering {
    /// The answer, with its records where they lie.
    pub(super) fn answer(&self, search: Search, found: Found) -> Answer<FetchResponse> {
        let mut files = FilePayloads::default();
        let fetched = found.partitions.into_iter().map(|(data, slice)| match slice {
            Some(slice) => PartitionData { records: Some(files.add(slice)), ..data },
            None => data,
        });
        let fetched = fetched.collect();
        Answer::WithFiles(self.response(search, fetched), files)
    }

    fn response(&self, search: Search, mut fetched: Vec<PartitionData>) -> FetchResponse {
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
