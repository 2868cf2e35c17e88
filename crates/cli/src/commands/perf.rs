//! `klamm perf`: a load generator that is light enough not to be what is measured.
//!
//! Batches are encoded once and sent again and again. A closed loop keeps a number of requests under way; an open loop
//! (`--rate`) sends by the clock and measures from when a request was *due*, so that a stall is seen by all requests
//! that it held up.

use std::io::Write;

use clap::Subcommand;

use crate::exit::{Exit, Failure};

mod consume;
mod keyed;
mod latency;
mod pace;
mod produce;
mod report;
mod target;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum PerfCommand {
    /// How fast records are taken, and how long the acknowledgements take.
    Produce(produce::ProduceArgs),
    /// How fast records are handed out.
    Consume(consume::ConsumeArgs),
    /// How it goes when many producers send small batches by the clock, to partitions that their keys choose.
    Keyed(keyed::KeyedArgs),
    /// How long it takes until a record is acknowledged, and until it is read by a consumer that waits for it.
    Latency(latency::LatencyArgs),
}

impl PerfCommand {
    pub(super) fn run(self, stdout: &mut impl Write) -> Result<Exit, Failure> {
        match self {
            Self::Produce(args) => produce::run(&args, stdout),
            Self::Consume(args) => consume::run(&args, stdout),
            Self::Keyed(args) => keyed::run(&args, stdout),
            Self::Latency(args) => latency::run(&args, stdout),
        }
    }
}
