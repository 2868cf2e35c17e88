//! Where the nodes of the cluster live: directories, ports, settings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::DevArgs;

/// What is kept of a cluster between runs: a file in its directory.
const CLUSTER_FILE: &str = "cluster.properties";
/// Nodes of a new cluster.
const NODES_DEFAULT: u16 = 3;
/// How far above the clients' ports those of the controllers are looked for.
const CONTROLLER_PORTS_ABOVE: u16 = 1_000;

/// Why the cluster has no place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    /// A file or directory.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has a cluster of another size.
    #[error("{dir} has a cluster of {has} nodes; leave --brokers out, or give another --data directory", dir = dir.display())]
    OtherSize {
        /// The directory.
        dir: PathBuf,
        /// Its nodes.
        has: u16,
    },
    /// The file of the cluster cannot be understood.
    #[error("{path} does not say {what}; remove {dir} to begin anew", path = path.display(), dir = dir.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Nodes find each other by these ports, which the cluster has written down.
    #[error(
        "port {port} of node {node} is in use, perhaps by another run of this cluster; stop that, or give another --data directory"
    )]
    PortTaken {
        /// The node.
        node: u16,
        /// The port.
        port: u16,
    },
    /// No free ports.
    #[error("no free port can be found: {0}")]
    NoPort(#[source] io::Error),
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) id: u16,
    pub(super) client_port: u16,
    pub(super) controller_port: u16,
    pub(super) admin_port: u16,
    pub(super) properties: PathBuf,
    pub(super) log: PathBuf,
}

/// The whole cluster.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    cluster_id: String,
    nodes: Vec<NodePlan>,
    first_port: u16,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    move |source| LayoutError::File { verb, path: path.to_owned(), source }
}

impl Layout {
    /// Finds the cluster in the directory, or makes a new one; chooses ports and writes the nodes' settings.
    pub(super) fn plan(args: &DevArgs) -> Result<Self, LayoutError> {
        fs::create_dir_all(&args.data).map_err(failed("make", &args.data))?;
        let dir = fs::canonicalize(&args.data).map_err(failed("find", &args.data))?;
        let saved = Saved::read(&dir)?;
        if let (Some(saved), Some(wanted)) = (&saved, args.brokers)
            && saved.size() != wanted
        {
            return Err(LayoutError::OtherSize { dir, has: saved.size() });
        }
        let mut ports = Ports::default();
        let saved = match saved {
            Some(saved) => {
                saved.claim(&mut ports)?;
                saved
            }
            None => {
                let made = Saved::make(args.brokers.unwrap_or(NODES_DEFAULT), args.port, &mut ports)?;
                made.write(&dir)?;
                made
            }
        };
        let mut layout = Self { dir, cluster_id: saved.cluster_id, nodes: Vec::new(), first_port: args.port };
        let mut client_port = args.port;
        for (id, controller_port) in (1..).zip(saved.controller_ports) {
            client_port = ports.free_from(client_port)?;
            let node_dir = layout.dir.join(format!("node-{id}"));
            fs::create_dir_all(&node_dir).map_err(failed("make", &node_dir))?;
            layout.nodes.push(NodePlan {
                id,
                client_port,
                controller_port,
                admin_port: ports.any()?,
                properties: node_dir.join("server.properties"),
                log: node_dir.join("server.log"),
            });
            client_port = client_port.saturating_add(1);
        }
        for node in &layout.nodes {
            let text = layout.properties(node);
            fs::write(&node.properties, text).map_err(failed("write", &node.properties))?;
        }
        Ok(layout)
    }

    pub(super) fn nodes(&self) -> &[NodePlan] {
        &self.nodes
    }

    fn properties(&self, node: &NodePlan) -> String {
        let voters: Vec<String> =
            self.nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller_port)).collect();
        let replicas = self.nodes.len().min(3);
        let dir = node.properties.parent().unwrap_or(&self.dir).join("data");
        let settings = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", node.id.to_string()),
            ("klamm.cluster.id", self.cluster_id.clone()),
            (
                "listeners",
                format!(
                    "PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}",
                    node.client_port, node.controller_port
                ),
            ),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("controller.quorum.voters", voters.join(",")),
            ("log.dirs", escaped(&dir.to_string_lossy())),
            ("klamm.admin.listener", format!("127.0.0.1:{}", node.admin_port)),
            ("default.replication.factor", replicas.to_string()),
            ("min.insync.replicas", if replicas > 2 { "2" } else { "1" }.to_owned()),
        ];
        let mut text = "# Written by klamm dev at every start.\n".to_owned();
        for (name, value) in settings {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }

    fn bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.client_port)).collect();
        addresses.join(",")
    }

    /// What is told before the nodes start.
    pub(super) fn head(&self) -> String {
        let nodes = match self.nodes.len() {
            1 => "one node".to_owned(),
            more => format!("{more} nodes"),
        };
        let mut text = format!("starting {nodes}, data in {}\n", self.dir.display());
        for (node, wanted) in self.nodes.iter().zip(self.first_port..) {
            if node.client_port != wanted {
                let _ =
                    writeln!(text, "node {} takes port {}: {wanted} is in use", node.id, node.client_port);
            }
        }
        text
    }

    /// What is told when the cluster is ready.
    pub(super) fn ready(&self, processes: &[(u16, u32)], after: Duration) -> String {
        let pids: BTreeMap<u16, u32> = processes.iter().copied().collect();
        let bootstrap = self.bootstrap();
        let mut text = format!("ready after {} ms: bootstrap.servers={bootstrap}\n", after.as_millis());
        for node in &self.nodes {
            let pid = pids.get(&node.id).copied().unwrap_or_default();
            let NodePlan { id, client_port, admin_port, log, .. } = node;
            let log = log.display();
            let _ = writeln!(
                text,
                "  node {id}  127.0.0.1:{client_port}  pid {pid}  http://127.0.0.1:{admin_port}/metrics  {log}"
            );
        }
        let first = self.nodes.first().map_or(0, |node| node.client_port);
        let replicas = self.nodes.len().min(3);
        let victim = processes.first().map_or(0, |(_, pid)| *pid);
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("klamm"));
        let program = program.display();
        let _ = writeln!(text, "try, in another window:");
        let _ = writeln!(
            text,
            "  {program} topic create orders --partitions 3 --replication-factor {replicas} --bootstrap-server 127.0.0.1:{first}"
        );
        let _ = writeln!(text, "  {program} topic describe orders --bootstrap-server 127.0.0.1:{first}");
        // Fewer than three have no majority without one.
        let third = if self.nodes.len() < 3 {
            format!(
                "  {program} perf produce --topic orders --duration 5 --bootstrap-server 127.0.0.1:{first}"
            )
        } else {
            format!("  kill -9 {victim}    # and describe the topic again: others lead what node 1 led")
        };
        let _ = writeln!(text, "{third}");
        let _ = writeln!(text, "Ctrl-C stops all nodes; the data stays.");
        text
    }
}

/// A backslash has a meaning of its own in properties.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// What a cluster has written down: it cannot change while the data stays.
struct Saved {
    cluster_id: String,
    /// Node 1 first.
    controller_ports: Vec<u16>,
}

impl Saved {
    fn size(&self) -> u16 {
        u16::try_from(self.controller_ports.len()).unwrap_or(u16::MAX)
    }

    fn read(dir: &Path) -> Result<Option<Self>, LayoutError> {
        let path = dir.join(CLUSTER_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let value = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            let found = pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned());
            let damaged =
                || LayoutError::Damaged { path: path.clone(), what: name.to_owned(), dir: dir.to_owned() };
            found.ok_or_else(damaged)
        };
        let cluster_id = value("cluster.id")?;
        let ports = value("controller.ports")?;
        let ports: Option<Vec<u16>> = ports.split(',').map(|port| port.trim().parse().ok()).collect();
        let what = "controller.ports as numbers".to_owned();
        let controller_ports = ports.ok_or(LayoutError::Damaged { path, what, dir: dir.to_owned() })?;
        Ok(Some(Self { cluster_id, controller_ports }))
    }

    fn write(&self, dir: &Path) -> Result<(), LayoutError> {
        let path = dir.join(CLUSTER_FILE);
        let ports: Vec<String> = self.controller_ports.iter().map(u16::to_string).collect();
        let text = format!(
            "# Of klamm dev: the nodes find each other by these.\ncluster.id={}\ncontroller.ports={}\n",
            self.cluster_id,
            ports.join(",")
        );
        fs::write(&path, text).map_err(failed("write", &path))
    }

    fn make(nodes: u16, first_port: u16, ports: &mut Ports) -> Result<Self, LayoutError> {
        let mut controller_ports = Vec::new();
        let mut from = first_port.saturating_add(CONTROLLER_PORTS_ABOVE);
        for _ in 0..nodes {
            let port = ports.free_from(from)?;
            controller_ports.push(port);
            from = port.saturating_add(1);
        }
        Ok(Self { cluster_id: klamm_node::random_cluster_id(), controller_ports })
    }

    /// Checks that the ports are free, and keeps them from being given to anything else.
    fn claim(&self, ports: &mut Ports) -> Result<(), LayoutError> {
        for (node, port) in (1..).zip(&self.controller_ports) {
            if !ports.take(*port) {
                return Err(LayoutError::PortTaken { node, port: *port });
            }
        }
        Ok(())
    }
}

/// Ports that nobody listens on. They are held until all are chosen.
#[derive(Default)]
struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    fn take(&mut self, port: u16) -> bool {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        bound.map(|listener| self.held.push(listener)).is_ok()
    }

    /// The first free one from `port` on.
    fn free_from(&mut self, port: u16) -> Result<u16, LayoutError> {
        for port in port..=u16::MAX {
            if self.take(port) {
                return Ok(port);
            }
        }
        self.any()
    }

    /// Any free one.
    fn any(&mut self) -> Result<u16, LayoutError> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LayoutError::NoPort)?;
        let port = bound.local_addr().map_err(LayoutError::NoPort)?.port();
        self.held.push(bound);
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(data: &Path, brokers: Option<u16>, port: u16) -> DevArgs {
        DevArgs { brokers, data: data.to_owned(), port }
    }

    #[test]
    fn a_cluster_is_found_again_with_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::plan(&args(dir.path(), Some(2), 30_000)).unwrap();
        let again = Layout::plan(&args(dir.path(), None, 40_000)).unwrap();
        let controllers =
            |layout: &Layout| layout.nodes.iter().map(|n| n.controller_port).collect::<Vec<_>>();
        assert_eq!(controllers(&first), controllers(&again));
        assert_eq!(first.cluster_id, again.cluster_id);
        assert!(again.nodes[0].client_port >= 40_000);
        let other = Layout::plan(&args(dir.path(), Some(3), 30_000)).unwrap_err();
        assert!(matches!(other, LayoutError::OtherSize { has: 2, .. }), "{other}");
    }

    #[test]
    fn ports_in_use_are_passed_over_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port().min(60_000);
        let layout = Layout::plan(&args(dir.path(), Some(1), port)).unwrap();
        if port == taken.local_addr().unwrap().port() {
            assert_ne!(layout.nodes[0].client_port, port);
            assert!(layout.head().contains(&format!("{port} is in use")), "{}", layout.head());
        }
    }

    #[test]
    fn a_taken_controller_port_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::plan(&args(dir.path(), Some(1), 31_000)).unwrap();
        let port = layout.nodes[0].controller_port;
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let refused = Layout::plan(&args(dir.path(), None, 31_000)).unwrap_err();
        assert!(matches!(refused, LayoutError::PortTaken { node: 1, .. }), "{refused}");
    }

    #[test]
    fn a_damaged_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CLUSTER_FILE), "cluster.id=x\ncontroller.ports=1,a\n").unwrap();
        let refused = Layout::plan(&args(dir.path(), None, 31_000)).unwrap_err();
        assert!(matches!(refused, LayoutError::Damaged { .. }), "{refused}");
    }
}
