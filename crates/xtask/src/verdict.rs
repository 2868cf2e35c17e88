//! What the runs of some test programs say about the code that was built into them.

use std::fmt;

use crate::command::Ended;

/// The exit code of a Rust test program of which a test failed.
const TESTS_FAILED: i32 = 101;

/// The judgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// A test failed by a panic.
    Caught {
        /// The first failing test.
        by: String,
        /// What the test program printed.
        output: String,
    },
    /// All tests passed.
    Survived {
        /// How many.
        tests: usize,
    },
    /// No test was run, so nothing is known.
    NoTests,
    /// The program ended otherwise than by failing tests.
    Broken {
        /// What it said last.
        reason: String,
    },
}

impl Verdict {
    pub(crate) fn is_caught(&self) -> bool {
        matches!(self, Self::Caught { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { by, .. } => f.write_str(by),
            Self::Survived { tests } => write!(f, "{tests} tests pass"),
            Self::NoTests => f.write_str("no test has such a name"),
            Self::Broken { reason } => write!(f, "no proof: {reason}"),
        }
    }
}

/// Judges runs that ended at the first failure.
pub(crate) fn judge(runs: &[Ended]) -> Verdict {
    let passed: usize = runs.iter().map(|run| count_passed(&run.output)).sum();
    let Some(failed) = runs.iter().find(|run| !run.status.success()) else {
        return if passed == 0 { Verdict::NoTests } else { Verdict::Survived { tests: passed } };
    };
    let first = first_failed(&failed.output);
    match first
        .filter(|_| failed.status.code() == Some(TESTS_FAILED) && failed.output.contains("panicked at"))
    {
        Some(by) => Verdict::Caught { by, output: failed.output.clone() },
        None => {
            let last = failed.output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            Verdict::Broken { reason: format!("{}: {last}", failed.status) }
        }
    }
}

/// The number in the lines `test result: ok. N passed; ...`.
fn count_passed(output: &str) -> usize {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
    let counts = results.filter_map(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    counts.sum()
}

/// The first name under the closing `failures:` list. (The lines `test NAME ... FAILED` can be torn apart by what
/// tests print.)
fn first_failed(output: &str) -> Option<String> {
    let (_, list) = output.rsplit_once("\nfailures:\n")?;
    let name = list.lines().next()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, output: &str) -> Ended {
        Ended { status: ExitStatus::from_raw(code << 8), output: output.to_owned() }
    }

    const PASSED: &str = "running 2 tests\n..\n\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";

    const FAILED: &str = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\
        thread 'b' panicked at src/x.rs:1:2:\nassertion failed: false\n\n\nfailures:\n    b\n    c\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored\n";

    #[test]
    fn a_failed_assertion_catches() {
        let verdict = judge(&[ended(0, PASSED), ended(101, FAILED)]);
        assert_eq!(verdict, Verdict::Caught { by: "b".to_owned(), output: FAILED.to_owned() });
    }

    #[test]
    fn passing_tests_do_not_catch() {
        assert_eq!(judge(&[ended(0, PASSED), ended(0, PASSED)]), Verdict::Survived { tests: 4 });
    }

    #[test]
    fn a_filter_that_meets_no_test_proves_nothing() {
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 2 filtered out\n";
        assert_eq!(judge(&[ended(0, none)]), Verdict::NoTests);
    }

    #[test]
    fn a_killed_program_proves_nothing() {
        let killed =
            Ended { status: ExitStatus::from_raw(6), output: "thread has overflowed its stack\n".to_owned() };
        let Verdict::Broken { reason } = judge(&[killed]) else { panic!("a signal is no assertion") };
        assert!(reason.ends_with("thread has overflowed its stack"), "{reason}");
    }

    #[test]
    fn a_program_that_fails_without_a_failed_test_proves_nothing() {
        assert!(matches!(judge(&[ended(101, "error: no such option\n")]), Verdict::Broken { .. }));
    }
}
