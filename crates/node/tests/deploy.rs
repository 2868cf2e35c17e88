//! The files in `deploy` are settings that a node starts with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use klamm_node::{DerivedSettings, NodeConfig, Sources};

const COMPOSE: &str = include_str!("../../../deploy/docker-compose.yml");

/// The variables below `head` in the compose file, up to the next line that is less indented.
fn variables_below(head: &str) -> BTreeMap<String, String> {
    let mut lines = COMPOSE.lines().skip_while(|line| line.trim() != head);
    let head = lines.next().unwrap();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let body = lines.take_while(|line| line.trim().is_empty() || indent(line) > indent(head));
    let pairs = body.filter_map(|line| line.trim().split_once(": "));
    let is_variable = |name: &str| name == "CLUSTER_ID" || name.starts_with("KAFKA_");
    pairs
        .filter(|(name, _)| is_variable(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn node(sources: &Sources) -> NodeConfig {
    let loaded = sources.load().unwrap();
    DerivedSettings::new(&loaded).unwrap();
    NodeConfig::new(&loaded).unwrap()
}

#[test]
fn the_three_nodes_of_the_compose_file_are_one_cluster() {
    let shared = variables_below("x-settings: &settings");
    let nodes: Vec<NodeConfig> = (1..=3)
        .map(|id| {
            let mut variables = shared.clone();
            variables.extend(variables_below(&format!("klamm-{id}:")));
            node(&Sources { variables: variables.into_iter().collect(), ..Sources::default() })
        })
        .collect();
    for (id, node) in (1..).zip(&nodes) {
        assert_eq!(node.node_id.0, id);
        assert_eq!(node.quorum, nodes[0].quorum);
        assert_eq!(node.cluster_id, nodes[0].cluster_id);
        let told: Vec<String> = node.listeners.advertised.iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("INTERNAL://klamm-{id}:19092"), format!("HOST://127.0.0.1:{}", 9091 + id)]);
    }
    assert_eq!(nodes[0].quorum.voters.len(), 3);
}

#[test]
fn the_image_without_settings_is_one_node() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/server.properties");
    let node = node(&Sources { file: Some(file.into()), ..Sources::default() });
    assert!(node.roles.broker && node.roles.controller);
    assert_eq!(node.quorum.voters.len(), 1);
}
