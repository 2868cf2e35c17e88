//! Every crash of a scripted life: what was acknowledged is there again, nothing goes back, there is no hole.

use std::collections::BTreeMap;

use klamm_controller::raft::{LogId, LogStore, Vote};
use klamm_log::fs::{CrashPlan, CrashPoint, Fate, MemoryFs, PendingKind};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use crate::fixture::{append, block_on, entries, entry, log_id, memory, open, try_open, vote};

/// One call of the script.
#[derive(Clone, Debug)]
enum Step {
    /// Appends entries of this term, so many.
    Append(u64, u64),
    Vote(u64, u64, bool),
    /// Keeps the entries up to this index.
    TruncateAfter(Option<u64>),
    /// Removes the entries up to this one.
    Purge(u64, u64),
    Committed(u64),
    Restart,
}

use Step::{Append, Committed, Purge, Restart, TruncateAfter};

/// What the store has promised, or promises next.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// Term by index.
    entries: BTreeMap<u64, u64>,
    committed: Option<LogId>,
}

impl Model {
    fn next_index(&self) -> u64 {
        let after_purged = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries.last_key_value().map_or(after_purged, |(index, _)| index + 1)
    }

    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Append(term, count) => {
                let first = self.next_index();
                next.entries.extend((first..first + count).map(|index| (index, *term)));
            }
            Step::Vote(term, node, committed) => next.vote = Some(vote(*term, *node, *committed)),
            TruncateAfter(last) => next.entries.retain(|index, _| last.is_some_and(|last| *index <= last)),
            Purge(term, index) => {
                next.purged = Some(log_id(*term, *index));
                next.entries.retain(|held, _| held > index);
            }
            Committed(index) => next.committed = Some(log_id(self.entries[index], *index)),
            Restart => {}
        }
        next
    }
}

/// An election, appends over several segments, a conflict cut off, purges within the log and past it, restarts.
fn script() -> Vec<Step> {
    vec![
        Step::Vote(1, 1, false),
        Step::Vote(1, 1, true),
        Append(1, 1),
        Append(1, 3),
        Committed(2),
        Append(1, 6),
        Restart,
        Append(1, 2),
        Step::Vote(2, 2, false),
        TruncateAfter(Some(6)),
        Append(2, 1),
        Append(3, 5),
        Step::Vote(3, 3, true),
        TruncateAfter(Some(4)),
        Append(4, 8),
        Committed(10),
        Purge(4, 9),
        Restart,
        Append(4, 4),
        TruncateAfter(Some(13)),
        Append(5, 2),
        Purge(5, 15),
        Append(5, 1),
        Purge(6, 40),
        Step::Vote(7, 1, false),
        Append(7, 3),
        Restart,
        TruncateAfter(None),
        Append(8, 2),
    ]
}

async fn run(store: &mut LogStore, model: &Model, step: &Step) {
    match step {
        Append(term, count) => {
            let first = model.next_index();
            let new = (first..first + count).map(|index| entry(*term, index)).collect();
            append(store, new).await.unwrap();
        }
        Step::Vote(term, node, committed) => {
            store.save_vote(&vote(*term, *node, *committed)).await.unwrap();
        }
        TruncateAfter(last) => {
            let last = last.map(|index| log_id(model.entries[&index], index));
            store.truncate_after(last).await.unwrap();
        }
        Purge(term, index) => store.purge(log_id(*term, *index)).await.unwrap(),
        Committed(index) => {
            store.save_committed(Some(log_id(model.entries[index], *index))).await.unwrap();
        }
        Restart => {}
    }
}

/// Lives the script; returns for every step the journal's length when it was acknowledged, and what then held.
async fn live(fs: &MemoryFs) -> Vec<(u64, Model)> {
    let mut store = open(fs);
    let mut model = Model::default();
    let mut acknowledged = vec![(fs.journal_position(), model.clone())];
    for step in script() {
        if matches!(step, Restart) {
            drop(store);
            store = open(fs);
        }
        run(&mut store, &model, &step).await;
        model = model.after(&step);
        acknowledged.push((fs.journal_position(), model.clone()));
    }
    drop(store);
    acknowledged
}

/// What the store says after a crash.
async fn observe(store: &mut LogStore) -> Model {
    let state = store.get_log_state().await.unwrap();
    let held = entries(store).await;
    for found in &held {
        assert_eq!(*found, entry(found.log_id.leader_id.term, found.log_id.index));
    }
    let entries: BTreeMap<u64, u64> =
        held.iter().map(|entry| (entry.log_id.index, entry.log_id.leader_id.term)).collect();
    let last = held.last().map(|entry| entry.log_id).or(state.last_purged_log_id);
    assert_eq!(state.last_log_id, last);
    Model {
        vote: store.reader().read_vote().await.unwrap(),
        purged: state.last_purged_log_id,
        entries,
        committed: store.read_committed().await.unwrap(),
    }
}

/// `found` must be `old`, `new`, or on the way from the one to the other.
fn check(found: &Model, old: &Model, new: &Model) {
    assert!(found.vote == old.vote || found.vote == new.vote, "vote");
    assert!(found.purged == old.purged || found.purged == new.purged, "purged");
    let start = found.purged.map_or(0, |purged| purged.index + 1);
    for (expected, index) in (start..).zip(found.entries.keys()) {
        assert_eq!(expected, *index, "a hole");
    }
    for (index, term) in &found.entries {
        let is = |model: &Model| model.entries.get(index) == Some(term);
        assert!(is(old) || is(new), "entry {index} of term {term} was never there");
    }
    for (index, term) in &old.entries {
        let kept = new.entries.get(index) == Some(term);
        assert!(!kept || *index < start || found.entries.get(index) == Some(term), "entry {index} is lost");
    }
    let committed = |model: &Model| model.committed.map_or(0, |committed| committed.index);
    assert!(committed(found) <= committed(new), "an entry counts as committed that was not");
}

/// Opens the disk after a crash, checks it, and lives on: what is written then is there after another restart.
fn check_disk(fs: &MemoryFs, old: &Model, new: &Model) {
    block_on(async {
        let mut store = try_open(fs).unwrap_or_else(|error| panic!("does not open: {error}"));
        let found = observe(&mut store).await;
        check(&found, old, new);
        let next = log_id(90, found.next_index());
        append(&mut store, vec![entry(90, next.index)]).await.unwrap();
        store.save_vote(&vote(90, 9, true)).await.unwrap();
        drop(store);
        let again = observe(&mut open(fs)).await;
        let mut expected = found.entries.clone();
        expected.insert(next.index, 90);
        assert_eq!((again.entries, again.purged), (expected, found.purged));
        assert_eq!(again.vote, Some(vote(90, 9, true)));
    });
}

/// The fates of what was pending: all lost, all kept, each prefix, each alone lost or kept, writes torn.
fn plans(point: &CrashPoint) -> Vec<CrashPlan> {
    let pending = point.pending();
    let mut plans = vec![CrashPlan::nothing_pending(), CrashPlan::everything_pending()];
    plans.extend((1..pending.len()).map(CrashPlan::first));
    for (index, operation) in pending.iter().enumerate() {
        plans.push(CrashPlan::everything_pending().with(index, Fate::Lost));
        plans.push(CrashPlan::nothing_pending().with(index, Fate::Kept));
        if matches!(operation.kind, PendingKind::Write { .. }) {
            for extends in [false, true] {
                let torn = Fate::Torn { sectors: 0, extends };
                plans.push(CrashPlan::everything_pending().with(index, torn));
            }
        }
    }
    plans
}

#[test]
fn every_crash_of_a_scripted_life_keeps_the_promises() {
    let fs = memory();
    fs.record();
    let acknowledged = block_on(live(&fs));
    let (mut crashes, mut points) = (0, fs.crash_points());
    while let Some(point) = points.next() {
        let next = acknowledged.partition_point(|(position, _)| *position <= point.position());
        let nothing = Model::default();
        let old = next.checked_sub(1).map_or(&nothing, |last| &acknowledged[last].1);
        let new = acknowledged.get(next).map_or(old, |(_, model)| model);
        for plan in plans(point) {
            let disk = point.power_cut(&plan);
            let outcome = std::panic::catch_unwind(|| check_disk(&disk, old, new));
            if outcome.is_err() {
                panic!(
                    "crash at {}, {plan:?}\npending {:#?}\nold {old:?}\nnew {new:?}",
                    point.position(),
                    point.pending()
                );
            }
            crashes += 1;
        }
        check_disk(&point.process_kill(), old, new);
    }
    println!("{crashes} crashes");
    assert!(crashes > 1000, "only {crashes} crashes were tried");
}
