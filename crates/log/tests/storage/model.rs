//! Random steps and random reads against a plain model of a log.

use klamm_log::FetchIsolation;
use klamm_log::fs::MemoryFs;
use klamm_types::{Offset, Timestamp};
use proptest::prelude::*;

use crate::node::Node;
use crate::oracle;
use crate::plain_log::{PlainBatch, producers_of};
use crate::random::Random;
use crate::workload::{Run, Step, random_step, small_segments};

const READS_PER_STEP: usize = 4;

fn any_step() -> impl Strategy<Value = Step> {
    any::<u64>().prop_map(|seed| random_step(&mut Random::new(seed)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_reads_as_the_model_does(steps in prop::collection::vec(any_step(), 1..80), seed: u64) {
        let fs = MemoryFs::new();
        let mut run = Run::start_empty(&fs, seed);
        let mut random = Random::new(seed);
        // A transaction whose marker is past the high watermark is not told apart once its producer was loaded from
        // a snapshot past that: Kafka's snapshots, too, know open transactions only.
        let mut from_snapshot = false;
        for step in steps {
            run.step(step);
            from_snapshot |= matches!(step, Step::Reopen | Step::Truncate { .. });
            for _ in 0..READS_PER_STEP {
                read_somewhere(&run, &mut random);
            }
            let (told, stable) = (run.log().last_stable_offset().0, last_stable(&run));
            prop_assert!(from_snapshot || told <= stable, "last stable offset {told} is past {stable}");
        }
        let timeline = run.timeline();
        let expected = timeline.last_expectation().unwrap();
        oracle::check_contents(run.log(), &expected).unwrap();
        // The same log, opened by another process after this one was killed.
        let killed = fs.crash_point().process_kill();
        let node = Node::open(&killed, small_segments(), Timestamp(2_000_000)).unwrap();
        let found = oracle::check(node.log(), node.report(), &expected).unwrap();
        prop_assert_eq!(found.log.end, run.promise().log.end, "a killed process loses nothing");
    }
}

/// Reads from a random offset, with a random limit, and compares with the model.
fn read_somewhere(run: &Run, random: &mut Random) {
    let (log, plain) = (run.log(), &run.promise().log);
    let isolations = [FetchIsolation::LogEnd, FetchIsolation::HighWatermark, FetchIsolation::LastStable];
    let isolation = isolations[random.below(3) as usize];
    let bound = match isolation {
        FetchIsolation::LogEnd => plain.end,
        FetchIsolation::HighWatermark => log.high_watermark().0,
        FetchIsolation::LastStable => log.last_stable_offset().0,
    };
    assert!(bound <= plain.end);
    // Half of the reads are close to the bound.
    let around = if random.one_in(2) { bound } else { plain.start };
    let offset = around - 3 + random.below(plain.end.abs_diff(plain.start) + 6) as i64;
    let bytes_max = random.below(3000) as usize;
    let read = log.read(Offset(offset), bytes_max, isolation);
    if offset < plain.start || offset > plain.end {
        assert!(read.is_err(), "a read at {offset} outside of {}..={}", plain.start, plain.end);
        return;
    }
    let read = read.unwrap_or_else(|e| panic!("a read at {offset}: {e}"));
    let found = read.slice.map(|slice| slice.to_vec().unwrap()).unwrap_or_default();
    let visible: Vec<_> = plain.between(offset, bound).iter().filter(|batch| batch.next <= bound).collect();
    check_slice(&found, &visible, bytes_max, &format!("{isolation:?} read at {offset}, bound {bound}"));
}

/// The bytes are those of the visible batches: at least one, at most `bytes_max` more than none, and all that fit
/// unless the segment ends.
fn check_slice(found: &[u8], visible: &[&PlainBatch], bytes_max: usize, what: &str) {
    let Some(first) = visible.first() else {
        assert!(found.is_empty(), "{what}: {} bytes, where none are visible", found.len());
        return;
    };
    let all: Vec<u8> = visible.iter().flat_map(|batch| batch.bytes.iter().copied()).collect();
    assert!(all.starts_with(found), "{what}: other bytes than were appended, or bytes past the bound");
    let most = bytes_max.max(first.bytes.len());
    assert!(found.len() >= first.bytes.len() && found.len() <= most, "{what}: {} bytes", found.len());
    let mut ends = visible.iter().scan(0, |end, batch| {
        *end += batch.bytes.len();
        Some(*end)
    });
    let whole = found.len() == most.min(all.len()) || ends.any(|end| end == found.len());
    assert!(whole, "{what}: {} bytes end within a batch before the limit", found.len());
}

/// The first offset of a transaction that is open, or whose marker is not below the high watermark; at most that, and at
/// least the log start.
fn last_stable(run: &Run) -> i64 {
    let (plain, high_watermark) = (&run.promise().log, run.log().high_watermark().0);
    let decided = producers_of(plain.between(plain.start, high_watermark));
    let open = decided.into_values().filter_map(|producer| producer.txn_first_offset).min();
    // Below the log start there is nothing left to wait for.
    open.unwrap_or(i64::MAX).max(plain.start).min(high_watermark)
}
