//! Rule: imports point down. The table is the picture in the first chapter of the design, as data.

use std::collections::BTreeSet;

use super::Finding;
use crate::workspace::{Package, Workspace};

/// A crate, its layer, and the workspace crates that it may use.
struct Row {
    package: &'static str,
    layer: u8,
    may_use: &'static [&'static str],
}

const fn row(package: &'static str, layer: u8, may_use: &'static [&'static str]) -> Row {
    Row { package, layer, may_use }
}

const TYPES: &str = "klamm-types";
const RECORD: &str = "klamm-record";
const RAFT_HISTOGRAM: &str = "base2histogram";
const PB: &str = "klamm-pb";
const CONFIG: &str = "klamm-config";
const METADATA: &str = "klamm-metadata";
const PROTOCOL: &str = "klamm-protocol";
const REPLICA: &str = "klamm-replica";
const CONTROL: &str = "klamm-control";
const COORDINATOR: &str = "klamm-coordinator";
const SIM: &str = "klamm-sim";
const LOG: &str = "klamm-log";
const SECURITY: &str = "klamm-security";
const RPC: &str = "klamm-rpc";
const CLIENT: &str = "klamm-client";
const BROKER: &str = "klamm-broker";
const CONTROLLER: &str = "klamm-controller";
const KAFKA_API: &str = "klamm-kafka-api";
const NODE: &str = "klamm-node";
const CLI: &str = "klamm-cli";
const CONSOLE: &str = "klamm-console";
const SCHEMA_REGISTRY: &str = "klamm-schema-registry";
const TESTS: &str = "klamm-tests";
const BENCH: &str = "klamm-bench";
const KLAMM: &str = "klamm";
const CODEGEN: &str = "klamm-codegen";
const XTASK: &str = "xtask";

/// Every crate that the design names, built yet or not.
const TABLE: [Row; 27] = [
    row(TYPES, 0, &[]),
    row(RECORD, 0, &[TYPES]),
    row(PB, 0, &[]),
    // Stands in a library's dependencies; nothing here uses it.
    row(RAFT_HISTOGRAM, 0, &[]),
    row(CONFIG, 1, &[TYPES]),
    row(METADATA, 1, &[TYPES, PB]),
    row(PROTOCOL, 1, &[TYPES, RECORD]),
    row(REPLICA, 2, &[TYPES]),
    row(CONTROL, 2, &[TYPES, METADATA]),
    row(COORDINATOR, 2, &[TYPES, RECORD, PROTOCOL, METADATA]),
    row(LOG, 3, &[TYPES, RECORD]),
    row(SECURITY, 3, &[TYPES, METADATA]),
    // A tool that drives the layers below it; nothing but tests may use it.
    row(SIM, 4, &[TYPES, RECORD, PB, METADATA, PROTOCOL, REPLICA, CONTROL, COORDINATOR, LOG]),
    row(RPC, 4, &[TYPES, PB]),
    row(CLIENT, 4, &[TYPES, RECORD, PROTOCOL]),
    row(CONTROLLER, 5, &[TYPES, RECORD, METADATA, CONTROL, LOG, RPC, PB]),
    row(
        BROKER,
        5,
        &[TYPES, RECORD, CONFIG, PROTOCOL, METADATA, REPLICA, COORDINATOR, LOG, SECURITY, RPC, PB],
    ),
    row(KAFKA_API, 6, &[TYPES, RECORD, PB, CONFIG, PROTOCOL, METADATA, SECURITY, COORDINATOR, LOG, BROKER]),
    row(
        NODE,
        7,
        &[
            TYPES,
            RECORD,
            PB,
            CONFIG,
            METADATA,
            PROTOCOL,
            REPLICA,
            CONTROL,
            COORDINATOR,
            LOG,
            SECURITY,
            RPC,
            CLIENT,
            BROKER,
            CONTROLLER,
            KAFKA_API,
        ],
    ),
    // `log dump` and `log verify` read the files of a stopped node, which no public API can show.
    row(CLI, 7, &[TYPES, RECORD, PROTOCOL, CLIENT, LOG]),
    row(CONSOLE, 7, &[TYPES, PROTOCOL, CLIENT]),
    row(SCHEMA_REGISTRY, 7, &[TYPES, RECORD, PROTOCOL, CLIENT]),
    row(TESTS, 7, &[TYPES, RECORD, PROTOCOL, CLIENT]),
    // A tool that measures the program from outside; nothing uses it.
    row(BENCH, 8, &[TYPES, RECORD, PROTOCOL, CLIENT, TESTS]),
    row(KLAMM, 8, &[NODE, CLI]),
    // A tool: it sees no product crate, and of those only tests see it.
    row(CODEGEN, 0, &[]),
    row(XTASK, 8, &[CODEGEN]),
];

/// What the tests of any crate may use beyond its row: the vocabulary, a real log to stand on, and the sampler of
/// wire messages.
const TESTS_MAY_USE: [&str; 4] = [TYPES, RECORD, LOG, CODEGEN];

/// The crates without a runtime, files, sockets, clocks or chance.
pub(super) const PURE: [&str; 9] =
    [TYPES, RECORD, PB, CONFIG, METADATA, PROTOCOL, REPLICA, CONTROL, COORDINATOR];

/// Checks the dependency tables of all members.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let members: BTreeSet<_> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    let findings = workspace.packages.iter().flat_map(|package| check_package(package, &members));
    findings.collect()
}

fn check_package(package: &Package, members: &BTreeSet<&str>) -> Vec<Finding> {
    let path = format!("{} (manifest)", package.name);
    let Some(row) = TABLE.iter().find(|row| row.package == package.name) else {
        let what = "no such crate in the layer table: give it a row in crates/xtask/src/tidy/layers.rs";
        return vec![Finding::new(&path, 0, what)];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let is_dev = dependency.kind.as_deref() == Some("dev");
        if dependency.path.is_some() && !members.contains(name) {
            findings.push(Finding::new(
                &path,
                0,
                format!("uses {name} by path, which is no member: make it one"),
            ));
        }
        if members.contains(name) && !may_use(row, name, is_dev) {
            let table = if is_dev { "its tests" } else { "it" };
            let what = format!(
                "layer {}: {table} may not use {name}: move the code, or change the design",
                row.layer
            );
            findings.push(Finding::new(&path, 0, what));
        }
    }
    findings
}

fn may_use(row: &Row, name: &str, is_dev: bool) -> bool {
    // The tests package is where all crates meet.
    row.may_use.contains(&name) || (is_dev && (TESTS_MAY_USE.contains(&name) || row.package == TESTS))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: Some(PathBuf::from(name)),
        };
        let dependencies = dependencies.iter().map(dependency).collect();
        Package { name: name.to_owned(), manifest_path: PathBuf::new(), dependencies, targets: Vec::new() }
    }

    fn findings(package: &Package) -> Vec<String> {
        let members = TABLE.iter().map(|row| row.package).collect();
        check_package(package, &members).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_crate_may_use_what_its_row_says() {
        assert!(findings(&package(LOG, &[(TYPES, None), (RECORD, None)])).is_empty());
    }

    #[test]
    fn an_import_that_points_up_is_found() {
        let found = findings(&package(REPLICA, &[(LOG, None)]));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("klamm-replica (manifest): layer 2: it may not use klamm-log"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn a_build_dependency_is_an_import() {
        assert_eq!(findings(&package(TYPES, &[(PB, Some("build"))])).len(), 1);
    }

    #[test]
    fn tests_reach_the_log_but_not_a_body() {
        assert!(findings(&package(REPLICA, &[(LOG, Some("dev"))])).is_empty());
        assert_eq!(findings(&package(REPLICA, &[(BROKER, Some("dev"))])).len(), 1);
        assert!(findings(&package(TESTS, &[(BROKER, Some("dev"))])).is_empty());
    }

    #[test]
    fn an_unknown_crate_is_an_error() {
        assert_eq!(findings(&package("klamm-misc", &[])).len(), 1);
    }

    #[test]
    fn a_path_outside_the_workspace_is_an_error() {
        assert_eq!(findings(&package(LOG, &[("foreign", None)])).len(), 1);
    }

    #[test]
    fn the_table_itself_points_down() {
        let layer = |name: &str| TABLE.iter().find(|row| row.package == name).unwrap().layer;
        for row in &TABLE {
            for used in row.may_use {
                // `record` rests on `types`, both in the bottom layer; its own row must not use it back.
                let is_bottom = row.package == RECORD && *used == TYPES;
                assert!(is_bottom || layer(used) < row.layer, "{} uses {used}", row.package);
            }
        }
        assert!(PURE.iter().all(|name| layer(name) <= 2));
    }
}
