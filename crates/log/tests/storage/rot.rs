//! Damage below the flush point: reported, never cut off (REPLICATION 2.10).

use std::path::{Path, PathBuf};

use klamm_log::fs::{CrashPlan, LogFs, MemoryFs};
use klamm_log::{FetchIsolation, ReadError};
use klamm_types::{Offset, Timestamp};

use crate::node::Node;
use crate::plain_log::PlainLog;
use crate::workload::{Run, Step, small_segments};

const DIR: &str = "/data/orders-3";

/// A disk on which twelve batches in several segments are durable, and checkpointed up to the eighth.
fn written() -> (MemoryFs, Run) {
    let fs = MemoryFs::new();
    let mut run = Run::start_empty(&fs, 1);
    for i in 0..12 {
        run.step(Step::Append { records: 2, value_len: 250, producer: None, transactional: false });
        run.step(if i == 7 { Step::Checkpoint } else { Step::Flush });
    }
    (fs, run)
}

fn segments(fs: &MemoryFs) -> Vec<(PathBuf, u64)> {
    let files = fs.list(Path::new(DIR)).unwrap().into_iter().filter(|file| file.name.ends_with(".log"));
    files.map(|file| (Path::new(DIR).join(file.name), file.stat.len)).collect()
}

/// Where in a batch the bytes are that its checksum covers, itself included. A flip before that may hide the batches
/// after it, up to the next index entry.
const COVERED: u64 = 17;

/// How far into its batch a position of a segment's file is.
fn depth(plain: &PlainLog, segment: &Path, position: u64) -> u64 {
    let (base, _) = klamm_log::FileKind::parse_path(segment).unwrap();
    let mut start = 0;
    for batch in plain.between(base.0, plain.end) {
        let end = start + batch.bytes.len() as u64;
        if position < end {
            return position - start;
        }
        start = end;
    }
    panic!("{} has no byte {position}", segment.display());
}

/// Flips one bit at every 97th byte in turn: no other batch is lost, no damaged one is served, and the log end does
/// not move below what is checkpointed.
#[test]
fn a_flipped_bit_costs_its_own_batch_only() {
    let (fs, run) = written();
    let plain = run.promise().log.clone();
    let checkpointed = plain.batches[7].next;
    for (path, len) in segments(&fs) {
        for position in (0..len).step_by(97) {
            let disk = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
            disk.flip(&path, position, 0x10).unwrap();
            let node = Node::open(&disk, small_segments(), Timestamp(2_000_000)).unwrap();
            let log = node.log();
            let what = format!("bit flipped at {position} of {}", path.display());
            assert!(
                log.log_end_offset().0 >= checkpointed,
                "{what}: the log ends at {}",
                log.log_end_offset()
            );
            let mut unreadable = 0;
            for batch in plain.between(0, checkpointed) {
                let read = log.read(Offset(batch.base), 1, FetchIsolation::LogEnd);
                let bytes = match read {
                    Ok(read) => read.slice.map(|slice| slice.to_vec().unwrap()).unwrap_or_default(),
                    Err(ReadError::Damaged { .. } | ReadError::Corrupt { .. }) => Vec::new(),
                    Err(e) => panic!("{what}: {e}"),
                };
                unreadable += usize::from(bytes[..] != batch.bytes[..]);
            }
            let most = if depth(&plain, &path, position) < COVERED { plain.batches.len() } else { 1 };
            assert!(unreadable <= most, "{what}: {unreadable} batches are unreadable");
        }
    }
}

/// A damaged batch between the segment's last index entry and the recovery point is found when the log is opened.
#[test]
fn rot_that_recovery_walks_over_is_reported_and_not_cut() {
    let (fs, run) = written();
    let plain = run.promise().log.clone();
    let (path, len) = segments(&fs).into_iter().nth(1).unwrap();
    let mut reported = 0;
    for position in (0..len).step_by(61) {
        let disk = fs.crash_point().power_cut(&CrashPlan::nothing_pending());
        disk.flip(&path, position, 0x01).unwrap();
        let node = Node::open(&disk, small_segments(), Timestamp(2_000_000)).unwrap();
        let damage = &node.report().damage;
        for range in damage {
            let damaged = plain.between(range.start.0, range.end.0);
            assert_eq!(damaged.len(), 1, "{position}: {range} is more than the batch that was hit");
            let read = node.log().read(range.start, 1, FetchIsolation::LogEnd);
            assert!(matches!(read, Err(ReadError::Damaged { .. })), "{position}: {range} is served");
        }
        assert!(damage.len() <= 1, "{position}: {damage:?}");
        if !damage.is_empty() {
            assert_eq!(node.log().log_end_offset().0, plain.end, "{position}: the log was cut");
        }
        reported += damage.len();
    }
    assert!(reported > 0, "no flipped bit was found");
}
