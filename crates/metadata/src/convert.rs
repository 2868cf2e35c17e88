//! The border between facts and their bytes.
//!
//! A version that this binary does not know is refused, whatever else the record says: skipping a field that it
//! cannot see would let two nodes hold different images at one offset.

use bytes::Bytes;
use klamm_pb::metadata::v1 as pb;
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, ProducerId, QuorumId, TopicId,
    TopicName, TopicNameError,
};
use prost::Message;

use crate::{
    BrokerChanged, BrokerRegistration, ConfigResource, DirectoryId, Endpoint, FeatureRange, IncarnationId,
    LeaderRecovery, MetadataRecord, PartitionChanged, PartitionError, PartitionRegistration, ReplicasOffline,
    SecurityProtocol,
};

/// The most bytes that one encoded batch may have, 16 MiB: some 100,000 changes of partitions.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The first version of every type, and of most the only one.
const VERSION_1: u32 = 1;

/// Of partitions: they may name the epoch of an unclean election. Written only if they do, which `control` allows from
/// `metadata.version` 2 on.
const VERSION_2: u32 = 2;

/// Why bytes are no metadata records.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RecordError {
    /// More bytes than a batch may have.
    #[error("a batch of {bytes} bytes is longer than the {BATCH_BYTES_MAX} allowed")]
    TooLong {
        /// The number of bytes.
        bytes: usize,
    },
    /// The bytes are not protobuf of that message.
    #[error("malformed {what}")]
    Malformed {
        /// The message.
        what: &'static str,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// A type of record from a newer binary, or garbage.
    #[error("unknown record type {record_type}")]
    UnknownType {
        /// The number of the type.
        record_type: i32,
    },
    /// A version of a known type from a newer binary, or garbage.
    #[error("unknown version {version} of record type {record_type}")]
    UnknownVersion {
        /// The number of the type.
        record_type: i32,
        /// The version.
        version: u32,
    },
    /// A field holds something that it cannot.
    #[error("field {field} has the impossible value {value}")]
    BadField {
        /// The field.
        field: &'static str,
        /// The value.
        value: i64,
    },
    /// An identity that is not 16 bytes long.
    #[error("field {field} has {bytes} bytes instead of 16")]
    BadIdentity {
        /// The field.
        field: &'static str,
        /// How many bytes it has.
        bytes: usize,
    },
    /// A topic has a name that no topic can have.
    #[error("a topic has an impossible name")]
    BadTopicName(#[source] TopicNameError),
    /// A partition is in a state that it cannot be in.
    #[error("a partition is in an impossible state")]
    BadPartition(#[source] PartitionError),
}

/// Encodes the facts of one entry.
#[must_use]
pub fn encode_batch(records: &[MetadataRecord]) -> Bytes {
    to_batch(records).encode_to_vec().into()
}

/// Decodes the facts of one entry: all of them or none.
///
/// # Errors
/// [`RecordError`] with the first thing that cannot be understood.
pub fn decode_batch(bytes: Bytes) -> Result<Vec<MetadataRecord>, RecordError> {
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(RecordError::TooLong { bytes: bytes.len() });
    }
    let batch = decode::<pb::RecordBatch>("record batch", bytes)?;
    from_batch(batch)
}

/// The message of one entry, for a sender that wraps it in another message.
#[must_use]
pub fn to_batch(records: &[MetadataRecord]) -> pb::RecordBatch {
    pb::RecordBatch { records: records.iter().map(to_envelope).collect() }
}

/// The facts in the message of one entry.
///
/// # Errors
/// As [`decode_batch`].
pub fn from_batch(batch: pb::RecordBatch) -> Result<Vec<MetadataRecord>, RecordError> {
    batch.records.into_iter().map(from_envelope).collect()
}

fn decode<M: Message + Default>(what: &'static str, bytes: Bytes) -> Result<M, RecordError> {
    M::decode(bytes).map_err(|source| RecordError::Malformed { what, source })
}

fn to_envelope(record: &MetadataRecord) -> pb::RecordEnvelope {
    use pb::RecordType as T;
    let (record_type, payload) = match record {
        MetadataRecord::BrokerRegistered(r) => (T::BrokerRegistered, to_broker(r).encode_to_vec()),
        MetadataRecord::BrokerChanged(c) => (T::BrokerChanged, to_broker_changed(c).encode_to_vec()),
        MetadataRecord::BrokerUnregistered { broker, epoch } => {
            let message = pb::BrokerUnregistered { broker_id: broker.0, broker_epoch: epoch.0 };
            (T::BrokerUnregistered, message.encode_to_vec())
        }
        MetadataRecord::TopicCreated { id, name } => {
            let message = pb::TopicCreated { topic_id: to_bytes(id.0), name: name.as_str().to_owned() };
            (T::TopicCreated, message.encode_to_vec())
        }
        MetadataRecord::TopicDeleted { id } => {
            (T::TopicDeleted, pb::TopicDeleted { topic_id: to_bytes(id.0) }.encode_to_vec())
        }
        MetadataRecord::PartitionCreated { topic, partition, registration } => {
            (T::PartitionCreated, to_partition(*topic, *partition, registration).encode_to_vec())
        }
        MetadataRecord::PartitionChanged(c) => (T::PartitionChanged, to_partition_changed(c).encode_to_vec()),
        MetadataRecord::ConfigChanged { resource, key, value } => {
            (T::ConfigChanged, to_config_changed(resource, key, value.as_deref()).encode_to_vec())
        }
        MetadataRecord::FeatureLevelSet { name, level } => {
            let message = pb::FeatureLevelSet { name: name.clone(), level: u32::from(*level) };
            (T::FeatureLevelSet, message.encode_to_vec())
        }
        MetadataRecord::ProducerIdsAllocated { broker, epoch, end } => {
            let message = pb::ProducerIdsAllocated {
                broker_id: broker.0,
                broker_epoch: epoch.0,
                producer_id_end: end.0,
            };
            (T::ProducerIdsAllocated, message.encode_to_vec())
        }
        MetadataRecord::ReplicasOffline(r) => (T::ReplicasOffline, to_replicas_offline(r).encode_to_vec()),
        MetadataRecord::QuorumFounded { id } => {
            (T::QuorumFounded, pb::QuorumFounded { quorum_id: to_bytes(id.0) }.encode_to_vec())
        }
    };
    pb::RecordEnvelope { r#type: record_type.into(), version: version_of(record), payload: payload.into() }
}

/// The lowest version that can say what `record` says.
fn version_of(record: &MetadataRecord) -> u32 {
    let last_unclean_epoch = match record {
        MetadataRecord::PartitionCreated { registration, .. } => registration.last_unclean_epoch,
        MetadataRecord::PartitionChanged(change) => change.last_unclean_epoch,
        _ => None,
    };
    if last_unclean_epoch.is_some() { VERSION_2 } else { VERSION_1 }
}

fn from_envelope(envelope: pb::RecordEnvelope) -> Result<MetadataRecord, RecordError> {
    use pb::RecordType as T;
    let number = envelope.r#type;
    let record_type = T::try_from(number).map_err(|_| RecordError::UnknownType { record_type: number })?;
    let version = envelope.version;
    let newest =
        if matches!(record_type, T::PartitionCreated | T::PartitionChanged) { VERSION_2 } else { VERSION_1 };
    if !(VERSION_1..=newest).contains(&version) {
        return Err(RecordError::UnknownVersion { record_type: number, version });
    }
    let record = from_payload(record_type, envelope.payload)?;
    if version_of(&record) > version {
        return Err(RecordError::BadField { field: "last_unclean_epoch", value: i64::from(version) });
    }
    Ok(record)
}

fn from_payload(record_type: pb::RecordType, payload: Bytes) -> Result<MetadataRecord, RecordError> {
    use pb::RecordType as T;
    let number = record_type.into();
    match record_type {
        T::Unspecified => Err(RecordError::UnknownType { record_type: number }),
        T::BrokerRegistered => {
            from_broker(decode("broker registered", payload)?).map(MetadataRecord::BrokerRegistered)
        }
        T::BrokerChanged => {
            from_broker_changed(decode("broker changed", payload)?).map(MetadataRecord::BrokerChanged)
        }
        T::BrokerUnregistered => {
            let message: pb::BrokerUnregistered = decode("broker unregistered", payload)?;
            let broker = broker_id("broker_id", message.broker_id)?;
            Ok(MetadataRecord::BrokerUnregistered { broker, epoch: BrokerEpoch(message.broker_epoch) })
        }
        T::TopicCreated => {
            let message: pb::TopicCreated = decode("topic created", payload)?;
            let name = TopicName::new(&message.name).map_err(RecordError::BadTopicName)?;
            Ok(MetadataRecord::TopicCreated { id: topic_id(&message.topic_id)?, name })
        }
        T::TopicDeleted => {
            let message: pb::TopicDeleted = decode("topic deleted", payload)?;
            Ok(MetadataRecord::TopicDeleted { id: topic_id(&message.topic_id)? })
        }
        T::PartitionCreated => from_partition(decode("partition created", payload)?),
        T::PartitionChanged => from_partition_changed(decode("partition changed", payload)?)
            .map(MetadataRecord::PartitionChanged),
        T::ConfigChanged => from_config_changed(decode("config changed", payload)?),
        T::FeatureLevelSet => {
            let message: pb::FeatureLevelSet = decode("feature level set", payload)?;
            Ok(MetadataRecord::FeatureLevelSet { name: message.name, level: level("level", message.level)? })
        }
        T::ProducerIdsAllocated => {
            let message: pb::ProducerIdsAllocated = decode("producer ids allocated", payload)?;
            Ok(MetadataRecord::ProducerIdsAllocated {
                broker: broker_id("broker_id", message.broker_id)?,
                epoch: BrokerEpoch(message.broker_epoch),
                end: ProducerId(not_negative("producer_id_end", message.producer_id_end)?),
            })
        }
        T::ReplicasOffline => {
            from_replicas_offline(decode("replicas offline", payload)?).map(MetadataRecord::ReplicasOffline)
        }
        T::QuorumFounded => {
            let message: pb::QuorumFounded = decode("quorum founded", payload)?;
            Ok(MetadataRecord::QuorumFounded { id: QuorumId(identity("quorum_id", &message.quorum_id)?) })
        }
    }
}

fn to_broker(registration: &BrokerRegistration) -> pb::BrokerRegistered {
    pb::BrokerRegistered {
        broker_id: registration.id.0,
        broker_epoch: registration.epoch.0,
        incarnation_id: to_bytes(registration.incarnation.0),
        directory_id: to_bytes(registration.directory.0),
        endpoints: registration.endpoints.iter().map(endpoint_to_pb).collect(),
        rack: registration.rack.clone(),
        features: registration.features.iter().map(feature_to_pb).collect(),
        fenced: registration.fenced,
        shutting_down: registration.shutting_down,
        cordoned: registration.cordoned,
    }
}

fn from_broker(message: pb::BrokerRegistered) -> Result<BrokerRegistration, RecordError> {
    Ok(BrokerRegistration {
        id: broker_id("broker_id", message.broker_id)?,
        epoch: BrokerEpoch(not_negative("broker_epoch", message.broker_epoch)?),
        incarnation: IncarnationId(identity("incarnation_id", &message.incarnation_id)?),
        directory: DirectoryId(identity("directory_id", &message.directory_id)?),
        endpoints: message.endpoints.into_iter().map(endpoint_from_pb).collect::<Result<_, _>>()?,
        rack: message.rack,
        features: message.features.into_iter().map(feature_from_pb).collect::<Result<_, _>>()?,
        fenced: message.fenced,
        shutting_down: message.shutting_down,
        cordoned: message.cordoned,
    })
}

/// An endpoint as records and registration requests carry it.
#[must_use]
pub fn endpoint_to_pb(endpoint: &Endpoint) -> pb::Endpoint {
    let security_protocol = match endpoint.security_protocol {
        SecurityProtocol::Plaintext => pb::SecurityProtocol::Plaintext,
        SecurityProtocol::Ssl => pb::SecurityProtocol::Ssl,
        SecurityProtocol::SaslPlaintext => pb::SecurityProtocol::SaslPlaintext,
        SecurityProtocol::SaslSsl => pb::SecurityProtocol::SaslSsl,
    };
    pb::Endpoint {
        listener: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
        security_protocol: security_protocol.into(),
    }
}

/// The endpoint in a record or a registration request.
///
/// # Errors
/// [`RecordError::BadField`] for a port past 65535 or an unknown security protocol.
pub fn endpoint_from_pb(message: pb::Endpoint) -> Result<Endpoint, RecordError> {
    let bad = |value| RecordError::BadField { field: "security_protocol", value: i64::from(value) };
    let number = message.security_protocol;
    let security_protocol = match pb::SecurityProtocol::try_from(number).map_err(|_| bad(number))? {
        pb::SecurityProtocol::Unspecified => return Err(bad(number)),
        pb::SecurityProtocol::Plaintext => SecurityProtocol::Plaintext,
        pb::SecurityProtocol::Ssl => SecurityProtocol::Ssl,
        pb::SecurityProtocol::SaslPlaintext => SecurityProtocol::SaslPlaintext,
        pb::SecurityProtocol::SaslSsl => SecurityProtocol::SaslSsl,
    };
    let port = u16::try_from(message.port)
        .map_err(|_| RecordError::BadField { field: "port", value: i64::from(message.port) })?;
    Ok(Endpoint { listener: message.listener, host: message.host, port, security_protocol })
}

/// A feature range as records and registration requests carry it.
#[must_use]
pub fn feature_to_pb(range: &FeatureRange) -> pb::FeatureRange {
    pb::FeatureRange {
        name: range.name.clone(),
        level_min: u32::from(range.level_min),
        level_max: u32::from(range.level_max),
    }
}

/// The feature range in a record or a registration request.
///
/// # Errors
/// [`RecordError::BadField`] for a level past 65535 or an empty range.
pub fn feature_from_pb(message: pb::FeatureRange) -> Result<FeatureRange, RecordError> {
    let level_min = level("level_min", message.level_min)?;
    let level_max = level("level_max", message.level_max)?;
    if level_min > level_max {
        return Err(RecordError::BadField { field: "level_max", value: i64::from(level_max) });
    }
    Ok(FeatureRange { name: message.name, level_min, level_max })
}

fn to_broker_changed(change: &BrokerChanged) -> pb::BrokerChanged {
    pb::BrokerChanged {
        broker_id: change.broker.0,
        broker_epoch: change.epoch.0,
        fenced: change.fenced,
        shutting_down: change.shutting_down,
        cordoned: change.cordoned,
    }
}

fn from_broker_changed(message: pb::BrokerChanged) -> Result<BrokerChanged, RecordError> {
    Ok(BrokerChanged {
        broker: broker_id("broker_id", message.broker_id)?,
        epoch: BrokerEpoch(message.broker_epoch),
        fenced: message.fenced,
        shutting_down: message.shutting_down,
        cordoned: message.cordoned,
    })
}

fn to_partition(topic: TopicId, partition: PartitionId, r: &PartitionRegistration) -> pb::PartitionCreated {
    pb::PartitionCreated {
        topic_id: to_bytes(topic.0),
        partition_id: partition.0,
        replicas: to_ids(&r.replicas),
        isr: to_ids(&r.isr),
        elr: to_ids(&r.elr),
        last_known_elr: to_ids(&r.last_known_elr),
        adding: to_ids(&r.adding),
        removing: to_ids(&r.removing),
        leader: r.leader.unwrap_or(BrokerId::NONE).0,
        leader_epoch: r.leader_epoch.0,
        partition_epoch: r.partition_epoch.0,
        recovery: recovery_to_pb(r.recovery).into(),
        last_unclean_epoch: r.last_unclean_epoch.map(|epoch| epoch.0),
    }
}

fn from_partition(message: pb::PartitionCreated) -> Result<MetadataRecord, RecordError> {
    let registration = PartitionRegistration {
        replicas: from_ids(message.replicas),
        isr: from_ids(message.isr),
        elr: from_ids(message.elr),
        last_known_elr: from_ids(message.last_known_elr),
        adding: from_ids(message.adding),
        removing: from_ids(message.removing),
        leader: leader(message.leader)?,
        leader_epoch: LeaderEpoch(message.leader_epoch),
        partition_epoch: PartitionEpoch(message.partition_epoch),
        recovery: recovery_from_pb(message.recovery)?,
        last_unclean_epoch: message.last_unclean_epoch.map(LeaderEpoch),
    };
    registration.check().map_err(RecordError::BadPartition)?;
    Ok(MetadataRecord::PartitionCreated {
        topic: topic_id(&message.topic_id)?,
        partition: partition_id(message.partition_id)?,
        registration,
    })
}

fn to_partition_changed(change: &PartitionChanged) -> pb::PartitionChanged {
    let ids = |ids: &Option<Vec<BrokerId>>| ids.as_ref().map(|ids| pb::BrokerIds { ids: to_ids(ids) });
    pb::PartitionChanged {
        topic_id: to_bytes(change.topic.0),
        partition_id: change.partition.0,
        replicas: ids(&change.replicas),
        isr: ids(&change.isr),
        elr: ids(&change.elr),
        last_known_elr: ids(&change.last_known_elr),
        adding: ids(&change.adding),
        removing: ids(&change.removing),
        leader: change.leader.map(|leader| leader.unwrap_or(BrokerId::NONE).0),
        leader_epoch: change.leader_epoch.0,
        partition_epoch: change.partition_epoch.0,
        recovery: change.recovery.map(|recovery| recovery_to_pb(recovery).into()),
        last_unclean_epoch: change.last_unclean_epoch.map(|epoch| epoch.0),
    }
}

fn from_partition_changed(message: pb::PartitionChanged) -> Result<PartitionChanged, RecordError> {
    let ids = |ids: Option<pb::BrokerIds>| ids.map(|ids| from_ids(ids.ids));
    Ok(PartitionChanged {
        topic: topic_id(&message.topic_id)?,
        partition: partition_id(message.partition_id)?,
        replicas: ids(message.replicas),
        isr: ids(message.isr),
        elr: ids(message.elr),
        last_known_elr: ids(message.last_known_elr),
        adding: ids(message.adding),
        removing: ids(message.removing),
        leader: message.leader.map(leader).transpose()?,
        leader_epoch: LeaderEpoch(message.leader_epoch),
        partition_epoch: PartitionEpoch(message.partition_epoch),
        recovery: message.recovery.map(recovery_from_pb).transpose()?,
        last_unclean_epoch: message.last_unclean_epoch.map(LeaderEpoch),
    })
}

/// Partitions of one topic that follow one another share a message.
fn to_replicas_offline(offline: &ReplicasOffline) -> pb::ReplicasOffline {
    let groups = offline.replicas.chunk_by(|one, next| one.0 == next.0);
    let topics = groups.filter_map(|group| {
        let (topic, _) = group.first()?;
        let partition_ids = group.iter().map(|(_, partition)| partition.0).collect();
        Some(pb::TopicPartitions { topic_id: to_bytes(topic.0), partition_ids })
    });
    pb::ReplicasOffline {
        broker_id: offline.broker.0,
        broker_epoch: offline.epoch.0,
        topics: topics.collect(),
    }
}

fn from_replicas_offline(message: pb::ReplicasOffline) -> Result<ReplicasOffline, RecordError> {
    let mut replicas = Vec::new();
    for group in message.topics {
        let topic = topic_id(&group.topic_id)?;
        for partition in group.partition_ids {
            replicas.push((topic, partition_id(partition)?));
        }
    }
    let broker = broker_id("broker_id", message.broker_id)?;
    Ok(ReplicasOffline { broker, epoch: BrokerEpoch(message.broker_epoch), replicas })
}

fn to_config_changed(resource: &ConfigResource, key: &str, value: Option<&str>) -> pb::ConfigChanged {
    let (resource_type, resource_name) = match resource {
        ConfigResource::Topic(name) => (pb::ResourceType::Topic, name.to_string()),
        ConfigResource::Broker(id) => (pb::ResourceType::Broker, id.to_string()),
        ConfigResource::BrokerDefault => (pb::ResourceType::Broker, String::new()),
        ConfigResource::Group(name) => (pb::ResourceType::Group, name.clone()),
        ConfigResource::ClientMetrics(name) => (pb::ResourceType::ClientMetrics, name.clone()),
    };
    pb::ConfigChanged {
        resource_type: resource_type.into(),
        resource_name,
        key: key.to_owned(),
        value: value.map(str::to_owned),
    }
}

fn from_config_changed(message: pb::ConfigChanged) -> Result<MetadataRecord, RecordError> {
    let number = message.resource_type;
    let unknown = RecordError::BadField { field: "resource_type", value: i64::from(number) };
    let name = message.resource_name;
    let resource = match pb::ResourceType::try_from(number) {
        Err(_) | Ok(pb::ResourceType::Unspecified) => return Err(unknown),
        Ok(pb::ResourceType::Topic) => {
            ConfigResource::Topic(TopicName::new(&name).map_err(RecordError::BadTopicName)?)
        }
        Ok(pb::ResourceType::Broker) if name.is_empty() => ConfigResource::BrokerDefault,
        Ok(pb::ResourceType::Broker) => {
            let bad = |_| RecordError::BadField { field: "resource_name", value: -1 };
            ConfigResource::Broker(broker_id("resource_name", name.parse().map_err(bad)?)?)
        }
        Ok(pb::ResourceType::Group) => ConfigResource::Group(name),
        Ok(pb::ResourceType::ClientMetrics) => ConfigResource::ClientMetrics(name),
    };
    Ok(MetadataRecord::ConfigChanged { resource, key: message.key, value: message.value })
}

/// A recovery state as records and proposals carry it.
#[must_use]
pub fn recovery_to_pb(recovery: LeaderRecovery) -> pb::LeaderRecovery {
    match recovery {
        LeaderRecovery::Recovered => pb::LeaderRecovery::Recovered,
        LeaderRecovery::Recovering => pb::LeaderRecovery::Recovering,
    }
}

/// The recovery state in a record or a proposal.
///
/// # Errors
/// [`RecordError::BadField`] for a number that names none.
pub fn recovery_from_pb(number: i32) -> Result<LeaderRecovery, RecordError> {
    match pb::LeaderRecovery::try_from(number) {
        Ok(pb::LeaderRecovery::Recovered) => Ok(LeaderRecovery::Recovered),
        Ok(pb::LeaderRecovery::Recovering) => Ok(LeaderRecovery::Recovering),
        Ok(pb::LeaderRecovery::Unspecified) | Err(_) => {
            Err(RecordError::BadField { field: "recovery", value: i64::from(number) })
        }
    }
}

fn to_bytes(identity: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&identity)
}

fn identity(field: &'static str, bytes: &Bytes) -> Result<[u8; 16], RecordError> {
    bytes.as_ref().try_into().map_err(|_| RecordError::BadIdentity { field, bytes: bytes.len() })
}

fn topic_id(bytes: &Bytes) -> Result<TopicId, RecordError> {
    identity("topic_id", bytes).map(TopicId)
}

fn not_negative(field: &'static str, value: i64) -> Result<i64, RecordError> {
    if value < 0 { Err(RecordError::BadField { field, value }) } else { Ok(value) }
}

fn broker_id(field: &'static str, value: i32) -> Result<BrokerId, RecordError> {
    not_negative(field, i64::from(value)).map(|_| BrokerId(value))
}

fn partition_id(value: i32) -> Result<PartitionId, RecordError> {
    not_negative("partition_id", i64::from(value)).map(|_| PartitionId(value))
}

fn leader(value: i32) -> Result<Option<BrokerId>, RecordError> {
    if value == BrokerId::NONE.0 { Ok(None) } else { broker_id("leader", value).map(Some) }
}

fn level(field: &'static str, value: u32) -> Result<u16, RecordError> {
    u16::try_from(value).map_err(|_| RecordError::BadField { field, value: i64::from(value) })
}

fn to_ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn from_ids(ids: Vec<i32>) -> Vec<BrokerId> {
    ids.into_iter().map(BrokerId).collect()
}

#[cfg(test)]
#[path = "convert_test.rs"]
mod tests;
