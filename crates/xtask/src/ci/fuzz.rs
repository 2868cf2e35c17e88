//! The step `fuzz`: every target of `tests/fuzz`, from its seeds, within a time budget.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Context;
use crate::command::{self, cargo, on_path, stdout_of};
use crate::workspace::Workspace;

/// The manifest of the fuzz targets, a workspace of its own because it is built with other flags.
pub(super) const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// Coverage for libFuzzer from the stable compiler.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// How the names of the targets begin that see the requests of one type.
const REQUEST_TARGET: &str = "request_";

/// The step: builds all targets, then fuzzes each for its share of the time.
pub(super) fn run(context: &Context<'_>) -> anyhow::Result<()> {
    let workspace = context.workspace;
    let manifest = workspace.root.join(MANIFEST);
    ensure!(manifest.is_file(), "{MANIFEST} is missing");
    if on_path("g++").is_none() {
        return context.skips.add("fuzz", "g++");
    }
    let fuzz = Workspace::of_manifest(&workspace.root, &manifest)?;
    let targets = fuzz.targets_of_kind("bin");
    let host = host(&workspace.root)?;
    let directory = workspace.target.join("fuzz");
    // Naming the target keeps the flags off build scripts.
    let mut build = cargo(&workspace.root);
    build.args(["build", "--release", "--locked", "--bins", "--manifest-path", MANIFEST, "--target", &host]);
    command::run(build.arg("--target-dir").arg(&directory).env("RUSTFLAGS", RUSTFLAGS))?;
    for (target, share) in shares(&targets, context.fuzz_time)? {
        fuzz_target(workspace, &directory.join(&host).join("release").join(target), target, share)?;
    }
    Ok(())
}

/// Half of the time is for the targets of single requests, in equal parts, and half for the others: those few see as
/// much code each as all of the first together.
fn shares<'a>(targets: &[&'a str], time: Duration) -> anyhow::Result<Vec<(&'a str, Duration)>> {
    let (requests, others): (Vec<_>, Vec<_>) =
        targets.iter().copied().partition(|target| target.starts_with(REQUEST_TARGET));
    let mut shares = Vec::new();
    for group in [others, requests] {
        let count = u32::try_from(group.len()).ok().filter(|count| *count > 0);
        let share = time / 2 / count.with_context(|| format!("{MANIFEST} lacks targets"))?;
        shares.extend(group.into_iter().map(|target| (target, share)));
    }
    Ok(shares)
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
    command::run(&mut command).with_context(|| format!("fuzz target {target}"))
}

/// The compiler's host, as `--target` takes it.
fn host(root: &Path) -> anyhow::Result<String> {
    let mut command = std::process::Command::new("rustc");
    let text = stdout_of(command.current_dir(root).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_get_one_half_of_the_time_and_the_others_the_other() {
        let targets = ["frames", "records", "request_a", "request_b", "request_c", "request_d"];
        let shares = shares(&targets, Duration::from_secs(40)).unwrap();
        let seconds: Vec<_> = shares.iter().map(|(target, share)| (*target, share.as_secs())).collect();
        let expected = [
            ("frames", 10),
            ("records", 10),
            ("request_a", 5),
            ("request_b", 5),
            ("request_c", 5),
            ("request_d", 5),
        ];
        assert_eq!(seconds, expected);
    }

    #[test]
    fn no_target_for_requests_is_an_error() {
        assert!(shares(&["records"], Duration::from_secs(40)).is_err());
    }
}
