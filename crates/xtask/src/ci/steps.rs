//! The steps of the test command, in order: the cheap ones first.

use anyhow::ensure;

use super::{Context, fuzz};
use crate::command::{cargo, run};
use crate::test_programs::{TestBuild, Tests, optimised};
use crate::verdict::{Verdict, judge};
use crate::{mutants, tidy};

/// One step.
pub(super) struct Step {
    /// What `--only` calls it.
    pub(super) name: &'static str,
    /// What it does, in a line.
    pub(super) what: &'static str,
    pub(super) run: fn(&Context<'_>) -> anyhow::Result<()>,
}

/// All steps.
pub(super) const STEPS: [Step; 10] = [
    Step { name: "fmt", what: "sources are formatted", run: fmt },
    Step { name: "clippy", what: "no warnings", run: clippy },
    Step { name: "tidy", what: "layers, purity, sizes, names, texts", run: tidy },
    Step { name: "test", what: "unit and integration tests", run: test },
    Step { name: "doc", what: "documentation tests", run: doc },
    Step { name: "crash", what: "crash enumeration, optimised, short form", run: crash },
    Step { name: "sim", what: "simulated clusters under faults, short form", run: sim },
    Step { name: "mutants", what: "known bugs are caught", run: mutants },
    Step { name: "fuzz", what: "fuzzing within a time budget", run: fuzz::run },
    Step { name: "bench", what: "every benchmark runs once", run: bench },
];

/// The package that enumerates crash states, and the tests that do so within a minute. (The full form is a test
/// that `#[ignore]` keeps for a person to start.)
const CRASH: (&str, Tests) =
    ("klamm-log", Tests { targets: &["--test", "storage"], names: &["crash_enumeration_short"] });

/// Reads a value of `--only`.
pub(super) fn parse_name(name: &str) -> Result<&'static str, String> {
    let known = STEPS.iter().find(|step| step.name == name);
    known.map(|step| step.name).ok_or_else(|| {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        format!("the steps are {}", names.join(", "))
    })
}

fn fmt(context: &Context<'_>) -> anyhow::Result<()> {
    let root = &context.workspace.root;
    run(cargo(root).args(["fmt", "--all", "--check"]))?;
    if root.join(fuzz::MANIFEST).is_file() {
        run(cargo(root).args(["fmt", "--check", "--manifest-path", fuzz::MANIFEST]))?;
    }
    Ok(())
}

fn clippy(context: &Context<'_>) -> anyhow::Result<()> {
    let mut command = cargo(&context.workspace.root);
    run(command.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn tidy(context: &Context<'_>) -> anyhow::Result<()> {
    tidy::check(context.workspace)
}

fn test(context: &Context<'_>) -> anyhow::Result<()> {
    let mut command = cargo(&context.workspace.root);
    command.args(["test", "--workspace", "--tests", "--locked", "--no-fail-fast"]);
    // The step `crash` runs these, optimised.
    command.args(["--", "--skip", CRASH.1.names[0]]);
    run(context.skips.pass_to(&mut command))
}

fn doc(context: &Context<'_>) -> anyhow::Result<()> {
    let mut command = cargo(&context.workspace.root);
    command.args(["test", "--workspace", "--doc", "--locked"]);
    run(context.skips.pass_to(&mut command))
}

fn crash(context: &Context<'_>) -> anyhow::Result<()> {
    let (package, tests) = CRASH;
    println!("{package}: {tests}");
    let runs = TestBuild::new(context.workspace, package, &tests, None)?.run(&tests)?;
    for run in &runs {
        print!("{}", run.output);
    }
    let verdict = judge(&runs);
    ensure!(matches!(verdict, Verdict::Survived { .. }), "{package} ({tests}): {verdict}");
    Ok(())
}

/// How many seeds the short form of the simulation runs.
const SIM_SEEDS: &str = "3000";

fn sim(context: &Context<'_>) -> anyhow::Result<()> {
    let mut command = cargo(&context.workspace.root);
    let arguments = ["run", "--profile", "ci", "--locked", "-p", "klamm-sim", "--", "--seeds", SIM_SEEDS];
    run(command.args(arguments))
}

fn mutants(context: &Context<'_>) -> anyhow::Result<()> {
    mutants::run_all(context.workspace)
}

fn bench(context: &Context<'_>) -> anyhow::Result<()> {
    let benches = context.workspace.targets_of_kind("bench");
    ensure!(!benches.is_empty(), "the workspace has no benchmarks");
    let mut command = cargo(&context.workspace.root);
    optimised(command.args(["bench", "--workspace"]), context.workspace);
    for bench in benches {
        command.args(["--bench", bench]);
    }
    run(context.skips.pass_to(command.args(["--", "--test"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_by_name() {
        assert_eq!(parse_name("clippy"), Ok("clippy"));
        let refusal = parse_name("clipy").unwrap_err();
        assert!(refusal.contains("fmt, clippy, tidy"), "{refusal}");
    }

    #[test]
    fn step_names_are_distinct() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
