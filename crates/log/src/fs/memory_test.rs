use super::*;
use crate::fs::{read_file, replace_file, write_all_at};

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(fs: &MemoryFs, name: &str) -> Arc<dyn LogFile> {
    fs.open(path(name), OpenMode::Create).unwrap()
}

/// A disk on which the file `a` durably holds `bytes`.
fn disk_with(bytes: &[u8]) -> (MemoryFs, Arc<dyn LogFile>) {
    let fs = MemoryFs::new();
    let file = create(&fs, "a");
    write_all_at(file.as_ref(), bytes, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    (fs, file)
}

fn read(fs: &MemoryFs, name: &str) -> Option<Vec<u8>> {
    match read_file(fs, path(name), u64::MAX) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => panic!("{name}: {e}"),
    }
}

fn names(fs: &MemoryFs, dir: &str) -> Vec<String> {
    fs.list(path(dir)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn cut(fs: &MemoryFs, plan: &CrashPlan) -> MemoryFs {
    fs.crash_point().power_cut(plan)
}

#[test]
fn what_is_synced_survives_every_plan() {
    let (fs, file) = disk_with(b"old");
    file.write_at(b"new", 3).unwrap();
    for plan in [CrashPlan::nothing_pending(), CrashPlan::everything_pending(), CrashPlan::masked(0)] {
        assert!(read(&cut(&fs, &plan), "a").unwrap().starts_with(b"old"));
    }
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"old");
    assert_eq!(read(&cut(&fs, &CrashPlan::everything_pending()), "a").unwrap(), b"oldnew");
    file.sync_data().unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"oldnew");
}

#[test]
fn any_subset_of_the_writes_of_a_file_may_survive() {
    let (fs, file) = disk_with(b"..");
    for (i, byte) in [b'x', b'y', b'z'].into_iter().enumerate() {
        file.write_at(&[byte], 2 + i as u64).unwrap();
    }
    let found: Vec<_> = (0..8).map(|mask| read(&cut(&fs, &CrashPlan::masked(mask)), "a").unwrap()).collect();
    let wanted: [&[u8]; 8] = [b"..", b"..x", b"..\0y", b"..xy", b"..\0\0z", b"..x\0z", b"..\0yz", b"..xyz"];
    assert_eq!(found, wanted);
}

#[test]
fn a_write_may_be_torn_at_any_sector() {
    let (fs, file) = disk_with(&[1; 600]);
    file.write_at(&[2; 1400], 600).unwrap();
    let point = fs.crash_point();
    assert_eq!(point.pending()[0].kind, PendingKind::Write { sectors: 3 });
    for sectors in 0..8 {
        for extends in [false, true] {
            let plan = CrashPlan::nothing_pending().with(0, Fate::Torn { sectors, extends });
            let found = read(&point.power_cut(&plan), "a").unwrap();
            let last_end = [600, 1024, 1536, 1536, 2000, 2000, 2000, 2000][sectors as usize];
            assert_eq!(found.len(), if extends { 2000 } else { last_end });
            for (at, byte) in found.iter().enumerate().skip(600) {
                let kept = sectors >> (at / 512 - 1) & 1 == 1;
                assert_eq!(*byte, if kept { 2 } else { 0 }, "byte {at} of {sectors:b}");
            }
            assert_eq!(found[..600], [1; 600]);
        }
    }
}

#[test]
fn a_torn_overwrite_leaves_the_old_sectors() {
    let (fs, file) = disk_with(&[1; 1024]);
    file.write_at(&[2; 1024], 0).unwrap();
    let plan = CrashPlan::nothing_pending().with(0, Fate::Torn { sectors: 0b10, extends: true });
    assert_eq!(read(&cut(&fs, &plan), "a").unwrap(), [vec![1; 512], vec![2; 512]].concat());
}

#[test]
fn a_cut_survives_or_not_apart_from_the_writes() {
    let (fs, file) = disk_with(b"abcdef");
    file.set_len(2).unwrap();
    file.write_at(b"X", 2).unwrap();
    let found: Vec<_> = (0..4).map(|mask| read(&cut(&fs, &CrashPlan::masked(mask)), "a").unwrap()).collect();
    assert_eq!(found, [&b"abcdef"[..], b"ab", b"abXdef", b"abX"]);
    file.sync_data().unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"abX");
}

#[test]
fn a_name_survives_only_after_its_directory_was_synced() {
    let fs = MemoryFs::new();
    let file = create(&fs, "a");
    file.write_at(b"data", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a"), None);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"data");
}

#[test]
fn a_name_may_survive_without_the_data() {
    let fs = MemoryFs::new();
    create(&fs, "a").write_at(b"data", 0).unwrap();
    let plan = CrashPlan::nothing_pending().with(0, Fate::Kept);
    assert_eq!(read(&cut(&fs, &plan), "a").unwrap(), b"");
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"");
}

#[test]
fn names_of_a_directory_survive_as_a_prefix() {
    let fs = MemoryFs::new();
    for name in ["a", "b", "c"] {
        create(&fs, name);
    }
    for (mask, wanted) in [(0b110, ""), (0b101, "a"), (0b011, "ab"), (0b111, "abc")] {
        assert_eq!(names(&cut(&fs, &CrashPlan::masked(mask)), "/").concat(), wanted);
    }
}

#[test]
fn directories_are_independent_and_gone_with_their_parents() {
    let fs = MemoryFs::new();
    fs.create_dir_all(path("x")).unwrap();
    fs.create_dir_all(path("y")).unwrap();
    create(&fs, "x/a");
    create(&fs, "y/b");
    // x, y, x/a, y/b
    let only_b = cut(&fs, &CrashPlan::masked(0b1011));
    assert_eq!((names(&only_b, "x"), names(&only_b, "y")), (vec![], vec!["b".to_owned()]));
    assert_eq!(names(&cut(&fs, &CrashPlan::masked(0b1110)), "/").len(), 0);
    fs.sync_dir(path("x")).unwrap();
    assert_eq!(names(&cut(&fs, &CrashPlan::nothing_pending()), "/").len(), 0);
    fs.sync_dir(path("/")).unwrap();
    let synced = cut(&fs, &CrashPlan::nothing_pending());
    assert_eq!((names(&synced, "x"), names(&synced, "y")), (vec!["a".to_owned()], vec![]));
}

#[test]
fn a_rename_over_a_file_leaves_the_old_or_the_new() {
    let (fs, _) = disk_with(b"old");
    let file = create(&fs, "a.tmp");
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    fs.rename(path("a.tmp"), path("a")).unwrap();
    assert_eq!(read(&fs, "a").unwrap(), b"new");
    for (mask, wanted, found) in
        [(0b00, "old", "a"), (0b01, "old", "aa.tmp"), (0b10, "old", "a"), (0b11, "new", "a")]
    {
        let after = cut(&fs, &CrashPlan::masked(mask));
        assert_eq!(read(&after, "a").unwrap(), wanted.as_bytes());
        assert_eq!(names(&after, "/").concat(), found);
    }
    fs.sync_dir(path("")).unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"new");
}

#[test]
fn a_rename_may_be_lost_and_take_later_names_along() {
    let (fs, _) = disk_with(b"data");
    fs.rename(path("a"), path("b")).unwrap();
    fs.remove_file(path("b")).unwrap();
    let found: Vec<_> = (0..4).map(|mask| names(&cut(&fs, &CrashPlan::masked(mask)), "/").concat()).collect();
    assert_eq!(found, ["a", "b", "a", ""]);
    assert_eq!(read(&cut(&fs, &CrashPlan::masked(1)), "b").unwrap(), b"data");
}

#[test]
fn a_rename_between_directories_belongs_to_both() {
    let fs = MemoryFs::new();
    for dir in ["x", "y"] {
        fs.create_dir_all(path(dir)).unwrap();
    }
    fs.sync_dir(path("/")).unwrap();
    create(&fs, "x/a");
    fs.rename(path("x/a"), path("y/a")).unwrap();
    create(&fs, "x/later");
    // Without x/a, nothing of the rename; without the rename, nothing later in x.
    assert_eq!(names(&cut(&fs, &CrashPlan::masked(0b110)), "y").len(), 0);
    assert_eq!(names(&cut(&fs, &CrashPlan::masked(0b101)), "x"), ["a"]);
    fs.sync_dir(path("y")).unwrap();
    let synced = cut(&fs, &CrashPlan::nothing_pending());
    assert_eq!((names(&synced, "x").len(), names(&synced, "y")), (0, vec!["a".to_owned()]));
}

#[test]
fn a_removed_directory_may_come_back_with_what_was_in_it() {
    let fs = MemoryFs::new();
    fs.create_dir_all(path("x")).unwrap();
    create(&fs, "x/a");
    fs.sync_dir(path("x")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(fs.remove_dir(path("x")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs.remove_file(path("x/a")).unwrap();
    fs.remove_dir(path("x")).unwrap();
    assert_eq!(fs.stat(path("x")).unwrap(), None);
    assert_eq!(names(&cut(&fs, &CrashPlan::nothing_pending()), "x"), ["a"]);
    assert_eq!(names(&cut(&fs, &CrashPlan::masked(0b01)), "x").len(), 0);
    assert_eq!(names(&cut(&fs, &CrashPlan::masked(0b10)), "/").len(), 0);
}

#[test]
fn a_replaced_small_file_is_old_or_new_at_every_instant() {
    let (fs, _) = disk_with(b"old");
    fs.record();
    replace_file(&fs, path("a"), b"new").unwrap();
    let (mut points, mut states, mut last) = (fs.crash_points(), 0, Vec::new());
    while let Some(point) = points.next() {
        last.clear();
        for mask in 0..1 << point.pending().len() {
            let found = read(&point.power_cut(&CrashPlan::masked(mask)), "a").unwrap();
            assert!(found == b"old" || found == b"new", "{found:?} at {}", point.position());
            last.push(found);
            states += 1;
        }
    }
    assert!(states > 10, "{states}");
    assert_eq!(last, [b"new"]);
}

#[test]
fn a_failed_sync_loses_pages_that_a_later_sync_does_not_write() {
    let (fs, file) = disk_with(b"base");
    file.write_at(b"lost", 4).unwrap();
    fs.add_fault(FaultRule::once(Operation::SyncData, 1, FaultKind::Io));
    assert!(file.sync_data().is_err());
    file.write_at(b"late", 8).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&fs, "a").unwrap(), b"baselostlate");
    assert_eq!(fs.crash_point().pending(), []);
    assert_eq!(read(&cut(&fs, &CrashPlan::everything_pending()), "a").unwrap(), b"base\0\0\0\0late");
}

#[test]
fn an_interrupted_sync_loses_nothing() {
    let (fs, file) = disk_with(b"base");
    file.write_at(b"more", 4).unwrap();
    fs.add_fault(FaultRule::once(Operation::SyncData, 1, FaultKind::Interrupted));
    assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::Interrupted);
    file.sync_data().unwrap();
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"basemore");
}

#[test]
fn after_a_failed_directory_sync_names_become_durable_no_more() {
    let (fs, _) = disk_with(b"base");
    create(&fs, "b");
    fs.add_fault(FaultRule::once(Operation::SyncDir, 1, FaultKind::Io));
    assert!(fs.sync_dir(path("/")).is_err());
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(names(&fs, "/"), ["a", "b"]);
    assert_eq!(names(&cut(&fs, &CrashPlan::nothing_pending()), "/"), ["a"]);
}

#[test]
fn a_killed_process_loses_nothing_visible_and_leaves_it_pending() {
    let (fs, file) = disk_with(b"base");
    file.write_at(b"more", 4).unwrap();
    create(&fs, "b");
    let killed = fs.crash_point().process_kill();
    assert_eq!((read(&killed, "a").unwrap(), read(&killed, "b").unwrap()), (b"basemore".to_vec(), vec![]));
    let cut_later = cut(&killed, &CrashPlan::nothing_pending());
    assert_eq!((read(&cut_later, "a").unwrap(), read(&cut_later, "b")), (b"base".to_vec(), None));
    // The two disks have nothing in common.
    file.write_at(b"XX", 0).unwrap();
    assert_eq!(read(&killed, "a").unwrap(), b"basemore");
}

#[test]
fn recorded_points_equal_the_instants_themselves() {
    let fs = MemoryFs::new();
    fs.create_dir_all(path("x/y")).unwrap();
    fs.record();
    let mut instants = vec![fs.crash_point()];
    let steps: [&dyn Fn(); 7] = [
        &|| drop(create(&fs, "x/a")),
        &|| drop(create(&fs, "x/a").write_at(b"12345", 3)),
        &|| create(&fs, "x/a").set_len(6).unwrap(),
        &|| fs.sync_dir(path("x")).unwrap(),
        &|| fs.rename(path("x/a"), path("x/b")).unwrap(),
        &|| create(&fs, "x/b").sync_data().unwrap(),
        &|| fs.remove_file(path("x/b")).unwrap(),
    ];
    for step in steps {
        step();
        instants.push(fs.crash_point());
    }
    let mut points = fs.crash_points();
    for instant in instants {
        let point = points.next().unwrap();
        assert_eq!((point.position(), point.pending()), (instant.position(), instant.pending()));
        for mask in 0..1 << point.pending().len() {
            let (one, other) = (CrashPlan::masked(mask), CrashPlan::masked(mask));
            let (one, other) = (point.power_cut(&one), instant.power_cut(&other));
            assert_eq!(read(&one, "x/a"), read(&other, "x/a"));
            assert_eq!(read(&one, "x/b"), read(&other, "x/b"));
        }
    }
    assert!(points.next().is_none());
}

#[test]
fn the_nth_call_fails_once_or_from_then_on() {
    let (fs, file) = disk_with(b"data");
    fs.add_fault(FaultRule::once(Operation::Read, 2, FaultKind::Io).on_paths_with("a"));
    let mut buf = [0; 4];
    let mut reads = || (0..3).map(|_| file.read_at(&mut buf, 0).is_ok()).collect::<Vec<_>>();
    assert_eq!(reads(), [true, false, true]);
    fs.clear_faults();
    fs.add_fault(FaultRule { first: 2, ..FaultRule::always(Operation::Read, FaultKind::Interrupted) });
    assert_eq!(reads(), [true, false, false]);
    fs.clear_faults();
    fs.add_fault(FaultRule::always(Operation::Read, FaultKind::Io).on_paths_with("other"));
    assert_eq!(reads(), [true; 3]);
    assert_eq!((fs.calls(Operation::Read), fs.faults_injected()), (9, 3));
}

#[test]
fn every_operation_can_fail_and_then_changes_nothing() {
    for operation in Operation::ALL {
        let (fs, file) = disk_with(b"data");
        fs.create_dir_all(path("d")).unwrap();
        fs.add_fault(FaultRule::always(operation, FaultKind::Io));
        let result = match operation {
            Operation::Open => fs.open(path("n"), OpenMode::Create).map(|_| ()),
            Operation::Stat => fs.stat(path("a")).map(|_| ()),
            Operation::List => fs.list(path("/")).map(|_| ()),
            Operation::CreateDir => fs.create_dir_all(path("n")),
            Operation::Rename => fs.rename(path("a"), path("n")),
            Operation::RemoveFile => fs.remove_file(path("a")),
            Operation::RemoveDir => fs.remove_dir(path("d")),
            Operation::SyncDir => fs.sync_dir(path("/")),
            Operation::Lock => fs.try_lock(path("n")).map(|_| ()),
            Operation::Len => file.len().map(|_| ()),
            Operation::Read => file.read_at(&mut [0], 0).map(|_| ()),
            Operation::Write => file.write_at(b"n", 4).map(|_| ()),
            Operation::SetLen => file.set_len(0),
            Operation::SyncData => file.sync_data(),
        };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(5), "{operation:?}");
        fs.clear_faults();
        assert_eq!((names(&fs, "/").concat(), read(&fs, "a").unwrap()), ("ad".to_owned(), b"data".to_vec()));
    }
}

#[test]
fn short_reads_and_writes_do_less_than_asked() {
    let (fs, file) = disk_with(b"");
    fs.add_fault(FaultRule::once(Operation::Write, 1, FaultKind::Short(3)));
    assert_eq!(file.write_at(b"abcdef", 0).unwrap(), 3);
    fs.add_fault(FaultRule::once(Operation::Read, 1, FaultKind::Short(2)));
    let mut buf = [0; 6];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 2);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3);
}

#[test]
fn a_full_disk_takes_what_fits_and_recovers_with_space() {
    let (fs, file) = disk_with(b"x");
    fs.set_capacity(Some(2 * BLOCK_LEN));
    assert_eq!(file.write_at(&[1; 10_000], 1).unwrap(), 8191);
    assert_eq!(file.write_at(&[1; 10], 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[2; 10], 8182).unwrap(), 10);
    let other = create(&fs, "b");
    assert!(other.write_at(b"b", 0).is_err());
    file.set_len(4096).unwrap();
    assert_eq!(other.write_at(b"b", 0).unwrap(), 1);
    // An unlinked file gives its space back when the last handle goes.
    fs.remove_file(path("a")).unwrap();
    assert_eq!(fs.space_used(), 2 * BLOCK_LEN);
    drop(file);
    assert_eq!(fs.space_used(), BLOCK_LEN);
    fs.rename(path("b"), path("c")).unwrap();
    let replacing = create(&fs, "b");
    assert_eq!(replacing.write_at(b"d", 0).unwrap(), 1);
    drop((replacing, other));
    fs.rename(path("b"), path("c")).unwrap();
    assert_eq!((fs.space_used(), read(&fs, "c").unwrap()), (BLOCK_LEN, b"d".to_vec()));
}

#[test]
fn an_open_file_outlives_its_name() {
    let (fs, file) = disk_with(b"data");
    fs.remove_file(path("a")).unwrap();
    let mut buf = [0; 4];
    assert_eq!((file.read_at(&mut buf, 0).unwrap(), &buf), (4, b"data"));
    assert_eq!(read(&fs, "a"), None);
}

#[test]
fn a_lock_is_held_once_and_dies_with_the_process() {
    let fs = MemoryFs::new();
    let held = fs.try_lock(path(".lock")).unwrap();
    assert!(held.is_some());
    assert!(fs.clone().try_lock(path(".lock")).unwrap().is_none());
    assert!(fs.crash_point().process_kill().try_lock(path(".lock")).unwrap().is_some());
    drop(held);
    assert!(fs.try_lock(path(".lock")).unwrap().is_some());
}

#[test]
fn open_modes_and_wrong_paths_answer_as_an_operating_system_does() {
    let (fs, _) = disk_with(b"data");
    let kind = |result: io::Result<Arc<dyn LogFile>>| result.unwrap_err().kind();
    assert_eq!(kind(fs.open(path("n"), OpenMode::Read)), ErrorKind::NotFound);
    assert_eq!(kind(fs.open(path("n"), OpenMode::Write)), ErrorKind::NotFound);
    assert_eq!(kind(fs.open(path("d/n"), OpenMode::Create)), ErrorKind::NotFound);
    assert_eq!(kind(fs.open(path("/"), OpenMode::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.open(path("a/n"), OpenMode::Create)), ErrorKind::NotADirectory);
    assert_eq!(kind(fs.open(path("../n"), OpenMode::Create)), ErrorKind::InvalidInput);
    let read_only = fs.open(path("a"), OpenMode::Read).unwrap();
    assert_eq!(read_only.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    fs.open(path("a"), OpenMode::Truncate).unwrap();
    assert_eq!(read(&fs, "a").unwrap(), b"");
    let file = create(&fs, "a");
    assert_eq!(file.write_at(b"x", u64::MAX - 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(fs.list(path("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.create_dir_all(path("a/b")).unwrap_err().kind(), ErrorKind::NotADirectory);
}

#[test]
fn nodes_that_nothing_can_bring_back_are_forgotten() {
    let fs = MemoryFs::new();
    for i in 0..1000 {
        let name = format!("f{i}");
        create(&fs, &name).write_at(b"data", 0).unwrap();
        fs.remove_file(path(&name)).unwrap();
        fs.sync_dir(path("/")).unwrap();
    }
    assert!(fs.state().disk.node_count() < 100, "{}", fs.state().disk.node_count());
    assert_eq!(fs.space_used(), 0);
}

#[test]
fn rot_changes_the_disk_and_the_cache() {
    let (fs, _) = disk_with(b"data");
    fs.flip(path("a"), 1, 0x20).unwrap();
    assert_eq!(read(&fs, "a").unwrap(), b"dAta");
    assert_eq!(read(&cut(&fs, &CrashPlan::nothing_pending()), "a").unwrap(), b"dAta");
    assert_eq!(fs.flip(path("a"), 4, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
}
