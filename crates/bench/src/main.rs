//! Klamm beside Apache Kafka, and beside the bare work, on one machine in one run.
//!
//! **For:** the rows of `docs/benchmarks.md` that compare brokers: throughput, CPU per GiB, latency, memory, start.
//! Contenders take turns, so that a neighbour who makes the machine slower makes it slower for all of them; what counts
//! are the ratios of one pass.
//!
//! **Not for:** parts of a broker (those have benches of their own), and nothing that a test could fail by.
//!
//! **Called by:** `cargo xtask bench`. **Calls:** the test harness, which starts the clusters; load generators, as child
//! processes; `client`.

mod ballast;
mod bare;
mod bed;
mod load;
mod machine;
mod ratio;
mod report;
mod rows;
mod sockets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "klamm-bench", about = "Klamm beside Apache Kafka")]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Verb {
    /// Names the rows
    List,
    /// A part of the bare work
    #[command(subcommand)]
    Bare(bare::Bare),
}

/// What is measured, and how often.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<String>,
    /// Which programs load
    #[arg(
        long,
        value_enum,
        value_name = "TOOL",
        value_delimiter = ',',
        default_value = "perf,librdkafka,java"
    )]
    tools: Vec<load::Tool>,
    /// How many passes count; one more goes before them
    #[arg(long, value_name = "N", default_value_t = 7)]
    passes: usize,
    /// The share of the usual amount of work, to see that all works
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// For how many seconds both brokers are warmed with load before the first row
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    warm_up: u64,
    /// Where every sample is kept, as lines of JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.jsonl")]
    samples: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Some(Verb::List) => {
            rows::list();
            Ok(())
        }
        Some(Verb::Bare(part)) => part.run(),
        None => rows::run(&arguments.options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
