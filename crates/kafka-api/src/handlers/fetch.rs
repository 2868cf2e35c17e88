//! Fetch (1): records from some partitions, for consumers.
//!
//! A request is looked at once when it comes. If there is less than it wants and it may wait, it is parked: it holds
//! what it asked for, a place among the waiters of each partition, and no records. It is looked at again whenever one
//! of them moves, and answered when there is enough, when a partition has something to say that is no records, or
//! when its time is over.
//!
//! A consumer that says where it is may be sent to a follower there (`closest_replica.rs`); it is answered at once then.
//!
//! Followers fetch elsewhere: a request that claims to be a broker's is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::partition::{ReadFrom, ReadIsolation};
use klamm_protocol::messages::fetch_request::FetchTopic;
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records, VersionRange};
use tokio::time::Instant;

use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::fetch_session::{FetchPlan, FetchWish, PartitionKey, SessionRequest, TopicKey};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

mod answer;
mod look;

use answer::Answering;
use look::{Limits, Reader, Search};

/// Topic ids instead of names (KIP-516).
const BY_ID_SINCE: i16 = 13;
/// Sessions, and a code for the whole answer (KIP-227).
const SESSIONS_SINCE: i16 = 7;
/// Consumers may fetch from followers (KIP-392).
const FROM_FOLLOWERS_SINCE: i16 = 11;
/// The longest that a request is parked.
const WAIT_MS_MAX: u64 = 5 * 60 * 1000;
/// A parked request with more partitions keeps its share of the memory for requests.
const PARKED_FREELY_MAX: usize = 1000;

/// The handler.
#[derive(Debug)]
pub(crate) struct FetchHandler {
    plane: Arc<DataPlane>,
}

impl FetchHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }
}

impl Handler for FetchHandler {
    type Request = FetchRequest;

    const VERSIONS: VersionRange = FetchRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Read);

    fn handle(&self, context: RequestContext, request: FetchRequest) -> Ticket<FetchResponse> {
        let asked = match Asked::new(&context, request) {
            Ok(asked) => asked,
            Err(refused) => return Ticket::ready(Answer::Response(refused)),
        };
        let Asked { session, wishes, forgotten, limits, max_wait, rack } = asked;
        let now = Instant::now();
        let plan = match self.plane.sessions.begin(session, wishes, &forgotten, now) {
            Ok(plan) => plan,
            Err(code) => return Ticket::ready(Answer::Response(answer::refusal_of_all(code))),
        };
        let FetchPlan { context: session, wishes } = plan;
        let limits = limits.within(self.plane.config.fetch_bytes_max);
        let reader = Reader { rack, listener: Arc::clone(&context.listener) };
        let search = Search::new(&self.plane, wishes, limits, reader);
        let parked = search.len();
        let answering = Answering { plane: Arc::clone(&self.plane), context, session };
        let found = search.look();
        if found.is_enough() || max_wait.is_zero() {
            return Ticket::ready(answering.answer(search, found));
        }
        if parked <= PARKED_FREELY_MAX {
            answering.context.memory.release();
        }
        Ticket::later(async move {
            let found = search.wait(now + max_wait).await;
            answering.answer(search, found)
        })
    }
}

/// A request, as far as it is understood without looking at any partition.
struct Asked {
    session: SessionRequest,
    wishes: Vec<(PartitionKey, FetchWish)>,
    forgotten: Vec<PartitionKey>,
    limits: Limits,
    max_wait: Duration,
    rack: String,
}

impl Asked {
    /// # Errors
    /// The answer to a request that cannot be served whatever its partitions are.
    fn new(context: &RequestContext, request: FetchRequest) -> Result<Self, FetchResponse> {
        let version = context.version;
        if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
            return Err(refuse(version, request.topics, ErrorCode::ClusterAuthorizationFailed));
        }
        let isolation = match request.isolation_level {
            0 => ReadIsolation::ReadUncommitted,
            1 => ReadIsolation::ReadCommitted,
            _ => return Err(refuse(version, request.topics, ErrorCode::InvalidRequest)),
        };
        let by_id = version >= BY_ID_SINCE;
        let from = if version >= FROM_FOLLOWERS_SINCE { ReadFrom::AnyReplica } else { ReadFrom::Leader };
        let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0).min(WAIT_MS_MAX);
        let forgotten = request.forgotten_topics_data.into_iter().flat_map(|topic| {
            let key = topic_key(by_id, topic.topic, topic.topic_id.into());
            topic.partitions.into_iter().map(move |partition| PartitionKey { topic: key.clone(), partition })
        });
        Ok(Self {
            session: SessionRequest { id: request.session_id, epoch: request.session_epoch, by_id },
            forgotten: forgotten.collect(),
            wishes: wishes(by_id, request.topics),
            limits: Limits {
                bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
                bytes_max: usize::try_from(request.max_bytes).unwrap_or(0),
                isolation,
                from,
            },
            max_wait: Duration::from_millis(wait_ms),
            rack: request.rack_id,
        })
    }
}

fn topic_key(by_id: bool, name: String, id: klamm_types::TopicId) -> TopicKey {
    if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
}

/// What is asked for, each partition once: of several wishes the last counts.
fn wishes(by_id: bool, topics: Vec<FetchTopic>) -> Vec<(PartitionKey, FetchWish)> {
    let mut wishes: Vec<(PartitionKey, FetchWish)> = Vec::new();
    let mut places: HashMap<PartitionKey, usize> = HashMap::new();
    for topic in topics {
        let key = topic_key(by_id, topic.topic, topic.topic_id.into());
        for asked in topic.partitions {
            let key = PartitionKey { topic: key.clone(), partition: asked.partition };
            let wish = FetchWish {
                current_leader_epoch: asked.current_leader_epoch,
                fetch_offset: asked.fetch_offset,
                last_fetched_epoch: asked.last_fetched_epoch,
                bytes_max: asked.partition_max_bytes,
            };
            let place = *places.entry(key.clone()).or_insert(wishes.len());
            match wishes.get_mut(place) {
                Some((_, earlier)) => *earlier = wish,
                None => wishes.push((key, wish)),
            }
        }
    }
    wishes
}

/// Refuses the whole request: with one code, and each partition for the versions that have no such code.
fn refuse(version: i16, topics: Vec<FetchTopic>, code: ErrorCode) -> FetchResponse {
    if version >= SESSIONS_SINCE {
        return answer::refusal_of_all(code);
    }
    let fetched = wishes(false, topics).into_iter().map(|(key, _)| {
        let data = refusal(key.partition, code);
        (key, data)
    });
    FetchResponse { responses: answer::by_topic(fetched.collect()), ..FetchResponse::default() }
}

/// The answer for a partition that gives nothing.
fn refusal(partition_index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: code as i16,
        high_watermark: -1,
        records: Some(Records::default()),
        ..PartitionData::default()
    }
}

#[cfg(test)]
#[path = "fetch_test.rs"]
mod tests;

#[cfg(test)]
#[path = "fetch_closest_test.rs"]
mod closest_tests;
