//! Which listeners a node has, and what others are told of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Roles, unfit};
use crate::config_error::ConfigError;
use crate::endpoint::Endpoint;
use crate::sources::LoadedSettings;

/// The listeners of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerPlan {
    /// For clients and other brokers; empty if the node is no broker.
    pub clients: Vec<Endpoint>,
    /// For controllers; empty if the node is no controller.
    pub controller: Vec<Endpoint>,
    /// What clients and other brokers are told, by name; a port 0 is the one that the listener takes.
    pub advertised: Vec<Endpoint>,
    /// The listener that brokers use among themselves; empty if the node is no broker.
    pub inter_broker: String,
}

const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
const CONTROLLERS: &str = "controller.listener.names";
const PROTOCOLS: &str = "listener.security.protocol.map";

impl ListenerPlan {
    pub(super) fn read(loaded: &LoadedSettings, roles: Roles) -> Result<Self, ConfigError> {
        let all = endpoints(loaded, LISTENERS)?;
        let controller_names: Vec<String> =
            loaded.settings.list(CONTROLLERS).iter().map(|name| name.to_ascii_uppercase()).collect();
        if controller_names.is_empty() {
            return Err(unfit(loaded, CONTROLLERS, "is empty; name the listener of the controllers"));
        }
        check_protocols(loaded, &all, &controller_names)?;
        let is_controller = |endpoint: &Endpoint| controller_names.contains(&endpoint.name);
        let (controller, clients): (Vec<_>, Vec<_>) = all.into_iter().partition(is_controller);
        check_roles(loaded, roles, &controller, &clients)?;
        let advertised = advertised(loaded, &clients, &controller_names)?;
        let inter_broker = if roles.broker { inter_broker(loaded, &clients)? } else { String::new() };
        Ok(Self { clients, controller, advertised, inter_broker })
    }
}

fn endpoints(loaded: &LoadedSettings, name: &'static str) -> Result<Vec<Endpoint>, ConfigError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in loaded.settings.list(name) {
        let Some(endpoint) = Endpoint::read(&text) else {
            return Err(unfit(loaded, name, format!("has the item {text:?}, which is not NAME://host:port")));
        };
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err(unfit(loaded, name, format!("has two listeners with the name {}", endpoint.name)));
        }
        let same_port = |other: &&Endpoint| {
            let overlap =
                other.host == endpoint.host || other.is_every_address() || endpoint.is_every_address();
            name == LISTENERS && endpoint.port > 0 && other.port == endpoint.port && overlap
        };
        if let Some(other) = endpoints.iter().find(same_port) {
            return Err(unfit(
                loaded,
                name,
                format!("gives {} and {} the same port", other.name, endpoint.name),
            ));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// As in Kafka: without a map, a listener has the protocol that it is named after, and controllers' listeners are
/// plain text.
fn check_protocols(
    loaded: &LoadedSettings,
    all: &[Endpoint],
    controller_names: &[String],
) -> Result<(), ConfigError> {
    let text = loaded.settings.text(PROTOCOLS).unwrap_or_default();
    let mut protocols = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((listener, protocol)) = item.split_once(':') else {
            return Err(unfit(
                loaded,
                PROTOCOLS,
                format!("has the item {item:?}, which is not NAME:PROTOCOL"),
            ));
        };
        protocols.insert(listener.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase());
    }
    if loaded.settings.given(PROTOCOLS).is_none() {
        for name in controller_names {
            protocols.entry(name.clone()).or_insert_with(|| "PLAINTEXT".to_owned());
        }
    }
    for endpoint in all {
        match protocols.get(&endpoint.name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(protocol @ ("SSL" | "SASL_PLAINTEXT" | "SASL_SSL")) => {
                let problem = format!(
                    "gives listener {} the protocol {protocol}, and only PLAINTEXT is built yet",
                    endpoint.name
                );
                return Err(unfit(loaded, PROTOCOLS, problem));
            }
            Some(protocol) => {
                let problem = format!("gives listener {} the unknown protocol {protocol:?}", endpoint.name);
                return Err(unfit(loaded, PROTOCOLS, problem));
            }
            None => {
                let problem = format!("lacks listener {0}; add {0}:PLAINTEXT", endpoint.name);
                return Err(unfit(loaded, PROTOCOLS, problem));
            }
        }
    }
    Ok(())
}

fn check_roles(
    loaded: &LoadedSettings,
    roles: Roles,
    controller: &[Endpoint],
    clients: &[Endpoint],
) -> Result<(), ConfigError> {
    let names = loaded.settings.list(CONTROLLERS).join(", ");
    let problem = match (roles.controller, roles.broker) {
        (true, _) if controller.is_empty() => {
            format!(
                "lacks the listener of the controllers; add {}://:9093",
                names.split(',').next().unwrap_or("CONTROLLER")
            )
        }
        (_, true) if clients.is_empty() => "lacks a listener for clients; add PLAINTEXT://:9092".to_owned(),
        (false, _) if !controller.is_empty() => {
            format!("has a listener of controllers ({names}), and this node is none; remove it")
        }
        (_, false) if !clients.is_empty() => {
            let first = clients.first().map(|endpoint| endpoint.name.as_str()).unwrap_or_default();
            format!(
                "has the listener {first}, and this node is only a controller; name it in {CONTROLLERS} or remove it"
            )
        }
        _ => return Ok(()),
    };
    Err(unfit(loaded, LISTENERS, problem))
}

fn advertised(
    loaded: &LoadedSettings,
    clients: &[Endpoint],
    controller_names: &[String],
) -> Result<Vec<Endpoint>, ConfigError> {
    if loaded.settings.given(ADVERTISED).is_none() {
        let explicit = |endpoint: &&Endpoint| endpoint.is_every_address() && !endpoint.host.is_empty();
        if let Some(endpoint) = clients.iter().find(explicit) {
            let problem = format!("has {endpoint}, which nobody can connect to; write {ADVERTISED} as well");
            return Err(unfit(loaded, LISTENERS, problem));
        }
        return Ok(clients.to_vec());
    }
    let listed = endpoints(loaded, ADVERTISED)?;
    let known: BTreeSet<_> = clients.iter().map(|endpoint| endpoint.name.as_str()).collect();
    // What a controller advertises concerns nobody: the voters are found by controller.quorum.voters.
    let listed = listed.into_iter().filter(|endpoint| !controller_names.contains(&endpoint.name));
    let mut advertised = Vec::new();
    for endpoint in listed {
        if !known.contains(endpoint.name.as_str()) {
            return Err(unfit(loaded, ADVERTISED, format!("has {endpoint}, and there is no such listener")));
        }
        if endpoint.is_every_address() && !endpoint.host.is_empty() {
            return Err(unfit(loaded, ADVERTISED, format!("has {endpoint}, which nobody can connect to")));
        }
        advertised.push(endpoint);
    }
    if advertised.is_empty() && !clients.is_empty() {
        return Err(unfit(loaded, ADVERTISED, "names no listener of clients"));
    }
    Ok(advertised)
}

/// The named listener; without a name PLAINTEXT, or the only one.
fn inter_broker(loaded: &LoadedSettings, clients: &[Endpoint]) -> Result<String, ConfigError> {
    const NAME: &str = "inter.broker.listener.name";
    let names: Vec<&str> = clients.iter().map(|endpoint| endpoint.name.as_str()).collect();
    match loaded.settings.text(NAME).filter(|name| !name.is_empty()) {
        Some(name) if names.contains(&name.to_ascii_uppercase().as_str()) => Ok(name.to_ascii_uppercase()),
        Some(name) => Err(unfit(loaded, NAME, format!("is {name:?}, which is none of {}", names.join(", ")))),
        None => match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ if names.contains(&"PLAINTEXT") => Ok("PLAINTEXT".to_owned()),
            _ => Err(unfit(loaded, NAME, format!("is missing; it must be one of {}", names.join(", ")))),
        },
    }
}
