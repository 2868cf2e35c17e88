use klamm_metadata::{MetadataRecord, SnapshotWriter, to_batch};
use klamm_types::{TopicId, TopicName};
use prost::Message;

use super::*;

fn topic(number: u8) -> MetadataRecord {
    let name = TopicName::new(&format!("topic-{number}")).unwrap();
    MetadataRecord::TopicCreated { id: TopicId([number; 16]), name }
}

fn entry(offset: i64, records: &[MetadataRecord]) -> pb::CommittedEntry {
    pb::CommittedEntry { offset, epoch: 3, batch: Some(to_batch(records)) }
}

fn entries(entries: Vec<pb::CommittedEntry>) -> pb::FollowEvent {
    let entries = pb::CommittedEntries { entries, committed_end_offset: 100 };
    pb::FollowEvent { event: Some(pb::follow_event::Event::Entries(entries)) }
}

fn empty() -> Feed {
    Feed::new(Arc::new(MetadataImage::empty()))
}

/// An image of these topics, at this offset.
fn image(last_offset: i64, topics: &[u8]) -> MetadataImage {
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    topics.iter().for_each(|number| delta.replay(&topic(*number)).unwrap());
    delta.apply(MetadataProvenance { last_offset: Offset(last_offset), last_epoch: 3 })
}

fn snapshot_of(image: &MetadataImage) -> Vec<pb::FollowEvent> {
    let parts = SnapshotWriter::new(image).parts();
    let event = |part| pb::follow_event::Event::Snapshot(pb::SnapshotPart::decode(part).unwrap());
    parts.map(|part| pb::FollowEvent { event: Some(event(part)) }).collect()
}

#[test]
fn entries_of_one_event_are_one_step() {
    let mut feed = empty();
    let event = entries(vec![entry(0, &[topic(1)]), entry(1, &[]), entry(2, &[topic(2), topic(3)])]);
    let step = feed.on_event(event).unwrap().unwrap();
    assert_eq!(step.image.provenance, MetadataProvenance { last_offset: Offset(2), last_epoch: 3 });
    assert_eq!(*step.image, image(2, &[1, 2, 3]));
    assert_eq!(step.delta.created_topics().count(), 3);
    assert_eq!(feed.provenance(), step.image.provenance);
    let step = feed.on_event(entries(vec![entry(3, &[topic(4)])])).unwrap().unwrap();
    assert_eq!(step.delta.created_topics().count(), 1);
    assert_eq!(*step.image, image(3, &[1, 2, 3, 4]));
}

#[test]
fn nothing_new_is_no_step() {
    let mut feed = empty();
    assert!(feed.on_event(entries(Vec::new())).unwrap().is_none());
    let idle = pb::follow_event::Event::Idle(pb::FeedIdle { committed_end_offset: 0 });
    assert!(feed.on_event(pb::FollowEvent { event: Some(idle) }).unwrap().is_none());
}

#[test]
fn entries_that_do_not_follow_change_nothing() {
    let mut feed = Feed::new(Arc::new(image(5, &[1])));
    for offset in [4, 5, 7] {
        let event = entries(vec![entry(offset, &[topic(2)])]);
        let error = feed.on_event(event).unwrap_err();
        assert!(matches!(error, FeedError::Gap { expected: Offset(6), .. }), "{error}");
        assert!(!error.is_fatal());
    }
    let event = entries(vec![entry(6, &[topic(2)]), entry(8, &[])]);
    assert!(matches!(feed.on_event(event).unwrap_err(), FeedError::Gap { .. }));
    assert_eq!(feed.provenance().last_offset, Offset(5));
}

#[test]
fn records_of_a_newer_binary_are_fatal() {
    let mut feed = empty();
    for (record_type, version) in [(999, 1), (4, 2)] {
        let envelope = pb::RecordEnvelope { r#type: record_type, version, payload: Vec::new().into() };
        let batch = Some(pb::RecordBatch { records: vec![envelope] });
        let error =
            feed.on_event(entries(vec![pb::CommittedEntry { offset: 0, epoch: 1, batch }])).unwrap_err();
        assert!(matches!(error, FeedError::Entry { offset: Offset(0), .. }), "{error}");
        assert!(error.is_fatal());
    }
}

#[test]
fn facts_that_cannot_follow_are_fatal() {
    let mut feed = empty();
    let gone = MetadataRecord::TopicDeleted { id: TopicId([9; 16]) };
    let error = feed.on_event(entries(vec![entry(0, &[topic(1)]), entry(1, &[gone])])).unwrap_err();
    assert!(matches!(error, FeedError::Replay { offset: Offset(1), .. }), "{error}");
    assert!(error.is_fatal());
    assert_eq!(feed.provenance(), MetadataProvenance::EMPTY);
}

#[test]
fn a_snapshot_is_one_step_and_entries_go_on_behind_it() {
    let mut feed = Feed::new(Arc::new(image(5, &[1, 2])));
    let target = image(40, &[2, 3]);
    let mut steps = snapshot_of(&target).into_iter().map(|event| feed.on_event(event).unwrap());
    let step = steps.by_ref().flatten().next().unwrap();
    assert!(steps.next().is_none());
    assert_eq!(*step.image, target);
    assert_eq!(step.delta.created_topics().count(), 1);
    assert_eq!(step.delta.deleted_topics().count(), 1);
    let step = feed.on_event(entries(vec![entry(41, &[topic(4)])])).unwrap().unwrap();
    assert_eq!(*step.image, image(41, &[2, 3, 4]));
}

#[test]
fn a_snapshot_of_the_past_is_refused() {
    let mut feed = Feed::new(Arc::new(image(5, &[1, 2])));
    let outcomes: Vec<_> =
        snapshot_of(&image(4, &[1])).into_iter().map(|event| feed.on_event(event)).collect();
    let error = outcomes.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(error, FeedError::WentBack { found: Offset(4), applied: Offset(5) }), "{error}");
    assert!(!error.is_fatal());
    assert_eq!(feed.provenance().last_offset, Offset(5));
}

#[test]
fn half_a_snapshot_is_forgotten_with_its_stream() {
    let mut feed = empty();
    let mut parts = snapshot_of(&image(9, &[1]));
    feed.on_event(parts.remove(0)).unwrap();
    let out_of_place = feed.on_event(entries(vec![entry(0, &[])])).unwrap_err();
    assert!(matches!(out_of_place, FeedError::OutOfPlace));
    feed.on_reconnected();
    let steps: Vec<_> =
        snapshot_of(&image(9, &[1])).into_iter().filter_map(|event| feed.on_event(event).unwrap()).collect();
    assert_eq!(steps.len(), 1);
    let missing_header = feed.on_event(parts.remove(0)).unwrap_err();
    assert!(matches!(missing_header, FeedError::Snapshot(SnapshotError::OutOfPlace)));
    assert!(!missing_header.is_fatal());
}
