//! Clusters of real nodes: `klamm server` processes on loopback, each with a directory of its own.
//!
//! A [`Cluster`] kills what it started when it is dropped. Where the test has failed by then, its directory stays, and
//! the end of every node's log is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_client::{Admin, ClientError, ClientOptions, Cluster as Client, Endpoint, QuorumDescription};
use klamm_types::BrokerId;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::disk::{self, Disk};
use crate::node_process::{NodeProcess, binary};
use crate::ports;

/// How a cluster shall be.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// How many nodes; each is broker and controller. Ids begin with 1.
    pub nodes: u16,
    /// Settings beyond those that every node needs.
    pub settings: Vec<(String, String)>,
    /// Whether each node's data lie on a [`Disk`] of their own, from which the power can be cut.
    pub on_disks: bool,
}

/// Why a cluster cannot be had, or does not come to where the test waits for it.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file or process of the harness failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The program could not be built.
    #[error("cannot build klamm: {output}")]
    Build {
        /// What the compiler said last.
        output: String,
    },
    /// The cluster refused, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node ended by itself.
    #[error("node {node} ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// Which.
        node: u16,
        /// Its exit code, or the signal.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// What was waited for did not come to pass.
    #[error("{what} did not happen within {} s; last: {last}", .limit.as_secs())]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// What was seen instead, last.
        last: String,
    },
}

impl HarnessError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self { nodes: 3, settings: Vec::new(), on_disks: false }
    }
}

impl ClusterSpec {
    /// With one more setting; `{node}` in its value stands for the node's id.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a disk of its own for each node's data, for [`Cluster::cut_power`].
    #[must_use]
    pub fn on_disks(mut self) -> Self {
        self.on_disks = true;
        self
    }
}

/// The ports of one node.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    controller: u16,
    admin: u16,
}

/// Nodes that were started.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<u16, NodeProcess>,
    ports: BTreeMap<u16, Ports>,
    disks: BTreeMap<u16, Disk>,
    // Dropped after the nodes, whose files it holds.
    dir: Option<TempDir>,
    /// Two clusters at once would be late for each other's sake. The lock ends with the file.
    _turn: File,
}

impl Cluster {
    /// Starts all nodes, and waits until they serve.
    ///
    /// # Errors
    /// [`HarnessError`] if a node ends, or if they do not all serve within a minute.
    pub async fn start(spec: &ClusterSpec) -> Result<Self, HarnessError> {
        let program = binary()?;
        let turn = tokio::task::spawn_blocking(take_turn).await;
        let turn = turn.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        let turn = turn.map_err(HarnessError::io("wait for the turn of this test"))?;
        let dir = TempDir::with_prefix("klamm-cluster-").map_err(HarnessError::io("make a directory"))?;
        let ids = 1..=spec.nodes;
        let mut free = ports::free(usize::from(spec.nodes) * 3)?.into_iter();
        let mut ports = BTreeMap::new();
        for id in ids.clone() {
            if let (Some(client), Some(controller), Some(admin)) = (free.next(), free.next(), free.next()) {
                ports.insert(id, Ports { client, controller, admin });
            }
        }
        let mut cluster =
            Self { nodes: BTreeMap::new(), ports, disks: BTreeMap::new(), dir: Some(dir), _turn: turn };
        for id in ids {
            let home = cluster.home(id);
            fs::create_dir_all(&home).map_err(HarnessError::io("make a node's directory"))?;
            if spec.on_disks {
                let disk = Disk::make(cluster.path().join(format!("disk{id}")), home.join("data"))?;
                cluster.disks.insert(id, disk);
            }
            let config = home.join("server.properties");
            fs::write(&config, cluster.properties(spec, id)).map_err(HarnessError::io("write properties"))?;
            cluster.nodes.insert(id, NodeProcess::start(program.clone(), id, &home)?);
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// Where everything of the cluster lies: the directories of its nodes. It stays when a test fails.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("."), TempDir::path)
    }

    /// One node's directory: properties, log, data.
    #[must_use]
    pub fn home(&self, id: u16) -> PathBuf {
        self.path().join(format!("node{id}"))
    }

    fn properties(&self, spec: &ClusterSpec, id: u16) -> String {
        let voters: Vec<_> =
            self.ports.iter().map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller)).collect();
        let Ports { client, controller, admin } =
            self.ports.get(&id).copied().unwrap_or(Ports { client: 0, controller: 0, admin: 0 });
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             controller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{client}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\nklamm.admin.listener=127.0.0.1:{admin}\n",
            voters.join(","),
            self.home(id).join("data").display(),
        );
        for (name, value) in &spec.settings {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}={}", value.replace("{node}", &id.to_string()));
        }
        text
    }

    /// Where clients begin: all nodes.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<Endpoint> {
        self.ports.keys().map(|id| self.endpoint(*id)).collect()
    }

    /// Where one node serves clients.
    #[must_use]
    pub fn endpoint(&self, id: u16) -> Endpoint {
        let port = self.ports.get(&id).map_or(0, |ports| ports.client);
        Endpoint { host: "127.0.0.1".to_owned(), port }
    }

    /// Where one node serves its administrator: metrics and health, by HTTP.
    #[must_use]
    pub fn admin_endpoint(&self, id: u16) -> Endpoint {
        let port = self.ports.get(&id).map_or(0, |ports| ports.admin);
        Endpoint { host: "127.0.0.1".to_owned(), port }
    }

    /// Where one node's controller serves the other nodes.
    #[must_use]
    pub fn controller_endpoint(&self, id: u16) -> Endpoint {
        let port = self.ports.get(&id).map_or(0, |ports| ports.controller);
        Endpoint { host: "127.0.0.1".to_owned(), port }
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        self.ports.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// One node.
    ///
    /// # Panics
    /// If there is no such node: the test asks for what it did not start.
    pub fn node(&mut self, id: u16) -> &mut NodeProcess {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// Cuts the power of these nodes at one instant: they are killed, and what they had not flushed is lost. They can be
    /// started again when this returns.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if one of them does not run, or if the disks cannot be had back.
    ///
    /// # Panics
    /// If the cluster has no disks.
    pub fn cut_power(&mut self, ids: &[u16]) -> Result<(), HarnessError> {
        let of = |id: &u16| self.disks.get(id).unwrap_or_else(|| panic!("node {id} has no disk"));
        let disks: Vec<&Disk> = ids.iter().map(of).collect();
        let running = ids.iter().filter_map(|id| self.nodes.get(id).and_then(NodeProcess::pid));
        disk::cut(disks.iter().copied(), running)?;
        for id in ids {
            if let Some(node) = self.nodes.get_mut(id) {
                node.kill()?;
            }
        }
        disks.iter().try_for_each(|disk| disk.mount_again())
    }

    /// A client with short patience, so that a test sees a fault when it happens.
    #[must_use]
    pub fn client(&self) -> Client {
        Self::client_of(self.bootstrap())
    }

    /// A client that knows one node only.
    #[must_use]
    pub fn client_at(&self, id: u16) -> Client {
        Self::client_of(vec![self.endpoint(id)])
    }

    fn client_of(bootstrap: Vec<Endpoint>) -> Client {
        let options = ClientOptions {
            client_id: "klamm-tests".to_owned(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            metadata_timeout: Duration::from_millis(500),
            retry_backoff: Duration::from_millis(5),
            retry_backoff_max: Duration::from_millis(50),
            operation_timeout: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        Client::new(bootstrap, options)
    }

    /// An administrator of the whole cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.client())
    }

    /// Waits until there is an active controller and every running node answers and sees all running brokers unfenced.
    ///
    /// # Errors
    /// [`HarnessError`] if a node ends, or after a minute.
    pub async fn wait_ready(&mut self) -> Result<(), HarnessError> {
        let running: Vec<u16> =
            self.nodes.iter().filter(|(_, node)| node.is_started()).map(|(id, _)| *id).collect();
        let limit = Duration::from_secs(60);
        let deadline = Instant::now() + limit;
        for id in &running {
            let admin = Admin::new(self.client_at(*id));
            loop {
                self.check_alive()?;
                let obstacle = match ready(&admin, &running).await {
                    Ok(()) => break,
                    Err(obstacle) => obstacle,
                };
                if Instant::now() >= deadline {
                    let last = format!("node {id}: {obstacle}");
                    return Err(HarnessError::Late { what: "all nodes serve".to_owned(), limit, last });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The active controller, as any node tells that knows one among the running nodes.
    ///
    /// # Errors
    /// [`HarnessError::Late`] if there is none for half a minute.
    pub async fn active_controller(&self) -> Result<u16, HarnessError> {
        let admin = self.admin();
        let nodes = &self.nodes;
        wait_for("an active controller", Duration::from_secs(30), async || {
            let quorum = admin.describe_quorum().await.map_err(|error| error.to_string())?;
            let leader = quorum.leader.and_then(|id| u16::try_from(id.0).ok());
            match leader.filter(|id| nodes.get(id).is_some_and(NodeProcess::is_started)) {
                Some(id) => Ok(id),
                None => Err(format!("leader {:?}", quorum.leader)),
            }
        })
        .await
    }

    /// Fails if a node that should run does not.
    fn check_alive(&mut self) -> Result<(), HarnessError> {
        self.nodes.values_mut().try_for_each(NodeProcess::check_alive)
    }
}

/// Waits until no other test of this machine runs a cluster, in this process or another.
fn take_turn() -> io::Result<File> {
    let file = File::create(std::env::temp_dir().join("klamm-cluster-tests.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Whether a node sees what a ready cluster shows.
async fn ready(admin: &Admin, running: &[u16]) -> Result<(), String> {
    let text = |error: ClientError| error.to_string();
    admin.cluster().metadata(Some(&[])).await.map_err(text)?;
    let quorum: QuorumDescription = admin.describe_quorum().await.map_err(text)?;
    if quorum.leader.is_none() {
        return Err("no active controller".to_owned());
    }
    let cluster = admin.describe_cluster().await.map_err(text)?;
    for id in running {
        let id = BrokerId(i32::from(*id));
        match cluster.brokers.iter().find(|broker| broker.id == id) {
            Some(broker) if !broker.is_fenced => {}
            Some(_) => return Err(format!("broker {id} is fenced")),
            None => return Err(format!("broker {id} is not registered")),
        }
    }
    Ok(())
}

/// Tries until `attempt` succeeds, with a pause of 5 ms between two tries.
///
/// # Errors
/// [`HarnessError::Late`] with the last obstacle, when `limit` is over.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, HarnessError> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= deadline => {
                return Err(HarnessError::Late { what: what.to_owned(), limit, last });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let path = dir.keep();
            eprintln!("the cluster's files are kept in {}", path.display());
            for node in self.nodes.values() {
                eprintln!("--- the end of the log of node {}:\n{}", node.id(), node.log_end(30));
            }
        }
        // The nodes end as they are dropped, before their disks and the directory go.
        self.nodes.clear();
        self.disks.clear();
    }
}
