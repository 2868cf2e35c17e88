//! The one way in which a test says that it did not run.
//!
//! A skipped test passes for the test harness, so it must leave a trace elsewhere: a line on standard error that
//! the harness does not capture, and a line in the file that `KLAMM_SKIP_FILE` names. `cargo xtask ci` sets that
//! variable and prints every skip in its summary. With `KLAMM_NO_SKIPS=1` a skip is a panic instead, which is
//! what the continuous integration runs with.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::tools::ToolError;

/// Names the file to which each skip is appended as one line, `TEST<tab>NEEDS`.
pub const SKIP_FILE: &str = "KLAMM_SKIP_FILE";

/// When set to `1`, a skip panics.
pub const NO_SKIPS: &str = "KLAMM_NO_SKIPS";

/// Gives the tool, or reports `test` as skipped for want of it and gives `None`; the test then returns.
///
/// # Panics
/// As [`report`].
pub fn unless<T>(test: &str, tool: Result<T, ToolError>) -> Option<T> {
    match tool {
        Ok(tool) => Some(tool),
        Err(missing) => {
            report(test, &missing.to_string());
            None
        }
    }
}

/// Reports `test` as skipped because the machine lacks what `needs` names ("java 17 or later").
///
/// # Panics
/// If `KLAMM_NO_SKIPS=1`, and if the file that `KLAMM_SKIP_FILE` names cannot be written: a skip must not get
/// lost.
pub fn report(test: &str, needs: &str) {
    // Not `eprintln!`: the harness swallows that for a test that passes.
    Policy::from_environment().report(test, needs, &mut io::stderr());
}

/// What becomes of a skip.
struct Policy {
    forbidden: bool,
    file: Option<PathBuf>,
}

impl Policy {
    #[expect(clippy::disallowed_methods, reason = "tests are told by their environment where to leave skips")]
    fn from_environment() -> Self {
        Self {
            forbidden: env::var(NO_SKIPS).is_ok_and(|value| value == "1"),
            file: env::var(SKIP_FILE).ok().filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }

    fn report(&self, test: &str, needs: &str, console: &mut dyn Write) {
        let needs = needs.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!self.forbidden, "{test} needs {needs}, and {NO_SKIPS}=1 forbids to skip it");
        // A closed console must not fail the test; the file below is the record.
        drop(writeln!(console, "skipped: {test} needs {needs}"));
        if let Some(file) = &self.file {
            append_line(file, &format!("{test}\t{needs}\n"))
                .unwrap_or_else(|error| panic!("{test} was skipped, and {} says {error}", file.display()));
        }
    }
}

/// Appends in one write, so that test processes running side by side do not mix their lines.
fn append_line(file: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_skip_is_one_line_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("skips");
        let policy = Policy { forbidden: false, file: Some(file.clone()) };
        let mut console = Vec::new();
        policy.report("first", "java 17\n  or later", &mut console);
        policy.report("second", "g++", &mut console);
        assert_eq!(console, b"skipped: first needs java 17 or later\nskipped: second needs g++\n");
        assert_eq!(fs::read_to_string(file).unwrap(), "first\tjava 17 or later\nsecond\tg++\n");
    }

    #[test]
    #[should_panic(expected = "first needs java")]
    fn a_forbidden_skip_panics() {
        Policy { forbidden: true, file: None }.report("first", "java", &mut io::sink());
    }

    #[test]
    #[should_panic(expected = "first was skipped, and")]
    fn a_skip_that_cannot_be_written_down_panics() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("absent").join("skips");
        Policy { forbidden: false, file: Some(file) }.report("first", "java", &mut io::sink());
    }

    #[test]
    fn a_tool_that_is_there_is_no_skip() {
        assert_eq!(unless("first", Ok(7)), Some(7));
    }
}
