//! Batches built here, from the same records that the foreign encoders wrote.

use std::collections::BTreeMap;

use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::{ProducerEpoch, ProducerId, Timestamp};

use crate::expected::{Blob, RecordFacts, Written, interop};

/// The records of the generators' workload, by the name of the set.
pub(crate) fn record_sets() -> BTreeMap<String, Vec<RecordFacts>> {
    Written::in_directory(&interop().join("golden").join("kafka-python")).record_sets
}

/// How a batch is to be written.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) compression: Compression,
    /// Id, epoch and base sequence.
    pub(crate) producer: (i64, i16, i32),
    pub(crate) transactional: bool,
    /// The broker's clock, if it gives the records their timestamps.
    pub(crate) append_time: Option<i64>,
}

impl Shape {
    pub(crate) fn plain(compression: Compression) -> Self {
        Self { compression, producer: (-1, -1, -1), transactional: false, append_time: None }
    }

    /// The batch as its producer sends it: from offset 0, with the records' own timestamps.
    pub(crate) fn build(self, records: &[RecordFacts]) -> Vec<u8> {
        let (id, epoch, base_sequence) = self.producer;
        let mut builder = BatchBuilder::new(self.compression);
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), base_sequence);
        if self.transactional {
            builder = builder.transactional();
        }
        for record in records {
            append(&mut builder, record);
        }
        builder.build().expect("a batch")
    }
}

fn append(builder: &mut BatchBuilder, record: &RecordFacts) {
    let bytes = |blob: &Option<Blob>| blob.as_ref().map(|blob| blob.0.clone());
    let (key, value) = (bytes(&record.key), bytes(&record.value));
    let values: Vec<Option<Vec<u8>>> = record.headers.iter().map(|(_, value)| bytes(value)).collect();
    let names = record.headers.iter().map(|(name, _)| name.as_bytes());
    let headers: Vec<_> = names.zip(values.iter().map(Option::as_deref)).collect();
    let timestamp = Timestamp(record.timestamp);
    let record = NewRecord { timestamp, key: key.as_deref(), value: value.as_deref(), headers: &headers };
    builder.append(&record).expect("a record that fits");
}
