//! How many simulated clusters it takes to see a mutant.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use super::table::Mutant;
use crate::command::{self, MUTANT, cargo};
use crate::test_programs::{optimised, optimised_directory};
use crate::workspace::Workspace;

/// The seeds that a mutant may take: as many as `cargo xtask ci` runs without one.
pub(super) const SEEDS_MAX: u64 = 3_000;

/// How long those seeds may take. A mutant may make a run endless.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Which packages the simulation is made of.
const SIMULATED: [&str; 3] = ["klamm-control", "klamm-log", "klamm-replica"];

/// What the simulation makes of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Simulated {
    /// The package is not part of it.
    NotPart,
    /// So many seeds, from 0 on, until one broke a promise, and how.
    Broken { seeds: u64, what: String },
    /// All seeds went well.
    Held,
    /// A seed did not come to an end in time.
    Endless,
}

/// Runs the simulation with the mutant until it breaks a promise.
pub(super) fn simulate(workspace: &Workspace, mutant: &Mutant) -> anyhow::Result<Simulated> {
    if !SIMULATED.contains(&mutant.package) {
        return Ok(Simulated::NotPart);
    }
    let mut build = cargo(&workspace.root);
    optimised(build.args(["build", "--quiet", "--package", "klamm-sim"]), workspace);
    let built = build.env(MUTANT, mutant.id).status()?;
    ensure!(built.success(), "mutant {}: the simulation cannot be built", mutant.id);
    let mut run = Command::new(optimised_directory(workspace).join("klamm-sim"));
    run.args(["--threads", "1", "--violations", "1", "--seeds", &SEEDS_MAX.to_string()]);
    let Ok(ended) = command::run_within(&mut run, TIME_MAX) else { return Ok(Simulated::Endless) };
    if ended.status.success() {
        return Ok(Simulated::Held);
    }
    let violation = first_violation(&ended.output);
    ensure!(violation.is_some(), "mutant {}: the simulation ended with {}", mutant.id, ended.status);
    Ok(violation.map_or(Simulated::Held, |(seed, what)| Simulated::Broken { seeds: seed + 1, what }))
}

/// The first line `seed N: what`.
fn first_violation(output: &str) -> Option<(u64, String)> {
    output.lines().find_map(|line| {
        let (seed, what) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse().ok()?, what.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seed_that_breaks_a_promise_is_found() {
        let output =
            "8 seeds: 10 steps, 1 violations\nseed 7: R-4: lost\n  replay: cargo run\nseed 9: other\n";
        assert_eq!(first_violation(output), Some((7, "R-4: lost".to_owned())));
        assert_eq!(first_violation("3000 seeds: 10 steps, 0 violations\n"), None);
    }
}
