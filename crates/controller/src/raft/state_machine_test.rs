use std::path::{Path, PathBuf};

use bytes::Bytes;
use klamm_log::fs::{LogFs as _, MemoryFs};
use klamm_log::{FileCache, LogDir};
use klamm_metadata::{MetadataRecord, encode_batch, to_batch};
use klamm_pb::metadata::v1 as pb;
use prost::Message as _;

use super::super::types::{CommittedLeaderId, Membership};
use super::*;

fn machine() -> (MetadataStateMachine, watch::Receiver<MetadataImage>) {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new("/data/log")).unwrap();
    let log_dir = LogDir::new(Arc::new(fs), Path::new("/data"), FileCache::new(10));
    let snapshots = SnapshotStore::open(log_dir, PathBuf::from("/data/log")).unwrap();
    let (sender, committed) = watch::channel(MetadataImage::empty());
    (MetadataStateMachine::new(Arc::new(snapshots), sender, Arc::default()), committed)
}

fn entry(index: u64, payload: EntryPayload) -> Entry {
    Entry { log_id: LogId { leader_id: CommittedLeaderId::new(3), index }, payload }
}

fn records(index: u64, bytes: Bytes) -> Entry {
    entry(index, EntryPayload::Normal(EncodedRecords(bytes)))
}

fn level(name: &str) -> MetadataRecord {
    MetadataRecord::FeatureLevelSet { name: name.to_owned(), level: 1 }
}

#[test]
fn every_entry_moves_the_image_on() {
    let (mut machine, _) = machine();
    machine.apply_entry(entry(0, EntryPayload::Membership(Membership::default()))).unwrap();
    machine.apply_entry(entry(1, EntryPayload::Blank)).unwrap();
    machine.apply_entry(records(2, encode_batch(&[level("a"), level("b")]))).unwrap();
    assert_eq!(machine.image.provenance, MetadataProvenance { last_offset: Offset(2), last_epoch: 3 });
    assert_eq!((machine.image.features.level("a"), machine.image.features.level("b")), (1, 1));
    assert_eq!(machine.last_applied.unwrap().index, 2);
    assert_eq!(machine.membership.log_id().unwrap().index, 0);
}

/// What a newer binary wrote, or a damaged disk, stops the node, and none of the entry applies.
#[test]
fn what_is_not_known_is_refused_as_a_whole() {
    let (mut machine, _) = machine();
    machine.apply_entry(records(0, encode_batch(&[level("a")]))).unwrap();
    let before = machine.image.clone();
    let newer = |change: fn(&mut pb::RecordEnvelope)| {
        let mut batch = to_batch(&[level("b"), level("c")]);
        change(&mut batch.records[1]);
        Bytes::from(batch.encode_to_vec())
    };
    let unknown = [
        newer(|envelope| envelope.version = 99),
        newer(|envelope| envelope.r#type = 99),
        newer(|envelope| envelope.payload = Bytes::from_static(&[0xff; 3])),
        Bytes::from_static(&[0xff; 7]),
    ];
    for bytes in unknown {
        let error = machine.apply_entry(records(1, bytes)).unwrap_err();
        assert!(matches!(error, ApplyError::Record { index: 1, .. }), "{error}");
    }
    let gone = MetadataRecord::TopicDeleted { id: klamm_types::TopicId([7; 16]) };
    let error = machine.apply_entry(records(1, encode_batch(&[level("b"), gone]))).unwrap_err();
    assert!(matches!(error, ApplyError::Replay { index: 1, .. }), "{error}");
    assert_eq!(machine.image, before);
}
