//! What 100,000 partitions cost: `cargo bench -p klamm-control`.

use std::sync::OnceLock;

use divan::Bencher;
use klamm_control::{
    ClusterControl, ConfigRefusal, ConfigSchema, ControlConfig, ControlResult, Liveness, NewTopic,
    ReplicationControl, SplitMix64,
};
use klamm_metadata::{
    BrokerChanged, BrokerRegistration, ConfigResource, DirectoryId, IncarnationId, MetadataDelta,
    MetadataImage, MetadataProvenance, MetadataRecord, SnapshotReader, SnapshotWriter, encode_batch,
};
use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp};

const BROKERS: i32 = 6;
const TOPICS: i32 = 1_000;
const PARTITIONS: i32 = 100;

struct NoSettings;

impl ConfigSchema for NoSettings {
    fn validate(&self, _: &ConfigResource, _: &str, _: &str) -> Result<(), ConfigRefusal> {
        Ok(())
    }

    fn is_list(&self, _: &ConfigResource, _: &str) -> bool {
        false
    }

    fn default_value(&self, _: &ConfigResource, _: &str) -> Option<String> {
        None
    }
}

fn commit<T>(image: &MetadataImage, result: &ControlResult<T>) -> MetadataImage {
    let mut delta = MetadataDelta::new(image.clone());
    for record in &result.records {
        delta.replay(record).expect("a decision follows from its image");
    }
    let last_offset = image.provenance.last_offset.next();
    delta.apply(MetadataProvenance { last_offset, last_epoch: 1 })
}

fn brokers() -> MetadataImage {
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    for id in 1..=BROKERS {
        let registration = BrokerRegistration {
            id: BrokerId(id),
            epoch: BrokerEpoch(i64::from(id)),
            incarnation: IncarnationId([1; 16]),
            directory: DirectoryId([1; 16]),
            endpoints: Vec::new(),
            rack: Some((id % 3).to_string()),
            features: Vec::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
        };
        delta.replay(&MetadataRecord::BrokerRegistered(registration)).expect("a new broker");
    }
    delta.apply(MetadataProvenance { last_offset: Offset(9), last_epoch: 1 })
}

/// Request by request, as an administrator would: each is decided, replayed, and the next sees it.
fn create_all(config: &ControlConfig) -> MetadataImage {
    let mut image = brokers();
    let mut chance = SplitMix64::new(1);
    for topic in 0..TOPICS {
        let new = NewTopic {
            name: format!("topic-{topic}"),
            partitions: Some(PARTITIONS),
            replication_factor: Some(3),
            ..NewTopic::default()
        };
        let result = ReplicationControl::new(&image, config).create_topics(&[new], &NoSettings, &mut chance);
        image = commit(&image, &result);
    }
    image
}

fn image() -> &'static MetadataImage {
    static IMAGE: OnceLock<MetadataImage> = OnceLock::new();
    IMAGE.get_or_init(|| create_all(&ControlConfig::default()))
}

#[divan::bench(sample_count = 5)]
fn create_100_000_partitions() -> MetadataImage {
    create_all(&ControlConfig::default())
}

#[divan::bench]
fn copy_the_image() -> MetadataImage {
    image().clone()
}

/// A copy, one change, and the copy's end: what speculation costs.
#[divan::bench]
fn change_a_copy(bencher: Bencher<'_, '_>) {
    let broker = image().cluster.broker(BrokerId(1)).expect("registered").clone();
    let topic = image().topics.topics().nth(500).expect("there are 1,000").clone();
    let record = MetadataRecord::BrokerChanged(BrokerChanged::of(&broker));
    bencher.bench(|| {
        let mut delta = MetadataDelta::new(image().clone());
        delta.replay(&record).expect("it follows");
        delta.replay(&MetadataRecord::TopicDeleted { id: topic.id }).expect("it follows");
        delta
    });
}

/// The decision that follows a broker's death: a sixth of 100,000 partitions elect, half of them shrink.
#[divan::bench(sample_count = 10)]
fn decide_to_fence_a_broker() -> usize {
    fence(&ControlConfig::default()).records.len()
}

fn fence(config: &ControlConfig) -> ControlResult<()> {
    let liveness = Liveness::take_over(image(), config, Timestamp(0));
    ClusterControl::new(image(), config, Offset(10), Timestamp(0)).fence(&liveness, BrokerId(1))
}

#[divan::bench(sample_count = 10)]
fn replay_the_fence(bencher: Bencher<'_, '_>) {
    let result = fence(&ControlConfig::default());
    bencher.bench(|| commit(image(), &result));
}

#[divan::bench(sample_count = 10)]
fn look_for_the_silent() -> usize {
    let config = ControlConfig::default();
    Liveness::take_over(image(), &config, Timestamp(0)).silent(image(), Timestamp(100)).len()
}

#[divan::bench(sample_count = 10)]
fn write_a_snapshot() -> usize {
    SnapshotWriter::new(image()).parts().map(|part| part.len()).sum()
}

#[divan::bench(sample_count = 10)]
fn read_a_snapshot(bencher: Bencher<'_, '_>) {
    let parts: Vec<_> = SnapshotWriter::new(image()).parts().collect();
    bencher.bench(|| {
        let mut reader = SnapshotReader::new();
        parts.iter().filter_map(|part| reader.push(part.clone()).expect("it was just written")).last()
    });
}

/// Resident memory in bytes, where the system tells; for the figures printed below.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    status.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

fn main() {
    let before = resident();
    let topics = &image().topics;
    let after = resident();
    println!("{} topics, {} partitions", topics.topic_count(), topics.partition_count());
    println!("snapshot: {} bytes", write_a_snapshot());
    if let (Some(before), Some(after)) = (before, after) {
        println!("image: {} bytes resident", after.saturating_sub(before));
    }
    let (entries, ()) = fence(&ControlConfig::default()).into_entries();
    let bytes: usize = entries.iter().map(|entry| encode_batch(entry).len()).sum();
    println!("fence: {} entries, {bytes} bytes", entries.len());
    divan::main();
}
