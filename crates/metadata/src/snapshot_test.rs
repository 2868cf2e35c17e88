use klamm_types::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicName};

use super::*;
use crate::{BrokerRegistration, ConfigResource, DirectoryId, IncarnationId, PartitionRegistration};

/// A snapshot of several chunks.
fn image() -> MetadataImage {
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    let id = TopicId([4; 16]);
    let name = TopicName::new("t").unwrap();
    let mut records = vec![MetadataRecord::TopicCreated { id, name: name.clone() }];
    for partition in 0..2_500 {
        let replicas = vec![BrokerId(partition % 5), BrokerId(5)];
        let registration = PartitionRegistration::new(replicas.clone(), replicas);
        let partition = PartitionId(partition);
        records.push(MetadataRecord::PartitionCreated { topic: id, partition, registration });
    }
    for (broker, epoch, offline) in [(4, 6, 1), (5, 7, 1_200), (6, 8, 0)] {
        let (broker, epoch) = (BrokerId(broker), BrokerEpoch(epoch));
        records.push(MetadataRecord::BrokerRegistered(registration(broker, epoch)));
        // Broker 4 has a replica of every fifth partition, broker 5 of all.
        let replicas = (0..offline).map(|i| (id, PartitionId(4 + i))).collect();
        records.push(MetadataRecord::ReplicasOffline(ReplicasOffline { broker, epoch, replicas }));
    }
    let (resource, key) = (ConfigResource::Topic(name), "retention.ms".to_owned());
    records.push(MetadataRecord::ConfigChanged { resource, key, value: Some("1".to_owned()) });
    records.iter().for_each(|record| delta.replay(record).unwrap());
    delta.apply(MetadataProvenance { last_offset: Offset(77), last_epoch: 3 })
}

fn registration(id: BrokerId, epoch: BrokerEpoch) -> BrokerRegistration {
    BrokerRegistration {
        id,
        epoch,
        incarnation: IncarnationId([1; 16]),
        directory: DirectoryId([1; 16]),
        endpoints: Vec::new(),
        rack: None,
        features: Vec::new(),
        fenced: true,
        shutting_down: false,
        cordoned: false,
    }
}

fn read(parts: impl IntoIterator<Item = Bytes>) -> Result<Option<MetadataImage>, SnapshotError> {
    let mut reader = SnapshotReader::new();
    let mut image = None;
    for part in parts {
        image = reader.push(part)?;
    }
    Ok(image)
}

#[test]
fn a_snapshot_gives_the_image_back() {
    for image in [MetadataImage::empty(), image()] {
        let parts: Vec<_> = SnapshotWriter::new(&image).parts().collect();
        let offline = snapshot_records(&image).filter_map(|record| match record {
            MetadataRecord::ReplicasOffline(offline) => Some((offline.broker.0, offline.replicas.len())),
            _ => None,
        });
        let expected =
            if image.offline.is_empty() { vec![] } else { vec![(4, 1), (5, 500), (5, 500), (5, 200)] };
        assert_eq!(offline.collect::<Vec<_>>(), expected);
        assert_eq!(read(parts.clone()), Ok(Some(image)));
        let header_alone = parts.len() - 1;
        assert_eq!(
            read(parts.into_iter().take(header_alone)),
            Ok(None),
            "without its trailer it is no image"
        );
    }
}

#[test]
fn a_snapshot_with_parts_amiss_is_refused() {
    let parts: Vec<_> = SnapshotWriter::new(&image()).parts().collect();
    assert_eq!(parts.len(), 5);
    let pick = |order: &[usize]| read(order.iter().map(|at| parts[*at].clone()));
    assert_eq!(pick(&[1]), Err(SnapshotError::OutOfPlace));
    assert_eq!(pick(&[0, 0]), Err(SnapshotError::OutOfPlace));
    assert_eq!(pick(&[0, 1, 2, 3, 4, 4]), Err(SnapshotError::OutOfPlace));
    assert_eq!(pick(&[0, 1, 4]), Err(SnapshotError::Incomplete { found: 1_000, expected: 2_509 }));
    assert!(matches!(pick(&[0, 2]), Err(SnapshotError::Replay(ReplayError::UnknownTopic { .. }))));
    assert_eq!(read([Bytes::new()]), Err(SnapshotError::OutOfPlace));
    assert!(matches!(read([parts[1].slice(..9)]), Err(SnapshotError::Malformed(_))));
    let bytes = BATCH_BYTES_MAX + 1;
    assert_eq!(read([vec![0; bytes].into()]), Err(SnapshotError::TooLong { bytes }));
    let header = pb::SnapshotHeader { version: 2, ..Default::default() };
    let newer = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) };
    assert_eq!(read([newer.encode_to_vec().into()]), Err(SnapshotError::UnknownVersion { version: 2 }));
}
