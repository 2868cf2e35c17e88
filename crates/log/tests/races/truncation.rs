//! Truncation while checkpoints are written, when reads fail, and over damage.

use std::path::Path;
use std::sync::Arc;

use klamm_log::fs::{CrashPlan, FaultKind, FaultRule, LogFs as _, OpenMode, Operation};
use klamm_log::{AppendOrigin, DamagedRange, FetchIsolation, Log, LogConfig, ReadError};
use klamm_types::{LeaderEpoch, Offset, ProducerId};

use crate::bed::{
    Disk, FIRST_SEGMENT, NOW, abort, append, append_many, batch, create, last_shown, produced, store,
};
use crate::hooked_fs::Moment;

/// The recovery point was lowered on disk before it was in memory: a checkpoint in between wrote the old one back,
/// and after a crash the records that had been cut counted as damage.
#[test]
fn a_checkpoint_in_the_middle_of_a_truncation_does_not_write_the_old_recovery_point_back() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append_many(&log, 20, 1);
    store(&log);
    let next_leaders = batch(1).build().unwrap();
    log.append_as_leader(&next_leaders, LeaderEpoch(2), AppendOrigin::Client, NOW).unwrap();
    log.flush().unwrap();
    let noted = Arc::clone(&log);
    let checkpoint = disk.hooks.meanwhile(Moment::Open, "leader-epoch-checkpoint", move || {
        let point = (noted.partition().clone(), Some(noted.recovery_point()));
        noted.log_dir().store_recovery_points([point]).unwrap();
    });
    log.truncate_to(Offset(10), NOW).unwrap();
    checkpoint.join();
    assert!(disk.stored_recovery_point(3) <= Some(Offset(10)));
    let (log, report) = disk.cut(&CrashPlan::nothing_pending()).open();
    assert_eq!((log.log_end_offset(), report.damage.len()), (Offset(10), 0), "{report:?}");
}

/// A checkpoint made the indexes durable up to some offset; before it called that the recovery point, the log was cut
/// and grown past it again, with a transaction that was aborted in memory only.
#[test]
fn a_checkpoint_vouches_for_nothing_that_came_after_a_truncation() {
    let disk = Disk::new(LogConfig { index_interval_bytes: 200, ..LogConfig::default() });
    let (log, _) = disk.open();
    append_many(&log, 5, 1);
    append(&log, produced(1, 4, 0).transactional()).unwrap();
    abort(&log, 4);
    append_many(&log, 13, 1);
    log.flush().unwrap();
    let cut = Arc::clone(&log);
    // The index files are new: once they are synced, so is their directory.
    let truncation = disk.hooks.meanwhile(Moment::SyncDir, "orders-3", move || {
        cut.truncate_to(Offset(10), NOW).unwrap();
        append(&cut, produced(4, 5, 0).transactional()).unwrap();
        abort(&cut, 5);
        append_many(&cut, 10, 1);
        cut.flush().unwrap();
    });
    store(&log);
    truncation.join();
    let end = log.flushed_end_offset();
    assert_eq!(end, Offset(25));
    assert_eq!(log.aborted_between(Offset::ZERO, end).unwrap().len(), 2);
    let (log, report) = disk.cut(&CrashPlan::nothing_pending()).open();
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(log.aborted_between(Offset::ZERO, end).unwrap().len(), 2, "{report:?}");
}

/// The manager took the recovery points, a log was truncated, and the points were written.
#[test]
fn a_truncation_in_the_middle_of_a_tick_leaves_no_recovery_point_past_the_log_end() {
    for file in ["recovery-point-offset", "replication-offset", "log-start-offset"] {
        let disk = Disk::new(LogConfig::default());
        let manager = disk.manage();
        let (log, other) = (create(&manager, 0, &disk.config), create(&manager, 1, &disk.config));
        for log in [&log, &other] {
            append_many(log, 100, 1);
            log.checkpoint().unwrap();
            log.advance_high_watermark(Offset(100));
            log.advance_log_start(Offset(5)).unwrap();
        }
        let cut = Arc::clone(&log);
        let truncation = disk.hooks.meanwhile(Moment::Open, file, move || {
            cut.truncate_to(Offset(10), NOW).unwrap();
        });
        manager.tick(NOW.plus_millis(60_000)).unwrap();
        truncation.join();
        assert_eq!(log.log_end_offset(), Offset(10));
        let stored = disk.stored_recovery_point(0);
        assert!(stored <= Some(Offset(10)), "{stored:?} is written down, after {file}");
        drop((log, other, manager));
        let restarted = disk.cut(&CrashPlan::nothing_pending()).manage();
        let log = restarted.logs().into_iter().find(|log| log.partition().partition.0 == 0).unwrap();
        assert_eq!((log.log_end_offset(), log.damage()), (Offset(10), Vec::new()), "after {file}");
    }
}

/// A log that starts again below its old start kept the old start in the checkpoint: after a restart the records
/// between the two were gone.
#[test]
fn a_log_that_starts_again_lower_keeps_its_records_over_a_restart() {
    for plan in [CrashPlan::nothing_pending(), CrashPlan::everything_pending()] {
        let disk = Disk::new(LogConfig::default());
        let manager = disk.manage();
        let log = create(&manager, 0, &disk.config);
        append_many(&log, 60, 1);
        log.advance_high_watermark(Offset(60));
        log.advance_log_start(Offset(50)).unwrap();
        manager.tick(NOW.plus_millis(60_000)).unwrap();
        log.truncate_to(Offset(10), NOW).unwrap();
        append_many(&log, 60, 1);
        log.flush().unwrap();
        assert_eq!(log.log_start_offset(), Offset(10));
        let restarted = disk.cut(&plan).manage();
        let log = restarted.get(log.partition()).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(10), Offset(70)));
    }
}

fn knows_producer(log: &Log) -> bool {
    log.producers().iter().any(|(id, entry)| *id == ProducerId(5) && entry.last_sequence() == 2)
}

/// Truncates a log while the `nth` call of `operation` fails, and fails itself if the log then goes on without knowing
/// its producer. Tells whether there was such a call.
fn truncate_with_failure(operation: Operation, nth: u64, kind: FaultKind) -> bool {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, produced(3, 5, 0)).unwrap();
    append(&log, batch(5)).unwrap();
    store(&log);
    log.release().unwrap();
    disk.fs.add_fault(FaultRule::once(operation, nth, kind));
    let truncated = log.truncate_to(Offset(3), NOW);
    let failed = disk.fs.faults_injected() > 0;
    disk.fs.clear_faults();
    let case = format!("call {nth} of {operation:?}, {kind:?} came: {failed}; {truncated:?}");
    if log.log_dir().check().is_ok() {
        assert_eq!(log.truncate_to(Offset(3), NOW).unwrap(), Offset(3), "{case}");
        assert!(knows_producer(&log), "{case}");
        assert!(append(&log, produced(3, 5, 0)).unwrap().duplicate.is_some(), "{case}");
    }
    drop(log);
    let (log, report) = disk.open();
    assert!(report.damage.is_empty(), "after a restart: {case}; {report:?}");
    assert!(knows_producer(&log), "after a restart: {case}");
    assert!(append(&log, produced(3, 5, 0)).unwrap().duplicate.is_some(), "after a restart: {case}");
    failed
}

/// A read that failed while the producer state was made again left the log without any, in service: a producer's
/// retry was appended twice.
#[test]
fn a_failed_call_during_a_truncation_makes_no_producer_forgotten() {
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        let failures =
            |operation| (1..).take_while(|nth| truncate_with_failure(operation, *nth, kind)).count();
        let counts: Vec<_> = Operation::ALL.into_iter().map(|op| (op, failures(op))).collect();
        let failing = counts.iter().filter(|(_, count)| *count > 0).count();
        assert!(failing >= 5, "a truncation opens, reads, cuts, syncs and lists: {counts:?}");
    }
}

/// A log of twenty flushed batches, the tenth of which has rotted.
fn damaged() -> (Disk, Arc<Log>) {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append_many(&log, 20, 1);
    store(&log);
    let size = log.size_bytes() / 20;
    drop(log);
    // Within the value of the record: the checksum covers it, the framing does not depend on it.
    disk.fs.flip(Path::new(FIRST_SEGMENT), size * 11 - 2, 1).unwrap();
    disk.fs.remove_file(&Path::new(FIRST_SEGMENT).with_extension("index")).unwrap();
    let (log, report) = disk.open();
    assert_eq!(report.damage, [DamagedRange { start: Offset(10), end: Offset(11) }]);
    (disk, log)
}

/// The range stayed on the list of what is damaged although other records had come in its place.
#[test]
fn what_is_truncated_is_no_longer_damaged() {
    for to in [Offset(5), Offset(10)] {
        let (disk, log) = damaged();
        let refused = log.read(Offset(10), 1, FetchIsolation::LogEnd);
        assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{refused:?}");
        assert_eq!(log.truncate_to(to, NOW).unwrap(), to);
        assert_eq!(log.damage(), []);
        append_many(&log, 20, 1);
        assert_eq!(last_shown(&log, Offset(10), FetchIsolation::LogEnd), Some(to.plus(19)));
        store(&log);
        drop(log);
        let (log, report) = disk.open();
        assert_eq!((log.log_end_offset(), report.damage.len()), (to.plus(20), 0));
    }
}

/// A truncation past the damage keeps it on the list.
#[test]
fn damage_below_a_truncation_is_still_known() {
    let (_disk, log) = damaged();
    log.truncate_to(Offset(15), NOW).unwrap();
    assert_eq!(log.damage(), [DamagedRange { start: Offset(10), end: Offset(11) }]);
    append_many(&log, 5, 1);
    let refused = log.read(Offset(10), 1, FetchIsolation::LogEnd);
    assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{refused:?}");
    assert_eq!(last_shown(&log, Offset(11), FetchIsolation::LogEnd), Some(Offset(19)));
}

/// A producer snapshot whose removal was not durable came back after a power cut, newer than what replaced it, and
/// told of batches that had been cut.
#[test]
fn a_snapshot_of_truncated_batches_does_not_come_back() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, produced(5, 5, 0)).unwrap();
    store(&log);
    log.assign_epoch_start(LeaderEpoch(1));
    append(&log, produced(5, 5, 5)).unwrap();
    store(&log);
    // The system wrote the snapshot out and its name down, without being asked to.
    let dir = Path::new("/data/orders-3");
    disk.fs.sync_dir(dir).unwrap();
    let snapshot = disk.fs.open(&dir.join("00000000000000000010.snapshot"), OpenMode::Write).unwrap();
    snapshot.sync_data().unwrap();
    log.truncate_to(Offset(5), NOW).unwrap();
    append_many(&log, 2, 5);
    store(&log);
    let (restarted, _) = disk.cut(&CrashPlan::nothing_pending()).open();
    assert_eq!(restarted.log_end_offset(), Offset(15));
    let sequences = |log: &Log| -> Vec<_> {
        log.producers().iter().map(|(id, entry)| (*id, entry.last_sequence())).collect()
    };
    assert_eq!(sequences(&restarted), [(ProducerId(5), 4)]);
    assert_eq!(sequences(&restarted), sequences(&log));
}
