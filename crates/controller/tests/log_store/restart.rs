//! What a store remembers, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use klamm_controller::raft::{
    ControllerNode, EncodedRecords, Entry, EntryPayload, LogStoreError, Membership, QUORUM_STATE_FILE,
};
use klamm_log::fs::{LogFs, MemoryFs, RealFs};
use klamm_log::inspect::{self, SegmentFile, SegmentItem};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use crate::fixture::{
    DATA, DIRECTORY, append, block_on, entries, entry, log_id, memory, open, try_open, try_open_at, vote,
};

fn refusal(fs: &MemoryFs) -> LogStoreError {
    match try_open(fs) {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let fs = memory();
    let voters = Membership::new(
        vec![BTreeSet::from([1])],
        BTreeMap::from([(1, ControllerNode { host: "c1".to_owned(), port: 9093, directory_id: [7; 16] })]),
    );
    let kinds = vec![
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(voters.unwrap()) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
        entry(2, 2),
        Entry { log_id: log_id(2, 3), payload: EntryPayload::Normal(EncodedRecords(vec![1; 3000].into())) },
        entry(2, 4),
    ];
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, kinds.clone()).await.unwrap();
        store.save_vote(&vote(2, 1, true)).await.unwrap();
        store.save_committed(Some(log_id(2, 3))).await.unwrap();
        drop(store);
        let mut store = open(&fs);
        assert_eq!(entries(&store).await, kinds);
        assert_eq!(store.reader().read_vote().await.unwrap(), Some(vote(2, 1, true)));
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 3)));
        store.purge(log_id(1, 1)).await.unwrap();
        drop(store);
        let mut store = open(&fs);
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 1)), Some(log_id(2, 4))));
        assert_eq!(entries(&store).await, kinds[2..]);
    });
}

/// Tools read this log like any other, and pass over the entries that concern the quorum alone.
#[test]
fn the_tools_find_the_files_sound_and_the_entries_in_them() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        let blank = Entry { log_id: log_id(1, 0), payload: EntryPayload::Blank };
        append(&mut store, vec![blank]).await.unwrap();
        append(&mut store, (1..4).map(|index| entry(1, index)).collect()).await.unwrap();
        store.save_vote(&vote(1, 1, true)).await.unwrap();
    });
    let report = inspect::verify(&fs, Path::new(DATA)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let mut found = Vec::new();
    let names = fs.list(Path::new(DIRECTORY)).unwrap();
    for log in names.iter().filter(|entry| entry.name.ends_with(".log")) {
        let segment = SegmentFile::open(&fs, &Path::new(DIRECTORY).join(&log.name)).unwrap();
        let mut walk = segment.walk();
        while let Some(item) = walk.next_item().unwrap() {
            let SegmentItem::Batch(batch) = item else { panic!("{item:?}") };
            let header = batch.header;
            found.push((header.base_offset().0, header.leader_epoch().0, header.attributes().is_control()));
        }
    }
    assert_eq!(found, [(0, 1, true), (1, 1, false), (2, 1, false), (3, 1, false)]);
}

#[test]
fn purging_past_the_end_restarts_the_log_there() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, (0..5).map(|index| entry(1, index)).collect()).await.unwrap();
        store.purge(log_id(3, 99)).await.unwrap();
        drop(store);
        let mut store = open(&fs);
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(3, 99)), Some(log_id(3, 99))));
        append(&mut store, vec![entry(3, 100)]).await.unwrap();
        drop(store);
        assert_eq!(entries(&open(&fs)).await, [entry(3, 100)]);
    });
}

#[test]
fn purging_frees_the_segments() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, (0..50).map(|index| entry(1, index)).collect()).await.unwrap();
        for index in 50..100 {
            append(&mut store, vec![entry(1, index)]).await.unwrap();
        }
        let segments = store.log().segment_count();
        assert!(segments > 10, "{segments}");
        store.purge(log_id(1, 98)).await.unwrap();
        assert!(store.log().segment_count() <= 2);
        let names = fs.list(Path::new(DIRECTORY)).unwrap();
        assert!(names.iter().filter(|entry| entry.name.ends_with(".log")).count() <= 2, "{names:?}");
        assert!(names.iter().all(|entry| !entry.name.ends_with(".deleted")), "{names:?}");
        assert_eq!(entries(&store).await, [entry(1, 99)]);
    });
}

#[test]
fn a_hole_is_refused_and_changes_nothing() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, vec![entry(1, 0), entry(1, 1)]).await.unwrap();
        for wrong in [vec![entry(1, 3)], vec![entry(1, 1)], vec![entry(1, 2), entry(1, 4)]] {
            let error = append(&mut store, wrong).await.unwrap_err();
            assert!(error.to_string().contains("hole"), "{error}");
        }
        append(&mut store, vec![entry(1, 2)]).await.unwrap();
        assert_eq!(entries(&store).await.len(), 3);
    });
}

#[test]
fn committed_entries_are_not_truncated_and_votes_do_not_go_back() {
    block_on(async {
        let mut store = open(&memory());
        append(&mut store, (0..5).map(|index| entry(1, index)).collect()).await.unwrap();
        store.save_committed(Some(log_id(1, 2))).await.unwrap();
        let error = store.truncate_after(Some(log_id(1, 1))).await.unwrap_err();
        assert!(error.to_string().contains("committed entry 2"), "{error}");
        store.truncate_after(Some(log_id(1, 2))).await.unwrap();
        assert_eq!(entries(&store).await.len(), 3);
        store.save_vote(&vote(4, 1, false)).await.unwrap();
        let error = store.save_vote(&vote(3, 2, false)).await.unwrap_err();
        assert!(error.to_string().contains("a vote of term 3 came after one of term 4"), "{error}");
        let error = store.save_vote(&vote(4, 2, false)).await.unwrap_err();
        assert!(error.to_string().contains("a vote for node 2 in term 4"), "{error}");
        assert_eq!(store.reader().read_vote().await.unwrap(), Some(vote(4, 1, false)));
        // A quorum's leader is followed whomever this node voted for.
        store.save_vote(&vote(4, 2, true)).await.unwrap();
    });
}

#[test]
fn limited_reads_return_at_least_one_entry_and_not_everything() {
    block_on(async {
        let mut store = open(&memory());
        let large = |index| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(EncodedRecords(vec![index as u8; 600_000].into())),
        };
        append(&mut store, (0..6).map(large).collect()).await.unwrap();
        let mut reader = store.get_log_reader().await;
        let some = reader.limited_get_log_entries(1, 6).await.unwrap();
        assert!((1..=3).contains(&some.len()), "{}", some.len());
        assert_eq!(some[0], large(1));
        assert_eq!(reader.try_get_log_entries(0..6).await.unwrap().len(), 6);
        store.purge(log_id(1, 2)).await.unwrap();
        let error = reader.limited_get_log_entries(1, 6).await.unwrap_err();
        assert!(error.to_string().contains("entry 1 is not in the log"), "{error}");
    });
}

#[test]
fn a_damaged_or_missing_vote_file_is_refused_by_name() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, vec![entry(1, 0)]).await.unwrap();
        store.save_vote(&vote(1, 1, true)).await.unwrap();
    });
    let path = Path::new(DIRECTORY).join(QUORUM_STATE_FILE);
    fs.flip(&path, 20, 1).unwrap();
    let error = refusal(&fs);
    assert!(matches!(&error, LogStoreError::State { path: named, .. } if *named == path), "{error}");
    assert!(error.to_string().contains("/data/__cluster_metadata-0/quorum-state is damaged"), "{error}");
    fs.remove_file(&path).unwrap();
    let error = refusal(&fs);
    assert!(matches!(&error, LogStoreError::StateMissing { path: named } if *named == path), "{error}");
}

#[test]
fn a_damaged_entry_that_was_promised_is_refused() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, (0..20).map(|index| entry(1, index)).collect()).await.unwrap();
    });
    let log = Path::new(DIRECTORY).join("00000000000000000000.log");
    fs.flip(&log, 100, 1).unwrap();
    // The segment lies below the recovery point and is not read on opening, but it is whenever it is needed.
    let opened = try_open(&fs);
    let error = match opened {
        Ok(store) => block_on(store.reader().try_get_log_entries(..)).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("entry 0") || error.contains("damaged"), "{error}");
}

/// Not yet below the recovery point, damage looks like a torn write; but what was committed had been flushed.
#[test]
fn a_log_that_lost_a_committed_entry_is_refused() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, (0..20).map(|index| entry(1, index)).collect()).await.unwrap();
        store.save_committed(Some(log_id(1, 17))).await.unwrap();
        store.save_vote(&vote(1, 1, true)).await.unwrap();
        let killed = fs.crash_point().process_kill();
        let log = Path::new(DIRECTORY).join("00000000000000000000.log");
        killed.flip(&log, 100, 1).unwrap();
        let error = refusal(&killed);
        assert!(matches!(error, LogStoreError::CommittedLost { committed: 17, .. }), "{error}");
    });
}

#[test]
fn a_directory_serves_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = try_open_at(Arc::new(RealFs), dir.path()).unwrap();
    let second = try_open_at(Arc::new(RealFs), dir.path());
    assert!(matches!(second, Err(LogStoreError::Locked { .. })));
    drop(first);
    try_open_at(Arc::new(RealFs), dir.path()).unwrap();
}
