//! DeleteRecords (21): drops the records before an offset of a partition, on all of its replicas (KIP-107).

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::partition::PendingDeletion;
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::delete_records_request::DeleteRecordsPartition;
use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::Offset;

use crate::cluster::is_internal;
use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::fetch_session::TopicKey;
use crate::partition_codes::deletion_code;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// "Everything that is committed", in place of an offset.
const ALL_COMMITTED: i64 = -1;
/// "No offset", in an answer.
const UNKNOWN_OFFSET: i64 = -1;
/// The longest that a client may have a deletion wait for the followers.
const TIMEOUT_MS_MAX: u64 = 60 * 60 * 1000;

/// The handler.
#[derive(Debug)]
pub(crate) struct DeleteRecordsHandler {
    plane: Arc<DataPlane>,
}

/// The deletions in one topic.
type TopicDeletions = (String, Vec<(i32, Result<PendingDeletion, ErrorCode>)>);

impl DeleteRecordsHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }

    fn begin(
        &self,
        image: &MetadataImage,
        topic: &str,
        asked: &DeleteRecordsPartition,
        timeout: Duration,
    ) -> Result<PendingDeletion, ErrorCode> {
        let topic = DataPlane::topic(image, &TopicKey::Name(topic.into()))?;
        if is_internal(topic.name.as_str()) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let partition = self.plane.partition(&topic, asked.partition_index)?;
        let before = match asked.offset {
            ALL_COMMITTED => None,
            offset @ 0.. => Some(Offset(offset)),
            _ => return Err(ErrorCode::OffsetOutOfRange),
        };
        Ok(partition.delete_records(before, timeout))
    }
}

impl Handler for DeleteRecordsHandler {
    type Request = DeleteRecordsRequest;

    const VERSIONS: VersionRange = DeleteRecordsRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Delete);

    fn handle(
        &self,
        _context: RequestContext,
        request: DeleteRecordsRequest,
    ) -> Ticket<DeleteRecordsResponse> {
        let image = self.plane.image();
        let timeout = u64::try_from(request.timeout_ms).unwrap_or(0).min(TIMEOUT_MS_MAX);
        let timeout = Duration::from_millis(timeout);
        let begun = request.topics.into_iter().map(|topic| {
            let begin = |asked: &DeleteRecordsPartition| {
                (asked.partition_index, self.begin(&image, &topic.name, asked, timeout))
            };
            let partitions = topic.partitions.iter().map(begin).collect();
            (topic.name, partitions)
        });
        let begun: Vec<TopicDeletions> = begun.collect();
        Ticket::later(async move { Answer::Response(answer(begun).await) })
    }
}

async fn answer(begun: Vec<TopicDeletions>) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(begun.len());
    for (name, deletions) in begun {
        let mut partitions = Vec::with_capacity(deletions.len());
        for (partition_index, deletion) in deletions {
            let outcome = match deletion {
                Ok(pending) => pending.done().await.map_err(|failure| deletion_code(&failure)),
                Err(code) => Err(code),
            };
            let (low_watermark, error_code) = match outcome {
                Ok(log_start) => (log_start.0, ErrorCode::None as i16),
                Err(code) => (UNKNOWN_OFFSET, code as i16),
            };
            partitions.push(DeleteRecordsPartitionResult { partition_index, low_watermark, error_code });
        }
        topics.push(DeleteRecordsTopicResult { name, partitions });
    }
    DeleteRecordsResponse { throttle_time_ms: 0, topics }
}

#[cfg(test)]
mod tests {
    use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
    use klamm_protocol::messages::delete_records_request::DeleteRecordsTopic;

    use super::*;
    use crate::data_bed::{DataBed, batch};

    async fn bed_with_records() -> DataBed {
        let bed = DataBed::new().await;
        let options = AppendOptions {
            acks: Acks::All,
            timeout: Duration::from_secs(10),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        for _ in 0..3 {
            bed.partition(0).append(batch(&["a", "b"]), &options).done().await.unwrap();
        }
        bed
    }

    async fn delete(bed: &DataBed, topic: &str, partition_index: i32, offset: i64) -> (ErrorCode, i64) {
        let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
        let topics = vec![DeleteRecordsTopic { name: topic.to_owned(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 10_000 };
        let handler = DeleteRecordsHandler::new(bed.plane.clone());
        let mut response = bed.ask(&handler, 2, request).await;
        let answer = response.topics.remove(0).partitions.remove(0);
        (ErrorCode::from_code(answer.error_code).unwrap(), answer.low_watermark)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_starts_where_it_is_told() {
        let bed = bed_with_records().await;
        assert_eq!(delete(&bed, "t", 0, 3).await, (ErrorCode::None, 3));
        assert_eq!(delete(&bed, "t", 0, 1).await, (ErrorCode::None, 3), "nothing comes back");
        assert_eq!(bed.partition(0).bounds().log_start_offset, Offset(3));
        assert_eq!(delete(&bed, "t", 0, -1).await, (ErrorCode::None, 6));
        assert_eq!(bed.partition(0).bounds().log_start_offset, Offset(6));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_deleted_is_refused() {
        let bed = bed_with_records().await;
        bed.learn(&crate::fixture::topic(2, "__consumer_offsets", &[&[1]])).await;
        let cases = [
            ("t", 0, 7, ErrorCode::OffsetOutOfRange),
            ("t", 0, i64::MAX, ErrorCode::OffsetOutOfRange),
            ("t", 0, -2, ErrorCode::OffsetOutOfRange),
            ("t", 2, 0, ErrorCode::NotLeaderOrFollower),
            ("t", 9, 0, ErrorCode::UnknownTopicOrPartition),
            ("u", 0, 0, ErrorCode::UnknownTopicOrPartition),
            ("__consumer_offsets", 0, 0, ErrorCode::InvalidTopicException),
        ];
        for (topic, partition, offset, code) in cases {
            assert_eq!(
                delete(&bed, topic, partition, offset).await,
                (code, -1),
                "{topic}-{partition} {offset}"
            );
        }
        bed.set("cleanup.policy", "compact").await;
        assert_eq!(delete(&bed, "t", 0, 1).await, (ErrorCode::PolicyViolation, -1));
    }
}
