//! Changes of topics and partitions: from the wire to a decision, and its outcome back.

use bytes::Bytes;
use klamm_control::{
    CreatedTopic, DeletedTopic, ElectionKind, ElectionOutcomes, GrowTopic, NewTopic, Reassignment, Refusal,
    ReplicationControl, TopicReference,
};
use klamm_pb::controller::v1 as pb;
use klamm_types::{BrokerId, PartitionId, TopicId, TopicName, TopicPartition};
use pb::submit_response::Outcome;

use super::admin::{Decision, Items, unless_validating};
use super::refusal::{malformed, refusal, refusal_of};

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// The name of a topic that should exist: one that cannot be a name is that of no topic.
fn existing(name: &str) -> Result<TopicName, pb::Refusal> {
    TopicName::new(name).map_err(|error| refusal(Refusal::UnknownTopicOrPartition, error.to_string()))
}

fn refusal_from<T, E: klamm_control::Refused + std::error::Error>(
    outcome: Result<T, E>,
) -> Result<T, pb::Refusal> {
    outcome.map_err(|error| refusal_of(&error))
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn create_topics(message: pb::CreateTopics) -> Decision {
    let pb::CreateTopics { topics, validate_only } = message;
    let wanted: Vec<_> = topics.into_iter().map(new_topic).collect();
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        let result = control.create_topics(&wanted, desk.schema, desk.randomness);
        unless_validating(result, validate_only).map(|outcomes| {
            let topics = wanted.into_iter().zip(outcomes).map(|(topic, outcome)| match outcome {
                Ok(created) => created_topic(topic.name, &created),
                Err(error) => pb::CreatedTopic {
                    name: topic.name,
                    refusal: Some(refusal_of(&error)),
                    ..pb::CreatedTopic::default()
                },
            });
            Outcome::CreateTopics(pb::CreateTopicsOutcome { topics: topics.collect() })
        })
    })
}

fn new_topic(topic: pb::NewTopic) -> NewTopic {
    let given = |number: i32| (number != -1).then_some(number);
    let assignments = topic.assignments.iter().map(|a| (PartitionId(a.partition_id), brokers(&a.replicas)));
    NewTopic {
        name: topic.name,
        partitions: given(topic.partitions),
        replication_factor: given(topic.replication_factor),
        assignments: assignments.collect(),
        configs: topic.configs.into_iter().map(|config| (config.key, config.value)).collect(),
    }
}

fn created_topic(name: String, created: &CreatedTopic) -> pb::CreatedTopic {
    pb::CreatedTopic {
        name,
        refusal: None,
        topic_id: Bytes::copy_from_slice(&created.id.0),
        partitions: count(created.partitions),
        replication_factor: count(created.replication_factor),
    }
}

pub(super) fn delete_topics(message: pb::DeleteTopics) -> Decision {
    let references = message.topics;
    let items = Items::of(references.iter().map(topic_reference));
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        control.delete_topics(items.understood()).map(|outcomes| {
            let outcomes = items.weave(outcomes.into_iter().map(refusal_from).collect());
            let topics =
                references.into_iter().zip(outcomes).map(|(topic, outcome)| deleted_topic(topic, outcome));
            Outcome::DeleteTopics(pb::DeleteTopicsOutcome { topics: topics.collect() })
        })
    })
}

fn topic_reference(reference: &pb::TopicReference) -> Result<TopicReference, pb::Refusal> {
    use pb::topic_reference::Reference as R;
    match &reference.reference {
        Some(R::Name(name)) => existing(name).map(TopicReference::Name),
        Some(R::TopicId(id)) => match id.as_ref().try_into() {
            Ok(id) => Ok(TopicReference::Id(TopicId(id))),
            Err(_) => Err(refusal(Refusal::UnknownTopicId, "a topic id has 16 bytes")),
        },
        None => Err(malformed(&"a topic without name and id")),
    }
}

fn deleted_topic(topic: pb::TopicReference, outcome: Result<DeletedTopic, pb::Refusal>) -> pb::DeletedTopic {
    let topic = Some(topic);
    match outcome {
        Ok(deleted) => pb::DeletedTopic {
            topic,
            refusal: None,
            name: deleted.name.to_string(),
            topic_id: Bytes::copy_from_slice(&deleted.id.0),
        },
        Err(refusal) => pb::DeletedTopic { topic, refusal: Some(refusal), ..pb::DeletedTopic::default() },
    }
}

pub(super) fn create_partitions(message: pb::CreatePartitions) -> Decision {
    let pb::CreatePartitions { topics, validate_only } = message;
    let items = Items::of(topics.iter().map(grow_topic));
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        let result = control.create_partitions(items.understood(), desk.randomness);
        unless_validating(result, validate_only).map(|outcomes| {
            let outcomes = items.weave(outcomes.into_iter().map(refusal_from).collect());
            let topics = topics.into_iter().zip(outcomes);
            let topics =
                topics.map(|(topic, outcome)| pb::TopicOutcome { name: topic.name, refusal: outcome.err() });
            Outcome::CreatePartitions(pb::CreatePartitionsOutcome { topics: topics.collect() })
        })
    })
}

/// Assignments are taken in the order of their partitions; control checks that there are as many as needed.
fn grow_topic(topic: &pb::GrowTopic) -> Result<GrowTopic, pb::Refusal> {
    let mut assignments: Vec<_> = topic.assignments.iter().collect();
    assignments.sort_by_key(|assignment| assignment.partition_id);
    Ok(GrowTopic {
        name: existing(&topic.name)?,
        partitions: topic.partitions,
        assignments: assignments.into_iter().map(|assignment| brokers(&assignment.replicas)).collect(),
    })
}

fn partition(reference: &pb::PartitionReference) -> Result<TopicPartition, pb::Refusal> {
    Ok(TopicPartition::new(existing(&reference.topic)?, PartitionId(reference.partition_id)))
}

fn partition_outcome(
    partition: Option<pb::PartitionReference>,
    outcome: Result<(), pb::Refusal>,
) -> pb::PartitionOutcome {
    pb::PartitionOutcome { partition, refusal: outcome.err() }
}

pub(super) fn elect_leaders(message: pb::ElectLeaders) -> Decision {
    let pb::ElectLeaders { unclean, all, partitions } = message;
    let kind = if unclean { ElectionKind::Unclean } else { ElectionKind::Preferred };
    let items = Items::of(partitions.iter().map(partition));
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        if all {
            return control.elect_all_leaders(kind).map(all_elections);
        }
        control.elect_leaders(kind, items.understood()).map(|outcomes| {
            let outcomes = outcomes.into_iter().map(|(_, outcome)| refusal_from(outcome)).collect();
            let outcomes = partitions.into_iter().zip(items.weave(outcomes));
            let partitions = outcomes.map(|(partition, outcome)| partition_outcome(Some(partition), outcome));
            Outcome::ElectLeaders(pb::ElectLeadersOutcome { partitions: partitions.collect() })
        })
    })
}

fn all_elections(outcomes: ElectionOutcomes) -> Outcome {
    let partitions = outcomes.into_iter().map(|(partition, outcome)| {
        let (topic, partition_id) = (partition.topic.to_string(), partition.partition.0);
        partition_outcome(Some(pb::PartitionReference { topic, partition_id }), refusal_from(outcome))
    });
    Outcome::ElectLeaders(pb::ElectLeadersOutcome { partitions: partitions.collect() })
}

pub(super) fn alter_reassignments(message: pb::AlterReassignments) -> Decision {
    let pb::AlterReassignments { partitions, allow_replication_factor_change } = message;
    let items = Items::of(partitions.iter().map(reassignment));
    Box::new(move |desk| {
        let control = ReplicationControl::new(desk.image, desk.config);
        control.alter_reassignments(items.understood(), allow_replication_factor_change).map(|outcomes| {
            let outcomes = items.weave(outcomes.into_iter().map(refusal_from).collect());
            let outcomes = partitions.into_iter().zip(outcomes);
            let partitions = outcomes.map(|(wanted, outcome)| partition_outcome(wanted.partition, outcome));
            Outcome::AlterReassignments(pb::AlterReassignmentsOutcome { partitions: partitions.collect() })
        })
    })
}

fn reassignment(message: &pb::Reassignment) -> Result<Reassignment, pb::Refusal> {
    let reference =
        message.partition.as_ref().ok_or_else(|| malformed(&"a reassignment without partition"))?;
    let replicas = message.replicas.as_ref().map(|replicas| brokers(&replicas.ids));
    Ok(Reassignment { partition: partition(reference)?, replicas })
}
