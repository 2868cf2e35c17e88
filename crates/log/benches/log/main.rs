//! How far the log is from the bare calls it is made of, and what many partitions cost.
//!
//! Each ratio compares two contenders in one run: they alternate (A B B A), the first round is dropped, and the
//! median of the per-round ratios is reported with its range. `--test` runs everything once, small, to show that it
//! works. Names given as arguments select cases.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use klamm_log::fs::RealFs;
use klamm_log::{
    AppendOrigin, FetchIsolation, FileCache, FlushPoint, Flusher, Log, LogConfig, LogDir, LogManager,
    ManagerOptions, OpenOptions, ProducerLimits,
};
use klamm_record::{BatchBuilder, Codec, NewRecord};
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition,
};
use std::os::unix::fs::FileExt as _;

mod partitions;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const MIB: usize = 1024 * 1024;
/// Writers that share the flushes of one log.
const WRITERS: usize = 64;

/// How much work a case does.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    /// Divides the amount of data.
    divisor: usize,
}

/// Runs a case at a scale and prints what it measured.
type Case = fn(Scale);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let test = arguments.iter().any(|a| a == "--test");
    let scale = if test { Scale { rounds: 1, divisor: 64 } } else { Scale { rounds: 9, divisor: 1 } };
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let cases: [(&str, Case); 9] = [
        ("append-1m", |scale| append(scale, MIB)),
        ("append-16k", |scale| append(scale, 16 * 1024)),
        ("read-1m", read),
        ("group-commit-2k-64", |scale| group_commit(scale, 2 * 1024, WRITERS)),
        ("group-commit-16k-64", |scale| group_commit(scale, 16 * 1024, WRITERS)),
        ("group-commit-2k-2", |scale| group_commit(scale, 2 * 1024, 2)),
        ("group-commit-16k-2", |scale| group_commit(scale, 16 * 1024, 2)),
        ("reopen", reopen),
        ("partitions", partitions::run),
    ];
    for (name, run) in cases {
        if names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted.as_str())) {
            run(scale);
        }
    }
}

/// Alternates two contenders that each return a rate, and prints the median ratio of the first to the second.
fn compare(
    name: &str,
    scale: Scale,
    unit: &str,
    mut ours: impl FnMut() -> f64,
    mut bare: impl FnMut() -> f64,
) {
    let mut rounds = Vec::new();
    for round in 0..=scale.rounds {
        let pair = if round % 2 == 0 {
            let ours = ours();
            (ours, bare())
        } else {
            let bare = bare();
            (ours(), bare)
        };
        // The first round warms caches and memory.
        if round > 0 || scale.rounds == 1 {
            rounds.push(pair);
        }
    }
    let ratios = sorted(rounds.iter().map(|(ours, bare)| ours / bare));
    let ours = median(&sorted(rounds.iter().map(|pair| pair.0)));
    let bare = median(&sorted(rounds.iter().map(|pair| pair.1)));
    println!(
        "{name}: ours {ours:.0} {unit}, bare {bare:.0} {unit}, ratio {:.2} [{:.2} .. {:.2}] of {} rounds",
        median(&ratios),
        ratios[0],
        ratios[ratios.len() - 1],
        ratios.len()
    );
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn seconds(work: impl FnOnce()) -> f64 {
    #[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A batch of 1 KiB records, `size` bytes or a little less.
fn batch(size: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None.into());
    let value: Vec<u8> = (0..1000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let record = NewRecord::new(NOW, Some(b"a key of 16 byte"), Some(&value));
    while builder.size_with(&record) <= size {
        builder.append(&record).unwrap();
    }
    builder.build().unwrap()
}

fn open_log(dir: &Path, flush_point: Offset) -> (Arc<Log>, klamm_log::RecoveryReport) {
    let log_dir = LogDir::new(Arc::new(RealFs), dir, FileCache::new(1000));
    log_dir.load_recovery_points().unwrap();
    open_in(&log_dir, 0, flush_point)
}

fn open_in(
    log_dir: &Arc<LogDir>,
    partition: i32,
    flush_point: Offset,
) -> (Arc<Log>, klamm_log::RecoveryReport) {
    Log::open(OpenOptions {
        log_dir: Arc::clone(log_dir),
        partition: TopicPartition::new(TopicName::new("bench").unwrap(), PartitionId(partition)),
        topic_id: None,
        config: Arc::new(LogConfig::default()),
        producers: ProducerLimits::default(),
        flush_point: FlushPoint::Known(flush_point),
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        now: NOW,
    })
    .unwrap()
}

/// Appends the same batch again.
fn append_again(log: &Log, batch: &[u8]) -> Offset {
    let info = log.append_as_leader(batch, LeaderEpoch(0), AppendOrigin::Client, NOW).unwrap();
    info.last_offset.next()
}

/// Leader appends to the page cache, against CRC-32C and `pwrite` over the same bytes.
fn append(scale: Scale, size: usize) {
    let bytes = batch(size);
    let count = 512 * MIB / scale.divisor / bytes.len();
    let total = (count * bytes.len()) as f64 / MIB as f64;
    let bare_bytes = bytes.clone();
    let ours = || {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open_log(dir.path(), Offset::ZERO);
        total
            / seconds(|| {
                for _ in 0..count {
                    append_again(&log, &bytes);
                }
            })
    };
    let bare = || {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("bare")).unwrap();
        total
            / seconds(|| {
                for i in 0..count {
                    std::hint::black_box(crc32c::crc32c(&bare_bytes[21..]));
                    file.write_all_at(&bare_bytes, (i * bare_bytes.len()) as u64).unwrap();
                }
            })
    };
    compare(&format!("append {} KiB batches", size / 1024), scale, "MiB/s", ours, bare);
}

/// Reads of 1 MiB at random offsets, into one buffer, against `pread` of the same bytes.
fn read(scale: Scale) {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open_log(dir.path(), Offset::ZERO);
    let bytes = batch(16 * 1024);
    while log.size_bytes() < (1024 * MIB / scale.divisor) as u64 {
        append_again(&log, &bytes);
    }
    let end = log.log_end_offset().0 - 1200;
    let reads = 2000 / scale.divisor.min(20);
    let offsets: Vec<Offset> = (0..reads as i64).map(|i| Offset((i * 7_919_993) % end)).collect();
    let (mut ours_buffer, mut bare_buffer) = (Vec::new(), vec![0; MIB]);
    let slices: Vec<_> = offsets
        .iter()
        .map(|offset| log.read(*offset, MIB, FetchIsolation::LogEnd).unwrap().slice.unwrap())
        .collect();
    let ours = || {
        let mut total = 0;
        let elapsed = seconds(|| {
            for offset in &offsets {
                let slice = log.read(*offset, MIB, FetchIsolation::LogEnd).unwrap().slice.unwrap();
                slice.read_into(&mut ours_buffer).unwrap();
                total += ours_buffer.len();
            }
        });
        total as f64 / MIB as f64 / elapsed
    };
    let bare = || {
        let mut total = 0;
        let elapsed = seconds(|| {
            for slice in &slices {
                let file = slice.file().as_std_file().unwrap();
                total += file.read_at(&mut bare_buffer[..slice.len()], slice.position()).unwrap();
            }
        });
        total as f64 / MIB as f64 / elapsed
    };
    compare("read 1 MiB at random offsets", scale, "MiB/s", ours, bare);
}

/// 64 writers on one log, each of which waits until its append is durable before it makes the next: with group commit,
/// and with one sync per append.
///
/// The writers are 64 threads, or, as in a broker, no threads at all: two threads carry 32 of them each, so that the
/// figure is not that of waking 64 threads. A third contender tells how far group commit could go here: one thread
/// that writes the bytes of 32 appends in one call and syncs them, again and again.
fn group_commit(scale: Scale, size: usize, threads: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open_log(dir.path(), Offset::ZERO);
    let flusher = Flusher::start("flush", 16).unwrap();
    let time = Duration::from_secs_f64(2.0 / (scale.divisor as f64).sqrt());
    let template = batch(size);
    append_again(&log, &template);
    let file = std::fs::File::open(dir.path().join("bench-0/00000000000000000000.log")).unwrap();
    let mut appends_per_flush = Vec::new();
    let burst = WRITERS / threads;
    let grouped = || {
        let before = flusher.queue().flushes();
        let rate = write_for(time, threads, &template, |bytes| {
            let mut end = Offset::ZERO;
            for _ in 0..burst {
                end = append_again(&log, bytes);
            }
            flusher.queue().request(&log);
            assert!(log.wait_flushed(end, Duration::from_secs(30)));
            burst as u64
        });
        let flushes = (flusher.queue().flushes() - before).max(1);
        appends_per_flush.push(rate * time.as_secs_f64() / flushes as f64);
        rate
    };
    let lone = || {
        let lock = std::sync::Mutex::new(());
        write_for(time, threads, &template, |bytes| {
            // One append, one sync: nobody's bytes go with the sync of another.
            let _alone = lock.lock().unwrap();
            append_again(&log, bytes);
            file.sync_data().unwrap();
            1
        })
    };
    let name =
        format!("group commit, 64 writers of {size} bytes on {threads} threads, against one sync per append");
    compare(&name, Scale { rounds: scale.rounds.min(5), ..scale }, "appends/s", grouped, lone);
    let appends = sorted(appends_per_flush.into_iter());
    println!("    acknowledged appends per flush: {:.1}", median(&appends));
    println!(
        "    ceiling, 32 appends in one write and one sync: {:.0} appends/s",
        ceiling(&dir, time, &template)
    );
}

/// How many appends of this size a second fit through bare writes of 32 at a time, each followed by a sync.
fn ceiling(dir: &tempfile::TempDir, time: Duration, template: &[u8]) -> f64 {
    let file = std::fs::File::create(dir.path().join("ceiling")).unwrap();
    let bytes = template.repeat(WRITERS / 2);
    let (mut spent, mut writes) = (0.0, 0_u64);
    while spent < time.as_secs_f64() {
        spent += seconds(|| {
            file.write_all_at(&bytes, writes * bytes.len() as u64).unwrap();
            file.sync_data().unwrap();
        });
        writes += 1;
    }
    (writes * (WRITERS as u64 / 2)) as f64 / spent
}

/// Has threads call `commit`, which tells how many appends it made durable, again and again. Returns appends per
/// second.
fn write_for(time: Duration, threads: usize, template: &[u8], commit: impl Fn(&[u8]) -> u64 + Sync) -> f64 {
    let stop = AtomicBool::new(false);
    let mut total = 0;
    let elapsed = seconds(|| {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..threads)
                .map(|_| {
                    let (stop, commit) = (&stop, &commit);
                    scope.spawn(move || {
                        let mut count = 0;
                        while !stop.load(Ordering::Relaxed) {
                            count += commit(template);
                        }
                        count
                    })
                })
                .collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            total = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        });
    });
    total as f64 / elapsed
}

/// Opening after a crash: logs of 256 MiB and of 4 GiB, each with the same unflushed tail of 32 MiB.
fn reopen(scale: Scale) {
    let open_time = |size: usize| {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open_log(dir.path(), Offset::ZERO);
        let bytes = batch(64 * 1024);
        while log.size_bytes() < size as u64 {
            append_again(&log, &bytes);
        }
        let flush_point = log.checkpoint().unwrap();
        let flushed = log.size_bytes();
        while log.size_bytes() < flushed + (32 * MIB / scale.divisor) as u64 {
            append_again(&log, &bytes);
        }
        // The log is dropped as it is, with nothing written out: a crash of the process.
        drop(log);
        let mut times = Vec::new();
        for _ in 0..scale.rounds {
            times.push(seconds(|| {
                let (_, report) = open_log(dir.path(), flush_point);
                assert!(report.damage.is_empty() && report.truncated_bytes == 0);
            }));
        }
        median(&sorted(times.into_iter()))
    };
    let small = open_time(256 * MIB / scale.divisor);
    let large = open_time(4096 * MIB / scale.divisor);
    println!(
        "reopen after a crash with 32 MiB unflushed: 256 MiB log {:.1} ms, 4 GiB log {:.1} ms, ratio {:.2}",
        1e3 * small,
        1e3 * large,
        large / small
    );
}
