//! Running a child process to its end, within a time limit.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How much of a failed child's output an error quotes, in characters.
const QUOTE_CHARS_MAX: usize = 400;

/// Why a child process did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It did not start, or its output could not be read.
    #[error("{program}: {source}")]
    Io {
        /// What was run.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It was killed at the end of its time.
    #[error("{program} did not end within {seconds} s")]
    Late {
        /// What was run.
        program: String,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// It ended with a failure.
    #[error("{program}: {status}: {quote}")]
    Failed {
        /// What was run.
        program: String,
        /// Its exit status, in words.
        status: String,
        /// What it printed about the reason.
        quote: String,
    },
}

/// Runs `command` without standard input and gives what it printed on both streams, in order.
pub(crate) fn run_to_end(command: &mut Command, time_max: Duration) -> Result<String, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let io_error = |source| RunError::Io { program: program.clone(), source };
    let (mut reader, writer) = io::pipe().map_err(io_error)?;
    let second_writer = writer.try_clone().map_err(io_error)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second_writer);
    let mut child = command.spawn().map_err(io_error)?;
    // The command holds its own ends of the pipe; without them the reader sees the end when the child ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (done, output) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = reader.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned());
        // Nobody listens any more when the time is up.
        drop(done.send(read));
    });
    let Ok(text) = output.recv_timeout(time_max) else {
        child.kill().and_then(|()| child.wait()).map_err(io_error)?;
        return Err(RunError::Late { program, seconds: time_max.as_secs() });
    };
    let text = text.map_err(io_error)?;
    let status = child.wait().map_err(io_error)?;
    if status.success() {
        return Ok(text);
    }
    Err(RunError::Failed { program, status: status.to_string(), quote: quote(&text) })
}

/// The part of `text` that tells why, at most [`QUOTE_CHARS_MAX`] characters with every run of blanks made one
/// space: from the first line that speaks of an error, or the end if none does.
fn quote(text: &str) -> String {
    let is_error = |line: &&str| line.to_ascii_lowercase().contains("error");
    let lines: Vec<_> = text.lines().collect();
    let first_error = lines.iter().position(is_error);
    let told = lines.get(first_error.unwrap_or_default()..).unwrap_or_default().join(" ");
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let excess = told.chars().count().saturating_sub(QUOTE_CHARS_MAX);
    let skipped = if first_error.is_some() { 0 } else { excess };
    told.chars().skip(skipped).take(QUOTE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn both_streams_are_returned() {
        let output = run_to_end(&mut shell("echo out; echo err >&2"), Duration::from_secs(60)).unwrap();
        assert_eq!(output, "out\nerr\n");
    }

    #[test]
    fn a_failure_tells_why() {
        let error = run_to_end(&mut shell("echo why; exit 3"), Duration::from_secs(60)).unwrap_err();
        let RunError::Failed { quote, status, .. } = error else { panic!("{error}") };
        assert_eq!((quote.as_str(), status.contains('3')), ("why", true));
    }

    #[test]
    fn the_first_error_is_quoted_and_the_end_otherwise() {
        assert_eq!(
            quote("fetching\n[ERROR]  no   plugin\nsee the manual\n"),
            "[ERROR] no plugin see the manual"
        );
        let long = "x".repeat(QUOTE_CHARS_MAX);
        assert_eq!(quote(&format!("begin\n{long}")), long);
        assert_eq!(quote(&format!("error: {long}")).chars().count(), QUOTE_CHARS_MAX);
        assert!(quote(&format!("error: {long}")).starts_with("error: x"));
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let error = run_to_end(&mut shell("exec sleep 600"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, RunError::Late { .. }), "{error}");
    }

    #[test]
    fn an_absent_program_is_an_error() {
        let error =
            run_to_end(&mut Command::new("no-such-tool-of-klamm"), Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, RunError::Io { .. }), "{error}");
    }
}
