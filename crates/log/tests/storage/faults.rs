//! Every call of the port fails, one after the other, while a log is opened, written, rolled, cut, read and opened
//! again: what was acknowledged stays, what failed is refused, and nothing panics.

use klamm_log::fs::{CrashPlan, FaultKind, FaultRule, MemoryFs, Operation};
use klamm_types::Timestamp;

use crate::node::Node;
use crate::oracle;
use crate::timeline::{Expectation, Timeline};
use crate::workload::{Failure, Run, Step, small_segments};

const AFTERWARDS: Timestamp = Timestamp(2_000_000);

/// Touches every call: appends by all kinds of writers, rolls, truncations, retention, checkpoints, a restart.
fn steps() -> Vec<Step> {
    let append =
        |producer, transactional| Step::Append { records: 2, value_len: 280, producer, transactional };
    let mut steps = vec![Step::StartEpoch { by: 1 }];
    for _ in 0..3 {
        steps.extend([append(Some(1), true), append(Some(2), false), append(None, false)]);
        steps.extend([Step::EndTransaction { producer: 1, commit: false }, Step::Flush]);
        steps.extend([Step::AdvanceHighWatermark, append(None, false), Step::Checkpoint]);
    }
    steps.extend([append(None, false), Step::Truncate { batches: 3, inside: true }]);
    steps.extend([append(None, false), append(None, false), Step::Flush, Step::AdvanceHighWatermark]);
    steps.extend([Step::DeleteRecords { batches: 4 }, Step::Retain, Step::RemoveDeleted, Step::Release]);
    steps.extend([append(Some(1), true), Step::Reopen, append(Some(2), false), Step::Flush]);
    steps.extend([Step::Restart { ahead: 3 }, append(None, false), Step::Flush, Step::Reopen]);
    steps
}

/// How a run with faults ended.
struct Ended {
    timeline: Timeline,
    failure: Option<(Step, Failure)>,
    /// Whether the directory is out of service.
    offline: bool,
}

/// Runs the steps until one fails, and looks at what a failed directory does after that.
fn run(fs: &MemoryFs) -> Ended {
    let Ok(mut run) = Run::try_start_empty(fs, 1) else {
        return Ended { timeline: Timeline::default(), failure: None, offline: false };
    };
    for step in steps() {
        if let Err(failure) = run.try_step(step) {
            if step == Step::Flush {
                let (told, promised) = (run.log().flushed_end_offset().0, run.promise().flushed_end);
                assert_eq!(told, promised, "a flush that failed has moved the flushed end");
            }
            let (offline, timeline) = (run.is_offline(), run.timeline().clone());
            if offline {
                check_refusals(&mut run);
            }
            return Ended { timeline, failure: Some((step, failure)), offline };
        }
    }
    Ended { timeline: run.timeline().clone(), failure: None, offline: false }
}

/// A directory out of service accepts nothing, and its flushed end does not move.
fn check_refusals(run: &mut Run) {
    let flushed_end = run.log().flushed_end_offset();
    for step in [
        Step::Append { records: 1, value_len: 10, producer: None, transactional: false },
        Step::Follow { batches: 1, gap: 0, epoch_step: 0 },
        Step::Flush,
        Step::Truncate { batches: 0, inside: false },
        Step::Restart { ahead: 1 },
        Step::Checkpoint,
    ] {
        let refused = run.try_step(step);
        assert!(refused.as_ref().is_err_and(Failure::is_offline), "{step:?} after a failure: {refused:?}");
    }
    assert_eq!(run.log().flushed_end_offset(), flushed_end);
}

/// Whatever survives a power cut now, what was acknowledged is there.
fn check_nothing_is_lost(fs: &MemoryFs, timeline: &Timeline, what: &str) {
    fs.clear_faults();
    let Some(expected) = timeline.last_expectation() else { return };
    let point = fs.crash_point();
    let disks = [
        ("nothing pending", point.power_cut(&CrashPlan::nothing_pending())),
        ("everything pending", point.power_cut(&CrashPlan::everything_pending())),
        ("all visible", point.process_kill()),
    ];
    for (survives, disk) in disks {
        check_recovery(&disk, &expected).unwrap_or_else(|broken| {
            panic!("{what}, {survives} survives: {broken}\n{}", timeline.story(&point))
        });
    }
}

fn check_recovery(disk: &MemoryFs, expected: &Expectation<'_>) -> Result<(), oracle::Broken> {
    let node = Node::open(disk, small_segments(), AFTERWARDS).map_err(|e| format!("cannot open: {e}"))?;
    oracle::check(node.log(), node.report(), expected).map(|_| ())
}

/// The calls that a run without faults makes.
fn calls() -> Vec<(Operation, u64)> {
    let fs = MemoryFs::new();
    assert!(run(&fs).failure.is_none());
    Operation::ALL.iter().map(|operation| (*operation, fs.calls(*operation))).collect()
}

/// Fails each call of each operation once, or from then on.
fn fail_each_call(
    kind: FaultKind,
    operations: &[Operation],
    check: impl Fn(&MemoryFs, &Ended, Operation, &str),
) {
    let mut tried = 0;
    for (operation, count) in calls() {
        if !operations.contains(&operation) {
            continue;
        }
        for nth in 1..=count {
            for repeats in [false, true] {
                let fs = MemoryFs::new();
                fs.add_fault(FaultRule { repeats, ..FaultRule::once(operation, nth, kind) });
                let ended = run(&fs);
                let what = format!("{kind:?} on call {nth} of {count} of {operation:?}, again: {repeats}");
                assert!(fs.faults_injected() > 0, "{what}: never happened");
                check(&fs, &ended, operation, &what);
                check_nothing_is_lost(&fs, &ended.timeline, &what);
                tried += 1;
            }
        }
    }
    println!("{kind:?}: {tried} faults");
    assert!(tried > 10, "{tried} faults");
}

#[test]
fn an_io_error_on_any_call_loses_nothing_that_was_acknowledged() {
    fail_each_call(FaultKind::Io, &Operation::ALL, |_, ended, operation, what| {
        // Reads may fail without harm where a file is only looked for; what changes the disk may not.
        let changes = matches!(
            operation,
            Operation::Write | Operation::SetLen | Operation::SyncData | Operation::SyncDir
        );
        if changes && !ended.timeline.moments.is_empty() {
            assert!(ended.failure.is_some(), "{what}: went unnoticed");
        }
    });
}

#[test]
fn an_io_error_on_a_write_or_sync_takes_the_directory_out_of_service() {
    let operations = [Operation::Write, Operation::SetLen, Operation::SyncData, Operation::SyncDir];
    fail_each_call(FaultKind::Io, &operations, |_, ended, _, what| {
        // Opening fails as a whole: then there is no log to append to.
        if let Some((step, failure)) = &ended.failure
            && !matches!(step, Step::Reopen)
        {
            assert!(ended.offline, "{what}: {step:?} failed with {failure}, yet the directory goes on");
        }
    });
}

#[test]
fn interruptions_are_invisible() {
    for operation in [Operation::Read, Operation::Write] {
        let count = calls().iter().find(|(op, _)| *op == operation).unwrap().1;
        for nth in 1..=count {
            let fs = MemoryFs::new();
            fs.add_fault(FaultRule::once(operation, nth, FaultKind::Interrupted));
            let ended = run(&fs);
            let what = format!("an interruption of call {nth} of {operation:?}");
            assert!(ended.failure.is_none(), "{what}: {:?}", ended.failure);
            check_nothing_is_lost(&fs, &ended.timeline, &what);
        }
    }
}

#[test]
fn short_reads_and_writes_are_invisible() {
    for operation in [Operation::Read, Operation::Write] {
        for len in [1, 7, 61, 300] {
            let fs = MemoryFs::new();
            fs.add_fault(FaultRule::always(operation, FaultKind::Short(len)));
            let ended = run(&fs);
            let what = format!("{operation:?} of at most {len} bytes");
            assert!(ended.failure.is_none(), "{what}: {:?}", ended.failure);
            check_nothing_is_lost(&fs, &ended.timeline, &what);
        }
    }
}

#[test]
fn a_write_that_fails_half_way_loses_nothing() {
    let count = calls().iter().find(|(op, _)| *op == Operation::Write).unwrap().1;
    for nth in 1..=count {
        for len in [1, 100, 512] {
            let fs = MemoryFs::new();
            fs.add_fault(FaultRule::once(Operation::Write, nth, FaultKind::Short(len)));
            fs.add_fault(FaultRule::once(Operation::Write, nth + 1, FaultKind::Io));
            let ended = run(&fs);
            check_nothing_is_lost(&fs, &ended.timeline, &format!("write {nth} fails after {len} bytes"));
        }
    }
}

/// The disk is full for a while, at every size: what does not fit is refused cleanly, and the log works again once
/// there is space.
#[test]
fn a_full_disk_refuses_cleanly_and_works_again_with_space() {
    let block = 4096;
    let (mut refused, mut served) = (0, 0);
    for blocks in 1..40 {
        let fs = MemoryFs::new();
        let Ok(mut run) = Run::try_start_empty(&fs, 1) else { panic!("an empty disk fails") };
        fs.set_capacity(Some(fs.space_used() + blocks * block));
        for step in steps() {
            match run.try_step(step) {
                Ok(()) => served += 1,
                Err(failure) => {
                    assert!(failure.is_full(), "{blocks} blocks, {step:?}: {failure}");
                    refused += 1;
                    // A restart is not tried again: whether the log was emptied is not known.
                    if run.is_closed() || matches!(step, Step::Restart { .. }) {
                        break;
                    }
                    assert!(
                        !run.is_offline(),
                        "{blocks} blocks: a full disk took the directory out of service"
                    );
                    fs.set_capacity(None);
                    run.try_step(step)
                        .unwrap_or_else(|e| panic!("{blocks} blocks, {step:?} with space: {e}"));
                }
            }
        }
        let timeline = run.timeline().clone();
        check_nothing_is_lost(&fs, &timeline, &format!("a disk with {blocks} blocks"));
    }
    println!("a full disk: {refused} steps refused, {served} served");
    assert!(refused > 10);
}
