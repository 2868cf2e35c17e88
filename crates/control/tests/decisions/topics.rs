//! Topics that are created, grown and deleted.

use klamm_control::*;
use klamm_metadata::*;
use klamm_types::*;

use crate::context::*;

fn new(name: &str, partitions: i32, replication_factor: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(replication_factor),
        ..NewTopic::default()
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments =
        assignments.iter().map(|(partition, replicas)| (PartitionId(*partition), ids(replicas)));
    NewTopic { name: name.to_owned(), assignments: assignments.collect(), ..NewTopic::default() }
}

fn with_config(mut topic: NewTopic, key: &str, value: &str) -> NewTopic {
    topic.configs.push((key.to_owned(), value.to_owned()));
    topic
}

#[test]
fn a_topic_is_created_with_its_partitions_and_settings() {
    let mut cluster = Cluster::new(3);
    let created = cluster.create(with_config(new("t", 6, 3), "retention.ms", "5")).expect("possible");
    assert_eq!((created.partitions, created.replication_factor), (6, 3));
    let topic = cluster.image.topics.topic(created.id).expect("it exists").clone();
    for (_, partition) in topic.partitions() {
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader, partition.preferred_leader());
    }
    for id in 1..=3 {
        assert_eq!(cluster.image.topics.load(b(id)), BrokerLoad { replicas: 6, leaders: 2, preferred: 2 });
    }
    assert_eq!(cluster.image.configs.value(&ConfigResource::Topic(name("t")), "retention.ms"), Some("5"));
    assert_eq!(cluster.log.last().map(Vec::len), Some(8), "all of it in one entry");
    let defaults =
        cluster.create(NewTopic { name: "d".to_owned(), ..NewTopic::default() }).expect("possible");
    assert_eq!((defaults.partitions, defaults.replication_factor), (1, 1));
}

#[test]
fn impossible_topics_are_refused() {
    let mut cluster = Cluster::new(3);
    cluster.create(new("a.b", 1, 1)).expect("possible");
    let both = NewTopic { partitions: Some(1), ..assigned("t", &[(0, &[1])]) };
    for (topic, refusal) in [
        (new("", 1, 1), Refusal::InvalidTopicException),
        (new("a/b", 1, 1), Refusal::InvalidTopicException),
        (new("a_b", 1, 1), Refusal::InvalidTopicException),
        (new("a.b", 1, 1), Refusal::TopicAlreadyExists),
        (new("t", 0, 1), Refusal::InvalidPartitions),
        (new("t", -1, 1), Refusal::InvalidPartitions),
        (new("t", 1, 0), Refusal::InvalidReplicationFactor),
        (new("t", 1, -2), Refusal::InvalidReplicationFactor),
        (new("t", 1, 4), Refusal::InvalidReplicationFactor),
        (new("t", 10_000, 1), Refusal::PolicyViolation),
        (new("t", i32::MAX, 1), Refusal::PolicyViolation),
        (both, Refusal::InvalidRequest),
        (assigned("t", &[(1, &[1])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[1]), (0, &[1])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[1]), (-1, &[1])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[1, 2]), (1, &[1])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[1, 1])]), Refusal::InvalidReplicaAssignment),
        (assigned("t", &[(0, &[1, 9])]), Refusal::InvalidReplicaAssignment),
        (with_config(new("t", 1, 1), "no.such.thing", "1"), Refusal::InvalidConfig),
        (with_config(new("t", 1, 1), MIN_INSYNC_REPLICAS, "0"), Refusal::InvalidConfig),
        (
            with_config(with_config(new("t", 1, 1), "retention.ms", "1"), "retention.ms", "2"),
            Refusal::InvalidConfig,
        ),
    ] {
        let before = cluster.image.clone();
        let error = cluster.create(topic.clone()).expect_err("impossible");
        assert_eq!(error.refusal(), refusal, "{topic:?}: {error}");
        assert_eq!(cluster.image, before);
    }
}

/// A source that says the same for ever.
struct Stuck(u64);

impl Randomness for Stuck {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

#[test]
fn even_bad_randomness_gives_each_topic_an_id() {
    // Reserved ids; ids whose text starts with a dash; ids that are taken.
    for bits in [0, 62 << 58, u64::MAX] {
        let mut cluster = Cluster::new(1);
        let wanted = [new("a", 1, 1), new("b", 1, 1)];
        let result = cluster.replication().create_topics(&wanted, &Schema, &mut Stuck(bits));
        let created: Vec<_> = cluster.commit(result).into_iter().map(|o| o.expect("possible").id).collect();
        assert_ne!(created[0], created[1]);
        assert!(created.iter().all(|id| *id != TopicId::ZERO && !id.to_string().starts_with('-')));
    }
}

#[test]
fn topics_of_one_request_see_each_other() {
    let mut cluster = Cluster::new(1);
    let wanted = [
        new("a", 1, 1),
        new("b.c", 1, 1),
        new("b_c", 1, 1),
        new("d", 1, 1),
        new("d", 2, 1),
        new("e", 9_995, 1),
    ];
    let mut chance = SplitMix64::new(1);
    let result = cluster.replication().create_topics(&wanted, &Schema, &mut chance);
    let again = cluster.replication().create_topics(&wanted, &Schema, &mut SplitMix64::new(1));
    assert_eq!(result, again, "equal inputs give equal decisions");
    let outcomes = cluster.commit(result);
    let refusals: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(Refused::refusal)).collect();
    let twice = Some(Refusal::InvalidRequest);
    let collides = Some(Refusal::InvalidTopicException);
    assert_eq!(refusals, [None, None, collides, twice, twice, None]);
}

#[test]
fn a_new_partition_has_only_active_replicas_in_sync() {
    let mut cluster = Cluster::new(3);
    cluster.die(1);
    cluster.topic("t", 1, &[&[1, 2, 3]]);
    assert_eq!(state(&cluster.partition("t", 0)), (Some(2), vec![2, 3], vec![], vec![]));
    let error = cluster.create(assigned("u", &[(0, &[1])])).expect_err("nobody could lead it");
    assert_eq!(error, TopicError::NoActiveReplica { partition: 0 });
    cluster.die(2);
    cluster.die(3);
    let error = cluster.create(new("u", 1, 3)).expect_err("nobody could lead it");
    assert_eq!(error, TopicError::Placement(PlacementError::NoActiveBroker));
}

#[test]
fn a_cordoned_broker_gets_no_replicas() {
    let mut cluster = Cluster::new(2);
    cluster.die(2);
    let mut request = cluster.register_request(2, RecoveryVerdict::Clean);
    request.cordoned = true;
    cluster.register(&request).expect("the first is dead");
    cluster.heartbeat(2);
    cluster.create(new("t", 8, 1)).expect("1 is open");
    assert_eq!(cluster.image.topics.load(b(2)), BrokerLoad::default());
    let error = cluster.create(assigned("u", &[(0, &[2])])).expect_err("it is cordoned");
    assert_eq!(error, TopicError::BadReplica { partition: 0, broker: b(2) });
    assert_eq!(
        cluster.create(new("u", 1, 2)).expect_err("too few").refusal(),
        Refusal::InvalidReplicationFactor
    );
}

#[test]
fn a_topic_grows() {
    let mut cluster = Cluster::new(3);
    cluster.create(new("t", 2, 2)).expect("possible");
    let mut grow = |topic: &str, partitions, assignments: &[&[i32]]| {
        let assignments = assignments.iter().map(|replicas| ids(replicas)).collect();
        let wanted = GrowTopic { name: name(topic), partitions, assignments };
        let result = cluster.replication().create_partitions(&[wanted], &mut SplitMix64::new(3));
        cluster.commit(result).pop().expect("one answer").map_err(|error| error.refusal())
    };
    assert_eq!(grow("u", 3, &[]), Err(Refusal::UnknownTopicOrPartition));
    for partitions in [-1, 0, 1, 2] {
        assert_eq!(grow("t", partitions, &[]), Err(Refusal::InvalidPartitions));
    }
    assert_eq!(grow("t", 4, &[&[1, 2]]), Err(Refusal::InvalidReplicaAssignment));
    assert_eq!(grow("t", 3, &[&[1]]), Err(Refusal::InvalidReplicaAssignment));
    assert_eq!(grow("t", i32::MAX, &[]), Err(Refusal::PolicyViolation));
    assert_eq!(grow("t", 3, &[&[3, 1]]), Ok(()));
    assert_eq!(grow("t", 5, &[]), Ok(()));
    assert_eq!(cluster.partition("t", 2).replicas, ids(&[3, 1]));
    assert_eq!(cluster.partition("t", 4).replicas.len(), 2);
    let twice = GrowTopic { name: name("t"), partitions: 9, assignments: Vec::new() };
    let result = cluster.replication().create_partitions(&[twice.clone(), twice], &mut SplitMix64::new(3));
    assert_eq!(result.response, [Err(TopicError::NamedTwice), Err(TopicError::NamedTwice)]);
    assert!(result.records.is_empty());
}

#[test]
fn a_deleted_topic_takes_its_settings_along() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("t", 1, &[&[1]]);
    let by_name = TopicReference::Name(name("t"));
    let unknown = [TopicReference::Name(name("u")), TopicReference::Id(TopicId([5; 16]))];
    let result = cluster.replication().delete_topics(&unknown);
    let refusals: Vec<_> =
        result.response.iter().map(|o| o.as_ref().map_err(Refused::refusal).err()).collect();
    assert_eq!(refusals, [Some(Refusal::UnknownTopicOrPartition), Some(Refusal::UnknownTopicId)]);
    cluster.config.delete_topic_enable = false;
    let result = cluster.replication().delete_topics(std::slice::from_ref(&by_name));
    assert_eq!(result.response, [Err(TopicError::DeletionDisabled)]);
    cluster.config.delete_topic_enable = true;
    let result = cluster.replication().delete_topics(&[TopicReference::Id(id), by_name]);
    let outcomes = cluster.commit(result);
    assert_eq!(outcomes[0], Ok(DeletedTopic { id, name: name("t") }));
    assert_eq!(outcomes[1], Err(TopicError::NamedTwice));
    assert_eq!(cluster.image.configs.resources().count(), 0);
    assert_eq!(cluster.image.topics.load(b(1)), BrokerLoad::default());
    assert_ne!(cluster.topic("t", 1, &[&[1]]), id, "a topic created again is another one");
}
