//! The steps of the test command, in order: the cheap ones first.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Context;
use crate::command::{cargo, on_path, run, stdout_of};
use crate::test_programs::{TestBuild, Tests, optimised};
use crate::verdict::{Verdict, judge};
use crate::workspace::Workspace;
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
    Step { name: "fuzz", what: "fuzzing within a time budget", run: fuzz },
    Step { name: "bench", what: "every benchmark runs once", run: bench },
];

/// The package that enumerates crash states, and the tests that do so within a minute. (The full form is a test
/// that `#[ignore]` keeps for a person to start.)
const CRASH: (&str, Tests) =
    ("klamm-log", Tests { targets: &["--test", "storage"], names: &["crash_enumeration_short"] });

/// The manifest of the fuzz targets, a workspace of its own because it is built with other flags.
const FUZZ_MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// Coverage for libFuzzer from the stable compiler.
const FUZZ_RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

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
    if root.join(FUZZ_MANIFEST).is_file() {
        run(cargo(root).args(["fmt", "--check", "--manifest-path", FUZZ_MANIFEST]))?;
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

fn fuzz(context: &Context<'_>) -> anyhow::Result<()> {
    let workspace = context.workspace;
    let manifest = workspace.root.join(FUZZ_MANIFEST);
    ensure!(manifest.is_file(), "{FUZZ_MANIFEST} is missing");
    if on_path("g++").is_none() {
        return context.skips.add("fuzz", "g++");
    }
    let fuzz = Workspace::of_manifest(&workspace.root, &manifest)?;
    let targets = fuzz.targets_of_kind("bin");
    let host = host(&workspace.root)?;
    let directory = workspace.target.join("fuzz");
    // Naming the target keeps the flags off build scripts.
    let mut build = cargo(&workspace.root);
    build.args([
        "build",
        "--release",
        "--locked",
        "--bins",
        "--manifest-path",
        FUZZ_MANIFEST,
        "--target",
        &host,
    ]);
    run(build.arg("--target-dir").arg(&directory).env("RUSTFLAGS", FUZZ_RUSTFLAGS))?;
    let count = u32::try_from(targets.len()).ok().filter(|count| *count > 0);
    let share = context.fuzz_time / count.with_context(|| format!("{FUZZ_MANIFEST} has no targets"))?;
    for target in targets {
        fuzz_target(workspace, &directory.join(&host).join("release").join(target), target, share)?;
    }
    Ok(())
}

/// Fuzzes one target from its seeds. What it finds stays below the target directory.
fn fuzz_target(workspace: &Workspace, program: &Path, target: &str, time: Duration) -> anyhow::Result<()> {
    let corpus = workspace.target.join("fuzz").join("corpus").join(target);
    let artifacts = workspace.target.join("fuzz").join("artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let mut command = std::process::Command::new(program);
    command.current_dir(&workspace.root);
    command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
    command.args([
        "-rss_limit_mb=2048",
        "-malloc_limit_mb=512",
        "-timeout=10",
        "-verbosity=0",
        "-print_final_stats=1",
    ]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
    let seeds = workspace.root.join("tests/fuzz/corpus").join(target);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    run(&mut command).with_context(|| format!("fuzz target {target}"))
}

/// The compiler's host, as `--target` takes it.
fn host(root: &Path) -> anyhow::Result<String> {
    let mut command = std::process::Command::new("rustc");
    let text = stdout_of(command.current_dir(root).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
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
