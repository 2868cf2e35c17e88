//! Foreign programs that tests drive: found on `PATH`, or installed once below `target/tools`.
//!
//! Nothing is installed outside the target directory. What is installed is pinned by the caller, is shared by
//! all tests of a machine, and is made by one of them while the others wait.

mod bookworm;
mod compiled;
mod debian;
mod installation;
mod librdkafka;
mod maven;
mod node;
mod process;
mod python;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use bookworm::debian_tree;
pub use compiled::{GoProgram, JavaProgram};
pub use debian::kcat;
pub use librdkafka::rdkafka_performance;
pub use maven::Jars;
pub use node::NodePackages;
pub use python::PythonEnvironment;

pub(crate) use process::run_to_end;

/// How long a tool may take to tell its version.
const VERSION_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a tool cannot be had. Its message completes the sentence "skipped: TEST needs ...".
#[derive(Clone, Debug, thiserror::Error)]
pub enum ToolError {
    /// No directory of `PATH` holds an executable of that name.
    #[error("{tool}")]
    NotOnPath {
        /// The file name looked for.
        tool: String,
    },
    /// The tool is there, but it is too old or does not tell its version.
    #[error("{tool} {required} or later (found {found})")]
    TooOld {
        /// The tool's name.
        tool: String,
        /// The lowest version that will do.
        required: String,
        /// What the tool said of itself.
        found: String,
    },
    /// An installation failed, as it does on a machine that reaches no package registry.
    #[error("{what} (installing it failed: {reason})")]
    NotInstalled {
        /// What was to be installed.
        what: String,
        /// What the installer said about it.
        reason: String,
    },
    /// The machine has it not, or does not let this user have it.
    #[error("{what} ({reason})")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the system said.
        reason: String,
    },
}

/// Finds an executable on `PATH`.
///
/// # Errors
/// [`ToolError::NotOnPath`].
pub fn on_path(tool: &str) -> Result<PathBuf, ToolError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).map(|directory| directory.join(tool)).find(|file| is_executable(file));
    found.ok_or_else(|| ToolError::NotOnPath { tool: tool.to_owned() })
}

/// Finds a program for administrators, whose directory need not be on `PATH`.
///
/// # Errors
/// [`ToolError::NotOnPath`].
pub fn administration(tool: &str) -> Result<PathBuf, ToolError> {
    let places = ["/usr/sbin", "/sbin"].map(|place| Path::new(place).join(tool));
    on_path(tool).or_else(|missing| places.into_iter().find(|file| is_executable(file)).ok_or(missing))
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}

/// Finds Python 3.9 or later.
///
/// # Errors
/// [`ToolError::NotOnPath`] or [`ToolError::TooOld`].
pub fn python3() -> Result<PathBuf, ToolError> {
    let python = on_path("python3")?;
    let version = version_of(Command::new(&python).arg("--version"));
    at_least(&version, &[3, 9]).then_some(python).ok_or_else(|| too_old("python3", "3.9", version))
}

/// Finds a Java runtime of at least the `major` version (17 for Kafka 4).
///
/// # Errors
/// [`ToolError::NotOnPath`] or [`ToolError::TooOld`].
pub fn java(major: u32) -> Result<PathBuf, ToolError> {
    let java = on_path("java")?;
    let version = version_of(Command::new(&java).arg("-version"));
    at_least(&version, &[major]).then_some(java).ok_or_else(|| too_old("java", &major.to_string(), version))
}

/// Finds Go of at least this version.
///
/// # Errors
/// [`ToolError::NotOnPath`] or [`ToolError::TooOld`].
pub fn go(major: u32, minor: u32) -> Result<PathBuf, ToolError> {
    let go = on_path("go")?;
    let version = version_of(Command::new(&go).arg("version"));
    let required = format!("{major}.{minor}");
    at_least(&version, &[major, minor]).then_some(go).ok_or_else(|| too_old("go", &required, version))
}

/// Finds Node of at least the `major` version.
///
/// # Errors
/// [`ToolError::NotOnPath`] or [`ToolError::TooOld`].
pub fn node(major: u32) -> Result<PathBuf, ToolError> {
    let node = on_path("node")?;
    let version = version_of(Command::new(&node).arg("--version"));
    at_least(&version, &[major]).then_some(node).ok_or_else(|| too_old("node", &major.to_string(), version))
}

/// Finds Maven.
///
/// # Errors
/// [`ToolError::NotOnPath`].
pub fn mvn() -> Result<PathBuf, ToolError> {
    on_path("mvn")
}

/// Finds a C++ compiler.
///
/// # Errors
/// [`ToolError::NotOnPath`], which names `g++`.
pub fn cxx() -> Result<PathBuf, ToolError> {
    on_path("g++").or_else(|missing| on_path("c++").or(Err(missing)))
}

/// The workspace's root directory.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests package lies below the workspace root")
}

/// Where installations go: `tools` below the target directory (`CARGO_TARGET_DIR`, or `target`).
#[must_use]
pub fn directory() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    workspace().join(target).join("tools")
}

fn too_old(tool: &str, required: &str, found: String) -> ToolError {
    ToolError::TooOld { tool: tool.to_owned(), required: required.to_owned(), found }
}

/// The first line that a version command prints, on either stream; empty if it fails.
fn version_of(command: &mut Command) -> String {
    run_to_end(command, VERSION_TIME_MAX)
        .map_or_else(|_| String::new(), |output| first_line(&output).to_owned())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Compares the first dotted number in `text` with `required`, part by part; absent parts count as 0.
fn at_least(text: &str, required: &[u32]) -> bool {
    let Some(start) = text.find(|c: char| c.is_ascii_digit()) else { return false };
    let number = text.get(start..).unwrap_or_default();
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let parts = number.get(..end).unwrap_or_default().split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut found: Vec<u32> = parts.collect();
    found.resize(found.len().max(required.len()), 0);
    found.as_slice() >= required
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(at_least("Python 3.11.7", &[3, 9]));
        assert!(at_least("Python 3.9", &[3, 9]));
        assert!(!at_least("Python 3.8.19", &[3, 9]));
        assert!(at_least("openjdk version \"17.0.15\" 2025-04-15", &[17]));
        assert!(at_least("openjdk version \"21\" 2023-09-19", &[17]));
        assert!(!at_least("java version \"1.8.0_392\"", &[17]));
        assert!(at_least("go version go1.26.8 linux/amd64", &[1, 26]));
        assert!(!at_least("go version go1.19.8 linux/amd64", &[1, 26]));
        assert!(at_least("v20.20.2", &[18]));
        assert!(!at_least("", &[3, 9]));
        assert!(!at_least("no version here", &[1]));
    }

    #[test]
    fn an_absent_tool_is_named() {
        let missing = on_path("no-such-tool-of-klamm").unwrap_err();
        assert_eq!(missing.to_string(), "no-such-tool-of-klamm");
    }

    #[test]
    fn a_tool_is_found_on_path() {
        assert!(on_path("cargo").unwrap().is_file());
    }
}
