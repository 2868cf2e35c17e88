//! What a node is, from its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_config::ServerSettings;
use klamm_types::BrokerId;

use crate::config_error::ConfigError;
use crate::endpoint::{Voter, host_and_port};
use crate::sources::LoadedSettings;

mod listeners;

pub use listeners::ListenerPlan;

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// It hosts partitions and serves clients.
    pub broker: bool,
    /// It is a voter of the metadata quorum.
    pub controller: bool,
}

/// How the metadata quorum is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// The voters; empty if only their addresses are known.
    pub voters: Vec<Voter>,
    /// Addresses of controllers, as host and port; at least one.
    pub addresses: Vec<(String, u16)>,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a node is and how it runs: checked as far as it can be without touching disks and sockets.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `process.roles`.
    pub roles: Roles,
    /// The id of the cluster, if it was given.
    pub cluster_id: Option<String>,
    /// `listeners`, `advertised.listeners` and what belongs to them.
    pub listeners: ListenerPlan,
    /// `controller.quorum.voters` or `controller.quorum.bootstrap.servers`.
    pub quorum: Quorum,
    /// `log.dirs`, at least one.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, or the first of `log.dirs`.
    pub metadata_dir: PathBuf,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `klamm.admin.listener`: host and port, `None` to serve nothing there.
    pub admin: Option<(String, u16)>,
    /// `klamm.log.format`.
    pub log_format: LogFormat,
    /// `klamm.log.level`.
    pub log_level: String,
    /// `klamm.shutdown.timeout.ms`.
    pub shutdown_timeout: Duration,
    /// `klamm.worker.threads`; `None` is one for each core.
    pub worker_threads: Option<usize>,
    /// All settings, for the parts of the node that read their own.
    pub settings: Arc<ServerSettings>,
}

impl NodeConfig {
    /// Makes a node's configuration of settings that were checked one by one.
    ///
    /// # Errors
    /// All that is missing, or the settings that do not fit together.
    pub fn new(loaded: &LoadedSettings) -> Result<Self, Vec<ConfigError>> {
        let missing = missing(loaded);
        if !missing.is_empty() {
            return Err(missing);
        }
        Self::read(loaded).map_err(|error| vec![error])
    }

    fn read(loaded: &LoadedSettings) -> Result<Self, ConfigError> {
        let settings = &loaded.settings;
        let node_id = node_id(loaded)?;
        let roles = roles(loaded)?;
        let listeners = ListenerPlan::read(loaded, roles)?;
        let quorum = quorum(loaded, roles, node_id, &listeners)?;
        check_timeouts(loaded)?;
        let log_dirs = log_dirs(loaded)?;
        let metadata_dir = settings.text("metadata.log.dir").map(PathBuf::from);
        let metadata_dir = metadata_dir.or_else(|| log_dirs.first().cloned()).unwrap_or_default();
        let json = settings.text("klamm.log.format").as_deref() == Some("json");
        let threads = usize::try_from(settings.integer("klamm.worker.threads")).unwrap_or(0);
        Ok(Self {
            node_id,
            roles,
            cluster_id: cluster_id(loaded)?,
            listeners,
            quorum,
            log_dirs,
            metadata_dir,
            rack: settings.text("broker.rack").filter(|rack| !rack.is_empty()),
            admin: admin(loaded)?,
            log_format: if json { LogFormat::Json } else { LogFormat::Text },
            log_level: settings.text("klamm.log.level").unwrap_or_default(),
            shutdown_timeout: Duration::from_millis(settings.unsigned("klamm.shutdown.timeout.ms")),
            worker_threads: (threads > 0).then_some(threads),
            settings: Arc::new(settings.clone()),
        })
    }
}

/// The problem of one setting, with the place where it was written.
fn unfit(loaded: &LoadedSettings, name: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Unfit { name, origin: loaded.origin(name), problem: problem.into() }
}

fn missing(loaded: &LoadedSettings) -> Vec<ConfigError> {
    let has_broker_id = loaded.settings.given("broker.id").is_some();
    let is_missing = |name: &&'static str| *name != "node.id" || !has_broker_id;
    let missing = loaded.settings.missing().into_iter().filter(is_missing);
    let fix = |name| match name {
        "process.roles" => "write process.roles=broker,controller, or one of the two",
        "node.id" => "give every node a number of its own, as in node.id=1",
        "controller.listener.names" => {
            "name the controllers' listener, as in controller.listener.names=CONTROLLER"
        }
        _ => "it must be given",
    };
    missing.map(|name| ConfigError::Missing { name, fix: fix(name).to_owned() }).collect()
}

fn node_id(loaded: &LoadedSettings) -> Result<BrokerId, ConfigError> {
    let settings = &loaded.settings;
    let older = settings.given("broker.id").map(|_| settings.integer("broker.id"));
    let id = settings.integer_or_null("node.id").or(older).unwrap_or(-1);
    if older.is_some_and(|older| older != id) {
        return Err(unfit(loaded, "broker.id", format!("must be the same as node.id, {id}; leave it out")));
    }
    match i32::try_from(id) {
        Ok(id) if id >= 0 => Ok(BrokerId(id)),
        _ => Err(unfit(loaded, "broker.id", "must be 0 or more")),
    }
}

fn roles(loaded: &LoadedSettings) -> Result<Roles, ConfigError> {
    let names = loaded.settings.list("process.roles");
    let has = |role: &str| names.iter().any(|name| name == role);
    let roles = Roles { broker: has("broker"), controller: has("controller") };
    if roles.broker || roles.controller {
        Ok(roles)
    } else {
        Err(unfit(loaded, "process.roles", "is empty; it must be broker, controller or broker,controller"))
    }
}

fn log_dirs(loaded: &LoadedSettings) -> Result<Vec<PathBuf>, ConfigError> {
    let dirs = loaded.settings.list("log.dirs");
    let name = if loaded.settings.given("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
    if dirs.is_empty() {
        return Err(unfit(loaded, name, "names no directory"));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = dirs.iter().find(|dir| !seen.insert(dir.trim_end_matches('/'))) {
        return Err(unfit(loaded, name, format!("names {twice} twice")));
    }
    Ok(dirs.into_iter().map(PathBuf::from).collect())
}

/// 22 characters of base64 for URLs: 16 bytes, as Kafka's tools make them.
pub(crate) fn is_cluster_id(text: &str) -> bool {
    text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn cluster_id(loaded: &LoadedSettings) -> Result<Option<String>, ConfigError> {
    let name = "klamm.cluster.id";
    match loaded.settings.text(name).filter(|id| !id.is_empty()) {
        Some(id) if !is_cluster_id(&id) => {
            let made = crate::storage::random_cluster_id();
            let problem = format!("must be 22 letters, digits, - and _, as made for you here: {made}");
            Err(unfit(loaded, name, problem))
        }
        id => Ok(id),
    }
}

fn admin(loaded: &LoadedSettings) -> Result<Option<(String, u16)>, ConfigError> {
    let name = "klamm.admin.listener";
    match loaded.settings.text(name).as_deref() {
        None | Some("none") => Ok(None),
        Some(text) => match host_and_port(text).filter(|(host, _)| !host.is_empty()) {
            Some(address) => Ok(Some(address)),
            None => Err(unfit(loaded, name, "must be host:port, as in 127.0.0.1:9190, or none")),
        },
    }
}

/// What the table cannot say of one setting, since it depends on another.
fn check_timeouts(loaded: &LoadedSettings) -> Result<(), ConfigError> {
    const SESSION: &str = "broker.session.timeout.ms";
    const BEAT: &str = "broker.heartbeat.interval.ms";
    const LONGEST: &str = "klamm.broker.session.timeout.max.ms";
    let settings = &loaded.settings;
    let (session, beat) = (settings.integer(SESSION), settings.integer(BEAT));
    if beat >= session && settings.given(BEAT).is_none() {
        return Err(unfit(loaded, SESSION, format!("must be above {BEAT}, {beat}; lower both")));
    }
    if beat >= session {
        return Err(unfit(loaded, BEAT, format!("must be from 1 to below {SESSION}, {session}")));
    }
    if settings.given(LONGEST).is_some() && settings.integer(LONGEST) < session {
        return Err(unfit(loaded, LONGEST, format!("must be at least {SESSION}, {session}")));
    }
    Ok(())
}

fn quorum(
    loaded: &LoadedSettings,
    roles: Roles,
    node_id: BrokerId,
    listeners: &ListenerPlan,
) -> Result<Quorum, ConfigError> {
    const VOTERS: &str = "controller.quorum.voters";
    let mut voters = BTreeMap::new();
    for text in loaded.settings.list(VOTERS) {
        let Some(voter) = Voter::read(&text) else {
            return Err(unfit(loaded, VOTERS, format!("has the item {text:?}, which is not id@host:port")));
        };
        if let Some(other) = voters.insert(voter.id, voter) {
            return Err(unfit(loaded, VOTERS, format!("names {} twice", other.id)));
        }
    }
    if !voters.is_empty() {
        return of_voters(loaded, roles, node_id, voters.into_values().collect());
    }
    let addresses = bootstrap_addresses(loaded)?;
    if !roles.controller {
        return Ok(Quorum { voters: Vec::new(), addresses });
    }
    // The only voter can be nobody else than this node; more than one need numbers.
    match (addresses.as_slice(), listeners.controller.first()) {
        ([(host, port)], Some(own)) if *port == own.port => {
            let only = Voter { id: node_id.0, host: host.clone(), port: *port };
            Ok(Quorum { voters: vec![only], addresses })
        }
        _ => {
            let items: Vec<_> = addresses.iter().map(|(host, port)| format!("ID@{host}:{port}")).collect();
            let fix = format!("the voters need their numbers: write {VOTERS}={}", items.join(","));
            Err(ConfigError::Missing { name: VOTERS, fix })
        }
    }
}

fn of_voters(
    loaded: &LoadedSettings,
    roles: Roles,
    node_id: BrokerId,
    voters: Vec<Voter>,
) -> Result<Quorum, ConfigError> {
    let is_voter = voters.iter().any(|voter| voter.id == node_id.0);
    if roles.controller != is_voter {
        let problem = if is_voter {
            format!("names this node, {node_id}, which is no controller; add controller to process.roles")
        } else {
            format!("must name this node, {node_id}, since it is a controller")
        };
        return Err(unfit(loaded, "controller.quorum.voters", problem));
    }
    let addresses = voters.iter().map(|voter| (voter.host.clone(), voter.port)).collect();
    Ok(Quorum { voters, addresses })
}

fn bootstrap_addresses(loaded: &LoadedSettings) -> Result<Vec<(String, u16)>, ConfigError> {
    const SERVERS: &str = "controller.quorum.bootstrap.servers";
    let mut addresses = Vec::new();
    for text in loaded.settings.list(SERVERS) {
        match host_and_port(&text).filter(|(host, port)| !host.is_empty() && *port > 0) {
            Some(address) => addresses.push(address),
            None => {
                return Err(unfit(loaded, SERVERS, format!("has the item {text:?}, which is not host:port")));
            }
        }
    }
    if addresses.is_empty() {
        let fix =
            "write the voters as id@host:port, for one node as in controller.quorum.voters=1@localhost:9093";
        return Err(ConfigError::Missing { name: "controller.quorum.voters", fix: fix.to_owned() });
    }
    Ok(addresses)
}

#[cfg(test)]
#[path = "node_config_test.rs"]
mod tests;
