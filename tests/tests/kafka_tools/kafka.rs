//! Three nodes of Apache Kafka, set up as the nodes of a cluster of tests are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use klamm_client::{Admin, ClientOptions, Cluster as Client, Endpoint};
use klamm_tests::cluster::{HarnessError, wait_for};
use klamm_tests::ports;
use klamm_tests::tools::Jars;
use tempfile::TempDir;

/// The cluster id of every Kafka of tests.
const CLUSTER_ID: &str = "kAfKaTeStClUsTeRiD0001";
const NODES: usize = 3;
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// Running nodes; they end with this value.
pub(crate) struct Kafka {
    nodes: Vec<Child>,
    /// The ports for clients and for controllers, node by node.
    ports: Vec<(u16, u16)>,
    dir: TempDir,
}

impl Kafka {
    /// Formats and starts all nodes, and waits until they serve.
    pub(crate) async fn start(jars: &Jars) -> Result<Self, HarnessError> {
        let free = ports::free(NODES * 2)?;
        let ports = free.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut kafka = Self { nodes: Vec::new(), ports, dir: tempfile::tempdir().unwrap() };
        for id in 1..=NODES {
            let home = kafka.dir.path().join(format!("node{id}"));
            fs::create_dir(&home).unwrap();
            fs::write(home.join("server.properties"), kafka.properties(id)).unwrap();
            let mut format =
                kafka.command(jars, id, "kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c"]);
            let status = format.status().unwrap();
            assert!(status.success(), "formatting node {id} ended with {status}: {}", kafka.log(id));
        }
        for id in 1..=NODES {
            let child = kafka.command(jars, id, "kafka.Kafka", &[]).spawn().unwrap();
            kafka.nodes.push(child);
        }
        kafka.wait_ready().await?;
        Ok(kafka)
    }

    fn command(&self, jars: &Jars, id: usize, class: &str, arguments: &[&str]) -> std::process::Command {
        let home = self.dir.path().join(format!("node{id}"));
        let log = || File::options().create(true).append(true).open(home.join("log")).unwrap();
        let options =
            ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
        let mut command = jars.command_with(&options, class);
        command.args(arguments).arg(home.join("server.properties"));
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        command
    }

    fn log(&self, id: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("node{id}/log"))).unwrap_or_default()
    }

    fn properties(&self, id: usize) -> String {
        let voters =
            (1..).zip(&self.ports).map(|(id, (_, controller))| format!("{id}@127.0.0.1:{controller}"));
        let voters: Vec<_> = voters.collect();
        let (client, controller) = self.ports[id - 1];
        format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             controller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{client}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n",
            voters.join(","),
            self.data(id),
        )
    }

    fn data(&self, id: usize) -> String {
        self.dir.path().join(format!("node{id}/data")).display().to_string()
    }

    /// Where clients begin.
    pub(crate) fn bootstrap(&self) -> Vec<Endpoint> {
        let endpoint = |(port, _): &(u16, u16)| Endpoint { host: "127.0.0.1".to_owned(), port: *port };
        self.ports.iter().map(endpoint).collect()
    }

    /// What is to be shown instead of its ports, paths and id.
    pub(crate) fn names(&self) -> BTreeMap<String, String> {
        let mut names = BTreeMap::from([(CLUSTER_ID.to_owned(), "{cluster}".to_owned())]);
        for (id, (client, controller)) in (1..).zip(&self.ports) {
            names.insert(client.to_string(), format!("{{client{id}}}"));
            names.insert(controller.to_string(), format!("{{controller{id}}}"));
            names.insert(self.data(id), format!("{{data{id}}}"));
        }
        names
    }

    async fn wait_ready(&self) -> Result<(), HarnessError> {
        for node in self.bootstrap() {
            let admin = Admin::new(Client::new(vec![node], ClientOptions::default()));
            wait_for("all nodes of Kafka serve", START_TIME_MAX, async || {
                let cluster = admin.describe_cluster().await.map_err(|error| error.to_string())?;
                let serving = cluster.brokers.iter().filter(|broker| !broker.is_fenced).count();
                if serving == NODES { Ok(()) } else { Err(format!("{serving} serve")) }
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // One that is gone is no fault here.
            drop(node.kill().and_then(|()| node.wait()));
        }
    }
}
