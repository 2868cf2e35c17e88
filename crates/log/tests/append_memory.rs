//! An append copies no records: counted by what is allocated for it.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_log::fs::RealFs;
use klamm_log::{
    AppendOrigin, FetchIsolation, FileCache, FlushPoint, Log, LogConfig, LogDir, OpenOptions, ProducerLimits,
};
use klamm_record::{BatchBuilder, Codec, NewRecord, RecordBatchMut};
use klamm_types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicName, TopicPartition};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const VALUE_LEN: usize = 900_000;

struct Counting;

/// All that was ever asked for.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_batch_is_written_from_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(OpenOptions {
        log_dir: LogDir::new(Arc::new(RealFs), dir.path(), FileCache::new(100)),
        partition: TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0)),
        topic_id: None,
        config: Arc::new(LogConfig::default()),
        producers: ProducerLimits::default(),
        flush_point: FlushPoint::Known(Offset::ZERO),
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        now: NOW,
    })
    .unwrap();
    let value: Vec<u8> = (0..VALUE_LEN).map(|i| (i % 251) as u8).collect();
    let mut builder = BatchBuilder::new(Codec::None.into());
    builder.append(&NewRecord::new(NOW, None, Some(&value))).unwrap();
    let batch = builder.build().unwrap();
    for offset in 0..3 {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let info = log.append_as_leader(&batch, LeaderEpoch(7), AppendOrigin::Client, NOW).unwrap();
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        assert_eq!(info.first_offset, Offset(offset));
        // The first append opens the segment.
        assert!(offset == 0 || allocated < 16 << 10, "{allocated} bytes for a batch of {}", batch.len());
    }
    log.advance_high_watermark(Offset(3));
    let read = log.read(Offset(1), batch.len(), FetchIsolation::HighWatermark).unwrap();
    let mut expected = batch.clone();
    RecordBatchMut::parse(&mut expected).unwrap().assign(Offset(1), LeaderEpoch(7)).unwrap();
    assert_eq!(read.slice.unwrap().to_vec().unwrap(), expected);
}
