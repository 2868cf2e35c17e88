//! What a producer costs in memory, measured by counting what is allocated.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use klamm_log::fs::RealFs;
use klamm_log::{AppendOrigin, FileCache, FlushPoint, Log, LogConfig, LogDir, OpenOptions, ProducerLimits};
use klamm_record::{BatchBuilder, Codec, NewRecord};
use klamm_types::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicName, TopicPartition,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

struct Counting;

static ALLOCATED: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn open(dir: &Path, count_max: usize) -> Arc<Log> {
    let (log, _) = Log::open(OpenOptions {
        log_dir: LogDir::new(Arc::new(RealFs), dir, FileCache::new(100)),
        partition: TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0)),
        topic_id: None,
        config: Arc::new(LogConfig::default()),
        producers: ProducerLimits { count_max, ..ProducerLimits::default() },
        flush_point: FlushPoint::Known(Offset::ZERO),
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        now: NOW,
    })
    .unwrap();
    log
}

fn write_as(log: &Log, producer: i64) {
    for sequence in 0..5 {
        let mut builder =
            BatchBuilder::new(Codec::None.into()).producer(ProducerId(producer), ProducerEpoch(0), sequence);
        builder.append(&NewRecord::new(NOW, None, None)).unwrap();
        let bytes = builder.build().unwrap();
        log.append_as_leader(&bytes, LeaderEpoch(0), AppendOrigin::Client, NOW).unwrap();
    }
}

#[test]
fn a_producer_costs_less_than_256_bytes_and_their_number_is_bounded() {
    const PRODUCERS: i64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), usize::MAX);
    write_as(&log, 0);
    let before = ALLOCATED.load(Ordering::Relaxed);
    (1..=PRODUCERS).for_each(|producer| write_as(&log, producer));
    let each = (ALLOCATED.load(Ordering::Relaxed) - before) / PRODUCERS;
    println!("a producer with five batches takes {each} bytes");
    assert!(each <= 256, "{each} bytes");
    drop(log);

    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1000);
    (0..5000).for_each(|producer| write_as(&log, producer));
    assert!(log.producers().len() <= 1000);
}
