//! The nouns.

use std::io::{self, Write as _};

use clap::Subcommand;

use crate::exit::{Exit, Failure};

mod cluster;
mod log;
mod perf;
mod topic;

pub(crate) use log::dump_rows::{BatchRow, ControlRow, RecordRow, Row};

/// What can be administered.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Create, list, describe and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Look at brokers and at the metadata quorum.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Measure a cluster of Klamm or of any other Kafka: throughput and latency.
    #[command(subcommand)]
    Perf(perf::PerfCommand),
    /// Look at the files of a log, without a broker.
    #[command(subcommand)]
    Log(log::LogCommand),
}

/// Runs a command on the process's stdout and stderr, and tells how it ended.
#[must_use]
pub fn run(command: AdminCommand) -> Exit {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut exit = match command {
        AdminCommand::Topic(command) => conclude(command.run(&mut stdout)),
        AdminCommand::Cluster(command) => conclude(command.run(&mut stdout)),
        AdminCommand::Perf(command) => conclude(command.run(&mut stdout)),
        AdminCommand::Log(command) => command.run(&mut stdout),
    };
    if let Err(error) = stdout.flush() {
        exit = exit.max(complain(&Failure::Output(error)));
    }
    exit
}

/// The exit code of `result`; a failure is told.
fn conclude(result: Result<Exit, Failure>) -> Exit {
    result.unwrap_or_else(|failure| complain(&failure))
}

/// Tells a failure in one line, and the exit code that it makes.
fn complain(failure: &Failure) -> Exit {
    if !failure.is_broken_pipe() {
        say(&format!("{}: {}", failure.message().trim_end_matches('.'), failure.hint()));
    }
    failure.exit()
}

/// Says something to whoever watches; that nobody may be watching is no failure.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "klamm: {line}");
}
