//! One node as a process.

use std::env;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cluster::HarnessError;

/// The cluster id of all clusters of tests.
pub const CLUSTER_ID: &str = "kLaMmTeStClUsTeRiD0001";

/// A node, running or not.
#[derive(Debug)]
pub struct NodeProcess {
    program: PathBuf,
    id: u16,
    home: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    pub(crate) fn start(program: PathBuf, id: u16, home: &Path) -> Result<Self, HarnessError> {
        let mut node = Self { program, id, home: home.to_owned(), child: None };
        node.spawn()?;
        Ok(node)
    }

    fn spawn(&mut self) -> Result<(), HarnessError> {
        let open = || OpenOptions::new().create(true).append(true).open(self.log_path());
        let log: File = open().map_err(HarnessError::io("open a node's log"))?;
        let errors = log.try_clone().map_err(HarnessError::io("open a node's log"))?;
        let mut command = Command::new(&self.program);
        // The node ends when its standard input does, so that it does not outlive a test that is killed.
        command.args(["server", "--stop-with-stdin", "--config"]).arg(self.home.join("server.properties"));
        // A developer's own settings are not the test's.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("KAFKA_") {
                command.env_remove(name);
            }
        }
        command.env("CLUSTER_ID", CLUSTER_ID).current_dir(&self.home);
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(HarnessError::io(format!("start {}", self.program.display())))?;
        self.child = Some(child);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The node's directory: properties, log, data.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Whether it was started and not ended by the test.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it again, after it was ended.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it cannot be started.
    ///
    /// # Panics
    /// If it still runs.
    pub fn restart(&mut self) -> Result<(), HarnessError> {
        assert!(self.child.is_none(), "node {} still runs", self.id);
        self.spawn()
    }

    /// Ends it at once, as a crash would, and waits until the system has taken it away.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn kill(&mut self) -> Result<(), HarnessError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map_err(HarnessError::io("kill a node"))?;
        Ok(())
    }

    /// Sends it a signal to end at once, without waiting for the end. [`kill`](Self::kill) must follow.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn send_kill(&self) -> Result<(), HarnessError> {
        self.signal(Signal::KILL)
    }

    /// Asks it to end in order, and waits until it has.
    ///
    /// # Errors
    /// [`HarnessError::Late`] if it still runs after `limit`, [`HarnessError::Ended`] if it ends with a failure.
    pub async fn terminate(&mut self, limit: Duration) -> Result<(), HarnessError> {
        self.send_terminate()?;
        self.ended(limit).await
    }

    /// Asks it to end in order, without waiting for the end.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn send_terminate(&self) -> Result<(), HarnessError> {
        self.signal(Signal::TERM)
    }

    /// Waits until it has ended in order.
    ///
    /// # Errors
    /// [`HarnessError::Late`] if it still runs after `limit`, [`HarnessError::Ended`] if it ends with a failure.
    pub async fn ended(&mut self, limit: Duration) -> Result<(), HarnessError> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait().map_err(HarnessError::io("wait for a node"))?,
                None => return Ok(()),
            };
            if let Some(status) = ended {
                self.child = None;
                if status.success() {
                    return Ok(());
                }
                return Err(self.failure(status.to_string()));
            }
            if Instant::now() >= deadline {
                let what = format!("node {} ends in order", self.id);
                return Err(HarnessError::Late { what, limit, last: self.log_end(10) });
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Holds it: no instruction runs until [`resume`](Self::resume).
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn pause(&self) -> Result<(), HarnessError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn resume(&self) -> Result<(), HarnessError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let result = match pid {
            Some(pid) => kill_process(pid, signal).map_err(std::io::Error::from),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        result.map_err(HarnessError::io(format!("send {signal:?} to node {}", self.id)))
    }

    pub(crate) fn check_alive(&mut self) -> Result<(), HarnessError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait().map_err(HarnessError::io("look at a node"))? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(self.failure(status.to_string()))
            }
        }
    }

    fn failure(&self, status: String) -> HarnessError {
        HarnessError::Ended { node: self.id, status, log: self.log_end(20) }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self, lines: usize) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // A paused process dies as well; one that is gone is no fault here.
        let _ = self.kill();
    }
}

/// The program under test: what `KLAMM_BIN` names, or what the build of these tests has made beside them.
///
/// # Errors
/// [`HarnessError`] if it cannot be built.
pub fn binary() -> Result<PathBuf, HarnessError> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(find_or_build).clone().map_err(|output| HarnessError::Build { output })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a developer names the program to test, and cargo names itself"
)]
fn find_or_build() -> Result<PathBuf, String> {
    if let Ok(named) = env::var("KLAMM_BIN") {
        return Ok(named.into());
    }
    // target/PROFILE/deps/TEST
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let profile_dir = this.ancestors().nth(2).ok_or("the test lies in no build directory")?;
    let profile = profile_dir.file_name().unwrap_or_default().to_string_lossy();
    let profile = if profile == "debug" { "dev".into() } else { profile };
    let target_dir = profile_dir.parent().ok_or("the test lies in no build directory")?;
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["build", "--package", "klamm", "--profile", &profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        return Err(lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n"));
    }
    Ok(profile_dir.join("klamm"))
}
