//! Crash enumeration: a workload runs on a disk that keeps a journal; at every instant of it, the power fails, with
//! every legal choice of what survives (all choices where they are few, a systematic and a random selection where
//! they are many); what is left is recovered and compared with what had been promised at that instant.

mod plans;
mod second_life;

use std::collections::HashSet;

use klamm_log::fs::{CrashPlan, CrashPoint, MemoryFs};
use klamm_types::Timestamp;

use self::plans::{Effort, fingerprint, plans};
use crate::node::Node;
use crate::oracle::{self, Broken};
use crate::random::Random;
use crate::timeline::{Expectation, Promise};
use crate::workload::{Run, Step, random_steps, small_segments};

/// Later than anything in a workload.
const AFTER_THE_CRASH: Timestamp = Timestamp(2_000_000);

/// What an enumeration has looked at.
#[derive(Default)]
struct Tally {
    /// Crash states: pairs of an instant and a disk it may leave, each once.
    states: usize,
    /// Crash states of recoveries that were themselves cut short.
    nested: usize,
    /// Different contents of the disk among them.
    disks: HashSet<u64>,
}

/// How an enumeration goes about it.
#[derive(Clone, Copy)]
struct Search {
    effort: Effort,
    /// In one of so many states, the recovery is crashed at every instant, too.
    nested_one_in: u64,
    /// In one of so many states, the recovered log lives on and is crashed again.
    second_life_one_in: u64,
}

impl Search {
    const FULL: Self = Self { effort: Effort::FULL, nested_one_in: 150, second_life_one_in: 150 };
    const SHORT: Self = Self { effort: Effort::SHORT, nested_one_in: 300, second_life_one_in: 300 };

    /// Crashes a workload at every instant of its journal.
    fn enumerate(&self, name: &str, steps: &[Step], seed: u64, tally: &mut Tally) {
        let fs = MemoryFs::new();
        fs.record();
        let mut run = Run::start_empty(&fs, seed);
        for step in steps {
            run.step(*step);
        }
        let timeline = run.timeline();
        let mut random = Random::new(seed);
        let mut points = fs.crash_points();
        while let Some(point) = points.next() {
            let expected = timeline.expectation(point.position());
            if let Err((broken, plan)) = self.crash_at(point, &expected, &mut random, tally) {
                panic!("{broken}\n  workload {name}, seed {seed}, {plan}, {}", timeline.story(point));
            }
        }
    }

    /// Examines the disks that a crash at `point` may leave.
    fn crash_at(
        &self,
        point: &CrashPoint,
        expected: &Expectation<'_>,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), (Broken, String)> {
        let mut seen = HashSet::new();
        let mut examine = |disk: MemoryFs, plan: &dyn Fn() -> String| {
            let print = fingerprint(&disk);
            if !seen.insert(print) {
                return Ok(());
            }
            tally.states += 1;
            tally.disks.insert(print);
            self.examine(disk, expected, false, random, tally).map_err(|broken| (broken, plan()))
        };
        let selection = plans(point, self.effort, &mut Random::new(point.position()));
        for plan in &selection {
            examine(point.power_cut(plan), &|| format!("{plan:?}"))?;
        }
        // Visible is not durable: what a killed process leaves is another state than the same bytes after a boot.
        seen.clear();
        let mut examine_kill = |disk| {
            tally.states += 1;
            self.examine(disk, expected, true, random, tally)
        };
        examine_kill(point.process_kill()).map_err(|broken| (broken, "process kill".to_owned()))
    }

    /// Recovers one disk, and crashes again right after that. Where only the process was killed, `undone_may_return`:
    /// a truncation or an epoch start that was under way, and that nobody was told of, is visible and not durable.
    fn examine(
        &self,
        disk: MemoryFs,
        expected: &Expectation<'_>,
        undone_may_return: bool,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), Broken> {
        if random.one_in(self.nested_one_in) {
            self.crash_recovery(disk.crash_point().process_kill(), expected, random, tally)?;
        }
        let promise = recover(&disk, expected)?;
        // The power fails right after the recovery: what it called flushed must be there again.
        let again = disk.crash_point().power_cut(&CrashPlan::nothing_pending());
        let mut wanted = same(&promise);
        if undone_may_return {
            wanted.logs.extend(&expected.logs);
            wanted.assigned_epochs.extend(&expected.assigned_epochs);
            wanted.durable_epochs.clone_from(&expected.durable_epochs);
            wanted.high_watermark_max = expected.high_watermark_max;
        }
        let recovered_again = recover(&again, &wanted).map_err(|e| format!("recovered again: {e}"))?;
        let (first, second) = (&promise.log, &recovered_again.log);
        let unchanged = (first.start, first.end, &first.epochs) == (second.start, second.end, &second.epochs);
        if !unchanged && !undone_may_return {
            return Err(format!("a second recovery gives another log: {first:?}, then {second:?}"));
        }
        if random.one_in(self.second_life_one_in) {
            second_life::crash_again(&again, recovered_again, random, tally)?;
        }
        Ok(())
    }

    /// Cuts a recovery short at every instant, and recovers from that.
    fn crash_recovery(
        &self,
        disk: MemoryFs,
        expected: &Expectation<'_>,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), Broken> {
        disk.record();
        recover(&disk, expected)?;
        let mut points = disk.crash_points();
        while let Some(point) = points.next() {
            for plan in plans(point, Effort::SAMPLE, random) {
                tally.nested += 1;
                let left = point.power_cut(&plan);
                recover(&left, expected).map_err(|e| format!("{e}\n  recovery cut short by {plan:?}"))?;
            }
        }
        Ok(())
    }
}

/// Recovers, checks, and tells what the recovered log promises.
fn recover(disk: &MemoryFs, expected: &Expectation<'_>) -> Result<Promise, Broken> {
    let node =
        Node::open(disk, small_segments(), AFTER_THE_CRASH).map_err(|e| format!("cannot open: {e}"))?;
    oracle::check(node.log(), node.report(), expected)
}

/// That exactly what is promised is there.
fn same(promise: &Promise) -> Expectation<'_> {
    Expectation {
        logs: vec![&promise.log],
        flushed_end: promise.flushed_end,
        durable_epochs: promise.durable_epochs.clone(),
        assigned_epochs: promise.assigned_epochs.clone(),
        high_watermark_max: promise.high_watermark,
    }
}

/// A leader's life: idempotent and transactional producers, rolls, retention, deleted records, an orderly restart.
fn leader() -> Vec<Step> {
    let append =
        |producer, transactional| Step::Append { records: 2, value_len: 250, producer, transactional };
    let mut steps = vec![Step::StartEpoch { by: 1 }];
    for i in 0..4 {
        steps.extend([append(Some(1), true), append(Some(2), false), append(None, false)]);
        steps.extend([Step::Flush, Step::AdvanceHighWatermark, append(Some(1), true)]);
        steps.push(Step::EndTransaction { producer: 1, commit: i % 2 == 0 });
        steps.push(if i % 2 == 0 { Step::Flush } else { Step::Checkpoint });
    }
    steps.extend([Step::AdvanceHighWatermark, Step::DeleteRecords { batches: 3 }, Step::Retain]);
    steps.extend([append(Some(2), false), Step::RemoveDeleted, Step::Reopen, Step::StartEpoch { by: 1 }]);
    steps.extend([append(Some(1), true), Step::Flush, Step::AdvanceHighWatermark, Step::Retain]);
    steps
}

/// A follower's life: copying with gaps, truncations into and across segments, epochs that wrote nothing.
fn follower() -> Vec<Step> {
    let follow = |batches, gap, epoch_step| Step::Follow { batches, gap, epoch_step };
    let truncate = |batches, inside| Step::Truncate { batches, inside };
    let mut steps = vec![follow(4, 0, 1), Step::Flush, Step::StartEpoch { by: 2 }, Step::Flush];
    steps.extend([truncate(2, true), follow(3, 0, 1), truncate(1, false), Step::StartEpoch { by: 1 }]);
    steps.extend([Step::Flush, follow(20, 3, 0), Step::Checkpoint, follow(12, 0, 1), Step::Flush]);
    steps.extend([truncate(16, true), follow(3, 0, 1), Step::Release, truncate(2, false), follow(2, 0, 0)]);
    steps.extend([Step::Flush, Step::AdvanceHighWatermark, Step::Restart { ahead: 7 }, follow(3, 0, 0)]);
    steps.extend([Step::Flush, Step::Restart { ahead: 0 }, Step::Reopen, follow(2, 0, 1), Step::Flush]);
    steps
}

/// What a Raft log does: append, replace a suffix, drop a prefix behind a snapshot.
fn raft() -> Vec<Step> {
    let append = Step::Append { records: 1, value_len: 300, producer: None, transactional: false };
    let mut steps = Vec::new();
    for i in 0..5 {
        steps.extend([Step::StartEpoch { by: 1 }, append, append, append, Step::Flush]);
        steps.extend([
            append,
            append,
            Step::Truncate { batches: 1 + i % 3, inside: false },
            append,
            Step::Flush,
        ]);
        steps.extend([Step::AdvanceHighWatermark, Step::DeleteRecords { batches: 5 }, Step::Retain]);
    }
    steps
}

fn scripted() -> [(&'static str, Vec<Step>); 3] {
    [("leader", leader()), ("follower", follower()), ("raft", raft())]
}

impl Tally {
    fn print(&self, name: &str) {
        println!(
            "{name}: {} crash states, {} different disks, {} crashes within recoveries",
            self.states,
            self.disks.len(),
            self.nested
        );
    }
}

/// Some thousand states: what every run of the tests looks at.
#[test]
fn crash_enumeration_short() {
    let mut tally = Tally::default();
    for (name, steps) in scripted() {
        Search::SHORT.enumerate(name, &steps, 1, &mut tally);
    }
    for seed in 1..4 {
        let steps = random_steps(30, &mut Random::new(seed));
        Search::SHORT.enumerate("random", &steps, seed, &mut tally);
    }
    tally.print("crash_enumeration_short");
    assert!(tally.states >= 3000, "{} states", tally.states);
}

/// At least 50,000 states.
#[test]
#[ignore = "takes minutes; `cargo test --profile ci -p klamm-log --test storage -- --ignored crash_enumeration_full`"]
fn crash_enumeration_full() {
    let mut tally = Tally::default();
    for (name, steps) in scripted() {
        Search::FULL.enumerate(name, &steps, 1, &mut tally);
        tally.print(name);
    }
    for seed in 1..=8 {
        let steps = random_steps(60, &mut Random::new(seed));
        Search::FULL.enumerate("random", &steps, seed, &mut tally);
        tally.print(&format!("random, seed {seed}"));
    }
    tally.print("crash_enumeration_full");
    assert!(tally.states >= 50_000, "{} states", tally.states);
    assert!(tally.nested >= 10_000, "{} crashes within recoveries", tally.nested);
}
