//! An image as records, and back.

use bytes::Bytes;
use klamm_pb::metadata::v1 as pb;
use klamm_types::Offset;
use prost::Message;

use crate::{
    BATCH_BYTES_MAX, MetadataDelta, MetadataImage, MetadataProvenance, MetadataRecord, RecordError,
    ReplayError, ReplicasOffline, from_batch, to_batch,
};

/// The framing that this binary writes, and the only one that it reads.
const VERSION: u32 = 1;

/// Records per chunk, some 100 kB.
const CHUNK_RECORDS: usize = 1_000;

/// Why a snapshot cannot be used.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A part is longer than any that is written.
    #[error("a snapshot part of {bytes} bytes is longer than the {BATCH_BYTES_MAX} allowed")]
    TooLong {
        /// The number of bytes.
        bytes: usize,
    },
    /// The bytes are no snapshot part.
    #[error("malformed snapshot part")]
    Malformed(#[source] prost::DecodeError),
    /// Framing from a newer binary.
    #[error("unknown snapshot version {version}")]
    UnknownVersion {
        /// The version.
        version: u32,
    },
    /// A part where it cannot be: a chunk before the header, a second header, anything after the trailer.
    #[error("a snapshot part is out of place")]
    OutOfPlace,
    /// The trailer counts other records than came: something is missing.
    #[error("the snapshot has {found} records and should have {expected}")]
    Incomplete {
        /// How many came.
        found: u64,
        /// How many the trailer counts.
        expected: u64,
    },
    /// A record cannot be understood.
    #[error("a record of the snapshot cannot be understood")]
    Record(#[from] RecordError),
    /// The records do not add up to an image.
    #[error("the records of the snapshot do not fit together")]
    Replay(#[from] ReplayError),
}

/// The facts that make `image` out of nothing, in an order that depends on `image` alone.
pub fn snapshot_records(image: &MetadataImage) -> impl Iterator<Item = MetadataRecord> {
    let features = image.features.levels();
    let features =
        features.map(|(name, level)| MetadataRecord::FeatureLevelSet { name: name.to_owned(), level });
    let brokers = image.cluster.brokers().map(|b| MetadataRecord::BrokerRegistered(b.as_ref().clone()));
    let topics = image.topics.topics().flat_map(|topic| {
        let created = MetadataRecord::TopicCreated { id: topic.id, name: topic.name.clone() };
        let partitions =
            topic.partitions().map(|(partition, registration)| MetadataRecord::PartitionCreated {
                topic: topic.id,
                partition,
                registration: registration.as_ref().clone(),
            });
        std::iter::once(created).chain(partitions)
    });
    let configs = image.configs.resources().flat_map(|(resource, settings)| {
        settings.iter().map(|(key, value)| MetadataRecord::ConfigChanged {
            resource: resource.clone(),
            key: key.clone(),
            value: Some(value.clone()),
        })
    });
    let producer_ids = image.producer_ids.newest();
    let producer_ids =
        producer_ids.map(|(broker, epoch, end)| MetadataRecord::ProducerIdsAllocated { broker, epoch, end });
    let quorum = image.quorum_id.map(|id| MetadataRecord::QuorumFounded { id });
    let offline = image.cluster.brokers().flat_map(|broker| {
        let mut replicas = image.offline.of_broker(broker.id);
        std::iter::from_fn(move || {
            let replicas: Vec<_> = replicas.by_ref().take(ReplicasOffline::REPLICAS_MAX).collect();
            (!replicas.is_empty()).then_some((broker.id, broker.epoch, replicas))
        })
    });
    let offline = offline.map(|(broker, epoch, replicas)| {
        MetadataRecord::ReplicasOffline(ReplicasOffline { broker, epoch, replicas })
    });
    let facts = features.chain(quorum).chain(brokers).chain(topics).chain(offline);
    facts.chain(configs).chain(producer_ids)
}

/// Writes an image as encoded [`pb::SnapshotPart`]s, one at a time, so that a large image needs no large buffer.
///
/// A body that goes on deciding gives it a copy of the image: copies are cheap and never change.
#[derive(Debug)]
pub struct SnapshotWriter<'a> {
    image: &'a MetadataImage,
}

impl<'a> SnapshotWriter<'a> {
    /// A writer of `image`.
    #[must_use]
    pub fn new(image: &'a MetadataImage) -> Self {
        Self { image }
    }

    /// The parts in order: a header, chunks, a trailer.
    pub fn parts(&self) -> impl Iterator<Item = Bytes> + use<'a> {
        use pb::snapshot_part::Part;
        let MetadataProvenance { last_offset, last_epoch } = self.image.provenance;
        let header = pb::SnapshotHeader { version: VERSION, last_offset: last_offset.0, last_epoch };
        let mut records = snapshot_records(self.image);
        let mut written = Some(0u64);
        let rest = std::iter::from_fn(move || {
            let count = written?;
            let chunk: Vec<_> = records.by_ref().take(CHUNK_RECORDS).collect();
            if chunk.is_empty() {
                written = None;
                return Some(Part::Trailer(pb::SnapshotTrailer { records: count }));
            }
            written = Some(count + chunk.len() as u64);
            Some(Part::Chunk(to_batch(&chunk)))
        });
        let parts = std::iter::once(Part::Header(header)).chain(rest);
        parts.map(|part| pb::SnapshotPart { part: Some(part) }.encode_to_vec().into())
    }
}

/// Reads what a [`SnapshotWriter`] wrote.
#[derive(Debug)]
pub struct SnapshotReader {
    delta: MetadataDelta,
    header: Option<MetadataProvenance>,
    records: u64,
    complete: bool,
}

impl SnapshotReader {
    /// A reader that expects a header.
    #[must_use]
    pub fn new() -> Self {
        Self { delta: MetadataDelta::new(MetadataImage::empty()), header: None, records: 0, complete: false }
    }

    /// Takes the next part. After the trailer it returns the image, and takes nothing more.
    ///
    /// # Errors
    /// [`SnapshotError`]; the reader is then of no more use.
    pub fn push(&mut self, part: Bytes) -> Result<Option<MetadataImage>, SnapshotError> {
        if part.len() > BATCH_BYTES_MAX {
            return Err(SnapshotError::TooLong { bytes: part.len() });
        }
        let part = pb::SnapshotPart::decode(part).map_err(SnapshotError::Malformed)?;
        self.push_message(part)
    }

    /// The same for a part that came inside another message.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_message(&mut self, part: pb::SnapshotPart) -> Result<Option<MetadataImage>, SnapshotError> {
        use pb::snapshot_part::Part;
        match (part.part, self.header) {
            _ if self.complete => Err(SnapshotError::OutOfPlace),
            (Some(Part::Header(header)), None) => {
                if header.version != VERSION {
                    return Err(SnapshotError::UnknownVersion { version: header.version });
                }
                let last_offset = Offset(header.last_offset);
                self.header = Some(MetadataProvenance { last_offset, last_epoch: header.last_epoch });
                Ok(None)
            }
            (Some(Part::Chunk(chunk)), Some(_)) => {
                for record in from_batch(chunk)? {
                    self.delta.replay(&record)?;
                    self.records += 1;
                }
                Ok(None)
            }
            (Some(Part::Trailer(trailer)), Some(provenance)) => {
                let (found, expected) = (self.records, trailer.records);
                if found != expected {
                    return Err(SnapshotError::Incomplete { found, expected });
                }
                self.complete = true;
                let image = MetadataDelta::clone(&self.delta).apply(provenance);
                Ok(Some(image))
            }
            _ => Err(SnapshotError::OutOfPlace),
        }
    }
}

impl Default for SnapshotReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
