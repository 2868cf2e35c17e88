//! `klamm log`: the files of a log.

use std::io::Write;

use clap::Subcommand;

use super::{complain, conclude, say};
use crate::exit::Exit;

mod dump;
mod verify;

pub(crate) use dump::rows as dump_rows;

/// What can be done with the files of a log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show what files hold: batches, records, index entries, checkpoints.
    ///
    /// A file's name tells its kind, so it must be the one that the broker gave it. Files are read piece by piece, and
    /// damage is shown where it is. Offsets are absolute, positions and sizes are in bytes, timestamps in
    /// milliseconds since 1970 (UTC).
    ///
    /// Exit codes: 0 done; 1 a file is damaged or cannot be read; 2 wrong usage.
    Dump(dump::DumpArgs),
    /// Check the files of a partition, or of all partitions in a log directory, against each other.
    ///
    /// Reads every byte: checksums, records, offsets, epochs, index entries, producer snapshots, checkpoints. Nothing
    /// is changed. The broker should be stopped; the newest writes of a running one may look torn.
    ///
    /// Exit codes: 0 no damage; 1 damage, or something cannot be read; 2 wrong usage.
    Verify(verify::VerifyArgs),
}

impl LogCommand {
    pub(super) fn run(self, stdout: &mut impl Write) -> Exit {
        match self {
            Self::Dump(args) => dump::run(&args, stdout),
            Self::Verify(args) => verify::run(&args, stdout),
        }
    }
}
