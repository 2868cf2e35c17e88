//! What fuzz targets share: an allocator that counts, and what is asked of every decoder of messages.

pub mod decoding;
pub mod wire;

pub use klamm_protocol;
pub use libfuzzer_sys;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count of the bytes that are allocated now, and of the most there ever were.
///
/// Allocations of C code (zstd's window) are not seen; `-rss_limit_mb` of libFuzzer bounds them.
pub struct CountingAllocator;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let now = ALLOCATED.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

fn subtract(bytes: usize) {
    ALLOCATED.fetch_sub(bytes, Relaxed);
}

// # Safety
// Every call is passed on to the system's allocator unchanged; the counts touch no memory of the caller.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may exist while the bytes move.
        add(size);
        subtract(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work`, and asserts that at no moment it had more than `bytes_max` bytes allocated beyond those there were.
///
/// # Panics
/// If it had.
pub fn assert_allocates_at_most<T>(bytes_max: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    assert!(peak <= bytes_max, "{what} allocated {peak} bytes, more than {bytes_max}");
    result
}
