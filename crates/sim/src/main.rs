//! `klamm-sim`: runs seeds, replays one, prints its trace.

use std::process::ExitCode;

use clap::Parser;
use klamm_sim::{run_seed, run_seeds, trace_of};

// Deep scenarios allocate many small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs simulated clusters under seeds, and tells where a promise is broken
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Runs this seed alone
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Prints everything that happens in that run
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Stops after so many violations
    #[arg(long, value_name = "N", default_value_t = 10)]
    violations: usize,
    /// How many runs at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return replay(seed, arguments.trace);
    }
    // A violation is a panic that the runner catches and reports with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let progress = |done: u64| {
        if done.is_multiple_of(10_000) {
            eprintln!("{done} seeds");
        }
    };
    let totals =
        run_seeds(arguments.first, arguments.seeds, arguments.threads, arguments.violations, &progress);
    println!(
        "{} seeds: {} steps, {} records acknowledged, {} s of virtual time, {} violations",
        totals.runs,
        totals.steps,
        totals.acknowledged,
        totals.virtual_us / 1_000_000,
        totals.violations.len()
    );
    for violation in &totals.violations {
        println!("seed {}: {}", violation.seed, violation.what);
        println!("  replay: cargo run --release -p klamm-sim -- --seed {} --trace", violation.seed);
    }
    if totals.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, trace: bool) -> ExitCode {
    if trace {
        print!("{}", trace_of(seed));
    }
    match run_seed(seed) {
        Ok(outcome) => {
            println!("seed {seed}: {} steps, {} records acknowledged", outcome.steps, outcome.acknowledged);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {}", violation.what);
            ExitCode::FAILURE
        }
    }
}
