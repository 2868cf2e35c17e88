//! `cargo xtask ci`: the test command. Runs every step in order, stops at the first that fails, and closes with a
//! summary of times and skips.

mod fuzz;
mod skips;
mod steps;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;

use self::skips::Skips;
use self::steps::{STEPS, Step};
use crate::workspace::Workspace;

/// The command line of `ci`.
#[derive(Args)]
pub(crate) struct Options {
    /// A test that is skipped for want of a tool is a failure
    #[arg(long)]
    no_skips: bool,
    /// Only these steps, in their usual order (fmt clippy tidy test doc crash sim mutants fuzz bench)
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = steps::parse_name)]
    only: Vec<&'static str>,
    /// How long to fuzz, in seconds, over all targets
    #[arg(long, value_name = "N", default_value_t = 30)]
    fuzz_seconds: u64,
}

/// What the steps work with.
struct Context<'a> {
    workspace: &'a Workspace,
    skips: Skips,
    fuzz_time: Duration,
}

/// How a step went.
enum Outcome {
    Passed(Duration),
    Failed(Duration, anyhow::Error),
    NotRun,
}

/// Runs the chosen steps.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let context = Context {
        workspace,
        skips: Skips::new(workspace, options.no_skips)?,
        fuzz_time: Duration::from_secs(options.fuzz_seconds),
    };
    let chosen = STEPS.iter().filter(|step| options.only.is_empty() || options.only.contains(&step.name));
    let mut outcomes: Vec<(&Step, Outcome)> = Vec::new();
    for step in chosen {
        let failed = outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(..)));
        let outcome = if failed { Outcome::NotRun } else { run_step(step, &context) };
        outcomes.push((step, outcome));
    }
    let skipped = context.skips.read()?;
    print!("\n{}", summary(&outcomes, &skipped));
    for (step, outcome) in outcomes {
        if let Outcome::Failed(_, error) = outcome {
            bail!(error.context(format!("step {}", step.name)));
        }
    }
    Ok(())
}

fn run_step(step: &Step, context: &Context<'_>) -> Outcome {
    println!("\n==> {}: {}", step.name, step.what);
    #[expect(clippy::disallowed_methods, reason = "the summary tells how long a step took")]
    let start = Instant::now();
    let result = (step.run)(context).and_then(|()| {
        let skipped = context.skips.read()?;
        ensure!(!context.skips.forbidden || skipped.is_empty(), "--no-skips forbids: {}", skipped.join("; "));
        Ok(())
    });
    let time = start.elapsed();
    match result {
        Ok(()) => Outcome::Passed(time),
        Err(error) => Outcome::Failed(time, error),
    }
}

fn summary(outcomes: &[(&Step, Outcome)], skipped: &[String]) -> String {
    let mut text = String::from("summary\n");
    for (step, outcome) in outcomes {
        let name = step.name;
        text += &match outcome {
            Outcome::Passed(time) => format!("  {name:<8} {:>7.1} s\n", time.as_secs_f64()),
            Outcome::Failed(time, _) => format!("  {name:<8} {:>7.1} s  FAILED\n", time.as_secs_f64()),
            Outcome::NotRun => format!("  {name:<8}       -    not run\n"),
        };
    }
    for skip in skipped {
        text += &format!("skipped: {skip}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_times_failures_and_skips() {
        let outcomes = [
            (&STEPS[0], Outcome::Passed(Duration::from_millis(1234))),
            (&STEPS[1], Outcome::Failed(Duration::from_secs(61), anyhow::anyhow!("no"))),
            (&STEPS[2], Outcome::NotRun),
        ];
        let text = summary(&outcomes, &["reads_java needs java 17".to_owned()]);
        let expected = concat!(
            "summary\n  fmt          1.2 s\n  clippy      61.0 s  FAILED\n",
            "  tidy           -    not run\nskipped: reads_java needs java 17\n"
        );
        assert_eq!(text, expected);
    }
}
