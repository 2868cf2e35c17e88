//! OffsetForLeaderEpoch (23): where a leader epoch ended, by which a consumer finds out whether records that it has
//! were lost in a change of leaders (KIP-320).

use std::sync::Arc;

use klamm_metadata::MetadataImage;
use klamm_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use klamm_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use klamm_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::LeaderEpoch;

use crate::context::RequestContext;
use crate::data_plane::{DataPlane, known_epoch};
use crate::fetch_session::TopicKey;
use crate::partition_codes::read_code;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// The handler.
#[derive(Debug)]
pub(crate) struct OffsetForLeaderEpochHandler {
    plane: Arc<DataPlane>,
}

impl OffsetForLeaderEpochHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }

    fn find(
        &self,
        image: &MetadataImage,
        topic: &str,
        asked: &OffsetForLeaderPartition,
    ) -> Result<Option<klamm_types::EpochEndOffset>, ErrorCode> {
        let topic = DataPlane::topic(image, &TopicKey::Name(topic.into()))?;
        let partition = self.plane.partition(&topic, asked.partition)?;
        let epoch = LeaderEpoch(asked.leader_epoch);
        let end = partition.epoch_end_offset(epoch, known_epoch(asked.current_leader_epoch));
        end.map_err(|failure| read_code(&failure))
    }
}

impl Handler for OffsetForLeaderEpochHandler {
    type Request = OffsetForLeaderEpochRequest;

    const VERSIONS: VersionRange = OffsetForLeaderEpochRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Describe);

    fn handle(
        &self,
        _context: RequestContext,
        request: OffsetForLeaderEpochRequest,
    ) -> Ticket<OffsetForLeaderEpochResponse> {
        let image = self.plane.image();
        let topics = request.topics.into_iter().map(|topic| {
            let answer = |asked: &OffsetForLeaderPartition| {
                let nothing = EpochEndOffset { partition: asked.partition, ..Default::default() };
                match self.find(&image, &topic.topic, asked) {
                    Err(code) => EpochEndOffset { error_code: code as i16, ..nothing },
                    Ok(None) => nothing,
                    Ok(Some(end)) => {
                        EpochEndOffset { leader_epoch: end.epoch.0, end_offset: end.end_offset.0, ..nothing }
                    }
                }
            };
            let partitions = topic.partitions.iter().map(answer).collect();
            OffsetForLeaderTopicResult { topic: topic.topic, partitions }
        });
        let topics = topics.collect();
        Ticket::ready(Answer::Response(OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics }))
    }
}
