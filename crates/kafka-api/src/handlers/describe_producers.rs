//! DescribeProducers (61): the producers that partitions remember, by which hanging transactions are found (KIP-664).
//! Followers answer as well as leaders.

use std::sync::Arc;

use klamm_log::ProducerEntry;
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use klamm_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::{ProducerId, TopicName};

use crate::context::RequestContext;
use crate::data_plane::DataPlane;
use crate::fetch_session::TopicKey;
use crate::partition_codes::not_serving_code;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// The handler.
#[derive(Debug)]
pub(crate) struct DescribeProducersHandler {
    plane: Arc<DataPlane>,
}

impl DescribeProducersHandler {
    /// A handler over these partitions.
    pub(crate) fn new(plane: Arc<DataPlane>) -> Self {
        Self { plane }
    }

    fn find(
        &self,
        image: &MetadataImage,
        topic: &str,
        partition: i32,
    ) -> Result<Vec<ProducerState>, ErrorCode> {
        if TopicName::new(topic).is_err() {
            return Err(ErrorCode::InvalidTopicException);
        }
        let topic = DataPlane::topic(image, &TopicKey::Name(topic.into()))?;
        let partition = self.plane.partition(&topic, partition)?;
        let producers = partition.describe_producers().map_err(|error| not_serving_code(&error))?;
        Ok(producers.into_iter().map(|(id, entry)| state_of(id, &entry)).collect())
    }
}

fn state_of(id: ProducerId, entry: &ProducerEntry) -> ProducerState {
    ProducerState {
        producer_id: id.0,
        producer_epoch: i32::from(entry.epoch.0),
        last_sequence: entry.last_sequence(),
        last_timestamp: entry.last_timestamp.0,
        coordinator_epoch: entry.coordinator_epoch.0,
        current_txn_start_offset: entry.txn_first_offset.map_or(-1, |offset| offset.0),
    }
}

impl Handler for DescribeProducersHandler {
    type Request = DescribeProducersRequest;

    const VERSIONS: VersionRange = DescribeProducersRequest::VERSIONS;
    const ACCESS: Access = Access::Topic(Operation::Read);

    fn handle(
        &self,
        _context: RequestContext,
        request: DescribeProducersRequest,
    ) -> Ticket<DescribeProducersResponse> {
        let image = self.plane.image();
        let topics = request.topics.into_iter().map(|topic| {
            let answer = |partition_index: &i32| {
                let partition_index = *partition_index;
                match self.find(&image, &topic.name, partition_index) {
                    Ok(active_producers) => {
                        PartitionResponse { partition_index, active_producers, ..Default::default() }
                    }
                    Err(code) => {
                        PartitionResponse { partition_index, error_code: code as i16, ..Default::default() }
                    }
                }
            };
            let partitions = topic.partition_indexes.iter().map(answer).collect();
            TopicResponse { name: topic.name, partitions }
        });
        let topics = topics.collect();
        Ticket::ready(Answer::Response(DescribeProducersResponse { throttle_time_ms: 0, topics }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
    use klamm_metadata::{MetadataRecord, PartitionChanged, PartitionRegistration};
    use klamm_protocol::messages::describe_producers_request::TopicRequest;
    use klamm_record::{BatchBuilder, Compression};
    use klamm_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, ProducerEpoch};

    use super::*;
    use crate::data_bed::{DataBed, append, wall};

    #[tokio::test(flavor = "multi_thread")]
    async fn producers_are_told_by_partition() {
        let bed = DataBed::new().await;
        let builder = BatchBuilder::new(Compression::NONE);
        let mut builder = builder.producer(ProducerId(4000), ProducerEpoch(3), 0);
        append(&mut builder, wall(), &["a", "b"]);
        let options = AppendOptions {
            acks: Acks::All,
            timeout: std::time::Duration::from_secs(10),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        let records = Bytes::from(builder.build().unwrap());
        bed.partition(0).append(records, &options).done().await.unwrap();
        let topic = |name: &str, partition_indexes| TopicRequest { name: name.to_owned(), partition_indexes };
        let topics = vec![topic("t", vec![0, 1, 2, 9]), topic("nobody", vec![0]), topic("a/b", vec![0])];
        let handler = DescribeProducersHandler::new(bed.plane.clone());
        let response = bed.ask(&handler, 0, DescribeProducersRequest { topics }).await;
        let answers: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
        let codes: Vec<_> = answers.iter().map(|a| ErrorCode::from_code(a.error_code).unwrap()).collect();
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let none = ErrorCode::None;
        let moved = ErrorCode::NotLeaderOrFollower;
        assert_eq!(codes, [none, none, moved, unknown, unknown, ErrorCode::InvalidTopicException]);
        let state = &answers[0].active_producers[0];
        assert_eq!((state.producer_id, state.producer_epoch, state.last_sequence), (4000, 3, 1));
        assert_eq!((state.coordinator_epoch, state.current_txn_start_offset), (-1, -1));
        assert_eq!(answers[1].active_producers.len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_tells_what_it_knows() {
        let bed = DataBed::new().await;
        bed.learn(&crate::fixture::topic(2, "u", &[&[1, 2]])).await;
        let topic = crate::fixture::topic_id(2);
        let here = bed.plane.replicas.partition(topic, PartitionId(0)).unwrap();
        let mut builder = BatchBuilder::new(Compression::NONE).producer(ProducerId(7), ProducerEpoch(0), 5);
        append(&mut builder, wall(), &["a"]);
        let options = AppendOptions {
            acks: Acks::Leader,
            timeout: std::time::Duration::from_secs(10),
            leader_epoch: None,
            origin: AppendOrigin::Client,
            first_sequence: None,
        };
        here.append(Bytes::from(builder.build().unwrap()), &options).done().await.unwrap();
        let image = bed.plane.image();
        let old = image.topics.partition(topic, PartitionId(0)).unwrap();
        let new = PartitionRegistration {
            leader: Some(BrokerId(2)),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            ..PartitionRegistration::clone(old)
        };
        let change = PartitionChanged::between(topic, PartitionId(0), old, &new);
        bed.learn(&[MetadataRecord::PartitionChanged(change)]).await;
        assert!(!here.role().is_leader);
        let topics = vec![TopicRequest { name: "u".to_owned(), partition_indexes: vec![0] }];
        let handler = DescribeProducersHandler::new(bed.plane.clone());
        let response = bed.ask(&handler, 0, DescribeProducersRequest { topics }).await;
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, ErrorCode::None as i16);
        let producers: Vec<_> =
            answer.active_producers.iter().map(|p| (p.producer_id, p.last_sequence)).collect();
        assert_eq!(producers, [(7, 5)]);
    }
}
