//! What clients were told, and whether the cluster keeps to it.
//!
//! - What a producer was acknowledged is there at the offset that it was told, for ever.
//! - What any reader has seen at an offset is what every reader sees there.
//! - A value is in the log at most once, and a producer's values are in the order in which it sent them.

use std::collections::BTreeMap;

use klamm_types::{Offset, PartitionId};

/// A value that a producer sends: its number, and which of its values it is.
pub(crate) type Value = u64;

pub(crate) fn value(producer: usize, number: u64) -> Value {
    ((producer as u64) << 32) | number
}

fn producer_of(value: Value) -> u64 {
    value >> 32
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    acknowledged: BTreeMap<(PartitionId, Offset), Value>,
    seen: BTreeMap<(PartitionId, Offset), Value>,
}

impl Oracle {
    /// A producer was told that its values lie from `offset` on.
    pub(crate) fn acknowledge(&mut self, partition: PartitionId, offset: Offset, values: &[Value]) {
        for (i, value) in values.iter().enumerate() {
            let place = (partition, Offset(offset.0 + i as i64));
            if let Some(other) = self.acknowledged.insert(place, *value) {
                assert_eq!(other, *value, "two values are acknowledged at {place:?}");
            }
            if let Some(seen) = self.seen.get(&place) {
                assert_eq!(seen, value, "{place:?} was read before it was acknowledged with another value");
            }
        }
    }

    /// A reader sees a value.
    pub(crate) fn observe(&mut self, partition: PartitionId, offset: Offset, value: Value) {
        let place = (partition, offset);
        if let Some(before) = self.seen.insert(place, value) {
            assert_eq!(before, value, "{place:?} was read as {before:#x} and is {value:#x} now");
        }
        if let Some(acknowledged) = self.acknowledged.get(&place) {
            assert_eq!(*acknowledged, value, "{place:?} was acknowledged as {acknowledged:#x}");
        }
    }

    /// Judges a partition once everything has healed.
    pub(crate) fn judge(&self, partition: PartitionId, log: &[(Offset, Value)]) {
        let by_offset: BTreeMap<Offset, Value> = log.iter().copied().collect();
        let here = |places: &BTreeMap<(PartitionId, Offset), Value>| {
            let range = places.range((partition, Offset::ZERO)..=(partition, Offset(i64::MAX)));
            range.map(|((_, offset), value)| (*offset, *value)).collect::<Vec<_>>()
        };
        for (offset, value) in here(&self.acknowledged) {
            let found = by_offset.get(&offset);
            assert_eq!(found, Some(&value), "acknowledged record at {partition} {offset} is lost: {found:?}");
        }
        for (offset, value) in here(&self.seen) {
            let found = by_offset.get(&offset);
            assert_eq!(found, Some(&value), "record seen at {partition} {offset} is lost: {found:?}");
        }
        let mut newest: BTreeMap<u64, Value> = BTreeMap::new();
        for (offset, value) in log {
            if let Some(before) = newest.insert(producer_of(*value), *value) {
                assert!(before < *value, "{value:#x} at {partition} {offset} comes after {before:#x}");
            }
        }
    }

    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }
}
