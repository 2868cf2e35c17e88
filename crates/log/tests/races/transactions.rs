//! The last stable offset, and the epochs of transactional producers.

use klamm_log::{AppendError, AppendOrigin, FetchIsolation, LogConfig, ProducerError};
use klamm_types::{Offset, ProducerEpoch, ProducerId};

use crate::bed::{Disk, NOW, abort, append, append_from, append_many, batch, produced};

/// The truncation made the producer state again from a snapshot, which has only open transactions: one whose marker
/// stood past the high watermark counted as decided.
#[test]
fn a_transaction_decided_past_the_high_watermark_stays_unstable_after_a_truncation() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, produced(10, 5, 0).transactional()).unwrap();
    abort(&log, 5);
    log.advance_high_watermark(Offset(5));
    assert_eq!(log.last_stable_offset(), Offset::ZERO);
    // A snapshot past the marker.
    log.checkpoint().unwrap();
    append(&log, batch(5)).unwrap();
    log.truncate_to(Offset(12), NOW).unwrap();
    assert_eq!(log.last_stable_offset(), Offset::ZERO);
    let read = log.read(Offset::ZERO, 1 << 20, FetchIsolation::LastStable).unwrap();
    assert!(read.slice.is_none(), "a reader sees what may yet be undone");
    log.advance_high_watermark(Offset(11));
    assert_eq!(log.last_stable_offset(), Offset(11));
}

/// Records were deleted from under an open transaction: the last stable offset stayed at its start, below the log's.
#[test]
fn the_last_stable_offset_is_never_below_the_log_start() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, produced(10, 5, 0).transactional()).unwrap();
    append_many(&log, 5, 1);
    log.advance_high_watermark(Offset(12));
    log.advance_log_start(Offset(10)).unwrap();
    assert_eq!(log.last_stable_offset(), Offset(10));
    let read = log.read(Offset(10), 1 << 20, FetchIsolation::LastStable).unwrap();
    assert_eq!((read.last_stable_offset, read.slice.is_none()), (Offset(10), true));
    abort(&log, 5);
    log.advance_high_watermark(log.log_end_offset());
    assert_eq!(log.last_stable_offset(), log.log_end_offset());
}

/// Epochs were checked for clients alone: what a coordinator appended in the name of a fenced producer was taken.
#[test]
fn a_fenced_producer_is_refused_also_from_a_coordinator() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    let batch_of = |epoch| batch(1).producer(ProducerId(5), ProducerEpoch(epoch), 0).transactional();
    append_from(&log, batch_of(3), AppendOrigin::Internal).unwrap();
    let refused = append_from(&log, batch_of(2), AppendOrigin::Internal).unwrap_err();
    let AppendError::Producer(ProducerError::Fenced { epoch, current, .. }) = refused else {
        panic!("{refused}")
    };
    assert_eq!((epoch, current), (ProducerEpoch(2), ProducerEpoch(3)));
    assert_eq!(log.log_end_offset(), Offset(1));
}
