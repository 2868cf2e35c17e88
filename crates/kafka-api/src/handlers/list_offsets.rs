//! ListOffsets (2): the first and last offsets of partitions, and offsets by time.

use std::collections::HashSet;
use std::sync::Arc;

use klamm_broker::partition::{ListedOffset, OffsetQuery, ReadFailure, ReadIsolation};
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::{LeaderEpoch, Timestamp};

use crate::context::RequestContext;
use crate::data_plane::{DataPlane, known_epoch};
use crate::fetch_session::TopicKey;
use crate::partition_codes::read_code;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Answers carry leader epochs (KIP-320).
const EPOCHS_SINCE: i16 = 4;
/// Clients know the code for an offset that is not known yet (KIP-207).
const NOT_AVAILABLE_SINCE: i16 = 5;

/// The handler.
#[derive(Debug)]
pub(crate) struct ListOffsetsHandler {
    plane: Arc<DataPlane>,
}

impl ListOffsetsHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }
}

impl Handler for ListOffsetsHandler {
    type Request = ListOffsetsRequest;

    const VERSIONS: VersionRange = ListOffsetsRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Describe);

    fn handle(&self, context: RequestContext, request: ListOffsetsRequest) -> Ticket<ListOffsetsResponse> {
        let version = context.version;
        let asked = request.topics.iter().flat_map(|topic| &topic.partitions);
        let reads_records = asked.clone().any(|partition| {
            matches!(
                query(version, partition.timestamp),
                Some(OffsetQuery::At(_) | OffsetQuery::MaxTimestamp)
            )
        });
        let lookup = Lookup { plane: Arc::clone(&self.plane), version };
        if !reads_records {
            return Ticket::ready(Answer::Response(lookup.answer(request)));
        }
        // Records are looked for on the disk, and decompressed.
        Ticket::later(async move {
            let answer = tokio::task::spawn_blocking(move || lookup.answer(request)).await;
            answer.map_or(Answer::Close, Answer::Response)
        })
    }
}

/// The meaning of a timestamp in a request; `None` if this version has none for it.
fn query(version: i16, timestamp: i64) -> Option<OffsetQuery> {
    let (query, since) = match timestamp {
        -1 => (OffsetQuery::Latest, 1),
        -2 => (OffsetQuery::Earliest, 1),
        -3 => (OffsetQuery::MaxTimestamp, 7),
        -4 => (OffsetQuery::EarliestLocal, 8),
        -5 => (OffsetQuery::LatestTiered, 9),
        -6 => (OffsetQuery::EarliestPendingUpload, 11),
        0.. => (OffsetQuery::At(Timestamp(timestamp)), 1),
        _ => return None,
    };
    (version >= since).then_some(query)
}

/// One request at work.
struct Lookup {
    plane: Arc<DataPlane>,
    version: i16,
}

impl Lookup {
    fn answer(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let image = self.plane.image();
        let duplicates = duplicates(&request);
        let terms = Terms {
            isolation: match request.isolation_level {
                0 => Ok(ReadIsolation::ReadUncommitted),
                1 => Ok(ReadIsolation::ReadCommitted),
                _ => Err(ErrorCode::InvalidRequest),
            },
            // Brokers ask one another elsewhere.
            is_broker: request.replica_id >= 0,
        };
        let topics = request.topics.into_iter().map(|topic| {
            let ListOffsetsTopic { name, partitions } = topic;
            let answer = |asked: &ListOffsetsPartition| {
                let is_duplicate = duplicates.contains(&(name.clone(), asked.partition_index));
                let found = if is_duplicate {
                    Err(ErrorCode::InvalidRequest)
                } else {
                    self.find(&image, &name, asked, terms)
                };
                self.describe(asked.partition_index, found)
            };
            let partitions = partitions.iter().map(answer).collect();
            ListOffsetsTopicResponse { name, partitions }
        });
        ListOffsetsResponse { throttle_time_ms: 0, topics: topics.collect() }
    }

    fn find(
        &self,
        image: &MetadataImage,
        name: &str,
        asked: &ListOffsetsPartition,
        terms: Terms,
    ) -> Result<Option<ListedOffset>, ErrorCode> {
        let query = query(self.version, asked.timestamp).ok_or(ErrorCode::UnsupportedVersion)?;
        if terms.is_broker {
            return Err(ErrorCode::ClusterAuthorizationFailed);
        }
        let isolation = terms.isolation?;
        let topic = DataPlane::topic(image, &TopicKey::Name(name.into()))?;
        let partition = self.plane.partition(&topic, asked.partition_index)?;
        let found = partition.list_offset(query, isolation, known_epoch(asked.current_leader_epoch));
        found.map_err(|failure| match failure {
            ReadFailure::OffsetNotAvailable { .. } if self.version < NOT_AVAILABLE_SINCE => {
                ErrorCode::LeaderNotAvailable
            }
            failure => read_code(&failure),
        })
    }

    fn describe(
        &self,
        partition_index: i32,
        found: Result<Option<ListedOffset>, ErrorCode>,
    ) -> ListOffsetsPartitionResponse {
        let nothing = ListOffsetsPartitionResponse { partition_index, ..Default::default() };
        match found {
            Err(code) => ListOffsetsPartitionResponse { error_code: code as i16, ..nothing },
            Ok(None) => nothing,
            Ok(Some(listed)) => {
                let epoch =
                    if self.version >= EPOCHS_SINCE { listed.leader_epoch } else { LeaderEpoch::NONE };
                ListOffsetsPartitionResponse {
                    timestamp: listed.timestamp.0,
                    offset: listed.offset.0,
                    leader_epoch: epoch.0,
                    ..nothing
                }
            }
        }
    }
}

/// What holds for all partitions of a request.
#[derive(Clone, Copy)]
struct Terms {
    isolation: Result<ReadIsolation, ErrorCode>,
    is_broker: bool,
}

/// The partitions that are asked for more than once: it is not known which of the questions was meant.
fn duplicates(request: &ListOffsetsRequest) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let mut duplicates = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.name.as_str(), partition.partition_index)) {
                duplicates.insert((topic.name.clone(), partition.partition_index));
            }
        }
    }
    duplicates
}

#[cfg(test)]
#[path = "list_offsets_test.rs"]
mod tests;
