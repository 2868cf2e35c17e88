//! The room that records leave on a disk.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::io::Errno;

use crate::error::{Describe as _, StorageError};
use crate::fs::{LogFs, Space};

/// What is left free, in bytes, on disks that are large enough.
const RESERVE: u64 = 64 << 20;
/// A smaller disk leaves this part of itself free.
const RESERVE_PART: u64 = 20;
/// So much is written at most before the disk is asked again.
const UNCHECKED_MAX: u64 = 16 << 20;

/// Refuses records before a disk is full to the last byte: what tells of it, the metadata log and the checkpoints that may
/// be on the same disk, needs room as well, and not to find any is a failure that ends the node.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// What may be written without another question. Those who write at the same time may together take a little more.
    unchecked: AtomicI64,
}

impl Room {
    /// Takes room for `bytes` in `dir`.
    ///
    /// # Errors
    /// As from a disk that is full, if less than the reserve would be left.
    pub(crate) fn take(&self, fs: &dyn LogFs, dir: &Path, bytes: u64) -> Result<(), StorageError> {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.unchecked.fetch_sub(wanted, Ordering::Relaxed);
        if before >= wanted {
            return Ok(());
        }
        // Who cannot tell will refuse by itself.
        let Ok(Some(Space { available, total })) = fs.space(dir) else {
            self.unchecked.store(UNCHECKED_MAX as i64, Ordering::Relaxed);
            return Ok(());
        };
        let free = available.saturating_sub(RESERVE.min(total / RESERVE_PART));
        if free < bytes {
            self.unchecked.store(0, Ordering::Relaxed);
            return Err(io::Error::from(Errno::NOSPC)).describe("write to", dir);
        }
        let unchecked = ((free - bytes) / 2).min(UNCHECKED_MAX);
        self.unchecked.store(i64::try_from(unchecked).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Has the disk asked again before the next record: others write to it, too.
    pub(crate) fn doubt(&self) {
        self.unchecked.store(0, Ordering::Relaxed);
    }
}
