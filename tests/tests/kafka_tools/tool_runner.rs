//! Runs Kafka's tools: most of them one after the other in one Java machine, whose start takes longer than they do.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use klamm_tests::tools::Jars;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long one tool may take.
const TIME_MAX: Duration = Duration::from_secs(120);
/// A machine that starts soon, and whose loggers tell nothing: they tell of times and threads.
const MACHINE: [&str; 3] =
    ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"];

/// What a tool left.
#[derive(Debug, Deserialize)]
pub(crate) struct Printed {
    /// The code that it ended with.
    pub(crate) code: i32,
    /// What it printed.
    pub(crate) out: String,
    /// What it complained of.
    pub(crate) err: String,
}

/// A Java machine that waits for tools to run. It ends with this value.
pub(crate) struct ToolRunner {
    jars: Jars,
    _machine: Child,
    steps: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl ToolRunner {
    pub(crate) fn start(jars: &Jars) -> io::Result<Self> {
        let source = crate::java().join("ToolRunner.java").display().to_string();
        let mut command = Command::from(jars.command_with(&MACHINE, &source));
        let mut machine = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (Some(steps), Some(answers)) = (machine.stdin.take(), machine.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let answers = BufReader::new(answers).lines();
        Ok(Self { jars: jars.clone(), _machine: machine, steps, answers })
    }

    /// Runs a tool beside others that ran before it.
    pub(crate) async fn run(
        &mut self,
        class: &str,
        arguments: &[String],
        input: &str,
    ) -> io::Result<Printed> {
        let step = json!({"class": class, "arguments": arguments, "input": input});
        self.steps.write_all(format!("{step}\n").as_bytes()).await?;
        self.steps.flush().await?;
        let answer = timeout(TIME_MAX, self.answers.next_line()).await?;
        let answer = answer?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Runs a tool in a machine of its own.
    pub(crate) async fn run_alone(&self, class: &str, arguments: &[String]) -> io::Result<Printed> {
        let mut command = Command::from(self.jars.command_with(&MACHINE, class));
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(TIME_MAX, command.output()).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Printed { code, out: text(&output.stdout), err: text(&output.stderr) })
    }
}
