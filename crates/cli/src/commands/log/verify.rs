//! `klamm log verify`: checks a directory.

use std::io::Write;
use std::path::PathBuf;

use klamm_log::fs::RealFs;
use klamm_log::inspect::{VerifyReport, verify};

use super::{conclude, say};
use crate::exit::{Exit, Failure};
use crate::output::{Format, json, table};

/// Which directory, and how to tell.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The directory of one partition, such as `data/orders-0`, or a log directory with many.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How to print the report. JSON is one object in one line.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(args: &VerifyArgs, stdout: &mut impl Write) -> Exit {
    conclude(show(args, stdout))
}

fn show(args: &VerifyArgs, stdout: &mut impl Write) -> Result<Exit, Failure> {
    let report: VerifyReport = verify(&RealFs, &args.dir)?;
    let written = match args.output {
        Format::Table => table::report(stdout, &args.dir, &report),
        Format::Json => json::report(stdout, &args.dir, &report),
    };
    let exit = if report.is_sound() { Exit::Done } else { Exit::Failed };
    match written.map_err(Failure::from) {
        // The verdict is the exit code: it stands, whoever reads the report.
        Err(failure) if !failure.is_broken_pipe() => return Err(failure),
        _ => {}
    }
    if exit == Exit::Failed {
        let dir = args.dir.display();
        say(&format!("{dir} is damaged ({} errors): the report says where and what to do", report.errors));
    }
    Ok(exit)
}
