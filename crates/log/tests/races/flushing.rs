//! Making records durable while others append, wait, delete and fail.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use klamm_log::fs::{CrashPlan, FaultKind, FaultRule, LogFs, MemoryFs, Operation};
use klamm_log::{FileCache, FlushListener, LogConfig, LogDir};
use klamm_types::Offset;

use crate::bed::{
    Disk, NOW, append, append_many, batch, create, eventually, open_in, produced, small_segments,
};
use crate::hooked_fs::Moment;

const LONG: Duration = Duration::from_secs(30);

/// The file was marked as unsynced before the write: a flush in between took the mark and not the bytes, and the next
/// flush called them durable without a sync.
#[test]
fn a_flush_in_the_middle_of_an_append_leaves_no_bytes_behind() {
    let disk = Disk::new(LogConfig::default());
    let (log, _) = disk.open();
    append(&log, batch(1)).unwrap();
    let flushed = Arc::clone(&log);
    let flush = disk.hooks.meanwhile(Moment::Write, ".log", move || {
        flushed.flush().unwrap();
    });
    append(&log, batch(1)).unwrap();
    flush.join();
    assert_eq!(log.flush().unwrap(), Offset(2));
    assert_eq!(log.flushed_end_offset(), Offset(2));
    let (log, _) = disk.cut(&CrashPlan::nothing_pending()).open();
    assert_eq!(log.log_end_offset(), Offset(2), "a flushed record is lost");
}

/// The listener was told with the writer's lock held, which it needs to raise the high watermark past an open
/// transaction.
#[test]
fn a_flush_listener_may_raise_the_high_watermark_during_retention() {
    let disk = Disk::new(LogConfig { retention_ms: Some(1), ..small_segments() });
    let (log, _) = disk.open();
    let told = Arc::downgrade(&log);
    log.set_flush_listener(FlushListener(Arc::new(move |end| {
        if let Some(log) = told.upgrade() {
            log.advance_high_watermark(end);
        }
    })));
    append(&log, batch(2)).unwrap();
    log.flush().unwrap();
    append(&log, produced(2, 5, 0).transactional()).unwrap();
    append_many(&log, 30, 5);
    log.advance_high_watermark(Offset(100));
    let (done, waited) = mpsc::channel();
    let kept = Arc::clone(&log);
    thread::spawn(move || done.send(kept.apply_retention(NOW.plus_millis(1000)).unwrap()));
    let gone = waited.recv_timeout(LONG).expect("retention waits for itself");
    assert!(gone > 0);
    // The listener was told of what the retention flushed.
    eventually(|| log.high_watermark() == log.log_end_offset());
}

/// To open a file of one directory, the shared cache had to sync one of another: the failure of that disk took the
/// healthy directory out of service.
#[test]
fn a_failing_directory_takes_none_with_it_that_shares_its_file_cache() {
    let fs = MemoryFs::new();
    let files = FileCache::new(1);
    let open = |path: &str| {
        fs.create_dir_all(Path::new(path)).unwrap();
        let dir = LogDir::new(Arc::new(fs.clone()), Path::new(path), Arc::clone(&files));
        open_in(dir, 0, Offset::ZERO, &LogConfig::default()).0
    };
    let (healthy, failing) = (open("/healthy"), open("/failing"));
    append(&failing, batch(1)).unwrap();
    fs.add_fault(FaultRule::always(Operation::SyncData, FaultKind::Io).on_paths_with("/failing"));
    append_many(&healthy, 10, 1);
    healthy.flush().unwrap();
    healthy.log_dir().check().unwrap();
    failing.flush().unwrap_err();
    failing.log_dir().check().unwrap_err();
    assert_eq!(failing.flushed_end_offset(), Offset::ZERO);
}

/// A flush that was asked for before the deletion came after it, found the files gone, and took the directory out of
/// service.
#[test]
fn a_late_flush_of_a_deleted_log_leaves_its_directory_in_service() {
    let disk = Disk::new(LogConfig { file_delete_delay_ms: 0, ..LogConfig::default() });
    let manager = disk.manage();
    let log = create(&manager, 0, &disk.config);
    let other = create(&manager, 1, &disk.config);
    append(&log, batch(1)).unwrap();
    manager.delete(log.partition(), NOW).unwrap();
    manager.tick(NOW.plus_millis(1)).unwrap();
    let names = disk.fs.list(Path::new("/data")).unwrap();
    assert!(names.iter().all(|entry| !entry.name.starts_with("orders-0")), "{names:?}");
    // Whatever a deleted log answers, it is no failure of the disk, and nothing comes back.
    let answers = (log.flush().is_ok(), log.checkpoint().is_ok(), append(&log, batch(1)).is_ok());
    let [(_, health)] = &manager.directories()[..] else { panic!("one directory") };
    assert!(health.is_ok(), "{health:?}, {answers:?}");
    assert!(!answers.2, "a deleted log took a record");
    assert_eq!(disk.fs.list(Path::new("/data")).unwrap(), names);
    append(&other, batch(1)).unwrap();
    assert_eq!(other.flush().unwrap(), Offset(1));
}

/// A new request went to the front of the queue: under load the oldest waited longest, some for ever.
#[test]
fn flushes_are_done_in_the_order_in_which_they_were_asked_for() {
    let disk = Disk::new(LogConfig::default());
    let mut options = Disk::options();
    options.flush_threads_per_dir = 1;
    let manager = disk.manage_with(options);
    let order = Arc::new(Mutex::new(Vec::new()));
    let logs = (0..6).map(|number| {
        let log = create(&manager, number, &disk.config);
        append(&log, batch(1)).unwrap();
        let order = Arc::clone(&order);
        log.set_flush_listener(FlushListener(Arc::new(move |_| order.lock().unwrap().push(number))));
        log
    });
    let logs: Vec<_> = logs.collect();
    let (entered, begun) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    disk.hooks.within(Moment::Sync, "orders-0/00000000000000000000.log", move || {
        entered.send(()).unwrap();
        // Ends when the test lets go of its end.
        let _ = gate.recv_timeout(LONG);
    });
    let ask = |number: usize| manager.flush_queue(&logs[number]).unwrap().request(&logs[number]);
    ask(0);
    begun.recv_timeout(LONG).unwrap();
    (1..6).for_each(ask);
    drop(release);
    eventually(|| order.lock().unwrap().len() == 6);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}

/// A failed sync of a checkpoint file is a failed sync: what the disk holds is unknown from then on.
#[test]
fn a_failed_sync_of_a_checkpoint_file_ends_the_service_of_its_directory() {
    for file in ["recovery-point", "replication-offset", "log-start-offset"] {
        let disk = Disk::new(LogConfig::default());
        let manager = disk.manage();
        let log = create(&manager, 0, &disk.config);
        append_many(&log, 10, 1);
        log.checkpoint().unwrap();
        log.advance_high_watermark(Offset(10));
        log.advance_log_start(Offset(5)).unwrap();
        disk.fs.add_fault(FaultRule::always(Operation::SyncData, FaultKind::Io).on_paths_with(file));
        manager.tick(NOW.plus_millis(60_000)).unwrap_err();
        let [(_, health)] = &manager.directories()[..] else { panic!("one directory") };
        assert!(health.is_err(), "in service after a failed sync of {file}");
        append(&log, batch(1)).unwrap_err();
    }
}
