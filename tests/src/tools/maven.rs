//! Java libraries, fetched by Maven from a pom.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::installation::Installation;
use super::process::{RunError, run_to_end};
use super::{ToolError, directory, java, mvn};

/// How long the artifacts may take to arrive.
const FETCH_TIME_MAX: Duration = Duration::from_secs(900);

/// A directory of jars, and the Java that runs them.
#[derive(Clone, Debug)]
pub struct Jars {
    directory: PathBuf,
    java: PathBuf,
}

impl Jars {
    /// The runtime dependencies of `pom`, direct and transitive, in `target/tools/maven/NAME`; fetches them if
    /// this machine has not got them yet, or has them by another text of the pom.
    ///
    /// # Errors
    /// Without Java 17 or Maven; if the pom cannot be read; if the artifacts cannot be fetched.
    pub fn of_pom(name: &str, pom: &Path) -> Result<Self, ToolError> {
        let java = java(17)?;
        let directory = directory().join("maven").join(name);
        let what = format!("the Java libraries {name}");
        let unreadable = |error: std::io::Error| ToolError::NotInstalled {
            what: what.clone(),
            reason: format!("{}: {error}", pom.display()),
        };
        let recipe = fs::read_to_string(pom).map_err(unreadable)?;
        let installation = Installation { directory: &directory, recipe: &recipe, what: &what };
        // Maven is looked for only when there is something to fetch.
        installation.ensure(|into| {
            let maven = mvn()?;
            fetch(&maven, pom, into).map_err(|error| installation.not_installed(&error))
        })?;
        Ok(Self { directory, java })
    }

    /// The Java that runs them.
    #[must_use]
    pub(super) fn java(&self) -> &Path {
        &self.java
    }

    /// Where the jars lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every jar, as Java's `-cp` takes it.
    #[must_use]
    pub fn class_path(&self) -> String {
        format!("{}/*", self.directory.display())
    }

    /// A command that runs `main_class` with every jar on the class path; add the program's arguments.
    #[must_use]
    pub fn command(&self, main_class: &str) -> Command {
        self.command_with(&[], main_class)
    }

    /// As [`command`](Self::command), with options for the Java machine itself, such as `-Xmx256m` or `-Dname=value`.
    #[must_use]
    pub fn command_with(&self, machine_options: &[&str], main_class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command.args(machine_options).arg("-cp").arg(self.class_path()).arg(main_class);
        command
    }
}

/// Pinned like everything else; without a version Maven takes the newest there is.
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

fn fetch(maven: &Path, pom: &Path, into: &Path) -> Result<(), RunError> {
    let mut command = Command::new(maven);
    command.args(["--quiet", "--batch-mode", "--file"]).arg(pom).arg(COPY_DEPENDENCIES);
    command.arg(format!("-DoutputDirectory={}", into.display())).arg("-DincludeScope=runtime");
    run_to_end(&mut command, FETCH_TIME_MAX).map(|_| ())
}
