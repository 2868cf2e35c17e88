//! The messages of the hot paths, and the same bytes through the `kafka-protocol` crate in the same run.

use bytes::{Bytes, BytesMut};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{FetchRequest, FetchResponse, MetadataResponse, ProduceRequest};
use klamm_protocol::{Budget, Reader, Records, Uuid, Writer};

fn main() {
    divan::main();
}

/// Ten partitions of 100 KiB each, as a producer sends them.
fn produce() -> ProduceRequest {
    let partition = |index| {
        let records = Bytes::from(vec![7; 100 << 10]);
        PartitionProduceData { index, records: Some(records.into()) }
    };
    let topic = TopicProduceData {
        name: "orders".to_owned(),
        partition_data: (0..10).map(partition).collect(),
        ..Default::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// Five hundred partitions in ten topics, as a consumer opens a session.
fn fetch() -> FetchRequest {
    let partition = |partition| FetchPartition { partition, fetch_offset: 12345, ..Default::default() };
    let topic = |id| FetchTopic {
        topic_id: Uuid([id; 16]),
        partitions: (0..50).map(partition).collect(),
        ..Default::default()
    };
    FetchRequest { topics: (1..=10).map(topic).collect(), ..Default::default() }
}

/// A hundred partitions of 10 KiB each.
fn fetched(records: &Records) -> FetchResponse {
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 99,
        records: Some(records.clone()),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic_id: Uuid([1; 16]),
        partitions: (0..100).map(partition).collect(),
        ..Default::default()
    };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

/// A thousand topics of three partitions on three brokers.
fn metadata() -> MetadataResponse {
    let broker = |node_id| MetadataResponseBroker {
        node_id,
        host: format!("broker-{node_id}.example"),
        port: 9092,
        ..Default::default()
    };
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: 1,
        leader_epoch: 4,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..Default::default()
    };
    let topic = |number| MetadataResponseTopic {
        name: Some(format!("topic-{number}")),
        topic_id: Uuid([2; 16]),
        partitions: (0..3).map(partition).collect(),
        ..Default::default()
    };
    MetadataResponse {
        brokers: (1..=3).map(broker).collect(),
        topics: (0..1000).map(topic).collect(),
        ..Default::default()
    }
}

fn encoded(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish().expect("short enough").into_bytes().expect("all in memory")
}

fn bench_decode<M>(bencher: Bencher<'_, '_>, body: &Bytes, decode: impl Fn(&mut Reader<'_>) -> M + Sync) {
    let budget = Budget::for_request(body.len());
    bencher
        .counter(BytesCount::new(body.len()))
        .bench(|| decode(&mut Reader::shared(black_box(body), budget)));
}

fn bench_theirs<M: Decodable>(bencher: Bencher<'_, '_>, body: &Bytes, version: i16) {
    bencher
        .counter(BytesCount::new(body.len()))
        .bench(|| M::decode(&mut black_box(body).clone(), version).expect("valid"));
}

#[divan::bench_group]
mod decode {
    use super::*;

    #[divan::bench]
    fn produce_1_mib(bencher: Bencher<'_, '_>) {
        let body = encoded(|writer| produce().encode(9, writer).expect("valid"));
        bench_decode(bencher, &body, |reader| ProduceRequest::decode(9, reader).expect("valid"));
    }

    #[divan::bench]
    fn produce_1_mib_theirs(bencher: Bencher<'_, '_>) {
        let body = encoded(|writer| produce().encode(9, writer).expect("valid"));
        bench_theirs::<theirs::ProduceRequest>(bencher, &body, 9);
    }

    #[divan::bench]
    fn fetch_500_partitions(bencher: Bencher<'_, '_>) {
        let body = encoded(|writer| fetch().encode(17, writer).expect("valid"));
        bench_decode(bencher, &body, |reader| FetchRequest::decode(17, reader).expect("valid"));
    }

    #[divan::bench]
    fn fetch_500_partitions_theirs(bencher: Bencher<'_, '_>) {
        let body = encoded(|writer| fetch().encode(17, writer).expect("valid"));
        bench_theirs::<theirs::FetchRequest>(bencher, &body, 17);
    }
}

#[divan::bench_group]
mod encode {
    use super::*;

    #[divan::bench]
    fn fetched_100_partitions(bencher: Bencher<'_, '_>) {
        let response = fetched(&Records::from(Bytes::from(vec![7; 10 << 10])));
        bencher.bench(|| {
            let mut writer = Writer::framed();
            black_box(&response).encode(17, &mut writer).expect("valid");
            writer.finish().expect("short enough")
        });
    }

    #[divan::bench]
    fn fetched_100_partitions_from_files(bencher: Bencher<'_, '_>) {
        let response = fetched(&Records::external(1, 10 << 10));
        bencher.bench(|| {
            let mut writer = Writer::framed();
            black_box(&response).encode(17, &mut writer).expect("valid");
            writer.finish().expect("short enough")
        });
    }

    #[divan::bench]
    fn fetched_100_partitions_theirs(bencher: Bencher<'_, '_>) {
        let response = fetched(&Records::from(Bytes::from(vec![7; 10 << 10])));
        let mut body = encoded(|writer| response.encode(17, writer).expect("valid"));
        let response = theirs::FetchResponse::decode(&mut body, 17).expect("valid");
        bencher.bench(|| {
            let mut bytes = BytesMut::new();
            black_box(&response).encode(&mut bytes, 17).expect("valid");
            bytes
        });
    }

    #[divan::bench]
    fn metadata_1000_topics(bencher: Bencher<'_, '_>) {
        let response = metadata();
        bencher.bench(|| {
            let mut writer = Writer::framed();
            black_box(&response).encode(12, &mut writer).expect("valid");
            writer.finish().expect("short enough")
        });
    }

    #[divan::bench]
    fn metadata_1000_topics_theirs(bencher: Bencher<'_, '_>) {
        let mut body = encoded(|writer| metadata().encode(12, writer).expect("valid"));
        let response = theirs::MetadataResponse::decode(&mut body, 12).expect("valid");
        bencher.bench(|| {
            let mut bytes = BytesMut::new();
            black_box(&response).encode(&mut bytes, 12).expect("valid");
            bytes
        });
    }
}
