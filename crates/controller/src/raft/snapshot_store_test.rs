use std::collections::{BTreeMap, BTreeSet};

use klamm_log::FileCache;
use klamm_log::fs::{CrashPlan, FaultKind, FaultRule, LogFs as _, MemoryFs, Operation};
use klamm_metadata::{MetadataDelta, MetadataRecord};

use super::super::state_machine::provenance_of;
use super::super::types::ControllerNode;
use super::*;

const DIRECTORY: &str = "/data/__cluster_metadata-0";

fn disk() -> MemoryFs {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new(DIRECTORY)).unwrap();
    for dir in ["/data", "/"] {
        fs.sync_dir(Path::new(dir)).unwrap();
    }
    fs
}

fn open(fs: &MemoryFs) -> Result<SnapshotStore, SnapshotStoreError> {
    let log_dir = LogDir::new(Arc::new(fs.clone()), Path::new("/data"), FileCache::new(10));
    SnapshotStore::open(log_dir, PathBuf::from(DIRECTORY))
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    let log_id = LogId { leader_id: CommittedLeaderId::new(term), index };
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    for number in 0..index {
        let name = format!("feature-{number}");
        delta.replay(&MetadataRecord::FeatureLevelSet { name, level: 1 }).unwrap();
    }
    let node = ControllerNode { host: "c1".to_owned(), port: 9093, directory_id: [1; 16] };
    let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap();
    let first = LogId { leader_id: CommittedLeaderId::new(0), index: 0 };
    let meta = SnapshotMetaOf::<TypeConfig> {
        last_log_id: Some(log_id),
        last_membership: StoredMembershipOf::<TypeConfig>::new(Some(first), membership),
    };
    Snapshot { meta, snapshot: delta.apply(provenance_of(log_id)) }
}

fn same(a: &Snapshot, b: &Snapshot) -> bool {
    a.meta == b.meta && a.snapshot == b.snapshot
}

fn names(fs: &MemoryFs) -> Vec<String> {
    fs.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn the_newest_snapshot_is_kept_and_read_again() {
    let fs = disk();
    let store = open(&fs).unwrap();
    assert!(store.current().is_none());
    let (old, new) = (snapshot(1, 5), snapshot(2, 1_500));
    store.save(&old).unwrap();
    store.save(&new).unwrap();
    store.save(&old).unwrap();
    assert!(same(&store.current().unwrap(), &new), "an older one changes nothing");
    assert_eq!(names(&fs), ["00000000000000001500-0000000002.checkpoint"]);
    assert!(same(&open(&fs).unwrap().current().unwrap(), &new));
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let fs = disk();
    let store = open(&fs).unwrap();
    store.save(&snapshot(1, 5)).unwrap();
    klamm_log::fs::write_file(
        &fs,
        &Path::new(DIRECTORY).join("00000000000000000009-0000000001.checkpoint.tmp"),
        b"x",
    )
    .unwrap();
    assert!(same(&open(&fs).unwrap().current().unwrap(), &snapshot(1, 5)));
    assert_eq!(names(&fs), ["00000000000000000005-0000000001.checkpoint"]);
}

/// Whatever bit is flipped, and wherever it is cut: refused with the file's name, never misread.
#[test]
fn a_damaged_snapshot_is_refused() {
    let fs = disk();
    open(&fs).unwrap().save(&snapshot(1, 5)).unwrap();
    let path = Path::new(DIRECTORY).join(&names(&fs)[0]);
    let good = klamm_log::fs::read_file(&fs, &path, 1 << 20).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    damaged.extend((0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    }));
    damaged.push([good.as_slice(), b"x"].concat());
    for bytes in damaged {
        klamm_log::fs::write_file(&fs, &path, &bytes).unwrap();
        let error = open(&fs).unwrap_err();
        assert!(error.to_string().contains("0000000001.checkpoint"), "{error}");
    }
    klamm_log::fs::write_file(&fs, &path, &good).unwrap();
    assert!(same(&open(&fs).unwrap().current().unwrap(), &snapshot(1, 5)));
}

/// At every crash point there is the old snapshot or the new one, whole.
#[test]
fn a_crash_leaves_the_old_snapshot_or_the_new() {
    let fs = disk();
    let store = open(&fs).unwrap();
    let (old, new) = (snapshot(1, 5), snapshot(2, 9));
    store.save(&old).unwrap();
    fs.record();
    store.save(&new).unwrap();
    let mut seen = [false; 2];
    let mut crashes = fs.crash_points();
    while let Some(crash) = crashes.next() {
        let left = open(&crash.power_cut(&CrashPlan::nothing_pending())).unwrap().current().unwrap();
        assert!(same(&left, &old) || same(&left, &new));
        seen[usize::from(same(&left, &new))] = true;
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn a_failing_disk_leaves_the_old_snapshot() {
    for operation in [Operation::Write, Operation::SyncData, Operation::Rename, Operation::SyncDir] {
        let fs = disk();
        let store = open(&fs).unwrap();
        store.save(&snapshot(1, 5)).unwrap();
        fs.add_fault(FaultRule::once(operation, 1, FaultKind::Io));
        let error = store.save(&snapshot(2, 9)).unwrap_err();
        assert!(matches!(error, SnapshotStoreError::Io { .. }), "{operation:?}: {error}");
        assert!(same(&store.current().unwrap(), &snapshot(1, 5)), "{operation:?}");
    }
}
