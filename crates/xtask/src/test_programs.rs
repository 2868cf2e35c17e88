//! Building and running chosen tests of one package, optimised, with or without a mutant.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::command::{self, Ended, MUTANT, cargo, stdout_of};
use crate::workspace::Workspace;

/// How long one test program may run. A mutant that makes it hang is no proof.
const RUN_TIME_MAX: Duration = Duration::from_secs(1200);

/// Where everything of the profile `ci` is built, below the target directory. It is apart from all other builds,
/// because what lies in it may contain a mutant (cargo builds anew when the next command asks for none).
const DIRECTORY: &str = "mutants";

/// Adds the options that build with the profile `ci`.
pub(crate) fn optimised<'a>(command: &'a mut Command, workspace: &Workspace) -> &'a mut Command {
    command.args(["--locked", "--profile", "ci", "--target-dir"]).arg(workspace.target.join(DIRECTORY))
}

/// Where the programs lie that were built with the options of [`optimised`].
pub(crate) fn optimised_directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join(DIRECTORY).join("ci")
}

/// A choice of tests of a package.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tests {
    /// Which test programs, as `cargo test` takes them.
    pub(crate) targets: &'static [&'static str],
    /// Which tests in them: any test whose name contains one of these; all if there are none.
    pub(crate) names: &'static [&'static str],
}

impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.targets.join(" "))?;
        if self.names.is_empty() { Ok(()) } else { write!(f, " -- {}", self.names.join(" ")) }
    }
}

/// Test programs, built.
pub(crate) struct TestBuild {
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
    /// Builds the programs of `tests`. Compiler errors go to standard error.
    pub(crate) fn new(
        workspace: &Workspace,
        package: &str,
        tests: &Tests,
        mutant: Option<&str>,
    ) -> anyhow::Result<Self> {
        let known = workspace.package(package).with_context(|| format!("no package {package}"))?;
        let mut command = cargo(&workspace.root);
        optimised(command.args(["test", "--quiet", "--no-run", "--package", package]), workspace);
        command.args(tests.targets).arg("--message-format=json-render-diagnostics");
        if let Some(mutant) = mutant {
            command.env(MUTANT, mutant);
        }
        let programs = programs_in(&stdout_of(&mut command)?)?;
        ensure!(!programs.is_empty(), "{package} has no test programs ({tests})");
        Ok(Self { programs, directory: known.directory().to_owned() })
    }

    /// Runs the programs in turn, up to and including the first that fails.
    pub(crate) fn run(&self, tests: &Tests) -> anyhow::Result<Vec<Ended>> {
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
