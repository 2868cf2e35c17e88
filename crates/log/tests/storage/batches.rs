//! Batches as clients and coordinators send them.

use klamm_record::{BatchBuilder, Compression, EndTxnMarker, NewRecord, TransactionResult};
use klamm_types::{CoordinatorEpoch, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::random::Random;

/// What makes a batch of data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataBatch {
    pub(crate) records: usize,
    /// Bytes of each record's value.
    pub(crate) value_len: usize,
    pub(crate) timestamp: i64,
    pub(crate) producer: Option<Writer>,
}

/// Who writes a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
}

impl DataBatch {
    /// The batch as a client sends it, with base offset 0.
    pub(crate) fn build(&self, random: &mut Random) -> Vec<u8> {
        self.build_at(0, -1, random)
    }

    /// The batch as a leader sends it to a follower.
    pub(crate) fn build_at(&self, base_offset: i64, leader_epoch: i32, random: &mut Random) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::NONE)
            .base_offset(Offset(base_offset))
            .leader_epoch(LeaderEpoch(leader_epoch));
        if let Some(writer) = self.producer {
            builder = builder.producer(ProducerId(writer.id), ProducerEpoch(writer.epoch), writer.sequence);
            if writer.transactional {
                builder = builder.transactional();
            }
        }
        for i in 0..self.records {
            let value = random.bytes(self.value_len);
            let timestamp = Timestamp(self.timestamp + i as i64);
            builder.append(&NewRecord::new(timestamp, Some(b"key"), Some(&value))).unwrap();
        }
        builder.build().unwrap()
    }
}

/// The end of a transaction of `writer`.
pub(crate) fn marker(
    writer: Writer,
    result: TransactionResult,
    coordinator_epoch: i32,
    timestamp: i64,
) -> Vec<u8> {
    let marker = EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(coordinator_epoch) };
    let (id, epoch) = (ProducerId(writer.id), ProducerEpoch(writer.epoch));
    marker.batch(id, epoch, Timestamp(timestamp), LeaderEpoch(-1)).unwrap()
}
