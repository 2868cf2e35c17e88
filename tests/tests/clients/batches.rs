//! The batches of a partition as they lie on a node's disk: how a client wrote, beyond what consumers can see.

use std::fs;
use std::path::Path;

use klamm_record::{Batches, Codec};
use klamm_tests::cluster::Cluster;
use klamm_types::ProducerId;

/// One batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchFacts {
    pub(crate) base_offset: i64,
    pub(crate) record_count: i32,
    pub(crate) codec: Codec,
    pub(crate) idempotent: bool,
}

/// The batches of a partition on `node`, in order.
pub(crate) fn on_disk(cluster: &mut Cluster, node: u16, topic: &str, partition: i32) -> Vec<BatchFacts> {
    let directory = cluster.node(node).home().join("data").join(format!("{topic}-{partition}"));
    let listed = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut segments: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    segments.iter().flat_map(|segment| batches_of(segment)).collect()
}

fn batches_of(segment: &Path) -> Vec<BatchFacts> {
    let bytes = fs::read(segment).unwrap();
    let batches = Batches::new(&bytes).map(|batch| {
        let batch = batch.unwrap_or_else(|error| panic!("{}: {error}", segment.display()));
        BatchFacts {
            base_offset: batch.base_offset().0,
            record_count: batch.record_count(),
            codec: batch.attributes().compression().unwrap(),
            idempotent: batch.producer_id() != ProducerId::NONE,
        }
    });
    batches.collect()
}

/// What is wrong with how `batches` were written, if they were to be written in this way. Clients leave a batch as it is
/// where the codec would not make it smaller.
pub(crate) fn judge_way(batches: &[BatchFacts], codec: Codec, idempotent: bool) -> Result<(), String> {
    if batches.iter().any(|batch| batch.idempotent != idempotent) {
        return Err(format!("to be written with idempotence {idempotent}: {batches:?}"));
    }
    let others = batches.iter().any(|batch| batch.codec != codec && batch.codec != Codec::None);
    if others || !batches.iter().any(|batch| batch.codec == codec) {
        return Err(format!("to be written with {codec}: {batches:?}"));
    }
    Ok(())
}

/// An offset in the middle of a batch.
pub(crate) fn middle_of_batch(batches: &[BatchFacts]) -> Option<i64> {
    let large = batches.iter().max_by_key(|batch| batch.record_count)?;
    (large.record_count >= 3).then(|| large.base_offset + i64::from(large.record_count) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, record_count: i32, codec: Codec, idempotent: bool) -> BatchFacts {
        BatchFacts { base_offset, record_count, codec, idempotent }
    }

    #[test]
    fn a_way_that_was_not_taken_is_found() {
        let batches = [batch(0, 9, Codec::Lz4, true), batch(9, 1, Codec::None, true)];
        judge_way(&batches, Codec::Lz4, true).unwrap();
        judge_way(&batches, Codec::Lz4, false).unwrap_err();
        judge_way(&batches, Codec::None, true).unwrap_err();
        judge_way(&batches, Codec::Zstd, true).unwrap_err();
        judge_way(&batches[1..], Codec::Lz4, true).unwrap_err();
        judge_way(&[], Codec::None, false).unwrap_err();
    }

    #[test]
    fn the_middle_is_neither_end_of_a_batch() {
        let batches = [batch(0, 2, Codec::None, true), batch(2, 3, Codec::None, true)];
        assert_eq!(middle_of_batch(&batches), Some(3));
        assert_eq!(middle_of_batch(&batches[..1]), None);
        assert_eq!(middle_of_batch(&[]), None);
    }
}
