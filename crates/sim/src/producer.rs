//! An idempotent producer with `acks=all`: one batch in flight, sent again until it is acknowledged.

use bytes::Bytes;
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::{LeaderEpoch, PartitionId, ProducerEpoch, ProducerId, Timestamp};

use crate::oracle::{Value, value};

#[derive(Debug)]
pub(crate) struct Producer {
    number: usize,
    pub(crate) partition: PartitionId,
    next_number: u64,
    /// Counts what was sent; answers to anything but the newest are ignored.
    pub(crate) attempt: u64,
    pub(crate) in_flight: Option<InFlight>,
    /// The newest leader that has acknowledged something. Clients do not go back to an older one: they know leaders by
    /// their epochs (KIP-320).
    pub(crate) acknowledged_by: LeaderEpoch,
}

/// The batch that waits to be acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) values: Vec<Value>,
    pub(crate) batch: Bytes,
}

impl Producer {
    pub(crate) fn new(number: usize, partition: PartitionId) -> Self {
        Self {
            number,
            partition,
            next_number: 0,
            attempt: 0,
            in_flight: None,
            acknowledged_by: LeaderEpoch::NONE,
        }
    }

    /// The batch to send: the one that waits, or a new one of `count` records.
    pub(crate) fn batch(&mut self, count: u64, now: Timestamp) -> Bytes {
        let (number, first) = (self.number, self.next_number);
        let in_flight = self.in_flight.get_or_insert_with(|| {
            let values: Vec<Value> = (first..first + count).map(|n| value(number, n)).collect();
            let batch = build(number, first, &values, now);
            InFlight { values, batch }
        });
        self.next_number = self.next_number.max(first + in_flight.values.len() as u64).min(
            // A batch that is sent again does not move the sequence.
            in_flight.values.last().map_or(first, |last| (last & 0xffff_ffff) + 1),
        );
        in_flight.batch.clone()
    }
}

fn build(number: usize, first: u64, values: &[Value], now: Timestamp) -> Bytes {
    let sequence = i32::try_from(first).expect("a run has few records");
    let id = ProducerId(number as i64 + 1);
    let mut builder = BatchBuilder::new(Compression::NONE).producer(id, ProducerEpoch(0), sequence);
    for value in values {
        let bytes = value.to_be_bytes();
        builder.append(&NewRecord::new(now, None, Some(&bytes))).expect("eight bytes fit");
    }
    Bytes::from(builder.build().expect("a few records fit"))
}
