use klamm_log::FileCache;
use klamm_log::fs::{CrashPlan, LogFs as _, MemoryFs, OpenMode, write_all_at};
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt as _;

use super::super::types::{CommittedLeaderId, EncodedRecords, EntryPayload};
use super::super::wire::new_vote;
use super::*;

const DATA: &str = "/data";
const LOG: &str = "/data/__cluster_metadata-0/00000000000000000000.log";

fn open(fs: &MemoryFs) -> LogStore {
    let log_dir = LogDir::new(Arc::new(fs.clone()), Path::new(DATA), FileCache::new(100));
    LogStore::open(LogStoreOptions::new(log_dir)).unwrap().0
}

/// A disk after a power cut that lost nothing: a vote and ten entries.
async fn lived() -> MemoryFs {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new(DATA)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let mut store = open(&fs);
    store.save_vote(&new_vote(1, 1, true)).await.unwrap();
    let entries = (0..10).map(|index| Entry {
        log_id: LogId { leader_id: CommittedLeaderId::new(1), index },
        payload: EntryPayload::Normal(EncodedRecords(format!("entry {index}").into())),
    });
    let (sender, flushed) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed.await.unwrap().unwrap();
    fs.crash_point().power_cut(&CrashPlan::nothing_pending())
}

#[tokio::test]
async fn what_a_start_cuts_is_not_forgotten_if_it_crashes() {
    let fs = lived().await;
    assert_eq!(open(&fs).lost(), Lost::Nothing);
    let damaged = lived().await;
    let end = damaged.stat(Path::new(LOG)).unwrap().unwrap().len;
    damaged.flip(Path::new(LOG), end - 1, 1).unwrap();
    damaged.record();
    assert_eq!(open(&damaged).lost(), Lost::Unknown);
    let (mut crashes, mut points) = (0, damaged.crash_points());
    while let Some(point) = points.next() {
        let plans = [CrashPlan::nothing_pending(), CrashPlan::everything_pending()];
        let cuts = plans.iter().map(|plan| point.power_cut(plan));
        for disk in cuts.chain([point.process_kill()]) {
            assert_eq!(open(&disk).lost(), Lost::Unknown, "crash at {}", point.position());
            crashes += 1;
        }
    }
    assert!(crashes > 10, "only {crashes} crashes were tried");
}

/// A power cut leaves zeros of a write that no flush had covered. A node that had to ask all others for that would not come back
/// while one of them is away.
#[tokio::test]
async fn a_write_that_never_reached_the_disk_leaves_no_doubt() {
    let fs = lived().await;
    let file = fs.open(Path::new(LOG), OpenMode::Write).unwrap();
    let end = file.len().unwrap();
    write_all_at(file.as_ref(), &[0; 198], end).unwrap();
    assert_eq!(open(&fs).lost(), Lost::Nothing);
    assert_eq!(file.len().unwrap(), end);
}

/// A node that is killed while it starts must not wait for all the others afterwards.
#[tokio::test]
async fn a_start_that_cuts_nothing_leaves_no_doubt_wherever_it_ends() {
    let fs = lived().await;
    fs.record();
    drop(open(&fs));
    let mut points = fs.crash_points();
    while let Some(point) = points.next() {
        let plans = [CrashPlan::nothing_pending(), CrashPlan::everything_pending()];
        let cuts = plans.iter().map(|plan| point.power_cut(plan));
        for disk in cuts.chain([point.process_kill()]) {
            assert_eq!(open(&disk).lost(), Lost::Nothing, "crash at {}", point.position());
        }
    }
}

#[tokio::test]
async fn a_log_whose_files_are_gone_has_lost_all_of_them() {
    let fs = lived().await;
    fs.remove_file(Path::new(LOG)).unwrap();
    assert_eq!(open(&fs).lost(), Lost::Unknown);
    // It is no better at the next start.
    assert_eq!(open(&fs).lost(), Lost::Unknown);
}
