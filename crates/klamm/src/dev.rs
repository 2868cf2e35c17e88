//! `klamm dev`: a cluster on this machine, each node a process of its own.
//!
//! The nodes run `klamm server` in process groups of their own, so that Ctrl-C reaches only this process. Each holds
//! the other end of its standard input and stops in order when that ends: children end with the parent, however it
//! ends.

mod layout;
mod node;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use klamm_node::StopReason;

use crate::args::DevArgs;
use crate::probe;
use layout::{Layout, LayoutError};
use node::{Ended, RunningNode};

/// How often the nodes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A node that is killed comes back after so long: time enough to see what the others do without it.
const REVIVE_AFTER: Duration = Duration::from_secs(5);
/// How long nodes may take to be ready before it is told what they wait for, again and again.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    /// The directory or the ports.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A process cannot be started.
    #[error("node {node} cannot be started: {source}")]
    Start {
        /// Which node.
        node: u16,
        /// Why.
        source: io::Error,
    },
    /// A node ended before the cluster was ready.
    #[error("node {node} ended before it was ready ({status}); the end of {}:\n{end}", log.display())]
    Ended {
        /// Which node.
        node: u16,
        /// How its process ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        end: String,
    },
    /// Signals cannot be caught, or standard output cannot be written.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs the cluster until somebody stops it.
///
/// # Errors
/// Why there is none.
pub(crate) fn run(args: &DevArgs) -> Result<(), DevError> {
    let stop = klamm_node::stop_requests()?;
    let layout = Layout::plan(args)?;
    tell(&layout.head())?;
    let mut cluster = DevCluster { nodes: Vec::new(), stop };
    for plan in layout.nodes() {
        let node = RunningNode::start(plan).map_err(|source| DevError::Start { node: plan.id, source })?;
        cluster.nodes.push(node);
    }
    let outcome = cluster.live(&layout);
    let stopped = cluster.stop_all();
    outcome.and(stopped)
}

/// Lines for people. A reader that is gone is no reason to stop a cluster.
fn tell(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock for the cluster")]
fn now() -> Instant {
    Instant::now()
}

struct DevCluster {
    nodes: Vec<RunningNode>,
    stop: Receiver<StopReason>,
}

impl DevCluster {
    /// Waits until all are ready, then watches them until somebody stops the cluster.
    fn live(&mut self, layout: &Layout) -> Result<(), DevError> {
        let started = now();
        if !self.wait_until_ready(started)? {
            return Ok(());
        }
        let nodes: Vec<(u16, u32)> = self.nodes.iter().map(|node| (node.plan.id, node.pid())).collect();
        tell(&layout.ready(&nodes, now().duration_since(started)))?;
        while !self.stop_wanted(TICK) {
            self.revive()?;
        }
        Ok(())
    }

    /// Whether somebody wants the cluster to stop, at the latest after `patience`.
    fn stop_wanted(&self, patience: Duration) -> bool {
        !matches!(self.stop.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }

    /// `false` if it was stopped before.
    fn wait_until_ready(&mut self, started: Instant) -> Result<bool, DevError> {
        let mut next_word = started + PATIENCE;
        loop {
            let mut waiting = Vec::new();
            for node in &mut self.nodes {
                if let Some(ended) = node.ended()? {
                    return Err(ended.into_error(&node.plan));
                }
                match probe::readiness(&format!("127.0.0.1:{}", node.plan.admin_port)) {
                    Ok(readiness) if readiness.is_ready => {}
                    Ok(readiness) => waiting.push((node.plan.id, readiness.text)),
                    Err(_) => waiting.push((node.plan.id, "it does not answer yet".to_owned())),
                }
            }
            if waiting.is_empty() {
                return Ok(true);
            }
            if now() >= next_word {
                next_word += PATIENCE;
                for (id, text) in waiting {
                    tell(&format!("node {id} is not ready: {text}\n"))?;
                }
            }
            if self.stop_wanted(TICK) {
                return Ok(false);
            }
        }
    }

    /// Tells which nodes have ended, and starts them again a little later.
    fn revive(&mut self) -> Result<(), DevError> {
        for node in &mut self.nodes {
            if let Some(since) = node.down_since {
                if now().duration_since(since) < REVIVE_AFTER {
                    continue;
                }
                let id = node.plan.id;
                *node =
                    RunningNode::start(&node.plan).map_err(|source| DevError::Start { node: id, source })?;
                tell(&format!("node {id} runs again, as process {}\n", node.pid()))?;
            } else if let Some(Ended { status, .. }) = node.ended()? {
                node.down_since = Some(now());
                let (id, seconds) = (node.plan.id, REVIVE_AFTER.as_secs());
                tell(&format!("node {id} has ended ({status}); it will be started again in {seconds} s\n"))?;
            }
        }
        Ok(())
    }

    /// Has all nodes stop in order, all at once; kills those that do not in time, or when asked a second time.
    fn stop_all(mut self) -> Result<(), DevError> {
        let started = now();
        tell("\nstopping\n")?;
        self.nodes.iter_mut().for_each(RunningNode::ask_to_stop);
        loop {
            let mut left = 0;
            for node in &mut self.nodes {
                if node.down_since.is_none() && node.ended()?.is_none() {
                    left += 1;
                }
            }
            if left == 0 {
                break;
            }
            let asked_again = self.stop.try_recv().is_ok();
            if asked_again || now().duration_since(started) > STOP_TIMEOUT {
                tell(&format!("killing {left} nodes that have not stopped\n"))?;
                self.nodes.iter_mut().for_each(RunningNode::kill);
                break;
            }
            thread::sleep(TICK);
        }
        let millis = now().duration_since(started).as_millis();
        Ok(tell(&format!("stopped after {millis} ms; the data stays\n"))?)
    }
}
