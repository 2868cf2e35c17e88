//! What `deploy/` holds, as a user runs it: the Dockerfile and the compose file as they are, on an engine of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use klamm_client::{Admin, ClientOptions, Cluster as Client, Endpoint};

use super::{Builder, Engine, run};
use crate::cluster::{HarnessError, wait_for};
use crate::tools::workspace;

/// The ports of the compose file on this machine, by node.
const PORTS: [u16; 3] = [9_092, 9_093, 9_094];
/// How long nodes may take until all of them serve.
const READY_TIME_MAX: Duration = Duration::from_secs(120);

/// Three nodes in containers.
#[derive(Debug)]
pub struct Deployment {
    engine: Engine,
    /// What git has of this workspace, as a fresh clone holds it.
    sources: PathBuf,
}

impl Deployment {
    /// Starts an engine, and has the image built on it.
    ///
    /// # Errors
    /// [`HarnessError`] if somebody listens on the ports of the compose file, who is left alone; if the engine does not
    /// start; if the image cannot be built.
    pub fn build(builder: &Builder) -> Result<Self, HarnessError> {
        for port in PORTS {
            let what =
                format!("serve on 127.0.0.1:{port}, which the compose file names (end what listens there)");
            TcpListener::bind(("127.0.0.1", port)).map_err(HarnessError::io(what))?;
        }
        let engine = Engine::start()?;
        let sources = engine.path().join("sources");
        copy_sources(&sources)?;
        engine.make_bases(&sources.join("deploy").join("Dockerfile"), builder)?;
        let deployment = Self { engine, sources };
        deployment.compose(&["build"])?;
        Ok(deployment)
    }

    /// The engine that runs it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs `docker-compose` on the compose file.
    ///
    /// # Errors
    /// [`HarnessError::Io`] with what it said.
    pub fn compose(&self, arguments: &[&str]) -> Result<String, HarnessError> {
        let mut command = self.engine.command("docker-compose");
        let file = Path::new("deploy").join("docker-compose.yml");
        run(command.arg("--no-ansi").arg("--file").arg(file).args(arguments).current_dir(&self.sources))
    }

    /// The ids of the nodes.
    pub fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        1..=PORTS.len() as u16
    }

    /// Where clients on this machine begin: all nodes, by their ids.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<Endpoint> {
        PORTS.iter().map(|port| Endpoint { host: "127.0.0.1".to_owned(), port: *port }).collect()
    }

    /// An administrator of the whole cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Client::new(self.bootstrap(), ClientOptions::default()))
    }

    /// Where a node's volume is on this machine.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if there is none.
    pub fn data(&self, id: u16) -> Result<PathBuf, HarnessError> {
        let volume = format!("deploy_data-{id}");
        self.engine.docker(["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]).map(PathBuf::from)
    }

    /// The id of the container of a service.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if the engine does not answer.
    pub fn container(&self, service: &str) -> Result<String, HarnessError> {
        let label = format!("label=com.docker.compose.service={service}");
        self.engine.docker(["ps", "--all", "--quiet", "--no-trunc", "--filter", &label])
    }

    /// What the engine tells of a service's container, in a format of its own.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if there is no such container.
    pub fn inspect(&self, service: &str, format: &str) -> Result<String, HarnessError> {
        self.engine.docker(["inspect", "--format", format, &self.container(service)?])
    }

    /// Runs a command in the container of a node, and gives what it printed.
    ///
    /// # Errors
    /// [`HarnessError::Io`] with what it said, if it fails.
    pub fn exec(&self, id: u16, command: &[&str]) -> Result<String, HarnessError> {
        let container = self.container(&service(id))?;
        self.engine.docker(["exec", &container].iter().chain(command))
    }

    /// Kills the container of a node, and waits until it is gone.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it does not run.
    pub fn kill(&self, id: u16) -> Result<(), HarnessError> {
        self.engine.docker(["kill", &self.container(&service(id))?]).map(|_| ())
    }

    /// Starts the container of a node again.
    ///
    /// # Errors
    /// [`HarnessError::Io`] if it cannot be started.
    pub fn restart(&self, id: u16) -> Result<(), HarnessError> {
        self.engine.docker(["start", &self.container(&service(id))?]).map(|_| ())
    }

    /// Waits until every node that runs is healthy and no broker is fenced.
    ///
    /// # Errors
    /// [`HarnessError::Late`] after two minutes.
    pub async fn wait_ready(&self) -> Result<(), HarnessError> {
        let admin = self.admin();
        wait_for("the nodes in containers serve", READY_TIME_MAX, async || {
            for id in self.ids() {
                let health = "{{.State.Running}} {{.State.Health.Status}}";
                let shown = self.inspect(&service(id), health).map_err(|error| error.to_string())?;
                if shown.starts_with("true") && shown != "true healthy" {
                    return Err(format!("node {id}: {shown}"));
                }
            }
            let cluster = admin.describe_cluster().await.map_err(|error| error.to_string())?;
            match cluster.brokers.iter().find(|broker| broker.is_fenced) {
                Some(fenced) => Err(format!("broker {} is fenced", fenced.id)),
                None => Ok(()),
            }
        })
        .await
    }

    /// Waits until the service has ended whose end tells that all nodes serve.
    ///
    /// # Errors
    /// [`HarnessError::Late`] after two minutes.
    pub async fn wait_for_ready_service(&self) -> Result<(), HarnessError> {
        wait_for("the service `ready` ends with 0", READY_TIME_MAX, async || {
            let format = "{{.State.Status}} {{.State.ExitCode}}";
            match self.inspect("ready", format).map_err(|error| error.to_string())?.as_str() {
                "exited 0" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose(&["logs", "--tail", "20"]);
            eprintln!("{}", logs.unwrap_or_else(|error| error.to_string()));
        }
        // The networks are the machine's; everything else goes with the engine.
        let _ = self.compose(&["kill"]);
        let _ = self.compose(&["down", "--volumes"]);
    }
}

/// What the compose file calls a node.
fn service(id: u16) -> String {
    format!("klamm-{id}")
}

/// Copies all files that git knows, as they are now.
fn copy_sources(to: &Path) -> Result<(), HarnessError> {
    fs::create_dir_all(to).map_err(HarnessError::io("make a directory"))?;
    let mut copy = Command::new("sh");
    copy.args(["-c", "git ls-files -z | tar --null --files-from - -cf - | tar -C \"$1\" -xf -", "sh"]);
    run(copy.arg(to).current_dir(workspace())).map(|_| ())
}
