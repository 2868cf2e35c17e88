//! Building and running the tests of one package, with or without a mutant.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::table::Tests;
use crate::command::{self, Ended, MUTANT, cargo, stdout_of};
use crate::workspace::Workspace;

/// How long one test program may run. A mutant that makes it hang is no proof.
const RUN_TIME_MAX: Duration = Duration::from_secs(600);

/// Test programs, built.
pub(super) struct TestBuild {
    programs: Vec<PathBuf>,
    /// Where cargo would run them.
    directory: PathBuf,
}

/// A line of cargo's build report, of which we need little.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl TestBuild {
    /// Builds the programs of `tests`, optimised, in `target/mutants`. Compiler errors go to standard error.
    pub(super) fn new(
        workspace: &Workspace,
        package: &str,
        tests: &Tests,
        mutant: Option<&str>,
    ) -> anyhow::Result<Self> {
        let known = workspace.package(package).with_context(|| format!("no package {package}"))?;
        let mut command = cargo(&workspace.root);
        command.args(["test", "--quiet", "--no-run", "--locked", "--profile", "ci", "--package", package]);
        command.args(tests.targets).arg("--message-format=json-render-diagnostics");
        command.arg("--target-dir").arg(workspace.target.join("mutants"));
        if let Some(mutant) = mutant {
            command.env(MUTANT, mutant);
        }
        let programs = programs_in(&stdout_of(&mut command)?)?;
        ensure!(!programs.is_empty(), "{package} has no test programs ({tests})");
        Ok(Self { programs, directory: known.directory().to_owned() })
    }

    /// Runs the programs in turn, up to and including the first that fails.
    pub(super) fn run(&self, tests: &Tests) -> anyhow::Result<Vec<Ended>> {
        let mut runs = Vec::new();
        for program in &self.programs {
            let mut command = Command::new(program);
            command
                .current_dir(&self.directory)
                .env("CARGO_MANIFEST_DIR", &self.directory)
                .env_remove(MUTANT);
            // A failing property must not leave its counterexample in the sources.
            command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").args(tests.names);
            let ended = command::run_within(&mut command, RUN_TIME_MAX)?;
            let failed = !ended.status.success();
            runs.push(ended);
            if failed {
                break;
            }
        }
        Ok(runs)
    }
}

/// The test programs that a build report names.
fn programs_in(report: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for line in report.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cargo's build report")?;
        let is_test = message.profile.is_some_and(|profile| profile.test);
        programs.extend(message.executable.filter(|_| is_test));
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_test_programs_are_taken_from_the_report() {
        let report = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/klamm"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/log-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n"
        );
        assert_eq!(programs_in(report).unwrap(), [Path::new("/t/log-1")]);
    }

    #[test]
    fn a_broken_report_is_an_error() {
        assert!(programs_in("{\"executable\": 7}\n").is_err());
    }
}
