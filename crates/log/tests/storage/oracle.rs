//! What a recovered log must look like.

use std::collections::BTreeMap;

use klamm_log::{FetchIsolation, Log, RecoveryReport};
use klamm_record::{Batches, ControlRecord, TransactionResult};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::plain_log::{PlainBatch, PlainLog, PlainProducer, producers_of};
use crate::timeline::{Expectation, Promise};

/// A broken promise.
pub(crate) type Broken = String;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

/// Checks a log that was recovered after a crash, and tells what it promises from now on.
pub(crate) fn check(
    log: &Log,
    report: &RecoveryReport,
    expected: &Expectation<'_>,
) -> Result<Promise, Broken> {
    ensure!(report.damage.is_empty(), "a power cut was taken for rot: {:?}", report.damage);
    let (flushed_end, end) = (log.flushed_end_offset(), log.log_end_offset());
    ensure!(flushed_end == end, "flushed end {flushed_end}, log end {end}");
    check_contents(log, expected)
}

/// Checks a log, recovered or not, and tells what it would promise if all of it were flushed.
pub(crate) fn check_contents(log: &Log, expected: &Expectation<'_>) -> Result<Promise, Broken> {
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    let batches = read_all(log)?;
    let fits = |plain: &&&PlainLog| is_prefix(plain, start, end, expected.flushed_end, &batches).is_ok();
    let Some(plain) = expected.logs.iter().find(fits) else {
        let reasons = expected.logs.iter().map(|plain| {
            is_prefix(plain, start, end, expected.flushed_end, &batches).err().unwrap_or_default()
        });
        return Err(reasons.collect::<Vec<_>>().join("; or "));
    };
    let high_watermark = log.high_watermark().0;
    let allowed = start..=expected.high_watermark_max.max(start).min(end);
    ensure!(allowed.contains(&high_watermark), "high watermark {high_watermark} is not in {allowed:?}");
    check_epochs(log, &batches, expected)?;
    check_producers(log, plain)?;
    check_lookups(log, plain, &batches)?;
    let epochs: Vec<_> =
        log.leader_epochs().entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect();
    let batches = plain.between(i64::MIN, end).to_vec();
    let (durable_epochs, assigned_epochs) = (epochs.clone(), epochs.clone());
    // The checkpoint may tell of more than the log has now; it counts again as far as the log grows.
    let high_watermark = expected.high_watermark_max;
    let log = PlainLog { batches, start, end, epochs };
    Ok(Promise { log, flushed_end: end, durable_epochs, assigned_epochs, high_watermark })
}

/// Reads the whole log, a few batches at a time.
pub(crate) fn read_all(log: &Log) -> Result<Vec<PlainBatch>, Broken> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut batches = Vec::new();
    while at < end {
        let read =
            log.read(at, 4096, FetchIsolation::LogEnd).map_err(|e| format!("cannot read at {at}: {e}"))?;
        let Some(slice) = read.slice else { break };
        let bytes = slice.to_vec().map_err(|e| format!("cannot read at {at}: {e}"))?;
        let before = batches.len();
        for batch in Batches::new(&bytes) {
            // The last may be cut off by the limit.
            let Ok(batch) = batch else { break };
            batch.verify_crc().map_err(|e| format!("batch at {}: {e}", batch.base_offset()))?;
            batches.push(PlainBatch::read(&batch));
        }
        ensure!(batches.len() > before, "a read at {at} gives no whole batch");
        at = Offset(batches[batches.len() - 1].next);
    }
    Ok(batches)
}

/// Whether a log with these bounds and batches is `plain`, cut somewhere at or past `flushed_end`.
fn is_prefix(
    plain: &PlainLog,
    start: i64,
    end: i64,
    flushed_end: i64,
    batches: &[PlainBatch],
) -> Result<(), Broken> {
    ensure!(start <= plain.start, "log start {start} was never asked for, {} was", plain.start);
    ensure!(end <= plain.end, "log end {end} is past {}", plain.end);
    let wanted = plain.between(start, end);
    for (found, wanted) in batches.iter().zip(wanted) {
        ensure!(found == wanted, "batch {}..{} differs from what was appended", wanted.base, wanted.next);
    }
    let (found, wanted) = (batches.len(), wanted.len());
    ensure!(found == wanted, "{found} batches in {start}..{end}, not {wanted}");
    let last = batches.last().map(|batch| batch.next);
    ensure!(last.is_none_or(|last| last <= end), "the last batch passes the log end {end}");
    let lost = plain.between(end, flushed_end);
    ensure!(lost.is_empty(), "flushed batches from {} to {flushed_end} are lost", lost[0].base);
    // A cut between two batches with a gap between them cannot be seen in the files, and loses nothing.
    ensure!(end >= flushed_end || last == Some(end), "log end {end} is below the flushed {flushed_end}");
    Ok(())
}

fn check_epochs(log: &Log, batches: &[PlainBatch], expected: &Expectation<'_>) -> Result<(), Broken> {
    let cache = log.leader_epochs();
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    for batch in batches {
        let offset = batch.base.max(start);
        let told = cache.epoch_at(Offset(offset));
        ensure!(
            told == Some(LeaderEpoch(batch.epoch)),
            "offset {offset} has epoch {}, not {told:?}",
            batch.epoch
        );
    }
    for entry in cache.entries() {
        let (epoch, at) = (entry.epoch.0, entry.start_offset.0);
        let mut known = expected.assigned_epochs.iter();
        // What began below the log start may be told from anywhere between: nobody sees those offsets.
        let assigned = known.any(|e| e.0 == epoch && (e.1 == at || (e.1 < at && at <= start)));
        let written = batches.iter().find(|batch| batch.epoch == epoch).is_some_and(|batch| batch.base == at);
        let right = assigned || written;
        ensure!(right, "epoch {epoch} never started at {at}: {cache:?}");
        ensure!(at <= end, "epoch {epoch} starts at {at}, past the log end {end}");
    }
    for (epoch, at) in expected.durable_epochs.iter().filter(|(_, at)| start <= *at && *at <= end) {
        let kept = cache.entries().iter().any(|e| (e.epoch.0, e.start_offset.0) == (*epoch, *at));
        let replaced = cache.entries().iter().any(|e| e.epoch.0 > *epoch && e.start_offset.0 <= *at);
        ensure!(kept || replaced, "epoch {epoch} from {at} was durable and is lost: {cache:?}");
    }
    Ok(())
}

/// The producers' state is that of the whole history, or of what was left of it at some time.
fn check_producers(log: &Log, plain: &PlainLog) -> Result<(), Broken> {
    let end = log.log_end_offset().0;
    let found: BTreeMap<_, _> =
        log.producers().iter().map(|(id, entry)| (id.0, PlainProducer::of(entry))).collect();
    let whole = producers_of(plain.between(i64::MIN, end));
    // What the log start was asked to pass may be forgotten, even if a crash undid that.
    let left = producers_of(plain.between(plain.start, end));
    for (id, producer) in &found {
        let right = is_between(producer, left.get(id), whole.get(id));
        ensure!(right, "producer {id} is {producer:?}, not {:?} or {:?}", whole.get(id), left.get(id));
    }
    for id in left.keys() {
        ensure!(found.contains_key(id), "producer {id} is forgotten");
    }
    let open = found.values().filter_map(|producer| producer.txn_first_offset).min();
    let stable = log.last_stable_offset().0;
    // A transaction that began below the log start holds nothing back that can be read.
    let bound = open.unwrap_or(i64::MAX).min(log.high_watermark().0).max(log.log_start_offset().0);
    ensure!(stable <= bound, "last stable offset {stable} is past {bound}");
    Ok(())
}

/// Whether a producer's state is that of its batches from somewhere between the history's start and the log start on:
/// what was below an earlier log start may be known from a snapshot, or not.
fn is_between(found: &PlainProducer, left: Option<&PlainProducer>, whole: Option<&PlainProducer>) -> bool {
    let Some(whole) = whole else { return false };
    let batches_left = left.map_or(&[][..], |left| &left.batches);
    // Of a producer of which nothing is left a marker, too, may be known or not.
    let coordinator_epoch_left = left.map_or(-1, |left| left.coordinator_epoch);
    found.epoch == whole.epoch
        && (coordinator_epoch_left..=whole.coordinator_epoch).contains(&found.coordinator_epoch)
        && (found.txn_first_offset == left.and_then(|left| left.txn_first_offset)
            || (found.txn_first_offset.is_some() && found.txn_first_offset >= whole.txn_first_offset))
        && whole.batches.ends_with(&found.batches)
        && found.batches.ends_with(batches_left)
}

/// The indexes lead to the right places.
fn check_lookups(log: &Log, plain: &PlainLog, batches: &[PlainBatch]) -> Result<(), Broken> {
    for batch in batches {
        let at = Offset(batch.next - 1).max(log.log_start_offset());
        let read =
            log.read(at, 1, FetchIsolation::LogEnd).map_err(|e| format!("cannot read at {at}: {e}"))?;
        let bytes = read.slice.map(|slice| slice.to_vec()).transpose();
        let bytes = bytes.map_err(|e| format!("cannot read at {at}: {e}"))?.unwrap_or_default();
        ensure!(bytes[..] == batch.bytes[..], "a read at {at} gives another batch");
    }
    check_times(log, batches)?;
    check_aborted(log, plain)
}

fn check_times(log: &Log, batches: &[PlainBatch]) -> Result<(), Broken> {
    let start = log.log_start_offset();
    let mut records = Vec::new();
    for batch in batches {
        let view = batch.view();
        let mut cursor = view.records(1 << 24).map_err(|e| e.to_string())?;
        while let Some(record) = cursor.next_record().map_err(|e| e.to_string())? {
            if record.offset >= start {
                records.push((record.timestamp, record.offset));
            }
        }
    }
    let middle = records.len() / 2;
    let targets = [0, middle, records.len().saturating_sub(1)].into_iter().filter_map(|i| records.get(i));
    for target in targets.map(|(timestamp, _)| *timestamp).chain([Timestamp(i64::MAX)]) {
        let wanted = records.iter().find(|(timestamp, _)| *timestamp >= target).map(|(_, offset)| *offset);
        let found = log.offset_for_timestamp(target).map_err(|e| format!("cannot look up {target}: {e}"))?;
        let found = found.map(|found| found.offset);
        ensure!(found == wanted, "timestamp {target} is at {found:?}, not {wanted:?}");
    }
    Ok(())
}

/// The transaction indexes name the aborted transactions whose marker is there.
fn check_aborted(log: &Log, plain: &PlainLog) -> Result<(), Broken> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let found =
        log.aborted_between(start, end).map_err(|e| format!("cannot list aborted transactions: {e}"))?;
    let mut found: Vec<_> = found.iter().map(|txn| (txn.last_offset.0, txn.producer_id.0)).collect();
    let mut open = BTreeMap::new();
    let mut wanted = Vec::new();
    for plain_batch in plain.between(i64::MIN, end.0) {
        let batch = plain_batch.view();
        let id = batch.producer_id().0;
        if !batch.attributes().is_control() {
            if batch.attributes().is_transactional() {
                open.entry(id).or_insert(plain_batch.base);
            }
            continue;
        }
        let mut records = batch.records(1 << 20).map_err(|e| e.to_string())?;
        let record = records.next_record().map_err(|e| e.to_string())?.ok_or("an empty control batch")?;
        let control = ControlRecord::parse(&record).map_err(|e| e.to_string())?;
        let first = open.remove(&id);
        if let (ControlRecord::EndTxn(marker), Some(first)) = (control, first)
            && marker.result == TransactionResult::Abort
            && plain_batch.base >= start.0
        {
            // A transaction that began below the log start may be known from there only, or not at all.
            wanted.push((plain_batch.base, id, first < start.0));
        }
    }
    found.sort_unstable();
    for (at, id, _) in wanted.iter().filter(|wanted| !wanted.2) {
        ensure!(
            found.contains(&(*at, *id)),
            "the transaction of {id} that ended at {at} is not known as aborted"
        );
    }
    for (at, id) in &found {
        let right = wanted.iter().any(|wanted| (wanted.0, wanted.1) == (*at, *id));
        ensure!(right, "no transaction of {id} was aborted at {at}");
    }
    Ok(())
}
