//! A disk that fails: nothing is acknowledged that it did not take.

use klamm_log::fs::{FaultKind, FaultRule, Operation};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use crate::fixture::{append, block_on, entry, log_id, memory, open, vote};

#[test]
fn an_append_that_cannot_be_flushed_is_not_acknowledged() {
    for kind in [FaultKind::Io, FaultKind::NoSpace] {
        let fs = memory();
        block_on(async {
            let mut store = open(&fs);
            append(&mut store, vec![entry(1, 0)]).await.unwrap();
            fs.add_fault(FaultRule::always(Operation::SyncData, kind).on_paths_with(".log"));
            append(&mut store, vec![entry(1, 1)]).await.unwrap_err();
            assert!(fs.faults_injected() > 0);
        });
    }
}

#[test]
fn a_vote_that_cannot_be_saved_is_neither_acknowledged_nor_shown() {
    for (operation, path) in [
        (Operation::Write, "quorum-state"),
        (Operation::SyncData, "quorum-state"),
        (Operation::Rename, "quorum-state"),
        (Operation::SyncDir, "__cluster_metadata-0"),
    ] {
        let fs = memory();
        block_on(async {
            let mut store = open(&fs);
            store.save_vote(&vote(1, 1, false)).await.unwrap();
            fs.add_fault(FaultRule::always(operation, FaultKind::Io).on_paths_with(path));
            store.save_vote(&vote(2, 2, false)).await.unwrap_err();
            assert_eq!(fs.faults_injected(), 1, "{operation:?}");
            assert_eq!(store.reader().read_vote().await.unwrap(), Some(vote(1, 1, false)));
        });
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_any_more() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, vec![entry(1, 0), entry(1, 1)]).await.unwrap();
        fs.add_fault(FaultRule::once(Operation::SyncData, 1, FaultKind::Io));
        store.save_vote(&vote(2, 2, false)).await.unwrap_err();
        fs.clear_faults();
        append(&mut store, vec![entry(1, 2)]).await.unwrap_err();
        for error in [
            store.save_vote(&vote(2, 2, false)).await.unwrap_err(),
            store.truncate_after(Some(log_id(1, 0))).await.unwrap_err(),
            store.purge(log_id(1, 0)).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("out of service"), "{error}");
        }
    });
}

#[test]
fn what_a_purge_removes_is_known_to_be_purged_before() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        for index in 0..20 {
            append(&mut store, vec![entry(1, index)]).await.unwrap();
        }
        fs.add_fault(FaultRule::always(Operation::Rename, FaultKind::Io).on_paths_with("quorum-state"));
        store.purge(log_id(1, 15)).await.unwrap_err();
        fs.clear_faults();
        drop(store);
        assert_eq!(open(&fs).reader().try_get_log_entries(..).await.unwrap().len(), 20);
    });
}
