//! What tests of the handlers that touch records stand on: real partitions on a disk, under metadata made of facts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::partition::{
    FetchId, FollowerFetch, FollowerFetches, IsrProposal, IsrProposals, SessionLease, Surroundings,
};
use klamm_broker::{BrokerConfig, BrokerMetrics, Clock, LogDirs, PartitionHandle, ReplicaManager};
use klamm_log::fs::RealFs;
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataRecord};
use klamm_protocol::{ApiRequest, ErrorCode};
use klamm_record::{BatchBuilder, Codec, Compression, NewRecord};
use klamm_types::{BrokerEpoch, BrokerId, PartitionId, Timestamp, TopicName};

use crate::context::RequestContext;
use crate::data_plane::{DataConfig, DataPlane};
use crate::fixture::{Bed, context_of, setting, topic, topic_id};
use crate::table::{Answer, Handler, Ticket};

/// The broker under test.
pub(crate) const NODE: i32 = 1;

#[derive(Debug)]
struct Alone;

impl FollowerFetches for Alone {
    fn send(&self, _: &PartitionHandle, _: FetchId, _: BrokerId, _: FollowerFetch) {}

    fn cancel(&self, _: &PartitionHandle, _: FetchId) {}
}

impl IsrProposals for Alone {
    fn propose(&self, _: &PartitionHandle, _: IsrProposal) {}
}

/// A broker with partitions of its own.
pub(crate) struct DataBed {
    pub(crate) bed: Arc<Bed>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) lease: SessionLease,
    _dir: tempfile::TempDir,
}

impl DataBed {
    /// Brokers 1 (this one), 2 and 3 are there. Topic `t` (number 1) has partition 0 here alone, 1 here too, and 2 on
    /// broker 2.
    pub(crate) async fn new() -> Self {
        Self::with_config(DataConfig::default()).await
    }

    pub(crate) async fn with_config(config: DataConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let lease = SessionLease::default();
        lease.extend(clock.after(Duration::from_secs(3600)));
        let broker = BrokerConfig::new(BrokerId(NODE), "cluster", vec![dir.path().join("data")]);
        let dirs = Arc::new(LogDirs::open(Arc::new(RealFs), &broker, clock.wall()).unwrap());
        let around = Surroundings {
            node: BrokerId(NODE),
            clock,
            lease: lease.clone(),
            fetches: Arc::new(Alone),
            proposals: Arc::new(Alone),
            metrics: Arc::new(BrokerMetrics::default()),
        };
        let replicas = ReplicaManager::new(broker, dirs, around);
        let bed = Bed::with_brokers(&[(1, false), (2, false), (3, false)]);
        let plane = DataPlane::new(config, Arc::clone(&replicas), bed.cluster());
        let data = Self { bed, plane, lease, _dir: dir };
        data.learn(&topic(1, "t", &[&[1], &[1], &[2]])).await;
        replicas.begin_incarnation(BrokerEpoch(i64::from(NODE))).await;
        data
    }

    /// Replays facts, as the metadata and as the replicas have them.
    pub(crate) async fn learn(&self, records: &[MetadataRecord]) {
        let before = self.plane.image();
        self.bed.learn(records);
        let after = self.plane.image();
        let delta = MetadataDelta::between((*before).clone(), (*after).clone());
        self.plane.replicas.apply(Arc::new(delta), after).await;
    }

    /// Another setting of topic `t`.
    pub(crate) async fn set(&self, key: &str, value: &str) {
        let resource = ConfigResource::Topic(TopicName::new("t").unwrap());
        self.learn(&[setting(resource, key, value)]).await;
    }

    pub(crate) fn partition(&self, partition: i32) -> PartitionHandle {
        self.plane.replicas.partition(topic_id(1), PartitionId(partition)).unwrap()
    }

    /// The response of a handler to a request of this version.
    pub(crate) async fn ask<H: Handler>(
        &self,
        handler: &H,
        version: i16,
        request: H::Request,
    ) -> <H::Request as ApiRequest>::Response {
        let ticket = handler.handle(context_of::<H::Request>(version), request);
        match outcome(ticket).await {
            Answer::Response(response) | Answer::WithFiles(response, _) => response,
            Answer::Nothing | Answer::Close => panic!("there is a response"),
        }
    }
}

/// What becomes of a ticket.
pub(crate) async fn outcome<R: Send + 'static>(ticket: Ticket<R>) -> Answer<R> {
    tokio::time::timeout(Duration::from_secs(20), ticket.into_answer()).await.expect("an answer in time")
}

pub(crate) fn context<R: ApiRequest>(version: i16) -> RequestContext {
    context_of::<R>(version)
}

/// Now, as records carry it.
pub(crate) fn wall() -> Timestamp {
    Clock::start().wall()
}

/// A batch with these values, stamped with the time now.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    stamped(wall(), values)
}

/// A batch with these values and timestamps that grow by 1 from `first`.
pub(crate) fn stamped(first: Timestamp, values: &[&str]) -> Bytes {
    built(Compression::NONE, first, values)
}

/// A batch under another codec.
pub(crate) fn compressed(codec: Codec, values: &[&str]) -> Bytes {
    let level = codec.levels().map_or(0, |(_, default, _)| default);
    built(Compression::new(codec, level).unwrap(), wall(), values)
}

fn built(compression: Compression, first: Timestamp, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    append(&mut builder, first, values);
    builder.build().unwrap().into()
}

/// Appends a record with a key per value.
pub(crate) fn append(builder: &mut BatchBuilder, first: Timestamp, values: &[&str]) {
    for (i, value) in values.iter().enumerate() {
        let timestamp = first.plus_millis(i64::try_from(i).unwrap());
        builder.append(&NewRecord::new(timestamp, Some(b"k"), Some(value.as_bytes()))).unwrap();
    }
}

/// A batch with one byte changed at `at`, and the checksum made right again.
fn patched(at: usize, bytes: &[u8]) -> Bytes {
    let mut patched = batch(&["a", "b"]).to_vec();
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c_of(&patched[21..]);
    patched[17..21].copy_from_slice(&crc.to_be_bytes());
    patched.into()
}

/// CRC-32C, bit by bit.
fn crc32c_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// What a producer may send that is no good batch, by the rows of HARDENING 6.1, and the code that it is refused with.
pub(crate) fn malformed_batches() -> Vec<(&'static str, Bytes, ErrorCode)> {
    use ErrorCode::{CorruptMessage, InvalidRecord, InvalidTimestamp, UnsupportedForMessageFormat};
    let good = batch(&["a", "b"]);
    let mut wrong_crc = good.to_vec();
    wrong_crc[70] ^= 1;
    vec![
        ("W31 empty", Bytes::new(), InvalidRecord),
        ("W31 two batches", [good.clone(), good.clone()].concat().into(), InvalidRecord),
        ("W32 cut off", good.slice(..good.len() - 1), CorruptMessage),
        ("W32 less than a header", good.slice(..30), CorruptMessage),
        ("W32 length negative", patched(8, &(-1_i32).to_be_bytes()), CorruptMessage),
        ("W32 length past the end", patched(8, &i32::MAX.to_be_bytes()), CorruptMessage),
        ("W33 magic 0", patched(16, &[0]), UnsupportedForMessageFormat),
        ("W33 magic 1", patched(16, &[1]), UnsupportedForMessageFormat),
        ("W33 magic 3", patched(16, &[3]), InvalidRecord),
        ("W33 magic 127", patched(16, &[127]), InvalidRecord),
        ("W34 crc", wrong_crc.into(), CorruptMessage),
        ("W35 count 0", patched(57, &0_i32.to_be_bytes()), InvalidRecord),
        ("W35 count -1", patched(57, &(-1_i32).to_be_bytes()), InvalidRecord),
        ("W35 count huge", patched(57, &i32::MAX.to_be_bytes()), InvalidRecord),
        ("W35 count and delta lie", patched(23, &9_i32.to_be_bytes()), InvalidRecord),
        ("W36 base offset", patched(0, &7_i64.to_be_bytes()), InvalidRecord),
        ("W36 delta negative", patched(23, &(-1_i32).to_be_bytes()), InvalidRecord),
        ("W37 control", patched(22, &[0x20]), InvalidRecord),
        ("W37 reserved", patched(21, &[0x80]), InvalidRecord),
        ("W37 append time", patched(22, &[0x08]), InvalidTimestamp),
        ("W37 codec 5", patched(22, &[5]), ErrorCode::UnsupportedCompressionType),
        ("W37 codec 7", patched(22, &[7]), ErrorCode::UnsupportedCompressionType),
        ("W38 record length", patched(61, &[0x7f]), InvalidRecord),
        ("W39 far future", stamped(Timestamp(i64::MAX - 1), &["a"]), InvalidTimestamp),
        ("W40 no gzip", patched(22, &[1]), CorruptMessage),
        ("W40 no lz4", patched(22, &[3]), CorruptMessage),
        ("W42 no sequence", patched(43, &5_i64.to_be_bytes()), InvalidRecord),
        ("W42 transaction without id", patched(22, &[0x10]), InvalidRecord),
    ]
}
