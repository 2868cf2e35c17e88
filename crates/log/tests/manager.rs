//! Many logs in several directories, on the in-memory file system and on the real one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_log::checkpoint::CleanShutdown;
use klamm_log::fs::{
    CrashPlan, DirEntry, FaultKind, FaultRule, FileStat, LogFile, LogFs, MemoryFs, OpenMode, Operation,
    RealFs, write_file,
};
use klamm_log::{
    AppendError, AppendOrigin, FetchIsolation, Flusher, Log, LogConfig, LogError, LogManager, ManagerError,
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
    append_bytes(log, 5)
}

fn append_bytes(log: &Log, len: usize) -> Result<Offset, AppendError> {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.append(&NewRecord::new(NOW, Some(b"key"), Some(&vec![b'v'; len]))).unwrap();
    let bytes = builder.build().unwrap();
    log.append_as_leader(&bytes, LeaderEpoch(0), AppendOrigin::Client, NOW)
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

/// An empty disk in the place of one that has failed.
#[test]
fn a_directory_that_was_replaced_is_missed_until_everybody_knows() {
    let fs = MemoryFs::new();
    let lacks_dir = |dirs: &[&str], remember: bool| {
        let (manager, report) = open(&fs, dirs);
        if remember {
            manager.remember_dirs().unwrap();
        }
        report.lacks_dir
    };
    assert!(!lacks_dir(&["/a", "/b"], true), "the first start");
    assert!(!lacks_dir(&["/a", "/b"], true));
    assert!(!lacks_dir(&["/a", "/b", "/c"], true), "one was added");
    fs.remove_file(Path::new("/b/meta.properties")).unwrap();
    assert!(lacks_dir(&["/a", "/b", "/c"], false));
    assert!(lacks_dir(&["/a", "/b", "/c"], true), "nobody has been told");
    assert!(!lacks_dir(&["/a", "/b", "/c"], true));
    assert!(lacks_dir(&["/a", "/b"], true), "one was taken out");
    assert!(!lacks_dir(&["/a", "/b"], true));
    // The one that is left remembers, whichever it is.
    fs.remove_file(Path::new("/a/meta.properties")).unwrap();
    fs.remove_file(Path::new("/a/directory-siblings")).unwrap();
    assert!(lacks_dir(&["/a", "/b"], true));
    // One that cannot be read may come back with all its logs.
    fs.add_fault(FaultRule::always(Operation::List, FaultKind::Io).on_paths_with("/a"));
    assert!(lacks_dir(&["/a", "/b"], true));
    assert!(lacks_dir(&["/a", "/b"], true), "it is remembered");
    fs.clear_faults();
    assert!(!lacks_dir(&["/a", "/b"], true));
    // It does not read: nobody knows that none is missing.
    for dir in ["/a", "/b"] {
        write_file(&fs, &Path::new(dir).join("directory-siblings"), b"?").unwrap();
    }
    assert!(lacks_dir(&["/a", "/b"], true));
    assert!(!lacks_dir(&["/a", "/b"], true));
    assert!(lacks_dir(&["/a"], true), "one is left");
    assert!(!lacks_dir(&["/a"], true));
    assert!(!lacks_dir(&["/a", "/b"], false), "one was added again");
}

#[test]
fn directories_remember_later_what_they_could_not_at_once() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a", "/b"]);
    fs.add_fault(FaultRule::always(Operation::Write, FaultKind::NoSpace).on_paths_with("/a"));
    manager.remember_dirs().unwrap_err();
    fs.clear_faults();
    manager.remember_dirs().unwrap();
    drop(manager);
    fs.remove_file(Path::new("/b/meta.properties")).unwrap();
    fs.remove_file(Path::new("/b/directory-siblings")).unwrap();
    let (_, report) = open(&fs, &["/a", "/b"]);
    assert!(report.lacks_dir);
}

/// The checkpoints, and the metadata log that may be on the same disk, go on.
#[test]
fn records_leave_some_room_on_the_disk() {
    let fs = MemoryFs::new();
    fs.set_capacity(Some(4 << 20));
    let (manager, _) = open(&fs, &["/a"]);
    let log = create(&manager, 0);
    let full = loop {
        if let Err(error) = append_bytes(&log, 10_000) {
            break error;
        }
    };
    assert!(matches!(full, AppendError::Full(_)), "{full}");
    let space = fs.space(Path::new("/a")).unwrap().unwrap();
    let reserve = space.total / 20;
    assert!((reserve - 20_000..reserve + 20_000).contains(&space.available), "{space:?}");
    manager.tick(NOW.plus_millis(400_000)).unwrap();
    write_file(&fs, Path::new("/a/others"), &[1; 100_000]).unwrap();
    assert!(matches!(append(&log), Err(AppendError::Full(_))));
    fs.set_capacity(Some(5 << 20));
    append_bytes(&log, 10_000).unwrap();
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
fn what_is_wanted_soon_is_flushed_soon_and_at_the_latest_with_the_end() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    let log = create(&manager, 0);
    let end = append(&log).unwrap();
    manager.flush_queue(&log).unwrap().request_soon(&log);
    assert!(log.wait_flushed(end, Duration::from_secs(10)));
    let end = append(&log).unwrap();
    manager.flush_queue(&log).unwrap().request_soon(&log);
    manager.flush_queue(&log).unwrap().request(&log);
    assert!(log.wait_flushed(end, Duration::from_secs(10)));
    let log = create(&manager, 1);
    let flusher = Flusher::start("soon", 1).unwrap();
    for _ in 0..100 {
        append(&log).unwrap();
        flusher.queue().request_soon(&log);
    }
    drop(flusher);
    assert_eq!(log.flushed_end_offset(), log.log_end_offset());
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
fn what_is_set_aside_stays_on_the_disk_and_out_of_the_way() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    append(&create(&manager, 0)).unwrap();
    let place = manager.set_aside(&partition(0)).unwrap();
    assert!(place.to_str().unwrap().ends_with("-stray"), "{place:?}");
    assert!(manager.get(&partition(0)).is_none());
    assert_eq!(create(&manager, 0).log_end_offset(), Offset(0));
    manager.tick(NOW.plus_millis(1_000_000)).unwrap();
    drop(manager);
    let (manager, report) = open(&fs, &["/a"]);
    assert_eq!(manager.logs().len(), 1);
    assert!(!fs.list(&place).unwrap().is_empty(), "its files are still there: {report:?}");
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

/// Each checkpoint names every partition: were it written with each deletion, many would take the square of the time.
#[test]
fn many_deletions_write_the_checkpoints_once_at_most() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    for number in 0..50 {
        let log = create(&manager, number);
        append(&log).unwrap();
        log.checkpoint().unwrap();
    }
    manager.tick(NOW.plus_millis(6_000)).unwrap();
    let replaced = || fs.calls(Operation::Rename);
    let before = replaced();
    (0..50).for_each(|number| manager.delete(&partition(number), NOW).unwrap());
    assert_eq!(replaced() - before, 50, "the renamed directories");
    let before = replaced();
    (0..50).for_each(|number| _ = create(&manager, number));
    assert_eq!(replaced() - before, 1, "the recovery points, from which all are forgotten at once");
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

type Interruption = (&'static str, Box<dyn FnOnce() + Send>);

/// A disk that lets something happen before it opens or renames the first path with a given text in it.
#[derive(Clone)]
struct Interrupted {
    disk: MemoryFs,
    next: Arc<Mutex<Option<Interruption>>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupted")
    }
}

impl Interrupted {
    fn new() -> Self {
        Self { disk: MemoryFs::new(), next: Arc::default() }
    }

    fn before(&self, text: &'static str, happens: impl FnOnce() + Send + 'static) {
        *self.next.lock().unwrap() = Some((text, Box::new(happens)));
    }

    fn pass(&self, path: &Path) {
        let mut next = self.next.lock().unwrap();
        if let Some((_, happens)) = next.take_if(|(text, _)| path.to_str().unwrap().contains(*text)) {
            drop(next);
            happens();
        }
    }
}

impl LogFs for Interrupted {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        self.pass(path);
        self.disk.open(path, mode)
    }
    fn stat(&self, path: &Path) -> io::Result<Option<FileStat>> {
        self.disk.stat(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(from);
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.try_lock(path)
    }
}

/// Partition 0 of topic 1, with 100 records of which the first 90 are deleted, is deleted and made again for topic 2
/// when a tick comes to a path with `text` in it: right there, or by another thread.
fn made_again_during_a_tick(text: &'static str, right_there: bool) {
    let fs = Interrupted::new();
    let open = |fs: Arc<dyn LogFs>| open_with(fs, options(&["/a"])).unwrap().0;
    let manager = Arc::new(open(Arc::new(fs.clone())));
    let log = create(&manager, 0);
    let config = LogConfig { segment_bytes: 1000, retention_bytes: Some(1), ..LogConfig::default() };
    let expiring = manager.create(&partition(1), TopicId([1; 16]), Arc::new(config), NOW).unwrap();
    for log in [&log, &expiring] {
        (0..100).for_each(|_| _ = append(log).unwrap());
        log.checkpoint().unwrap();
        log.advance_high_watermark(Offset(100));
    }
    log.advance_log_start(Offset(90)).unwrap();
    let again = {
        let manager = Arc::clone(&manager);
        move || {
            manager.delete(&partition(0), NOW).unwrap();
            let log = manager.create(&partition(0), TopicId([2; 16]), Arc::default(), NOW).unwrap();
            (0..10).for_each(|_| _ = append(&log).unwrap());
            log.flush().unwrap();
        }
    };
    let (done, waiting) = std::sync::mpsc::channel();
    fs.before(text, move || {
        if right_there {
            again();
            done.send(None).unwrap();
        } else {
            // It has to wait for the tick.
            done.send(Some(std::thread::spawn(again))).unwrap();
        }
    });
    manager.tick(NOW.plus_millis(300_000)).unwrap();
    if let Some(thread) = waiting.recv().unwrap() {
        thread.join().unwrap();
    }
    drop(manager);
    let manager = open(Arc::new(fs.disk.crash_point().power_cut(&CrashPlan::everything_pending())));
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!((log.topic_id(), log.damage().len()), (Some(TopicId([2; 16])), 0));
    assert_eq!(
        (log.log_start_offset(), log.high_watermark(), log.log_end_offset()),
        (Offset(0), Offset(0), Offset(10))
    );
}

#[test]
fn a_partition_made_again_during_a_tick_inherits_nothing() {
    made_again_during_a_tick("/a/orders-1/", true);
    made_again_during_a_tick(klamm_log::RECOVERY_POINT_FILE, false);
    made_again_during_a_tick(klamm_log::HIGH_WATERMARK_FILE, false);
    made_again_during_a_tick(klamm_log::LOG_START_FILE, false);
}

/// A disk with partition 0 of topic 1 in `/a`, closed in order: 20 records, the first 15 deleted.
fn closed_log() -> MemoryFs {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    let log = create(&manager, 0);
    (0..20).for_each(|_| _ = append(&log).unwrap());
    log.advance_high_watermark(Offset(20));
    log.advance_log_start(Offset(15)).unwrap();
    drop(log);
    manager.shut_down(BrokerEpoch(1)).unwrap();
    fs
}

#[test]
fn a_log_that_does_not_open_is_not_written_over() {
    let fs = closed_log();
    fs.flip(Path::new("/a/orders-0/partition.metadata"), 0, 1).unwrap();
    let (manager, report) = open(&fs, &["/a", "/b"]);
    assert!(report.dirs[0].result.as_ref().unwrap().logs[0].result.is_err());
    let made = manager.create(&partition(0), TopicId([2; 16]), Arc::default(), NOW);
    let Err(ManagerError::Occupied { path, .. }) = made else { panic!("{made:?}") };
    assert_eq!(path, Path::new("/a/orders-0"));
    manager.shut_down(BrokerEpoch(2)).unwrap();
    fs.flip(Path::new("/a/orders-0/partition.metadata"), 0, 1).unwrap();
    let (manager, report) = open(&fs, &["/a", "/b"]);
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!((log.topic_id(), log.log_end_offset()), (Some(TopicId([1; 16])), Offset(20)));
    // Nobody closed the log, so nothing says that it was.
    let marks = report.dirs.iter().map(|dir| dir.result.as_ref().unwrap().clean_shutdown.is_some());
    assert_eq!(marks.collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_creation_that_failed_can_be_tried_again() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    fs.set_capacity(Some(fs.space_used()));
    let made = manager.create(&partition(0), TopicId([1; 16]), Arc::default(), NOW);
    assert!(matches!(made, Err(ManagerError::Log(LogError::Storage(error))) if error.is_full()));
    fs.set_capacity(None);
    create(&manager, 0);
}

#[test]
fn a_log_that_does_not_open_keeps_its_checkpoints() {
    let fs = closed_log();
    fs.add_fault(FaultRule::always(Operation::Open, FaultKind::Io).on_paths_with("orders-0/partition"));
    let (manager, _) = open(&fs, &["/a"]);
    assert!(manager.get(&partition(0)).is_none());
    append(&create(&manager, 1)).unwrap();
    manager.tick(NOW.plus_millis(60_000)).unwrap();
    manager.shut_down(BrokerEpoch(2)).unwrap();
    fs.clear_faults();
    let (manager, _) = open(&fs, &["/a"]);
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!((log.log_start_offset(), log.high_watermark()), (Offset(15), Offset(20)));
    assert_eq!(log.recovery_point(), Offset(20));
}

#[test]
fn a_missing_recovery_point_file_does_not_turn_rot_into_a_torn_tail() {
    let fs = closed_log();
    let points = Path::new("/a").join(klamm_log::RECOVERY_POINT_FILE);
    fs.remove_file(&points).unwrap();
    let log = Path::new("/a/orders-0/00000000000000000000.log");
    let len = fs.stat(log).unwrap().unwrap().len;
    fs.flip(log, len / 20 * 17 + 70, 1).unwrap();
    // A log that does not open has no recovery point; the others must not make it look as if it had none to lose.
    fs.add_fault(FaultRule::always(Operation::Open, FaultKind::Io).on_paths_with("orders-0/partition"));
    let (manager, _) = open(&fs, &["/a"]);
    assert!(append(&create(&manager, 1)).is_ok());
    manager.tick(NOW.plus_millis(60_000)).unwrap();
    manager.shut_down(BrokerEpoch(2)).unwrap();
    assert_eq!(fs.stat(&points).unwrap(), None);
    fs.clear_faults();
    let (manager, _) = open(&fs, &["/a"]);
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!((log.log_end_offset(), log.damage().len()), (Offset(20), 1));
    drop((log, manager));
    // From here on there is a point again, also after a crash.
    let fs = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
    assert!(fs.stat(&points).unwrap().is_some());
    assert_eq!(open(&fs, &["/a"]).0.get(&partition(0)).unwrap().log_end_offset(), Offset(20));
}

#[test]
fn a_directory_has_recovery_points_before_it_has_partitions() {
    let fs = MemoryFs::new();
    drop(open(&fs, &["/a"]));
    let fs = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
    let points = klamm_log::fs::read_file(&fs, &Path::new("/a").join(klamm_log::RECOVERY_POINT_FILE), 100);
    assert_eq!(points.unwrap(), b"0\n0\n");
}

#[test]
fn a_checkpoint_that_does_not_read_is_written_again() {
    let fs = MemoryFs::new();
    drop(open(&fs, &["/a"]));
    let names = [klamm_log::RECOVERY_POINT_FILE, klamm_log::HIGH_WATERMARK_FILE, klamm_log::LOG_START_FILE];
    for content in [None, Some(b"rubbish")] {
        for path in names.map(|name| Path::new("/a").join(name)) {
            match content {
                Some(content) => klamm_log::fs::replace_file(&fs, &path, content).unwrap(),
                None => fs.remove_file(&path).unwrap_or_default(),
            }
        }
        let (manager, _) = open(&fs, &["/a"]);
        manager.tick(NOW.plus_millis(5_000)).unwrap();
        for path in names.map(|name| Path::new("/a").join(name)) {
            assert_eq!(klamm_log::fs::read_file(&fs, &path, 100).unwrap(), b"0\n0\n", "{}", path.display());
        }
    }
}

#[test]
fn a_power_cut_after_the_first_start_takes_nothing_that_was_flushed() {
    // In one case, an earlier start was killed right after it had made the directory.
    for made_before in [false, true] {
        let fs = MemoryFs::new();
        if made_before {
            fs.create_dir_all(Path::new("/srv/klamm/data")).unwrap();
        }
        let (manager, _) = open(&fs, &["/srv/klamm/data"]);
        let log = create(&manager, 0);
        append(&log).unwrap();
        log.flush().unwrap();
        let fs = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
        let (manager, _) = open(&fs, &["/srv/klamm/data"]);
        assert_eq!(manager.get(&partition(0)).unwrap().log_end_offset(), Offset(1));
    }
}

#[test]
fn a_deletion_frees_a_full_disk() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    let log = create(&manager, 0);
    (0..1000).for_each(|_| _ = append(&log).unwrap());
    log.checkpoint().unwrap();
    log.advance_high_watermark(Offset(1000));
    drop(log);
    manager.tick(NOW.plus_millis(10_000)).unwrap();
    let used = fs.space_used();
    fs.set_capacity(Some(used));
    manager.delete(&partition(0), NOW).unwrap();
    assert!(manager.get(&partition(0)).is_none());
    // What the checkpoints still say of it is in nobody's way, but must go first.
    let made = manager.create(&partition(0), TopicId([2; 16]), Arc::default(), NOW);
    assert!(matches!(made, Err(ManagerError::Log(LogError::Storage(error))) if error.is_full()));
    manager.tick(NOW.plus_millis(60_000)).unwrap();
    assert!(fs.space_used() < used / 2, "{} of {used} bytes", fs.space_used());
    fs.set_capacity(None);
    append(&create(&manager, 0)).unwrap();
    let fs = fs.crash_point().power_cut(&CrashPlan::everything_pending());
    let (manager, _) = open(&fs, &["/a"]);
    let log = manager.get(&partition(0)).unwrap();
    assert_eq!((log.log_end_offset(), log.damage().len()), (Offset(1), 0));
}

#[test]
fn a_partition_in_two_directories_is_opened_in_neither() {
    let fs = MemoryFs::new();
    for (dir, records) in [("/a", 5), ("/b", 3)] {
        let (manager, _) = open(&fs, &[dir]);
        let log = create(&manager, 0);
        (0..records).for_each(|_| _ = append(&log).unwrap());
        manager.shut_down(BrokerEpoch(1)).unwrap();
    }
    let (manager, report) = open(&fs, &["/a", "/b", "/c"]);
    assert!(manager.get(&partition(0)).is_none());
    for (dir, other) in report.dirs.iter().zip(["/b", "/a"]) {
        let error = dir.result.as_ref().unwrap().logs[0].result.as_ref().unwrap_err();
        assert!(error.to_string().contains(&format!("a directory in {other} too")), "{error}");
    }
    let made = manager.create(&partition(0), TopicId([1; 16]), Arc::default(), NOW);
    assert!(matches!(made, Err(ManagerError::Occupied { .. })));
    manager.shut_down(BrokerEpoch(2)).unwrap();
    // With one of them out of the way, the other is as it was.
    fs.rename(Path::new("/b/orders-0"), Path::new("/b/kept-aside")).unwrap();
    let (manager, _) = open(&fs, &["/a", "/b", "/c"]);
    assert_eq!(manager.get(&partition(0)).unwrap().log_end_offset(), Offset(5));
}

#[test]
fn a_shutdown_closes_the_logs_after_one_that_fails() {
    let fs = MemoryFs::new();
    let (manager, _) = open(&fs, &["/a"]);
    for number in 0..3 {
        append(&create(&manager, number)).unwrap();
    }
    fs.add_fault(
        FaultRule::always(Operation::Write, FaultKind::NoSpace).on_paths_with("orders-0/leader-epoch"),
    );
    assert!(manager.shut_down(BrokerEpoch(1)).is_err());
    fs.clear_faults();
    let fs = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
    let (manager, report) = open(&fs, &["/a"]);
    assert_eq!(report.dirs[0].result.as_ref().unwrap().clean_shutdown, None);
    for number in [1, 2] {
        let log = manager.get(&partition(number)).unwrap();
        assert_eq!((log.log_end_offset(), log.recovery_point()), (Offset(1), Offset(1)));
    }
}
