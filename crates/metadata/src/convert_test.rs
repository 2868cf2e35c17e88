use klamm_types::Offset;
use proptest::prelude::*;

use super::*;
use crate::PersistentMap;

fn ids(max: usize) -> impl Strategy<Value = Vec<BrokerId>> {
    prop::collection::vec((0..i32::MAX).prop_map(BrokerId), 0..max)
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äé]{0,12}"
}

fn topic() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(TopicId)
}

fn name() -> impl Strategy<Value = TopicName> {
    "[a-zA-Z0-9_-]{1,40}".prop_map(|name| TopicName::new(&name).unwrap())
}

fn recovery() -> impl Strategy<Value = LeaderRecovery> {
    prop_oneof![Just(LeaderRecovery::Recovered), Just(LeaderRecovery::Recovering)]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let protocol = prop_oneof![
        Just(SecurityProtocol::Plaintext),
        Just(SecurityProtocol::Ssl),
        Just(SecurityProtocol::SaslPlaintext),
        Just(SecurityProtocol::SaslSsl),
    ];
    (text(), text(), any::<u16>(), protocol).prop_map(|(listener, host, port, security_protocol)| Endpoint {
        listener,
        host,
        port,
        security_protocol,
    })
}

fn broker() -> impl Strategy<Value = BrokerRegistration> {
    let feature = (text(), 0..100u16, 0..100u16).prop_map(|(name, low, more)| FeatureRange {
        name,
        level_min: low,
        level_max: low + more,
    });
    (
        (0..i32::MAX, 0..i64::MAX, any::<[u8; 16]>(), any::<[u8; 16]>()),
        prop::collection::vec(endpoint(), 0..3),
        prop::option::of(text()),
        prop::collection::vec(feature, 0..3),
        any::<[bool; 3]>(),
    )
        .prop_map(|((id, epoch, incarnation, directory), endpoints, rack, features, flags)| {
            BrokerRegistration {
                id: BrokerId(id),
                epoch: BrokerEpoch(epoch),
                incarnation: IncarnationId(incarnation),
                directory: DirectoryId(directory),
                endpoints,
                rack,
                features,
                fenced: flags[0],
                shutting_down: flags[1],
                cordoned: flags[2],
            }
        })
}

/// Replicas 0..n, each in at most one of ISR, ELR and last known ELR, and in at most one of adding and removing.
fn partition() -> impl Strategy<Value = PartitionRegistration> {
    let replicas = prop::collection::vec((0..4u8, 0..3u8), 1..6);
    (replicas, any::<bool>(), 0..i32::MAX, 0..i32::MAX, recovery(), prop::option::of(0..i32::MAX)).prop_map(
        |(replicas, led, leader_epoch, epoch, recovery, unclean)| {
            let part = |wanted: fn(&(u8, u8)) -> bool| {
                let members = (0..).map(BrokerId).zip(&replicas).filter(|(_, kind)| wanted(kind));
                members.map(|(broker, _)| broker).collect::<Vec<_>>()
            };
            let isr = part(|(set, _)| *set == 0);
            PartitionRegistration {
                replicas: part(|_| true),
                leader: isr.first().copied().filter(|_| led),
                isr,
                elr: part(|(set, _)| *set == 1),
                last_known_elr: part(|(set, _)| *set == 2),
                adding: part(|(_, set)| *set == 0),
                removing: part(|(_, set)| *set == 1),
                leader_epoch: LeaderEpoch(leader_epoch),
                partition_epoch: PartitionEpoch(epoch),
                recovery,
                last_unclean_epoch: unclean.map(|epoch| LeaderEpoch(epoch.min(leader_epoch))),
            }
        },
    )
}

fn partition_changed() -> impl Strategy<Value = PartitionChanged> {
    let set = || prop::option::of(ids(4));
    let leader = prop::option::of(prop::option::of((0..i32::MAX).prop_map(BrokerId)));
    (
        (topic(), 0..i32::MAX),
        (set(), set(), set()),
        (set(), set(), set()),
        (leader, any::<i32>(), any::<i32>()),
        (prop::option::of(recovery()), prop::option::of(any::<i32>())),
    )
        .prop_map(
            |(
                (topic, partition),
                (replicas, isr, elr),
                (lost, adding, removing),
                (leader, le, pe),
                (recovery, unclean),
            )| {
                PartitionChanged {
                    topic,
                    partition: PartitionId(partition),
                    replicas,
                    isr,
                    elr,
                    last_known_elr: lost,
                    adding,
                    removing,
                    leader,
                    leader_epoch: LeaderEpoch(le),
                    partition_epoch: PartitionEpoch(pe),
                    recovery,
                    last_unclean_epoch: unclean.map(LeaderEpoch),
                }
            },
        )
}

fn resource() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        name().prop_map(ConfigResource::Topic),
        (0..i32::MAX).prop_map(|id| ConfigResource::Broker(BrokerId(id))),
        Just(ConfigResource::BrokerDefault),
        text().prop_map(ConfigResource::Group),
        text().prop_map(ConfigResource::ClientMetrics),
    ]
}

fn record() -> impl Strategy<Value = MetadataRecord> {
    let flags = any::<[Option<bool>; 3]>();
    let broker_changed = (0..i32::MAX, any::<i64>(), flags).prop_map(|(broker, epoch, flags)| {
        let [fenced, shutting_down, cordoned] = flags;
        let (broker, epoch) = (BrokerId(broker), BrokerEpoch(epoch));
        MetadataRecord::BrokerChanged(BrokerChanged { broker, epoch, fenced, shutting_down, cordoned })
    });
    prop_oneof![
        broker().prop_map(MetadataRecord::BrokerRegistered),
        broker_changed,
        (0..i32::MAX, any::<i64>()).prop_map(|(broker, epoch)| MetadataRecord::BrokerUnregistered {
            broker: BrokerId(broker),
            epoch: BrokerEpoch(epoch)
        }),
        (topic(), name()).prop_map(|(id, name)| MetadataRecord::TopicCreated { id, name }),
        topic().prop_map(|id| MetadataRecord::TopicDeleted { id }),
        (topic(), 0..i32::MAX, partition()).prop_map(|(topic, partition, registration)| {
            MetadataRecord::PartitionCreated { topic, partition: PartitionId(partition), registration }
        }),
        partition_changed().prop_map(MetadataRecord::PartitionChanged),
        (resource(), text(), prop::option::of(text()))
            .prop_map(|(resource, key, value)| MetadataRecord::ConfigChanged { resource, key, value }),
        (text(), any::<u16>()).prop_map(|(name, level)| MetadataRecord::FeatureLevelSet { name, level }),
        (0..i32::MAX, any::<i64>(), 0..i64::MAX).prop_map(|(broker, epoch, end)| {
            MetadataRecord::ProducerIdsAllocated {
                broker: BrokerId(broker),
                epoch: BrokerEpoch(epoch),
                end: ProducerId(end),
            }
        }),
        any::<[u8; 16]>().prop_map(|id| MetadataRecord::QuorumFounded { id: QuorumId(id) }),
        (0..i32::MAX, any::<i64>(), prop::collection::vec((topic(), 0..i32::MAX), 0..4)).prop_map(
            |(broker, epoch, replicas)| {
                let replicas = replicas.into_iter();
                MetadataRecord::ReplicasOffline(ReplicasOffline {
                    broker: BrokerId(broker),
                    epoch: BrokerEpoch(epoch),
                    replicas: replicas.map(|(topic, partition)| (topic, PartitionId(partition))).collect(),
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn records_read_what_they_wrote(records in prop::collection::vec(record(), 0..8)) {
        prop_assert_eq!(decode_batch(encode_batch(&records)), Ok(records));
    }

    #[test]
    fn damaged_bytes_never_panic(
        records in prop::collection::vec(record(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_batch(&records).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        // Replaying what still decodes must not panic either.
        if let Ok(records) = decode_batch(bytes.into()) {
            let mut delta = crate::MetadataDelta::new(crate::MetadataImage::empty());
            for record in &records {
                let _ = delta.replay(record);
            }
            let image = delta.apply(crate::MetadataProvenance { last_offset: Offset(0), last_epoch: 0 });
            prop_assert!(image.topics.partition_count() <= records.len());
        }
    }

    #[test]
    fn a_change_is_the_difference(old in partition(), mut new in partition(), topic in topic()) {
        // An unclean election is never forgotten.
        new.last_unclean_epoch = new.last_unclean_epoch.or(old.last_unclean_epoch);
        let change = PartitionChanged::between(topic, PartitionId(3), &old, &new);
        prop_assert_eq!(change.merge_into(&old), new);
    }
}

fn envelope(record_type: i32, version: u32, payload: &[u8]) -> Bytes {
    let payload = Bytes::copy_from_slice(payload);
    pb::RecordBatch { records: vec![pb::RecordEnvelope { r#type: record_type, version, payload }] }
        .encode_to_vec()
        .into()
}

#[test]
fn unknown_types_and_versions_are_refused() {
    for record_type in [0, -1, 13, 99] {
        assert_eq!(
            decode_batch(envelope(record_type, 1, &[])),
            Err(RecordError::UnknownType { record_type })
        );
    }
    for (record_type, versions) in
        [(4, [0, 2, u32::MAX]), (11, [0, 2, u32::MAX]), (6, [0, 3, u32::MAX]), (7, [0, 3, u32::MAX])]
    {
        for version in versions {
            let expected = RecordError::UnknownVersion { record_type, version };
            assert_eq!(decode_batch(envelope(record_type, version, &[])), Err(expected));
        }
    }
}

/// Version 1 of a partition has no field 13: one that is there was written by somebody who breaks the rules.
#[test]
fn a_field_of_a_later_version_is_refused() {
    let mut registration = PartitionRegistration::new(vec![BrokerId(1)], vec![BrokerId(1)]);
    registration.last_unclean_epoch = Some(LeaderEpoch(0));
    let topic = TopicId([1; 16]);
    let record = MetadataRecord::PartitionCreated { topic, partition: PartitionId(0), registration };
    let mut batch = to_batch(std::slice::from_ref(&record));
    assert_eq!(from_batch(batch.clone()), Ok(vec![record]));
    batch.records[0].version = 1;
    let expected = RecordError::BadField { field: "last_unclean_epoch", value: 1 };
    assert_eq!(from_batch(batch), Err(expected));
}

#[test]
fn a_batch_too_long_is_refused_before_it_is_read() {
    let bytes = BATCH_BYTES_MAX + 1;
    assert_eq!(decode_batch(vec![0; bytes].into()), Err(RecordError::TooLong { bytes }));
}

#[test]
fn impossible_fields_are_refused() {
    let id = to_bytes([7; 16]);
    let refused = |record_type: pb::RecordType, payload: Vec<u8>| {
        decode_batch(envelope(record_type.into(), 1, &payload)).unwrap_err()
    };
    let short = pb::TopicDeleted { topic_id: Bytes::from_static(b"short") }.encode_to_vec();
    assert_eq!(
        refused(pb::RecordType::TopicDeleted, short),
        RecordError::BadIdentity { field: "topic_id", bytes: 5 }
    );
    let named = pb::TopicCreated { topic_id: id.clone(), name: "a/b".to_owned() }.encode_to_vec();
    assert_eq!(
        refused(pb::RecordType::TopicCreated, named),
        RecordError::BadTopicName(TopicNameError::Character('/'))
    );
    let level = pb::FeatureLevelSet { name: "f".to_owned(), level: 65_536 }.encode_to_vec();
    let expected = RecordError::BadField { field: "level", value: 65_536 };
    assert_eq!(refused(pb::RecordType::FeatureLevelSet, level), expected);
    let resource = pb::ConfigChanged { resource_type: 9, ..Default::default() }.encode_to_vec();
    let expected = RecordError::BadField { field: "resource_type", value: 9 };
    assert_eq!(refused(pb::RecordType::ConfigChanged, resource), expected);
    let orphan = pb::PartitionCreated { topic_id: id, leader: -1, recovery: 1, ..Default::default() };
    let orphan = orphan.encode_to_vec();
    assert_eq!(
        refused(pb::RecordType::PartitionCreated, orphan.clone()),
        RecordError::BadPartition(PartitionError::NoReplicas)
    );
    assert!(matches!(
        refused(pb::RecordType::PartitionCreated, orphan[1..].to_vec()),
        RecordError::Malformed { .. }
    ));
}

fn golden_broker() -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(1),
        epoch: BrokerEpoch(7),
        incarnation: IncarnationId([2; 16]),
        directory: DirectoryId([3; 16]),
        endpoints: vec![Endpoint {
            listener: "P".to_owned(),
            host: "h".to_owned(),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        }],
        rack: Some("a".to_owned()),
        features: vec![FeatureRange { name: "f".to_owned(), level_min: 1, level_max: 2 }],
        fenced: true,
        shutting_down: false,
        cordoned: true,
    }
}

/// Asserts that `record` has these bytes, and reads again. Lengths are part of the listing; spaces are not.
fn assert_bytes(hex: &str, record: &MetadataRecord) {
    let envelope = to_batch(std::slice::from_ref(record)).records.remove(0).encode_to_vec();
    let found: String = envelope.iter().map(|byte| format!("{byte:02x}")).collect();
    // Lengths are part of the listing; spaces are not.
    let hex: String = hex.split(' ').collect();
    assert_eq!(found.len(), hex.len(), "{record:?}\n{found}");
    assert_eq!(found, hex, "{record:?}");
}

/// What version 2 adds to partitions.
#[test]
fn encoded_unclean_elections_stay_as_they_are() {
    let topic = TopicId([1; 16]);
    let mut unclean = PartitionRegistration::new(vec![BrokerId(1), BrokerId(2)], vec![BrokerId(1)]);
    unclean.last_unclean_epoch = Some(LeaderEpoch(0));
    let mut later = unclean.clone();
    (later.recovery, later.last_unclean_epoch) = (LeaderRecovery::Recovering, Some(LeaderEpoch(1)));
    (later.leader_epoch, later.partition_epoch) = (LeaderEpoch(1), PartitionEpoch(1));
    let change = PartitionChanged::between(topic, PartitionId(0), &unclean, &later);
    assert_bytes(
        "08061002 1a1f 0a1001010101010101010101010101010101 1a020102 220101 4801 6001 6800",
        &MetadataRecord::PartitionCreated { topic, partition: PartitionId(0), registration: unclean },
    );
    assert_bytes(
        "08071002 1a1a 0a1001010101010101010101010101010101 5001 5801 6002 6801",
        &MetadataRecord::PartitionChanged(change),
    );
}

/// Partitions of one topic that follow one another are under one id.
#[test]
fn encoded_offline_replicas_stay_as_they_are() {
    let (one, other) = (TopicId([1; 16]), TopicId([2; 16]));
    assert_bytes(
        "080c1001 1a33 0801 1007 \
         1a16 0a1001010101010101010101010101010101 12020003 \
         1a15 0a1002020202020202020202020202020202 120100",
        &MetadataRecord::ReplicasOffline(ReplicasOffline {
            broker: BrokerId(1),
            epoch: BrokerEpoch(7),
            replicas: vec![(one, PartitionId(0)), (one, PartitionId(3)), (other, PartitionId(0))],
        }),
    );
}

/// The bytes of one record of each type: what is durable must not change by accident.
#[test]
fn encoded_records_stay_as_they_are() {
    let topic = TopicId([1; 16]);
    let registration = PartitionRegistration::new(vec![BrokerId(1), BrokerId(2)], vec![BrokerId(1)]);
    let mut next = registration.clone();
    (next.leader, next.isr, next.elr) = (None, vec![], vec![BrokerId(1)]);
    (next.leader_epoch, next.partition_epoch) = (LeaderEpoch(1), PartitionEpoch(1));
    let change = PartitionChanged::between(topic, PartitionId(0), &registration, &next);
    let name = TopicName::new("t").unwrap();
    let resource = ConfigResource::Topic(name.clone());
    let golden: PersistentMap<&str, MetadataRecord> = [
        (
            "08091001 1a14 0a106d657461646174612e76657273696f6e 1001",
            MetadataRecord::FeatureLevelSet { name: "metadata.version".to_owned(), level: 1 },
        ),
        ("08041001 1a15 0a1001010101010101010101010101010101 120174", MetadataRecord::TopicCreated { id: topic, name }),
        ("08051001 1a12 0a1001010101010101010101010101010101", MetadataRecord::TopicDeleted { id: topic }),
        (
            "08061001 1a1d 0a1001010101010101010101010101010101 1a020102 220101 4801 6001",
            MetadataRecord::PartitionCreated { topic, partition: PartitionId(0), registration },
        ),
        (
            "08071001 1a28 0a1001010101010101010101010101010101 2200 2a030a0101 48ffffffffffffffffff01 5001 5801",
            MetadataRecord::PartitionChanged(change),
        ),
        (
            "08081001 1a0b 0801 120174 1a016b 220176",
            MetadataRecord::ConfigChanged { resource, key: "k".to_owned(), value: Some("v".to_owned()) },
        ),
        (
            "08031001 1a04 0801 1007",
            MetadataRecord::BrokerUnregistered { broker: BrokerId(1), epoch: BrokerEpoch(7) },
        ),
        (
            "08011001 1a45 0801 1007 1a1002020202020202020202020202020202 221003030303030303030303030303030303 \
             2a0b0a015012016818844720013201613a070a01661001180240015001",
            MetadataRecord::BrokerRegistered(golden_broker()),
        ),
        (
            "08021001 1a08 0801 1007 1800 2801",
            MetadataRecord::BrokerChanged(BrokerChanged {
                fenced: Some(false),
                cordoned: Some(true),
                ..BrokerChanged::of(&golden_broker())
            }),
        ),
        (
            "080a1001 1a07 0801 1007 18e807",
            MetadataRecord::ProducerIdsAllocated {
                broker: BrokerId(1),
                epoch: BrokerEpoch(7),
                end: ProducerId(1_000),
            },
        ),
        (
            "080b1001 1a12 0a1004040404040404040404040404040404",
            MetadataRecord::QuorumFounded { id: QuorumId([4; 16]) },
        ),
    ]
    .into_iter()
    .collect();
    for (hex, record) in golden.iter() {
        assert_bytes(hex, record);
    }
}
