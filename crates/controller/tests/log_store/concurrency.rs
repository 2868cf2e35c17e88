//! Calls that do not wait for each other: shared flushes, readers beside truncations, cancelled calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;

use klamm_controller::raft::TypeConfig;
use klamm_log::fs::{FaultKind, FaultRule, Operation};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use crate::fixture::{append, block_on, entries, entry, log_id, memory, open, vote};

#[test]
fn appends_can_be_read_at_once_and_are_all_flushed_in_the_end() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        let mut waiting = Vec::new();
        for index in 0..500 {
            let (sender, flushed) = TypeConfig::oneshot();
            store.append(vec![entry(1, index)], IOFlushed::signal(sender)).await.unwrap();
            assert_eq!(store.reader().try_get_log_entries(index..).await.unwrap(), [entry(1, index)]);
            waiting.push(flushed);
        }
        for (index, flushed) in waiting.into_iter().enumerate() {
            flushed.await.unwrap().unwrap();
            assert!(store.log().flushed_end_offset().0 > index as i64);
        }
    });
}

/// What a call was cancelled in goes on; the next call does not overtake it.
#[test]
fn a_cancelled_call_is_not_overtaken() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, (0..10).map(|index| entry(1, index)).collect()).await.unwrap();
        {
            let mut truncation = std::pin::pin!(store.truncate_after(Some(log_id(1, 4))));
            std::future::poll_fn(|context| {
                // Asked for, and given up at once.
                let _ = truncation.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
        }
        append(&mut store, vec![entry(2, 5)]).await.unwrap();
        let held: Vec<_> = entries(&store).await.into_iter().map(|entry| entry.log_id).collect();
        let expected: Vec<_> = (0..5).map(|index| log_id(1, index)).chain([log_id(2, 5)]).collect();
        assert_eq!(held, expected);
    });
}

/// When a truncation returns, whoever appended before it knows what became of that: a completion that comes later would
/// count for entries that are gone.
#[test]
fn a_truncation_overtakes_no_completion() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, vec![entry(1, 0)]).await.unwrap();
        for round in 0..500 {
            let mut waiting = Vec::new();
            for index in 1..4 {
                let (sender, flushed) = TypeConfig::oneshot();
                store.append(vec![entry(round + 1, index)], IOFlushed::signal(sender)).await.unwrap();
                waiting.push(flushed);
            }
            store.truncate_after(Some(log_id(1, 0))).await.unwrap();
            for mut flushed in waiting {
                assert!(flushed.try_recv().is_ok(), "round {round}: the completion is still to come");
            }
        }
    });
}

/// A reader sees the log before a truncation or after it, never the old start with the new end.
#[test]
fn readers_beside_truncations_see_one_history() {
    let fs = memory();
    let mut store = open(&fs);
    let mut reader = block_on(store.get_log_reader());
    let (done, reads) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    let stop = Arc::clone(&done);
    let reading = std::thread::spawn(move || {
        block_on(async {
            while !stop.load(Ordering::Acquire) {
                let held = reader.try_get_log_entries(..).await.unwrap();
                // Each term appends twenty entries at once, and all of them go at once.
                assert!(held.is_empty() || held.len() == 20, "{held:?}");
                let first_term = held.first().map_or(0, |first| first.log_id.leader_id.term);
                let whole: Vec<_> = (0..held.len() as u64).map(|index| entry(first_term, index)).collect();
                assert_eq!(held, whole);
                reads.0.send(held.len()).unwrap();
            }
        });
    });
    block_on(async {
        for term in 1..60 {
            append(&mut store, (0..20).map(|index| entry(term, index)).collect()).await.unwrap();
            reads.1.recv().unwrap();
            store.truncate_after(None).await.unwrap();
        }
    });
    done.store(true, Ordering::Release);
    reading.join().unwrap();
}

#[test]
fn a_failed_flush_fails_every_append_that_waits_for_it() {
    let fs = memory();
    block_on(async {
        let mut store = open(&fs);
        append(&mut store, vec![entry(1, 0)]).await.unwrap();
        fs.add_fault(FaultRule::always(Operation::SyncData, FaultKind::Io));
        let mut waiting = Vec::new();
        for index in 1..20 {
            let (sender, flushed) = TypeConfig::oneshot();
            if store.append(vec![entry(1, index)], IOFlushed::signal(sender)).await.is_err() {
                // The flush has failed meanwhile.
                break;
            }
            waiting.push(flushed);
        }
        assert!(!waiting.is_empty());
        for flushed in waiting {
            flushed.await.unwrap().unwrap_err();
        }
        store.save_vote(&vote(2, 1, false)).await.unwrap_err();
    });
}
