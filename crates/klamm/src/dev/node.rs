//! One node of the cluster: its process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::DevError;
use super::layout::NodePlan;

/// How much of a log is shown when its node fails, in bytes.
const LOG_END_BYTES: u64 = 2_000;

/// A node whose process was started.
pub(super) struct RunningNode {
    pub(super) plan: NodePlan,
    /// Since when it is known to have ended.
    pub(super) down_since: Option<Instant>,
    child: Child,
}

/// A process that has ended.
pub(super) struct Ended {
    pub(super) status: String,
    end_of_log: String,
}

impl Ended {
    pub(super) fn into_error(self, plan: &NodePlan) -> DevError {
        DevError::Ended { node: plan.id, status: self.status, log: plan.log.clone(), end: self.end_of_log }
    }
}

impl RunningNode {
    /// Starts the process of a node. What it logs goes to the end of its log file.
    pub(super) fn start(plan: &NodePlan) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&plan.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("server").arg("--stop-with-stdin").arg("--ignore-environment");
        command.arg("--config").arg(&plan.properties);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.process_group(0).spawn()?;
        Ok(Self { plan: plan.clone(), down_since: None, child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<Ended>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let end_of_log = end_of(&self.plan.log).unwrap_or_else(|error| error.to_string());
        Ok(Some(Ended { status: status.to_string(), end_of_log }))
    }

    /// Ends its standard input, which it takes as the wish that it stops in order.
    pub(super) fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Kills it, if it still runs.
    pub(super) fn kill(&mut self) {
        // An error says that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end_of(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_END_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
