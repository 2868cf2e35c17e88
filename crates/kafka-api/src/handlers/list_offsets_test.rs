use klamm_broker::partition::{Acks, AppendOptions, AppendOrigin};
use klamm_record::Codec;

use super::*;
use crate::data_bed::{DataBed, compressed, stamped};

const LATEST: i16 = 11;

async fn append(bed: &DataBed, records: bytes::Bytes) {
    let options = AppendOptions {
        acks: Acks::All,
        timeout: std::time::Duration::from_secs(10),
        leader_epoch: None,
        origin: AppendOrigin::Client,
        first_sequence: None,
    };
    bed.partition(0).append(records, &options).done().await.unwrap();
}

async fn bed_with_records() -> DataBed {
    let bed = DataBed::new().await;
    append(&bed, stamped(Timestamp(1000), &["a", "b", "c"])).await;
    append(&bed, stamped(Timestamp(5000), &["d", "e"])).await;
    append(&bed, stamped(Timestamp(3000), &["f"])).await;
    bed
}

fn request(asked: &[(i32, i64)]) -> ListOffsetsRequest {
    let partition = |(partition_index, timestamp): &(i32, i64)| ListOffsetsPartition {
        partition_index: *partition_index,
        timestamp: *timestamp,
        ..ListOffsetsPartition::default()
    };
    let partitions = asked.iter().map(partition).collect();
    let topics = vec![ListOffsetsTopic { name: "t".to_owned(), partitions }];
    ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() }
}

async fn ask(bed: &DataBed, version: i16, request: ListOffsetsRequest) -> Vec<ListOffsetsPartitionResponse> {
    let response = bed.ask(&ListOffsetsHandler::new(bed.plane.clone()), version, request).await;
    let mut writer = klamm_protocol::Writer::new();
    response.encode(version, &mut writer).unwrap();
    response.topics.into_iter().flat_map(|topic| topic.partitions).collect()
}

fn code(answer: &ListOffsetsPartitionResponse) -> ErrorCode {
    ErrorCode::from_code(answer.error_code).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_name_and_by_time() {
    let bed = bed_with_records().await;
    let cases = [
        (-1, (6, -1, 0)),
        (-2, (0, -1, 0)),
        (-3, (4, 5001, 0)),
        (-4, (0, -1, 0)),
        (-5, (-1, -1, -1)),
        (-6, (-1, -1, -1)),
        (0, (0, 1000, 0)),
        (1001, (1, 1001, 0)),
        (1003, (3, 5000, 0)),
        (5001, (4, 5001, 0)),
        (5002, (-1, -1, -1)),
        (i64::MAX, (-1, -1, -1)),
    ];
    for (timestamp, expected) in cases {
        let answers = ask(&bed, LATEST, request(&[(0, timestamp)])).await;
        let answer = &answers[0];
        assert_eq!(code(answer), ErrorCode::None);
        assert_eq!((answer.offset, answer.timestamp, answer.leader_epoch), expected, "{timestamp}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_partition_has_bounds_and_no_records() {
    let bed = DataBed::new().await;
    for (timestamp, offset) in [(-1, 0), (-2, 0), (-3, -1), (7, -1)] {
        let answers = ask(&bed, LATEST, request(&[(0, timestamp)])).await;
        assert_eq!((code(&answers[0]), answers[0].offset), (ErrorCode::None, offset), "{timestamp}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_within_compressed_batches() {
    let bed = DataBed::new().await;
    append(&bed, compressed(Codec::Zstd, &["a", "b", "c"])).await;
    let first = ask(&bed, LATEST, request(&[(0, 0)])).await[0].timestamp;
    let answers = ask(&bed, LATEST, request(&[(0, first + 2)])).await;
    assert_eq!((answers[0].offset, answers[0].timestamp), (2, first + 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_knows_its_special_timestamps() {
    let bed = bed_with_records().await;
    let since = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)];
    for version in ListOffsetsRequest::VERSIONS.iter() {
        for (timestamp, since) in since {
            let answers = ask(&bed, version, request(&[(0, timestamp)])).await;
            let expected = if version >= since { ErrorCode::None } else { ErrorCode::UnsupportedVersion };
            assert_eq!(code(&answers[0]), expected, "{timestamp} in {version}");
        }
        for timestamp in [-7, i64::MIN] {
            let answers = ask(&bed, version, request(&[(0, timestamp)])).await;
            assert_eq!((code(&answers[0]), answers[0].offset), (ErrorCode::UnsupportedVersion, -1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_refused_one_by_one() {
    let bed = bed_with_records().await;
    let asked = request(&[(0, -1), (2, -1), (3, -1), (-1, -1), (1, -1), (1, -2)]);
    let codes: Vec<_> = ask(&bed, LATEST, asked).await.iter().map(code).collect();
    let (unknown, twice) = (ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidRequest);
    assert_eq!(codes, [ErrorCode::None, ErrorCode::NotLeaderOrFollower, unknown, unknown, twice, twice]);
    let broker = ListOffsetsRequest { replica_id: 2, ..request(&[(0, -1)]) };
    assert_eq!(code(&ask(&bed, LATEST, broker).await[0]), ErrorCode::ClusterAuthorizationFailed);
    let isolation = ListOffsetsRequest { isolation_level: 9, ..request(&[(0, -1)]) };
    assert_eq!(code(&ask(&bed, LATEST, isolation).await[0]), ErrorCode::InvalidRequest);
    let mut fenced = request(&[(0, -1)]);
    fenced.topics[0].partitions[0].current_leader_epoch = 4;
    assert_eq!(code(&ask(&bed, LATEST, fenced).await[0]), ErrorCode::UnknownLeaderEpoch);
}
