//! A disk without room: what needs none goes on.

use std::path::Path;

use klamm_log::fs::{LogFs as _, Operation};
use klamm_log::{AppendError, LogConfig};
use klamm_types::Offset;

use crate::bed::{Disk, FIRST_SEGMENT, NOW, append, append_many, batch, large_batch, small_segments};

/// Retention flushed first, the flush had a producer snapshot to write, and so the one thing that frees room failed
/// for want of it.
#[test]
fn retention_frees_room_on_a_full_disk() {
    let disk = Disk::new(LogConfig { retention_bytes: Some(1), ..small_segments() });
    let (log, _) = disk.open();
    append_many(&log, 30, 5);
    log.flush().unwrap();
    append_many(&log, 30, 5);
    log.advance_high_watermark(Offset(300));
    let full = disk.fs.space_used();
    disk.fs.set_capacity(Some(full));
    assert!(log.apply_retention(NOW).unwrap() > 0);
    let later = NOW.plus_millis(log.config().file_delete_delay_ms);
    assert_eq!(log.remove_deleted(later).unwrap(), 0);
    let used = disk.fs.space_used();
    assert!(used < full / 2, "{used} of {full} bytes are still taken");
    append_many(&log, 30, 5);
    assert_eq!(log.flush().unwrap(), Offset(450));
}

/// A producer snapshot that found no room kept records from being called flushed that stood on the disk.
#[test]
fn what_was_appended_is_flushed_on_a_full_disk() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, batch(1)).unwrap();
    log.flush().unwrap();
    append(&log, batch(1)).unwrap();
    disk.fs.set_capacity(Some(disk.fs.space_used()));
    // Both may or may not tell of the full disk; neither may make the flush depend on what they found no room for.
    let told = (log.checkpoint().is_ok(), log.release().is_ok());
    assert_eq!(log.flushed_end_offset(), Offset(2), "{told:?}");
    append(&log, batch(1)).unwrap();
    assert_eq!(log.flush().unwrap(), Offset(3));
    log.log_dir().check().unwrap();
}

/// How many writes it takes to catch up once there is room again, after so many checkpoints that found none.
fn writes_after_vain_checkpoints(count: usize) -> u64 {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, batch(1)).unwrap();
    log.flush().unwrap();
    append(&log, batch(1)).unwrap();
    disk.fs.set_capacity(Some(disk.fs.space_used()));
    for _ in 0..count {
        // Each may tell of the full disk; what matters is what it leaves to be done.
        let _ = log.release();
    }
    disk.fs.set_capacity(None);
    let before = disk.fs.calls(Operation::Write);
    append(&log, batch(1)).unwrap();
    assert_eq!(log.checkpoint().unwrap(), Offset(3));
    disk.fs.calls(Operation::Write) - before
}

/// Every checkpoint in vain added one more producer snapshot of the same offset to the work of the next flush: memory
/// grew for as long as the disk was full.
#[test]
fn checkpoints_on_a_full_disk_do_not_pile_up_work() {
    assert_eq!(writes_after_vain_checkpoints(100), writes_after_vain_checkpoints(1));
}

/// A refused append leaves nothing behind that a later one, or a recovery, would stumble over.
#[test]
fn a_refused_append_leaves_the_log_as_it_was() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, batch(1)).unwrap();
    disk.fs.set_capacity(Some(disk.fs.space_used()));
    let size = log.size_bytes();
    for _ in 0..3 {
        assert!(matches!(append(&log, large_batch(10_000)), Err(AppendError::Full(_))));
    }
    assert_eq!((log.size_bytes(), log.log_end_offset()), (size, Offset(1)));
    disk.fs.set_capacity(None);
    append(&log, batch(1)).unwrap();
    log.flush().unwrap();
    let file = disk.fs.stat(Path::new(FIRST_SEGMENT)).unwrap().unwrap();
    assert_eq!(file.len, log.size_bytes());
    drop(log);
    let (log, report) = disk.open();
    assert_eq!((log.log_end_offset(), report.truncated_bytes), (Offset(2), 0));
}
