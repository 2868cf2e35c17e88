use bytes::Bytes;
use klamm_broker::PartitionHandle;
use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin, FollowerFetch};
use klamm_metadata::{
    BrokerChanged, ConfigResource, MetadataRecord, PartitionChanged, PartitionRegistration,
};
use klamm_protocol::messages::fetch_request::FetchPartition;
use klamm_record::Batches;
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId, TopicName};

use super::*;
use crate::data_bed::{DataBed, batch, context, outcome};
use crate::fixture::{broker, setting, topic, topic_id};

const LATEST: i16 = 18;
const SELECTOR: (&str, &str) =
    ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");

/// A topic whose partition 0 this broker, 1, leads; 2, 3 and 4 follow. All are in racks of their own, but for 4, which
/// is in that of 3. The log holds the offsets 0 and 1.
async fn start(settings: &[(&str, &str)]) -> DataBed {
    let bed = DataBed::started_with(settings).await;
    let MetadataRecord::BrokerRegistered(mut fourth) = broker(4, false) else { panic!("a registration") };
    fourth.rack = Some("rack3".to_owned());
    bed.learn(&[MetadataRecord::BrokerRegistered(fourth)]).await;
    // What is committed follows from the fetches alone, not from when the disk has it.
    let resource = ConfigResource::Topic(TopicName::new("u").unwrap());
    let mut records = topic(2, "u", &[&[1, 2, 3, 4]]);
    records.insert(1, setting(resource, "write.caching", "true"));
    bed.learn(&records).await;
    let options = AppendOptions {
        acks: Acks::Leader,
        timeout: Duration::from_secs(10),
        leader_epoch: None,
        origin: AppendOrigin::Client,
        first_sequence: None,
    };
    for value in ["a", "b"] {
        partition(&bed).append(batch(&[value]), &options).done().await.unwrap();
    }
    bed
}

fn partition(bed: &DataBed) -> PartitionHandle {
    bed.plane.replicas.partition(topic_id(2), PartitionId(0)).unwrap()
}

/// A follower asks for more, and holds everything before `end` by that.
fn holds(bed: &DataBed, id: i32, end: i64) {
    let fetch = FollowerFetch {
        broker: BrokerId(id),
        broker_epoch: BrokerEpoch(i64::from(id)),
        leader_epoch: LeaderEpoch(0),
        offset: Offset(end),
        last_epoch: if end > 0 { LeaderEpoch(0) } else { LeaderEpoch::NONE },
        log_start_offset: Offset(0),
        high_watermark: Offset(0),
    };
    partition(bed).on_follower_fetch(&fetch).unwrap();
}

/// Has broker 2 lead, so that this one follows.
async fn step_down(bed: &DataBed) {
    let image = bed.plane.image();
    let old = image.topics.partition(topic_id(2), PartitionId(0)).unwrap();
    let new = PartitionRegistration {
        leader: Some(BrokerId(2)),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        ..PartitionRegistration::clone(old)
    };
    let change = PartitionChanged::between(topic_id(2), PartitionId(0), old, &new);
    bed.learn(&[MetadataRecord::PartitionChanged(change)]).await;
}

/// What a consumer in `rack` is told: the code, the replica that it should ask, and how many batches it gets.
async fn told(bed: &DataBed, version: i16, rack: &str, offset: i64) -> (ErrorCode, i32, usize) {
    let wanted =
        FetchPartition { fetch_offset: offset, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic = FetchTopic { topic: "u".to_owned(), topic_id: topic_id(2).into(), partitions: vec![wanted] };
    let request = FetchRequest { rack_id: rack.to_owned(), topics: vec![topic], ..FetchRequest::default() };
    let handler = FetchHandler::new(bed.plane.clone());
    let answer = outcome(handler.handle(context::<FetchRequest>(version), request)).await;
    let Answer::WithFiles(response, files) = answer else { panic!("a response") };
    let data = &response.responses[0].partitions[0];
    let records: Bytes = match &data.records {
        Some(Records::One(klamm_protocol::Payload::External(external))) => {
            files.get(external.token).unwrap().to_vec().unwrap().into()
        }
        _ => Bytes::new(),
    };
    let code = ErrorCode::from_code(data.error_code).unwrap();
    (code, data.preferred_read_replica, Batches::new(&records).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_sent_to_the_follower_in_its_rack() {
    let bed = start(&[SELECTOR]).await;
    for id in [2, 3, 4] {
        holds(&bed, id, 2);
    }
    let here = |batches| (ErrorCode::None, -1, batches);
    assert_eq!(told(&bed, LATEST, "rack2", 0).await, (ErrorCode::None, 2, 0));
    assert_eq!(told(&bed, 11, "rack2", 2).await, (ErrorCode::None, 2, 0), "the end is a place as well");
    assert_eq!(told(&bed, LATEST, "rack1", 0).await, here(2), "the leader is in that rack");
    assert_eq!(told(&bed, LATEST, "rack9", 0).await, here(2), "nobody is in that rack");
    assert_eq!(told(&bed, LATEST, "", 0).await, here(2), "a consumer that does not say");
    assert_eq!(told(&bed, 10, "rack2", 0).await, here(2), "a version that cannot say");
    assert_eq!(told(&bed, LATEST, "rack2", 3).await, (ErrorCode::OffsetOutOfRange, -1, 0), "past every end");
    step_down(&bed).await;
    assert_eq!(told(&bed, LATEST, "rack3", 0).await, here(2), "only the leader sends consumers elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_does_not_wait_for_records() {
    let bed = start(&[SELECTOR]).await;
    for id in [2, 3, 4] {
        holds(&bed, id, 2);
    }
    let wanted =
        FetchPartition { fetch_offset: 2, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let topic =
        FetchTopic { topic_id: topic_id(2).into(), partitions: vec![wanted], ..FetchTopic::default() };
    let request = FetchRequest {
        rack_id: "rack2".to_owned(),
        topics: vec![topic],
        min_bytes: 1,
        max_wait_ms: i32::MAX,
        ..FetchRequest::default()
    };
    let handler = FetchHandler::new(bed.plane.clone());
    let answer = outcome(handler.handle(context::<FetchRequest>(LATEST), request)).await;
    let Answer::WithFiles(response, _) = answer else { panic!("a response") };
    assert_eq!(response.responses[0].partitions[0].preferred_read_replica, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_follower_holds_the_offset_and_is_the_furthest() {
    let bed = start(&[SELECTOR]).await;
    assert_eq!(told(&bed, LATEST, "rack3", 0).await.1, -1, "nobody has fetched yet");
    holds(&bed, 3, 0);
    holds(&bed, 4, 0);
    assert_eq!(told(&bed, LATEST, "rack3", 1).await.1, -1, "neither holds it");
    holds(&bed, 3, 1);
    assert_eq!(told(&bed, LATEST, "rack3", 1).await.1, 3, "only 3 holds it");
    assert_eq!(told(&bed, LATEST, "rack3", 0).await.1, 3, "3 is further");
    holds(&bed, 4, 2);
    assert_eq!(told(&bed, LATEST, "rack3", 0).await.1, 4, "4 is further");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_fenced_or_out_of_sync_is_not_chosen() {
    let bed = start(&[SELECTOR]).await;
    for id in [2, 3, 4] {
        holds(&bed, id, 2);
    }
    let fenced = BrokerChanged {
        broker: BrokerId(2),
        epoch: BrokerEpoch(2),
        fenced: Some(true),
        shutting_down: None,
        cordoned: None,
    };
    bed.learn(&[MetadataRecord::BrokerChanged(fenced)]).await;
    assert_eq!(told(&bed, LATEST, "rack2", 0).await.1, -1);
    assert_eq!(told(&bed, LATEST, "rack3", 0).await.1, 4);
    let image = bed.plane.image();
    let old = image.topics.partition(topic_id(2), PartitionId(0)).unwrap();
    let new = PartitionRegistration {
        isr: vec![BrokerId(1), BrokerId(3)],
        partition_epoch: PartitionEpoch(1),
        ..PartitionRegistration::clone(old)
    };
    let change = PartitionChanged::between(topic_id(2), PartitionId(0), old, &new);
    bed.learn(&[MetadataRecord::PartitionChanged(change)]).await;
    assert_eq!(told(&bed, LATEST, "rack3", 0).await.1, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_the_leader_answers() {
    let bed = start(&[]).await;
    for id in [2, 3, 4] {
        holds(&bed, id, 2);
    }
    assert_eq!(told(&bed, LATEST, "rack2", 0).await, (ErrorCode::None, -1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_what_it_knows_to_be_committed() {
    let bed = start(&[SELECTOR]).await;
    for id in [2, 3, 4] {
        holds(&bed, id, 1);
    }
    assert_eq!(partition(&bed).bounds().high_watermark, Offset(1));
    step_down(&bed).await;
    assert_eq!(told(&bed, LATEST, "rack1", 0).await, (ErrorCode::None, -1, 1));
    // It may be committed, and this replica learns of it a little later.
    assert_eq!(told(&bed, LATEST, "rack1", 1).await, (ErrorCode::None, -1, 0));
    assert_eq!(told(&bed, LATEST, "rack1", 2).await, (ErrorCode::None, -1, 0));
    assert_eq!(told(&bed, LATEST, "rack1", 3).await, (ErrorCode::OffsetOutOfRange, -1, 0));
    assert_eq!(told(&bed, 10, "", 0).await, (ErrorCode::NotLeaderOrFollower, -1, 0));
}
