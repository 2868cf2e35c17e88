//! The nouns.

use std::io::{self, Write as _};

use clap::Subcommand;

use crate::exit::{Exit, Failure};

mod log;

pub(crate) use log::dump_rows::{BatchRow, ControlRow, RecordRow, Row};

/// What can be administered.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Look at the files of a log, without a broker.
    #[command(subcommand)]
    Log(log::LogCommand),
}

/// Runs a command on the process's stdout and stderr, and tells how it ended.
#[must_use]
pub fn run(command: AdminCommand) -> Exit {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut exit = match command {
        AdminCommand::Log(command) => command.run(&mut stdout),
    };
    if let Err(error) = stdout.flush() {
        exit = exit.max(complain(&Failure::Output(error)));
    }
    exit
}

/// Tells a failure in one line, and the exit code that it makes.
fn complain(failure: &Failure) -> Exit {
    if !failure.is_broken_pipe() {
        say(&format!("{}: {}", failure.message(), failure.hint()));
    }
    failure.exit()
}

/// Says something to whoever watches; that nobody may be watching is no failure.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "klamm: {line}");
}
