use klamm_types::{LeaderEpoch, Offset, PartitionEpoch};

use super::*;
use crate::{BrokerChanged, BrokerRegistration, DirectoryId, IncarnationId, PartitionChanged};

const A: TopicId = TopicId([1; 16]);
const B: TopicId = TopicId([2; 16]);

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn broker(id: i32, epoch: i64) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        epoch: BrokerEpoch(epoch),
        incarnation: IncarnationId([0; 16]),
        directory: DirectoryId([0; 16]),
        endpoints: Vec::new(),
        rack: None,
        features: Vec::new(),
        fenced: true,
        shutting_down: false,
        cordoned: false,
    }
}

fn created(topic: TopicId, partition: i32, replicas: &[i32]) -> MetadataRecord {
    let registration = PartitionRegistration::new(ids(replicas), ids(replicas));
    MetadataRecord::PartitionCreated { topic, partition: PartitionId(partition), registration }
}

fn changed(
    image: &MetadataImage,
    topic: TopicId,
    change: impl FnOnce(&mut PartitionRegistration),
) -> MetadataRecord {
    let old = image.topics.partition(topic, PartitionId(0)).unwrap();
    let mut new = old.as_ref().clone();
    new.partition_epoch = old.partition_epoch.next().unwrap();
    change(&mut new);
    MetadataRecord::PartitionChanged(PartitionChanged::between(topic, PartitionId(0), old, &new))
}

fn offline(broker: i32, epoch: i64, replicas: &[(TopicId, i32)]) -> MetadataRecord {
    let replicas = replicas.iter().map(|(topic, partition)| (*topic, PartitionId(*partition))).collect();
    let (broker, epoch) = (BrokerId(broker), BrokerEpoch(epoch));
    MetadataRecord::ReplicasOffline(ReplicasOffline { broker, epoch, replicas })
}

/// Who has gone offline, as broker and the first byte of the topic's id.
fn offline_in(image: &MetadataImage) -> Vec<(i32, u8)> {
    image.offline.iter().map(|(broker, topic, _)| (broker.0, topic.0[0])).collect()
}

/// Topic `a` with partition 0 on 1, 2, 3 and partition 1 on 2; topic `b` with partition 0 on 1.
fn base() -> MetadataImage {
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    for record in [
        MetadataRecord::BrokerRegistered(broker(1, 0)),
        MetadataRecord::TopicCreated { id: A, name: name("a") },
        created(A, 0, &[1, 2, 3]),
        created(A, 1, &[2]),
        MetadataRecord::TopicCreated { id: B, name: name("b") },
        created(B, 0, &[1]),
    ] {
        delta.replay(&record).unwrap();
    }
    delta.apply(MetadataProvenance { last_offset: Offset(5), last_epoch: 1 })
}

fn lead(new: &mut PartitionRegistration, leader: i32) {
    new.leader = Some(BrokerId(leader));
    new.leader_epoch = new.leader_epoch.next().unwrap();
}

#[test]
fn impossible_facts_are_refused_and_change_nothing() {
    let base = base();
    let epochs = |new: &mut PartitionRegistration| {
        (new.leader_epoch, new.partition_epoch) = (LeaderEpoch(0), PartitionEpoch(2));
    };
    let no_epoch = |new: &mut PartitionRegistration| new.leader = Some(BrokerId(2));
    let idle_epoch = |new: &mut PartitionRegistration| new.leader_epoch = LeaderEpoch(1);
    let removed = |new: &mut PartitionRegistration| (new.replicas, new.isr) = (ids(&[1, 2]), ids(&[1, 2]));
    let outsider = |new: &mut PartitionRegistration| new.isr = ids(&[1, 9]);
    let other = BrokerChanged { epoch: BrokerEpoch(4), ..BrokerChanged::of(&broker(1, 0)) };
    let cases = [
        MetadataRecord::BrokerRegistered(broker(1, 0)),
        MetadataRecord::BrokerChanged(other),
        MetadataRecord::BrokerChanged(BrokerChanged::of(&broker(2, 0))),
        MetadataRecord::BrokerUnregistered { broker: BrokerId(1), epoch: BrokerEpoch(1) },
        MetadataRecord::TopicCreated { id: A, name: name("c") },
        MetadataRecord::TopicCreated { id: TopicId::ZERO, name: name("c") },
        MetadataRecord::TopicCreated { id: TopicId([3; 16]), name: name("a") },
        MetadataRecord::TopicDeleted { id: TopicId([3; 16]) },
        created(TopicId([3; 16]), 0, &[1]),
        created(A, 0, &[1]),
        created(A, 3, &[1]),
        created(A, 2, &[]),
        created(A, 2, &[1, 1]),
        changed(&base, A, epochs),
        changed(&base, A, no_epoch),
        changed(&base, A, idle_epoch),
        changed(&base, A, removed),
        changed(&base, A, outsider),
        MetadataRecord::ConfigChanged {
            resource: ConfigResource::Topic(name("c")),
            key: "k".to_owned(),
            value: None,
        },
        MetadataRecord::ProducerIdsAllocated {
            broker: BrokerId(1),
            epoch: BrokerEpoch(0),
            end: ProducerId(0),
        },
        offline(2, 0, &[(A, 0)]),
        offline(1, 1, &[(A, 0)]),
        offline(1, 0, &[(A, 0), (A, 1)]),
        offline(1, 0, &[(A, 0), (A, 2)]),
        offline(1, 0, &[(A, 0), (TopicId([3; 16]), 0)]),
    ];
    for record in cases {
        let mut delta = MetadataDelta::new(base.clone());
        let error = delta.replay(&record).expect_err("it cannot follow");
        assert!(!error.to_string().is_empty());
        assert_eq!(*delta.image(), base, "{record:?}");
        assert!(delta.local_changes(BrokerId(1)).is_empty(), "{record:?}");
    }
}

#[test]
fn names_that_collide_find_one_another() {
    let mut delta = MetadataDelta::new(base());
    delta.replay(&MetadataRecord::TopicCreated { id: TopicId([3; 16]), name: name("x.y") }).unwrap();
    let topics = &delta.image().topics;
    assert_eq!(topics.topic_like(&name("x_y")).unwrap().name, name("x.y"));
    assert!(topics.topic_by_name(&name("x_y")).is_none());
    assert!(topics.topic_by_name(&name("x.y")).is_some());
    let names: Vec<_> = topics.topics_by_name().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "x.y"]);
}

#[test]
fn each_broker_learns_what_a_step_means_for_it() {
    let base = base();
    let mut delta = MetadataDelta::new(base.clone());
    let record = changed(&base, A, |new| {
        (new.replicas, new.isr) = (ids(&[2, 3]), ids(&[2, 3]));
        lead(new, 2);
    });
    delta.replay(&record).unwrap();
    delta.replay(&MetadataRecord::TopicDeleted { id: B }).unwrap();
    let of = |id| delta.local_changes(BrokerId(id));
    let one = of(1);
    let deletes: Vec<_> =
        one.deletes.iter().map(|d| (d.name.as_str(), d.partition.0, d.topic_deleted)).collect();
    assert_eq!(deletes, [("a", 0, false), ("b", 0, true)]);
    assert!(one.leaders.is_empty() && one.followers.is_empty());
    let two = of(2);
    assert_eq!(
        (two.leaders.len(), two.followers.len(), two.deletes.len()),
        (1, 0, 0),
        "partition 1 did not change"
    );
    assert!(two.leaders[0].is_new_leader_epoch());
    assert_eq!(two.leaders[0].old.as_deref(), base.topics.partition(A, PartitionId(0)).map(AsRef::as_ref));
    assert_eq!(of(3).followers.len(), 1);
    assert!(of(4).is_empty());
}

#[test]
fn a_replica_taken_away_and_given_back_sees_a_new_epoch() {
    let base = base();
    let mut delta = MetadataDelta::new(base.clone());
    let away = changed(&base, A, |new| {
        (new.replicas, new.isr) = (ids(&[1, 2]), ids(&[1, 2]));
        new.leader_epoch = LeaderEpoch(1);
    });
    delta.replay(&away).unwrap();
    let back = changed(delta.image(), A, |new| new.replicas = ids(&[1, 2, 3]));
    delta.replay(&back).unwrap();
    let changes = delta.local_changes(BrokerId(3));
    assert_eq!((changes.deletes.len(), changes.followers.len()), (0, 1));
    assert!(changes.followers[0].is_new_leader_epoch());
}

#[test]
fn a_topic_created_and_deleted_in_one_step_leaves_no_trace() {
    let base = base();
    let mut delta = MetadataDelta::new(base.clone());
    let id = TopicId([3; 16]);
    let key = ("k".to_owned(), Some("v".to_owned()));
    for record in [
        MetadataRecord::TopicCreated { id, name: name("c") },
        created(id, 0, &[1]),
        MetadataRecord::ConfigChanged {
            resource: ConfigResource::Topic(name("c")),
            key: key.0,
            value: key.1,
        },
        MetadataRecord::TopicDeleted { id },
    ] {
        delta.replay(&record).unwrap();
    }
    assert!(delta.local_changes(BrokerId(1)).is_empty());
    assert_eq!((delta.created_topics().count(), delta.deleted_topics().count()), (0, 0));
    assert_eq!(delta.apply(base.provenance), base);
}

#[test]
fn a_step_to_a_snapshot_says_the_same_as_the_records() {
    let base = base();
    let mut delta = MetadataDelta::new(base.clone());
    let id = TopicId([3; 16]);
    let resource = ConfigResource::BrokerDefault;
    for record in [
        MetadataRecord::BrokerRegistered(broker(2, 9)),
        MetadataRecord::TopicCreated { id, name: name("c") },
        created(id, 0, &[2, 1]),
        changed(&base, A, |new| lead(new, 3)),
        MetadataRecord::TopicDeleted { id: B },
        MetadataRecord::ConfigChanged { resource, key: "k".to_owned(), value: Some("v".to_owned()) },
        MetadataRecord::FeatureLevelSet { name: "f".to_owned(), level: 3 },
        MetadataRecord::ProducerIdsAllocated {
            broker: BrokerId(1),
            epoch: BrokerEpoch(0),
            end: ProducerId(1_000),
        },
        offline(2, 9, &[(A, 1)]),
    ] {
        delta.replay(&record).unwrap();
    }
    assert_eq!(
        delta.local_changes(BrokerId(2)).leaders.len(),
        2,
        "its replica of partition 1 has gone offline"
    );
    let between = MetadataDelta::between(base, delta.image().clone());
    for id in 1..=3 {
        assert_eq!(between.local_changes(BrokerId(id)), delta.local_changes(BrokerId(id)));
    }
    assert!(between.changed_brokers().eq(delta.changed_brokers()));
    assert!(between.changed_configs().eq(delta.changed_configs()));
    assert!(between.changed_features().eq(delta.changed_features()));
    assert!(between.created_topics().eq(delta.created_topics()));
    assert!(between.deleted_topics().eq(delta.deleted_topics()));
    assert_eq!(between.producer_ids_changed(), delta.producer_ids_changed());
}

#[test]
fn loads_follow_the_partitions() {
    let base = base();
    let load = |image: &MetadataImage, id| {
        let load = image.topics.load(BrokerId(id));
        (load.replicas, load.leaders, load.preferred)
    };
    assert_eq!([load(&base, 1), load(&base, 2), load(&base, 3)], [(2, 2, 2), (2, 1, 1), (1, 0, 0)]);
    let mut delta = MetadataDelta::new(base.clone());
    delta.replay(&changed(&base, A, |new| lead(new, 3))).unwrap();
    delta.replay(&MetadataRecord::TopicDeleted { id: B }).unwrap();
    assert_eq!([load(delta.image(), 1), load(delta.image(), 3)], [(1, 0, 1), (1, 1, 0)]);
}

/// What is known of a replica ends with the replica, with the topic and with the broker's registration.
#[test]
fn offline_replicas_go_with_what_they_are_of() {
    let mut delta = MetadataDelta::new(base());
    delta.replay(&MetadataRecord::BrokerRegistered(broker(2, 3))).unwrap();
    delta.replay(&offline(1, 0, &[(A, 0), (B, 0)])).unwrap();
    delta.replay(&offline(2, 3, &[(A, 0), (A, 1)])).unwrap();
    delta.replay(&offline(1, 0, &[(B, 0)])).unwrap();
    let all = delta.apply(MetadataProvenance { last_offset: Offset(9), last_epoch: 1 });
    assert_eq!(offline_in(&all), [(1, 1), (1, 2), (2, 1), (2, 1)], "said twice is said once");
    assert!(all.offline.contains(BrokerId(2), A, PartitionId(1)));
    assert!(!all.offline.contains(BrokerId(3), A, PartitionId(0)));
    let removed = changed(&all, A, |new| {
        (new.replicas, new.isr) = (ids(&[2, 3]), ids(&[2, 3]));
        lead(new, 2);
    });
    for (record, left, touched) in [
        (MetadataRecord::TopicDeleted { id: B }, vec![(1, 1), (2, 1), (2, 1)], 0),
        (removed, vec![(1, 2), (2, 1), (2, 1)], 1),
        (MetadataRecord::BrokerRegistered(broker(2, 10)), vec![(1, 1), (1, 2)], 2),
        (
            MetadataRecord::BrokerUnregistered { broker: BrokerId(1), epoch: BrokerEpoch(0) },
            vec![(2, 1), (2, 1)],
            2,
        ),
        (changed(&all, A, |new| new.isr = ids(&[1, 3])), vec![(1, 1), (1, 2), (2, 1), (2, 1)], 1),
    ] {
        let mut delta = MetadataDelta::new(all.clone());
        delta.replay(&record).unwrap();
        assert_eq!(offline_in(delta.image()), left, "{record:?}");
        assert_eq!(delta.changed_partitions().count(), touched, "{record:?}");
        let between = MetadataDelta::between(all.clone(), delta.image().clone());
        assert_eq!(between.changed_partitions().count(), touched, "{record:?}");
    }
}
