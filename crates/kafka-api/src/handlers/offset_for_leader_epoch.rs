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

#[cfg(test)]
mod tests {
    use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
    use klamm_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;

    use super::*;
    use crate::data_bed::{DataBed, batch};

    #[tokio::test(flavor = "multi_thread")]
    async fn epochs_end_where_the_log_says() {
        let bed = DataBed::new().await;
        let options = AppendOptions {
            acks: Acks::All,
            timeout: std::time::Duration::from_secs(10),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        bed.partition(0).append(batch(&["a", "b"]), &options).done().await.unwrap();
        let asked = |partition, current_leader_epoch, leader_epoch| OffsetForLeaderPartition {
            partition,
            current_leader_epoch,
            leader_epoch,
        };
        let cases = [
            (asked(0, -1, 0), ErrorCode::None, (0, 2)),
            (asked(0, 0, 0), ErrorCode::None, (0, 2)),
            (asked(0, 0, 5), ErrorCode::None, (-1, -1)),
            (asked(0, 1, 0), ErrorCode::UnknownLeaderEpoch, (-1, -1)),
            (asked(2, -1, 0), ErrorCode::NotLeaderOrFollower, (-1, -1)),
            (asked(9, -1, 0), ErrorCode::UnknownTopicOrPartition, (-1, -1)),
        ];
        for version in OffsetForLeaderEpochRequest::VERSIONS.iter() {
            let partitions = cases.iter().map(|(asked, ..)| asked.clone()).collect();
            let topics = vec![OffsetForLeaderTopic { topic: "t".to_owned(), partitions }];
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
            let handler = OffsetForLeaderEpochHandler::new(bed.plane.clone());
            let response = bed.ask(&handler, version, request).await;
            for (answer, (asked, code, end)) in response.topics[0].partitions.iter().zip(&cases) {
                assert_eq!(answer.error_code, *code as i16, "{asked:?}");
                assert_eq!((answer.leader_epoch, answer.end_offset), *end, "{asked:?}");
            }
        }
    }
}
