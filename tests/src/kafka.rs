//! Nodes of Apache Kafka, set up as the nodes of a cluster of tests are: to see what it does, and how fast.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use klamm_client::{Admin, ClientOptions, Cluster as Client, Endpoint};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::{HarnessError, wait_for};
use crate::ports;
use crate::tools::Jars;

/// The cluster id of every Kafka of tests.
pub const CLUSTER_ID: &str = "kAfKaTeStClUsTeRiD0001";
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// How a Kafka shall be.
#[derive(Clone, Debug)]
pub struct KafkaSpec {
    /// How many nodes; each is broker and controller. Ids begin with 1.
    pub nodes: u16,
    /// Options of the Java machine.
    pub machine_options: Vec<String>,
    /// Settings beyond those that every node needs.
    pub settings: Vec<(String, String)>,
}

impl KafkaSpec {
    /// Nodes that start soon and take little memory.
    #[must_use]
    pub fn light(nodes: u16) -> Self {
        Self::with_machine_options(nodes, &["-Xmx512m", "-XX:TieredStopAtLevel=1"])
    }

    /// Nodes as Kafka's own start script runs them, with its 1 GiB of heap.
    #[must_use]
    pub fn as_shipped(nodes: u16) -> Self {
        let options = [
            "-Xms1g",
            "-Xmx1g",
            "-server",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
            "-Djava.awt.headless=true",
        ];
        Self::with_machine_options(nodes, &options)
    }

    fn with_machine_options(nodes: u16, options: &[&str]) -> Self {
        let machine_options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { nodes, machine_options, settings: Vec::new() }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct KafkaPorts {
    /// For clients.
    pub client: u16,
    /// For the other controllers.
    pub controller: u16,
}

/// Running nodes; they end with this value.
#[derive(Debug)]
pub struct Kafka {
    jars: Jars,
    spec: KafkaSpec,
    nodes: Vec<Option<Child>>,
    ports: Vec<KafkaPorts>,
    dir: TempDir,
}

impl Kafka {
    /// Formats and starts all nodes, and waits until they serve.
    ///
    /// # Errors
    /// [`HarnessError`] if a node cannot be formatted or started, or if they do not all serve within two minutes.
    pub async fn start(jars: &Jars, spec: &KafkaSpec) -> Result<Self, HarnessError> {
        let dir = TempDir::with_prefix("kafka-cluster-").map_err(HarnessError::io("make a directory"))?;
        let free = ports::free(usize::from(spec.nodes) * 2)?;
        let pair = |&[client, controller]: &[u16; 2]| KafkaPorts { client, controller };
        let ports = free.as_chunks().0.iter().map(pair).collect();
        let mut kafka = Self { jars: jars.clone(), spec: spec.clone(), nodes: Vec::new(), ports, dir };
        for id in kafka.ids() {
            kafka.format(id)?;
        }
        for id in kafka.ids() {
            kafka.nodes.push(None);
            kafka.spawn(id)?;
        }
        kafka.wait_ready().await?;
        Ok(kafka)
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.spec.nodes
    }

    fn home(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("node{id}"))
    }

    /// Where one node keeps its partitions.
    #[must_use]
    pub fn data(&self, id: u16) -> PathBuf {
        self.home(id).join("data")
    }

    /// One node's ports.
    ///
    /// # Panics
    /// If there is no such node: the test asks for what it did not start.
    #[must_use]
    pub fn ports(&self, id: u16) -> KafkaPorts {
        let ports = usize::from(id).checked_sub(1).and_then(|index| self.ports.get(index));
        *ports.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// The process ids of the nodes that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().flatten().map(Child::id).collect()
    }

    /// The process id of one node, while it runs.
    ///
    /// # Panics
    /// If there is no such node: the caller asks for what it did not start.
    #[must_use]
    pub fn pid(&self, id: u16) -> Option<u32> {
        let slot = usize::from(id).checked_sub(1).and_then(|index| self.nodes.get(index));
        slot.unwrap_or_else(|| panic!("there is no node {id}")).as_ref().map(Child::id)
    }

    fn format(&self, id: u16) -> Result<(), HarnessError> {
        let home = self.home(id);
        let write = || {
            fs::create_dir(&home)?;
            fs::write(home.join("server.properties"), self.properties(id))
        };
        write().map_err(HarnessError::io("write properties"))?;
        let mut command = self.command(id, "kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c"])?;
        let status = command.status().map_err(HarnessError::io("format a node of Kafka"))?;
        if status.success() { Ok(()) } else { Err(self.ended(id, status)) }
    }

    fn spawn(&mut self, id: u16) -> Result<(), HarnessError> {
        let mut command = self.command(id, "kafka.Kafka", &[])?;
        let child = command.spawn().map_err(HarnessError::io("start a node of Kafka"))?;
        *self.slot(id) = Some(child);
        Ok(())
    }

    fn slot(&mut self, id: u16) -> &mut Option<Child> {
        let slot = usize::from(id).checked_sub(1).and_then(|index| self.nodes.get_mut(index));
        slot.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// Ends a node at once, as a crash would, and waits until the system has taken it away.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it cannot be ended.
    pub fn kill(&mut self, id: u16) -> Result<(), HarnessError> {
        let Some(mut child) = self.slot(id).take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map_err(HarnessError::io("kill a node of Kafka"))?;
        Ok(())
    }

    /// Asks all nodes to end in order, and waits until they have.
    ///
    /// # Errors
    /// [`HarnessError::Late`] if one still runs after `limit`.
    pub async fn terminate_all(&mut self, limit: Duration) -> Result<(), HarnessError> {
        for child in self.nodes.iter().flatten() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let sent = pid.map(|pid| kill_process(pid, Signal::TERM)).unwrap_or(Ok(()));
            sent.map_err(std::io::Error::from)
                .map_err(HarnessError::io("send SIGTERM to a node of Kafka"))?;
        }
        wait_for("all nodes of Kafka end in order", limit, async || {
            for slot in &mut self.nodes {
                let Some(child) = slot else { continue };
                if child.try_wait().map_err(|error| error.to_string())?.is_none() {
                    return Err("one still runs".to_owned());
                }
                *slot = None;
            }
            Ok(())
        })
        .await
    }

    /// Starts a node again that was [killed](Self::kill), without waiting until it serves.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it cannot be started.
    ///
    /// # Panics
    /// If it still runs.
    pub fn restart(&mut self, id: u16) -> Result<(), HarnessError> {
        assert!(self.slot(id).is_none(), "node {id} still runs");
        self.spawn(id)
    }

    fn command(&self, id: u16, class: &str, arguments: &[&str]) -> Result<Command, HarnessError> {
        let home = self.home(id);
        let open = || File::options().create(true).append(true).open(home.join("log"));
        let log = open().and_then(|log| Ok((log.try_clone()?, log)));
        let (out, errors) = log.map_err(HarnessError::io("open a node's log"))?;
        let mut options: Vec<&str> = self.spec.machine_options.iter().map(String::as_str).collect();
        options.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        let mut command = self.jars.command_with(&options, class);
        command.args(arguments).arg(home.join("server.properties"));
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        Ok(command)
    }

    fn ended(&self, id: u16, status: ExitStatus) -> HarnessError {
        let log = fs::read_to_string(self.home(id).join("log")).unwrap_or_default();
        HarnessError::Ended { node: id, status: status.to_string(), log }
    }

    fn properties(&self, id: u16) -> String {
        let voter = |id: u16| format!("{id}@127.0.0.1:{}", self.ports(id).controller);
        let voters: Vec<_> = self.ids().map(voter).collect();
        let KafkaPorts { client, controller } = self.ports(id);
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             controller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{client}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n",
            voters.join(","),
            self.data(id).display(),
        );
        for (name, value) in &self.spec.settings {
            text += &format!("{name}={value}\n");
        }
        text
    }

    /// Where clients begin: all nodes.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<Endpoint> {
        let endpoint = |ports: &KafkaPorts| Endpoint { host: "127.0.0.1".to_owned(), port: ports.client };
        self.ports.iter().map(endpoint).collect()
    }

    /// Where its files are, all nodes'.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until every node that runs answers and sees all running nodes unfenced.
    ///
    /// # Errors
    /// [`HarnessError`] if a node ends, or after two minutes.
    pub async fn wait_ready(&mut self) -> Result<(), HarnessError> {
        let running: Vec<u16> = self.ids().filter(|id| self.slot(*id).is_some()).collect();
        for id in &running {
            let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: self.ports(*id).client };
            let admin = Admin::new(Client::new(vec![endpoint], ClientOptions::default()));
            wait_for("all nodes of Kafka serve", START_TIME_MAX, async || {
                self.check_alive().map_err(|error| error.to_string())?;
                let cluster = admin.describe_cluster().await.map_err(|error| error.to_string())?;
                let serving = cluster.brokers.iter().filter(|broker| !broker.is_fenced).count();
                if serving == running.len() { Ok(()) } else { Err(format!("{serving} serve")) }
            })
            .await?;
            self.check_alive()?;
        }
        Ok(())
    }

    fn check_alive(&mut self) -> Result<(), HarnessError> {
        for id in self.ids() {
            let ended = match self.slot(id) {
                Some(child) => child.try_wait().map_err(HarnessError::io("look at a node of Kafka"))?,
                None => None,
            };
            if let Some(status) = ended {
                return Err(self.ended(id, status));
            }
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            // One that is gone is no fault here.
            drop(node.kill().and_then(|()| node.wait()));
        }
    }
}
