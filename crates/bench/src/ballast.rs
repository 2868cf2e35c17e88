//! Keeps the memory full, as that of a server is which has run for a while.
//!
//! A virtual machine may give memory that is free back to its host, which takes it again page by page when a file is written: five
//! times the cost of a write into pages that the machine has. What is measured then is what was free, and for how long.
//! Pages of a file that is not needed are not given back, and make room at once for those of files that are written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context;

use crate::machine;

/// What stays free: what the kernel keeps for itself by its own rules, and a little more.
const FREE_KIB: u64 = 256 << 10;
/// How much is read at a time.
const READ_LEN: usize = 4 << 20;
/// So many reads are made before the free memory is looked at again.
const STRIDE: usize = 32;

/// A file without blocks, as long as there is memory, whose pages fill what is free.
pub(crate) struct Ballast {
    file: File,
    /// What was read last ends here.
    end: u64,
}

impl Ballast {
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        let file = tempfile::tempfile_in(directory).context("make the file that fills the memory")?;
        let len = machine::meminfo_kib("MemTotal")? << 10;
        file.set_len(len).context("make the file that fills the memory")?;
        Ok(Self { file, end: 0 })
    }

    /// Reads until hardly any memory is free, or no less than before: then others than this file would have to make room.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        let mut block = vec![0; READ_LEN];
        let mut free = machine::meminfo_kib("MemFree")?;
        while free > FREE_KIB {
            for _ in 0..STRIDE {
                let read = self.file.read_at(&mut block, self.end).context("fill the memory")?;
                self.end = if read == 0 { 0 } else { self.end + read as u64 };
            }
            let before = std::mem::replace(&mut free, machine::meminfo_kib("MemFree")?);
            if free >= before {
                break;
            }
        }
        Ok(())
    }
}
