use klamm_record::{BatchBuilder, BatchHeader, Codec, NewRecord, RecordBatch};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

/// The header of a batch of `count` records at `offset`.
fn header(id: i64, epoch: i16, sequence: i32, offset: i64, count: usize) -> BatchHeader {
    finish(batch(id, epoch, sequence, offset), count)
}

fn batch(id: i64, epoch: i16, sequence: i32, offset: i64) -> BatchBuilder {
    let builder = BatchBuilder::new(Codec::None.into()).base_offset(Offset(offset));
    builder.producer(ProducerId(id), ProducerEpoch(epoch), sequence)
}

fn finish(mut builder: BatchBuilder, count: usize) -> BatchHeader {
    for _ in 0..count {
        builder.append(&NewRecord::new(NOW, None, None)).unwrap();
    }
    *RecordBatch::parse(&builder.build().unwrap()).unwrap().header()
}

fn transactional(id: i64, sequence: i32, offset: i64) -> BatchHeader {
    finish(batch(id, 0, sequence, offset).transactional(), 1)
}

fn marker(result: TransactionResult, coordinator_epoch: i32) -> EndTxnMarker {
    EndTxnMarker { result, coordinator_epoch: CoordinatorEpoch(coordinator_epoch) }
}

fn expected_sequence(producers: &Producers, batch: &BatchHeader) -> Result<(), i32> {
    match producers.check(batch, None) {
        Ok(_) => Ok(()),
        Err(ProducerError::OutOfOrderSequence { expected, .. }) => Err(expected),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_sequence_goes_on_wraps_and_has_no_gaps() {
    let mut producers = Producers::new(10);
    producers.on_batch(&header(1, 0, i32::MAX - 1, 0, 2));
    assert_eq!(expected_sequence(&producers, &header(1, 0, 0, 2, 1)), Ok(()));
    assert_eq!(expected_sequence(&producers, &header(1, 0, 1, 2, 1)), Err(0));
    producers.on_batch(&header(1, 0, 0, 2, 5));
    assert_eq!(expected_sequence(&producers, &header(1, 0, 5, 7, 1)), Ok(()));
    assert_eq!(expected_sequence(&producers, &header(1, 0, 6, 7, 1)), Err(5));
    // Nothing is known of this one: any sequence will do.
    assert_eq!(expected_sequence(&producers, &header(2, 0, 77, 7, 1)), Ok(()));
    // Nobody without an id has a sequence.
    assert_eq!(expected_sequence(&producers, &header(-1, -1, -1, 7, 1)), Ok(()));
}

#[test]
fn a_batch_that_wraps_is_known_again() {
    let mut producers = Producers::new(10);
    let wrapping = header(1, 0, i32::MAX - 1, 100, 4);
    producers.on_batch(&wrapping);
    let Ok(SequenceCheck::Duplicate(known)) = producers.check(&wrapping, None) else { panic!("a duplicate") };
    assert_eq!((known.first_offset(), known.last_offset), (Offset(100), Offset(103)));
    assert_eq!((known.first_sequence(), known.last_sequence), (i32::MAX - 1, 1));
}

#[test]
fn five_batches_are_remembered_and_the_sixth_is_not() {
    let mut producers = Producers::new(10);
    let batches: Vec<_> = (0..6).map(|i| header(1, 0, 3 * i, i64::from(3 * i), 3)).collect();
    batches.iter().for_each(|batch| producers.on_batch(batch));
    for batch in &batches[1..] {
        assert!(matches!(producers.check(batch, None), Ok(SequenceCheck::Duplicate(_))));
    }
    // It was appended all the same: nothing is missing from the first on.
    assert_eq!(producers.check(&batches[0], None), Ok(SequenceCheck::Forgotten(Offset(3))));
    // Half of a known batch is not that batch.
    assert_eq!(expected_sequence(&producers, &header(1, 0, 15, 99, 2)), Err(18));
}

/// Of a producer whose beginning is not known, nobody can tell what was appended before.
#[test]
fn a_batch_counts_as_forgotten_only_if_none_can_be_missing() {
    let old = header(1, 0, 10, 99, 5);
    let after = |first: i32, step: i32| {
        let mut producers = Producers::new(10);
        (0..7).for_each(|i| producers.on_batch(&header(1, 0, first + step * i, i64::from(i), 1)));
        producers
    };
    assert_eq!(after(20, 1).check(&old, None).unwrap_err(), gap(10, 27));
    // The producer was forgotten in between, or a batch was compacted away.
    assert_eq!(after(0, 5).check(&old, None).unwrap_err(), gap(10, 31));
    let mut producers = Producers::new(10);
    (0..7).for_each(|i| producers.on_batch(&header(1, 0, 5 * i, i64::from(5 * i), 5)));
    assert_eq!(producers.check(&header(1, 0, 5, 99, 5), None), Ok(SequenceCheck::Forgotten(Offset(10))));
    // A restart changes nothing in that.
    let content = snapshot::decode(&snapshot::encode(&producers)).unwrap();
    assert_eq!(content.entries, producers.entries());
    // What a newer epoch has not appended was not appended.
    producers.on_batch(&header(1, 1, 0, 35, 20));
    assert_eq!(producers.check(&header(1, 1, 5, 99, 5), None).unwrap_err(), gap(5, 20));
}

fn gap(sequence: i32, expected: i32) -> ProducerError {
    ProducerError::OutOfOrderSequence { producer_id: ProducerId(1), sequence, expected }
}

#[test]
fn after_the_last_sequence_comes_zero_and_nothing_was_forgotten_that_has_not_come() {
    let mut producers = Producers::new(10);
    let mut entry = ProducerEntry { is_whole: true, epoch: ProducerEpoch(0), ..ProducerEntry::default() };
    for i in 0..5 {
        let offset = Offset(i64::from(i));
        let batch = BatchMetadata {
            last_sequence: i32::MAX - 5 + i,
            offset_delta: 0,
            last_offset: offset,
            timestamp: NOW,
        };
        entry.batches[usize::try_from(i).unwrap()] = batch;
    }
    entry.len = 5;
    producers.insert(ProducerId(1), entry);
    let refused = |sequence: i32| producers.check(&header(1, 0, sequence, 99, 1), None).unwrap_err();
    // Sequence i32::MAX is missing.
    assert_eq!(refused(0), gap(0, i32::MAX));
    assert!(refused(0).is_gap() && refused(1).is_gap());
    assert_eq!(
        producers.check(&header(1, 0, i32::MAX - 6, 99, 1), None),
        Ok(SequenceCheck::Forgotten(Offset(0)))
    );
}

#[test]
fn a_gap_is_what_comes_too_early() {
    assert!(gap(7, 5).is_gap() && gap(3, i32::MAX).is_gap());
    assert!(!gap(5, 7).is_gap() && !gap(i32::MAX, 3).is_gap());
    let (producer_id, epoch, current) = (ProducerId(1), ProducerEpoch(3), ProducerEpoch(4));
    assert!(!ProducerError::Fenced { producer_id, epoch, current }.is_gap());
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut producers = Producers::new(10);
    producers.on_batch(&header(1, 3, 10, 0, 1));
    assert_eq!(expected_sequence(&producers, &header(1, 4, 11, 1, 1)), Err(0));
    assert_eq!(producers.check(&header(1, 4, 0, 1, 1), None), Ok(SequenceCheck::New));
    producers.on_batch(&header(1, 4, 0, 1, 1));
    let (producer_id, epoch, current) = (ProducerId(1), ProducerEpoch(3), ProducerEpoch(4));
    assert_eq!(
        producers.check(&header(1, 3, 11, 2, 1), None),
        Err(ProducerError::Fenced { producer_id, epoch, current })
    );
    // What the old epoch wrote is no duplicate of the new one's.
    assert_eq!(expected_sequence(&producers, &header(1, 4, 10, 2, 1)), Err(1));
}

#[test]
fn an_unknown_producer_begins_anywhere_unless_the_caller_knows_better() {
    let mut producers = Producers::new(10);
    let (first, second) = (header(1, 0, 10, 0, 2), header(1, 0, 12, 2, 1));
    assert_eq!(producers.check(&second, None), Ok(SequenceCheck::New));
    assert_eq!(producers.check(&first, Some(10)), Ok(SequenceCheck::New));
    let (producer_id, sequence, expected) = (ProducerId(1), 12, 10);
    let refusal = ProducerError::OutOfOrderSequence { producer_id, sequence, expected };
    assert_eq!(producers.check(&second, Some(10)), Err(refusal));
    // What it knows by itself counts for more.
    producers.on_batch(&first);
    assert_eq!(producers.check(&second, Some(10)), Ok(SequenceCheck::New));
}

#[test]
fn a_transaction_is_unstable_until_its_marker_is_replicated() {
    let mut producers = Producers::new(10);
    producers.on_batch(&transactional(1, 0, 10));
    producers.on_batch(&transactional(2, 0, 11));
    producers.on_batch(&transactional(1, 1, 12));
    assert_eq!(producers.first_unstable_offset(), Some(Offset(10)));
    let producer_id = ProducerId(1);
    assert_eq!(
        producers.check(&header(1, 0, 2, 13, 1), None),
        Err(ProducerError::TransactionOpen { producer_id, since: Offset(10) })
    );
    let aborted =
        producers.on_marker(&header(1, 0, -1, 13, 1), &marker(TransactionResult::Abort, 5)).unwrap();
    assert_eq!((aborted.first_offset, aborted.last_offset), (Offset(10), Offset(13)));
    assert_eq!(aborted.last_stable_offset, Offset(11));
    assert_eq!(producers.first_unstable_offset(), Some(Offset(10)));
    assert!(!producers.on_high_watermark(Offset(13)));
    assert!(producers.on_high_watermark(Offset(14)));
    assert_eq!(producers.first_unstable_offset(), Some(Offset(11)));
    assert_eq!(producers.on_marker(&header(2, 0, -1, 14, 1), &marker(TransactionResult::Commit, 5)), None);
    assert!(producers.on_high_watermark(Offset(15)));
    assert_eq!(producers.first_unstable_offset(), None);
}

#[test]
fn markers_of_replaced_coordinators_and_old_epochs_are_refused() {
    let mut producers = Producers::new(10);
    producers.on_batch(&transactional(1, 0, 10));
    producers.on_marker(&header(1, 2, -1, 11, 1), &marker(TransactionResult::Commit, 5));
    let check = |epoch, coordinator| {
        producers.check_marker(&header(1, epoch, -1, 12, 1), &marker(TransactionResult::Commit, coordinator))
    };
    assert_eq!(check(2, 5), Ok(()));
    assert_eq!(check(3, 6), Ok(()));
    assert_eq!(check(2, 4), Err(ProducerError::CoordinatorFenced { epoch: 4, current: 5 }));
    assert!(matches!(check(1, 5), Err(ProducerError::Fenced { .. })));
    // A marker raises the epoch; the next sequence starts at zero.
    assert_eq!(producers.check(&header(1, 2, 0, 12, 1), None), Ok(SequenceCheck::New));
    assert_eq!(expected_sequence(&producers, &header(1, 2, 1, 12, 1)), Err(0));
}

#[test]
fn the_silent_expire_unless_their_transaction_is_open() {
    let mut producers = Producers::new(10);
    producers.on_batch(&header(1, 0, 0, 0, 1));
    producers.on_batch(&transactional(2, 0, 1));
    producers.expire(NOW.plus_millis(999), 1000);
    assert_eq!(producers.entries().len(), 2);
    producers.expire(NOW.plus_millis(1000), 1000);
    let left: Vec<_> = producers.entries().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, [ProducerId(2)]);
}

#[test]
fn there_are_never_more_than_the_limit() {
    let mut producers = Producers::new(100);
    producers.on_batch(&transactional(-2 + 3, 0, 0));
    for id in 2..1000 {
        producers.on_batch(&header(id, 0, 0, id, 1));
        assert!(producers.entries().len() <= 100);
    }
    let left = producers.entries();
    assert_eq!(left[0].0, ProducerId(1), "an open transaction is kept");
    assert_eq!(left[left.len() - 1].0, ProducerId(999));
}

#[test]
fn a_snapshot_restores_everything() {
    let mut producers = Producers::new(100);
    for i in 0..7 {
        producers.on_batch(&header(1, 2, i, i64::from(i), 1));
    }
    producers.on_batch(&transactional(2, 0, 7));
    producers.on_batch(&header(3, 0, 0, 8, 4));
    producers.on_marker(&header(4, 1, -1, 12, 1), &marker(TransactionResult::Abort, 9));
    producers.on_batch(&transactional(5, 0, 20));
    producers.on_marker(&header(5, 0, -1, 21, 1), &marker(TransactionResult::Commit, 9));
    let bytes = snapshot::encode(&producers);
    let content = snapshot::decode(&bytes).unwrap();
    assert_eq!(content.entries, producers.entries());
    assert_eq!(content.unreplicated, [(Offset(20), Offset(21))].into());
    for i in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x10;
        assert!(snapshot::decode(&damaged).is_err(), "a flipped bit at {i}");
        assert!(snapshot::decode(&bytes[..i]).is_err(), "cut at {i}");
    }
}
