//! Containers, by an engine that a test starts for itself and that ends with it.
//!
//! The engine is Debian's `dockerd` with its own directory and socket: whatever else runs containers on this machine is
//! not touched. Images cannot be fetched everywhere, so those that ours are based on [are made](images) on the machine.

mod deployment;
mod images;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

pub use deployment::Deployment;
pub use images::{Builder, WORKBENCH};

use crate::cluster::HarnessError;
use crate::tools::{ToolError, administration, on_path, run_to_end};

/// How long the engine may take to serve.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a command may take; building the program takes longest.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(3_600);
/// Starts the engine, which is its arguments, and ends it in order when its standard input ends.
const KEEP: &str = "trap '' INT HUP; \"$@\" & engine=$!; read -r _; kill \"$engine\"; wait \"$engine\"";

/// An engine of its own.
#[derive(Debug)]
pub struct Engine {
    keeper: Child,
    /// Dropped after the engine has ended.
    dir: TempDir,
}

/// Whether this machine can run containers.
///
/// # Errors
/// [`ToolError`] with what is missing.
pub fn available() -> Result<(), ToolError> {
    if !rustix::process::geteuid().is_root() {
        let what = "root, for containers".to_owned();
        return Err(ToolError::Refused { what, reason: "another user runs this".to_owned() });
    }
    for tool in ["git", "docker", "docker-compose"] {
        on_path(tool)?;
    }
    for tool in ["dockerd", "debootstrap"] {
        administration(tool)?;
    }
    Ok(())
}

impl Engine {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// [`HarnessError`] if it cannot be started, or does not answer within a minute.
    pub fn start() -> Result<Self, HarnessError> {
        let dir = TempDir::with_prefix("klamm-engine-").map_err(HarnessError::io("make a directory"))?;
        let log = File::create(dir.path().join("log")).map_err(HarnessError::io("make the engine's log"))?;
        let errors = log.try_clone().map_err(HarnessError::io("make the engine's log"))?;
        let dockerd = administration("dockerd").map_err(|missing| failed("start the engine", missing))?;
        let mut command = Command::new("sh");
        command.args(["-c", KEEP, "sh"]).arg(dockerd);
        for (option, place) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(dir.path().join(place));
        }
        // No network but those that a compose file makes: an image is built without any.
        command.args(["--bridge", "none", "--host", &socket(dir.path())]);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let keeper = command.spawn().map_err(HarnessError::io("start the engine"))?;
        let engine = Self { keeper, dir };
        engine.wait()?;
        Ok(engine)
    }

    #[expect(clippy::disallowed_methods, reason = "a harness waits for a program that it has started")]
    fn wait(&self) -> Result<(), HarnessError> {
        let start = SystemTime::now();
        while let Err(error) = self.docker(["version"]) {
            if start.elapsed().is_ok_and(|waited| waited > START_TIME_MAX) {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let last = format!("{error}; {}", log.lines().last().unwrap_or_default());
                let what = "the engine serves".to_owned();
                return Err(HarnessError::Late { what, limit: START_TIME_MAX, last });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where everything of it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command that talks to this engine.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", socket(self.path()));
        // The builder that needs no plug-in.
        command.env("DOCKER_BUILDKIT", "0").env("COMPOSE_DOCKER_CLI_BUILD", "0");
        command.env_remove("DOCKER_CONTEXT").env_remove("COMPOSE_FILE").env_remove("COMPOSE_PROJECT_NAME");
        command
    }

    /// Runs `docker` with these arguments, and gives what it printed.
    ///
    /// # Errors
    /// [`HarnessError::Io`] with what it said.
    pub fn docker(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<String, HarnessError> {
        run(self.command("docker").args(arguments))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Without that the engine gives each its time to end in order.
        if let Ok(running) = self.docker(["ps", "--quiet"])
            && !running.is_empty()
        {
            let _ = self.docker(["kill"].into_iter().chain(running.split_whitespace()));
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn socket(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

/// Runs a command to its end, and gives what it printed without blanks around it.
fn run(command: &mut Command) -> Result<String, HarnessError> {
    let output = run_to_end(command, COMMAND_TIME_MAX).map_err(|error| failed("run a container", error))?;
    Ok(output.trim().to_owned())
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> HarnessError {
    HarnessError::io(what)(io::Error::other(error))
}
