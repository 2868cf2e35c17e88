//! The one program of Klamm.
//!
//! It only joins what its libraries offer: the administration of [`klamm_cli`].

mod args;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;

/// Batches and network buffers are large and short-lived, and are freed on other threads than they were made on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A wrong command line ends here, with exit code 2.
    let args = Args::parse();
    klamm_cli::run(args.command).into()
}
