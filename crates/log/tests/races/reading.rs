//! Readers that are overtaken between two steps of one read.

use std::sync::Arc;

use klamm_log::{FetchIsolation, LogConfig, ReadError};
use klamm_record::Batches;
use klamm_types::Offset;

use crate::bed::{
    Disk, FIRST_SEGMENT, NOW, abort, append, append_many, batch, large_batch, last_shown, produced,
    small_segments,
};
use crate::hooked_fs::Moment;

/// A reader looked up where the high watermark is; before it remembered the position, the log was cut and grown
/// again. The next reader took the old position for the new one and saw past its bound.
#[test]
fn a_position_looked_up_before_a_truncation_bounds_no_read_after_it() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    let mut overtaken = 0;
    for nth in 0..30 {
        for _ in 0..20 {
            append(&log, large_batch(2000)).unwrap();
        }
        log.advance_high_watermark(Offset(10));
        let cut = Arc::clone(&log);
        let truncation = disk.hooks.meanwhile_after(Moment::AfterRead, ".log", nth, move || {
            cut.truncate_to(Offset(3), NOW).unwrap();
            append_many(&cut, 40, 1);
            cut.advance_high_watermark(Offset(10));
        });
        // What this one gets is not the question; see the next case.
        let _ = log.read(Offset::ZERO, 1 << 20, FetchIsolation::HighWatermark);
        if !disk.hooks.clear() {
            truncation.join();
            overtaken += 1;
        }
        assert_eq!(log.high_watermark(), Offset(10));
        let shown = last_shown(&log, Offset(3), FetchIsolation::HighWatermark);
        assert_eq!(shown, Some(Offset(9)), "overtaken after read {nth}");
        log.truncate_fully_and_start_at(Offset::ZERO, NOW).unwrap();
    }
    assert!(overtaken > 0, "the look-up reads nothing");
}

/// A reader was told of a last stable offset past the high watermark (KAFKA-9807): it had looked twice.
#[test]
fn the_bounds_of_an_answer_are_those_of_one_moment() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    let mut overtaken = 0;
    for (moment, nth) in (0..8).flat_map(|nth| [(Moment::Read, nth), (Moment::AfterRead, nth)]) {
        append_many(&log, 20, 1);
        let bound = Offset(10);
        log.advance_high_watermark(bound);
        let grown = Arc::clone(&log);
        let growth = disk.hooks.meanwhile_after(moment, ".log", nth, move || {
            append_many(&grown, 20, 1);
            grown.advance_high_watermark(grown.log_end_offset());
        });
        let read = log.read(Offset(3), 1 << 20, FetchIsolation::LastStable).unwrap();
        if !disk.hooks.clear() {
            growth.join();
            overtaken += 1;
        }
        let bounds = (read.last_stable_offset, read.high_watermark, read.log_end_offset);
        assert_eq!(bounds, (bound, bound, Offset(20)), "overtaken at {moment:?} {nth}");
        log.truncate_fully_and_start_at(Offset::ZERO, NOW).unwrap();
    }
    assert!(overtaken > 0, "the read reads nothing");
}

/// The reader found the end of the file where it expected a batch, and called that corruption.
#[test]
fn a_truncation_in_the_middle_of_a_read_does_not_look_like_corruption() {
    let disk = Disk::new(LogConfig::default());
    let mut overtaken = 0;
    for (moment, nth) in (0..8).flat_map(|nth| [(Moment::Read, nth), (Moment::AfterRead, nth)]) {
        let (log, _) = disk.open();
        append_many(&log, 20, 1);
        let cut = Arc::clone(&log);
        let truncation = disk.hooks.meanwhile_after(moment, ".log", nth, move || {
            cut.truncate_to(Offset(3), NOW).unwrap();
        });
        let read = log.read(Offset(10), 1, FetchIsolation::LogEnd);
        if !disk.hooks.clear() {
            truncation.join();
            overtaken += 1;
        }
        assert!(
            matches!(read, Ok(_) | Err(ReadError::OutOfRange { .. })),
            "overtaken at {moment:?} {nth}: {read:?}"
        );
        log.truncate_fully_and_start_at(Offset::ZERO, NOW).unwrap();
    }
    assert!(overtaken > 0, "the read reads nothing");
}

/// The slice was taken from a segment that retention then removed, together with its list of aborted transactions:
/// the records came with none, as if committed.
#[test]
fn retention_in_the_middle_of_a_read_does_not_show_aborted_records_as_committed() {
    let disk = Disk::new(LogConfig { retention_bytes: Some(1), ..small_segments() });
    let (log, _) = disk.open();
    append(&log, produced(5, 5, 0).transactional()).unwrap();
    abort(&log, 5);
    append_many(&log, 30, 5);
    log.flush().unwrap();
    log.advance_high_watermark(log.log_end_offset());
    let read = || log.read(Offset::ZERO, 300, FetchIsolation::LastStable);
    assert_eq!(read().unwrap().aborted.len(), 1);
    let kept = Arc::clone(&log);
    let retention = disk.hooks.meanwhile(Moment::Read, FIRST_SEGMENT, move || {
        assert!(kept.apply_retention(NOW).unwrap() > 0);
    });
    match read() {
        Ok(outcome) => assert!(outcome.slice.is_none() || outcome.aborted.len() == 1, "{outcome:?}"),
        Err(error) => assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}"),
    }
    retention.join();
    assert!(matches!(read(), Err(ReadError::OutOfRange { .. })));
}

/// As before, but the log starts again elsewhere: a slice of its new file must not pass for one of the old.
#[test]
fn a_full_truncation_in_the_middle_of_a_read_shows_no_record_under_a_wrong_offset() {
    let disk = Disk::new(LogConfig::default());
    for nth in 0..4 {
        let (log, _) = disk.open();
        append_many(&log, 20, 1);
        let cut = Arc::clone(&log);
        let truncation = disk.hooks.meanwhile_after(Moment::AfterRead, ".log", nth, move || {
            cut.truncate_fully_and_start_at(Offset(1000), NOW).unwrap();
            append(&cut, batch(1)).unwrap();
        });
        let read = log.read(Offset(10), 1, FetchIsolation::LogEnd);
        if !disk.hooks.clear() {
            truncation.join();
        }
        match read {
            Ok(outcome) => {
                let bytes = outcome.slice.map(|slice| slice.to_vec().unwrap()).unwrap_or_default();
                let first = Batches::new(&bytes).next();
                let offset = first.and_then(Result::ok).map(|batch| batch.header().base_offset());
                assert!(offset.is_none_or(|offset| offset == Offset(10)), "{offset:?}");
            }
            Err(error) => assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}"),
        }
        log.truncate_fully_and_start_at(Offset::ZERO, NOW).unwrap();
    }
}
