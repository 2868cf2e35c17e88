//! Many logs in several directories, on the in-memory file system and on the real one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_log::checkpoint::CleanShutdown;
use klamm_log::fs::{FaultKind, FaultRule, LogFs, MemoryFs, Operation, RealFs};
use klamm_log::{
    AppendError, AppendOrigin, FetchIsolation, Log, LogConfig, LogError, LogManager, ManagerError,
    ManagerOptions, StartReport,
};
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn options(dirs: &[&str]) -> ManagerOptions {
    ManagerOptions::new(dirs.iter().map(PathBuf::from).collect(), BrokerId(1), "cluster")
}

fn open_with(fs: Arc<dyn LogFs>, options: ManagerOptions) -> Result<(LogManager, StartReport), ManagerError> {
    let config = Arc::new(LogConfig { segment_bytes: 4096, ..LogConfig::default() });
    LogManager::open(fs, options, &|_| Arc::clone(&config), NOW)
}

fn open(fs: &MemoryFs, dirs: &[&str]) -> (LogManager, StartReport) {
    open_with(Arc::new(fs.clone()), options(dirs)).unwrap()
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(number))
}

fn create(manager: &LogManager, number: i32) -> Arc<Log> {
    manager.create(&partition(number), TopicId([1; 16]), Arc::default(), NOW).unwrap()
}

fn append(log: &Log) -> Result<Offset, AppendError> {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.append(&NewRecord::new(NOW, Some(b"key"), Some(b"value"))).unwrap();
    let mut bytes = builder.build().unwrap();
    log.append_as_leader(&mut bytes, LeaderEpoch(0), AppendOrigin::Client, NOW)
        .map(|info| info.last_offset.next())
}

/// Waits until `condition` holds; fails after half a minute.
fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not come true");
}

#[test]
fn an_orderly_shutdown_leaves_its_mark_and_nothing_to_recover() {
    let fs = MemoryFs::new();
    let (manager, report) = open(&fs, &["/a", "/b"]);
    assert!(report.dirs.iter().all(|dir| dir.result.as_ref().unwrap().clean_shutdown.is_none()));
    for number in 0..10 {
        let log = create(&manager, number);
        for _ in 0..100 {
            append(&log).unwrap();
        }
        log.advance_high_watermark(Offset(90));
    }
    let used = |dir| manager.logs().iter().filter(|log| log.log_dir().path() == Path::new(dir)).count();
    assert_eq!((used("/a"), used("/b")), (5, 5));
    manager.shut_down(BrokerEpoch(7)).unwrap();
    let (manager, report) = open(&fs, &["/a", "/b"]);
    for dir in report.dirs {
        let content = dir.result.unwrap();
        assert_eq!(content.clean_shutdown, Some(CleanShutdown { broker_epoch: BrokerEpoch(7) }));
        assert_eq!(content.logs.len(), 5);
        for log in content.logs {
            let report = log.result.unwrap();
            assert_eq!((report.truncated_bytes, report.damage.len()), (0, 0));
            assert!(report.scanned_bytes < 8192, "{}", report.scanned_bytes);
        }
    }
    let log = manager.get(&partition(3)).unwrap();
    assert_eq!((log.log_end_offset(), log.high_watermark()), (Offset(100), Offset(90)));
    // The mark is gone: a crash from here on looks like one.
    drop(manager);
    let (_, report) = open(&fs, &["/a", "/b"]);
    assert!(report.dirs.iter().all(|dir| dir.result.as_ref().unwrap().clean_shutdown.is_none()));
}

#[test]
fn foreign_and_locked_directories_are_refused() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    assert!(matches!(open_with(Arc::new(fs.clone()), options(&["/a"])), Err(ManagerError::Log(_))));
    drop(manager);
    let foreign = ManagerOptions { cluster_id: "other".to_owned(), ..options(&["/a"]) };
    let Err(ManagerError::Log(LogError::Damaged { reason, .. })) = open_with(Arc::new(fs.clone()), foreign)
    else {
        panic!("a foreign directory is refused")
    };
    assert_eq!(reason, "the directory belongs to cluster cluster, not other");
    let other_node = ManagerOptions { node_id: BrokerId(2), ..options(&["/a"]) };
    assert!(matches!(open_with(Arc::new(fs.clone()), other_node), Err(ManagerError::Log(_))));
    // A directory out of two that is refused leaves the other in service.
    let (_, report) =
        open_with(Arc::new(fs), ManagerOptions { node_id: BrokerId(2), ..options(&["/a", "/b"]) }).unwrap();
    assert_eq!(report.dirs.iter().map(|dir| dir.result.is_ok()).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn one_failing_directory_leaves_the_other_in_service() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a", "/b"]);
    let logs = [create(&manager, 0), create(&manager, 1)];
    let in_dir = |dir: &str| logs.iter().find(|log| log.log_dir().path() == Path::new(dir)).unwrap();
    let (failing, healthy) = (in_dir("/a"), in_dir("/b"));
    let end = append(failing).unwrap();
    fs.add_fault(FaultRule::always(Operation::SyncData, FaultKind::Io).on_paths_with("/a/"));
    manager.flush_queue(failing).unwrap().request(failing);
    assert!(!failing.wait_flushed(end, Duration::from_secs(10)));
    assert_eq!(failing.flushed_end_offset(), Offset(0));
    assert!(matches!(append(failing), Err(AppendError::Offline(_))));
    assert!(failing.read(Offset(0), 1, FetchIsolation::LogEnd).is_err());
    let end = append(healthy).unwrap();
    manager.flush_queue(healthy).unwrap().request(healthy);
    assert!(healthy.wait_flushed(end, Duration::from_secs(10)));
    let failed: Vec<bool> = manager.directories().iter().map(|(_, health)| health.is_err()).collect();
    assert_eq!(failed, [true, false]);
    // New partitions go to what is left.
    assert_eq!(create(&manager, 2).log_dir().path(), Path::new("/b"));
    assert_eq!(create(&manager, 3).log_dir().path(), Path::new("/b"));
    manager.tick(NOW.plus_millis(400_000)).unwrap();
}

#[test]
fn a_deleted_partition_is_gone_at_once_and_off_the_disk_later() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    append(&create(&manager, 0)).unwrap();
    append(&create(&manager, 1)).unwrap();
    manager.delete(&partition(0), NOW).unwrap();
    assert!(matches!(manager.delete(&partition(0), NOW), Err(ManagerError::Unknown(_))));
    assert!(manager.get(&partition(0)).is_none());
    let dirs = || fs.list(Path::new("/a")).unwrap().into_iter().filter(|e| e.stat.is_dir).count();
    assert_eq!(dirs(), 2);
    create(&manager, 0);
    assert_eq!(dirs(), 3);
    manager.tick(NOW.plus_millis(59_999)).unwrap();
    assert_eq!(dirs(), 3);
    manager.tick(NOW.plus_millis(60_000)).unwrap();
    assert_eq!(dirs(), 2);
    manager.delete(&partition(1), NOW).unwrap();
    drop(manager);
    let (manager, _) = open(&fs, &["/a"]);
    assert_eq!((dirs(), manager.logs().len()), (1, 1));
}

#[test]
fn a_partition_made_again_inherits_nothing() {
    for orderly in [true, false] {
        let fs = MemoryFs::new();
        let (manager, _) = open(&fs, &["/a"]);
        let log = create(&manager, 0);
        for _ in 0..300 {
            append(&log).unwrap();
        }
        log.advance_high_watermark(Offset(300));
        log.advance_log_start(Offset(200)).unwrap();
        manager.tick(NOW.plus_millis(61_000)).unwrap();
        eventually(|| log.recovery_point() == Offset(300));
        manager.tick(NOW.plus_millis(67_000)).unwrap();
        drop(log);
        let fs = if orderly {
            manager.delete(&partition(0), NOW).unwrap();
            drop(manager);
            fs
        } else {
            // The directory goes while nobody looks: what the checkpoints say of it is stale.
            drop(manager);
            fs.rename(Path::new("/a/orders-0"), Path::new("/a/gone")).unwrap();
            fs
        };
        let (manager, _) = open(&fs, &["/a"]);
        assert_eq!(append(&create(&manager, 0)).unwrap(), Offset(1));
        drop(manager);
        let (manager, report) = open(&fs, &["/a"]);
        let log = manager.get(&partition(0)).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(1)));
        assert!(report.dirs[0].result.as_ref().unwrap().logs[0].result.as_ref().unwrap().damage.is_empty());
    }
}

#[test]
fn an_idle_log_gives_its_files_back_and_wakes_up_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().to_str().unwrap();
    let (manager, _) = open_with(Arc::new(RealFs), options(&[dir])).unwrap();
    let log = create(&manager, 0);
    for _ in 0..500 {
        append(&log).unwrap();
    }
    assert!(manager.open_files() > 0);
    manager.tick(NOW.plus_millis(70_000)).unwrap();
    eventually(|| manager.open_files() == 0);
    assert_eq!(log.flushed_end_offset(), Offset(500));
    let slice = log.read(Offset(250), 1, FetchIsolation::LogEnd).unwrap().slice.unwrap();
    assert!(slice.to_vec().unwrap().len() > 60);
    assert_eq!(append(&log).unwrap(), Offset(501));
    manager.shut_down(BrokerEpoch::NONE).unwrap();
    let (manager, _) = open_with(Arc::new(RealFs), options(&[dir])).unwrap();
    assert_eq!(manager.get(&partition(0)).unwrap().log_end_offset(), Offset(501));
}

#[test]
fn more_logs_than_open_files() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().to_str().unwrap();
    let few = ManagerOptions { open_files_max: 10, ..options(&[dir]) };
    let (manager, _) = open_with(Arc::new(RealFs), few).unwrap();
    let logs: Vec<_> = (0..50).map(|number| create(&manager, number)).collect();
    for _ in 0..3 {
        for log in &logs {
            append(log).unwrap();
        }
    }
    assert!(manager.open_files() <= 11, "{}", manager.open_files());
    for log in &logs {
        assert_eq!(log.flush().unwrap(), Offset(3));
        assert!(log.read(Offset(1), 1, FetchIsolation::LogEnd).unwrap().slice.is_some());
    }
}

#[test]
fn a_topic_setting_asks_for_flushes() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    let config = LogConfig { flush_ms: 1000, ..LogConfig::default() };
    let log = manager.create(&partition(0), TopicId([1; 16]), Arc::new(config), NOW).unwrap();
    let end = append(&log).unwrap();
    manager.tick(NOW.plus_millis(999)).unwrap();
    assert_eq!(log.flushed_end_offset(), Offset(0));
    manager.tick(NOW.plus_millis(1000)).unwrap();
    assert!(log.wait_flushed(end, Duration::from_secs(10)));
}

#[test]
fn a_lost_recovery_point_file_costs_a_scan_and_no_data() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    let log = create(&manager, 0);
    for _ in 0..200 {
        append(&log).unwrap();
    }
    drop(log);
    manager.shut_down(BrokerEpoch(1)).unwrap();
    let path = Path::new("/a").join(klamm_log::RECOVERY_POINT_FILE);
    klamm_log::fs::replace_file(&fs, &path, b"rubbish").unwrap();
    let (manager, report) = open(&fs, &["/a"]);
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(200));
    let content = report.dirs.into_iter().next().unwrap().result.unwrap();
    assert!(content.logs[0].result.as_ref().unwrap().scanned_bytes > 10_000);
}

#[test]
fn many_threads_keep_to_the_limit_of_open_files() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().to_str().unwrap();
    let few = ManagerOptions { open_files_max: 20, ..options(&[dir]) };
    let (manager, _) = open_with(Arc::new(RealFs), few).unwrap();
    let logs: Vec<_> = (0..160).map(|number| create(&manager, number)).collect();
    std::thread::scope(|scope| {
        for chunk in logs.chunks(20) {
            scope.spawn(|| chunk.iter().for_each(|log| assert!(append(log).is_ok())));
        }
    });
    // What the process really has open: one handle for each log file at the most, beside those in use just now.
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let open_logs =
        open.filter(|target| target.starts_with(temporary.path()) && target.extension().is_some()).count();
    assert!(open_logs <= 20 + 8, "{open_logs} files are open");
}
