use super::*;
use crate::sources::Sources;

/// A combined node, alone.
const ALONE: [&str; 5] = [
    "node.id=1",
    "process.roles=broker,controller",
    "controller.listener.names=CONTROLLER",
    "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
    "controller.quorum.voters=1@127.0.0.1:9093",
];

fn load(settings: &[&str], more: &[&str]) -> Result<NodeConfig, String> {
    let overrides = settings.iter().chain(more).map(|text| (*text).to_owned()).collect();
    let tell =
        |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let loaded = Sources { overrides, ..Sources::default() }.load().map_err(tell)?;
    NodeConfig::new(&loaded).map_err(tell)
}

fn refusal(more: &[&str]) -> String {
    load(&ALONE, more).unwrap_err()
}

#[test]
fn a_combined_node_is_read() {
    let config = load(&ALONE, &["log.dirs=/a,/b", "broker.rack=r1", "klamm.worker.threads=2"]).unwrap();
    assert_eq!(config.node_id, BrokerId(1));
    assert_eq!(config.roles, Roles { broker: true, controller: true });
    assert_eq!(config.listeners.clients.len(), 1);
    assert_eq!(config.listeners.controller.len(), 1);
    assert_eq!(config.listeners.advertised, config.listeners.clients);
    assert_eq!(config.listeners.inter_broker, "PLAINTEXT");
    assert_eq!(config.quorum.addresses, [("127.0.0.1".to_owned(), 9093)]);
    assert_eq!(config.metadata_dir, PathBuf::from("/a"));
    assert_eq!(config.rack.as_deref(), Some("r1"));
    assert_eq!(config.worker_threads, Some(2));
    assert_eq!(config.admin, Some(("127.0.0.1".to_owned(), 9190)));
}

#[test]
fn the_apache_images_settings_are_understood() {
    let settings = [
        "node.id=2",
        "process.roles=broker,controller",
        "listeners=PLAINTEXT://:19092,CONTROLLER://:9093,PLAINTEXT_HOST://:9092",
        "advertised.listeners=PLAINTEXT://broker-2:19092,PLAINTEXT_HOST://localhost:9093",
        "inter.broker.listener.name=PLAINTEXT",
        "controller.listener.names=CONTROLLER",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
        "controller.quorum.voters=1@broker-1:9093,2@broker-2:9093,3@broker-3:9093",
        "offsets.topic.replication.factor=1",
        "group.initial.rebalance.delay.ms=0",
        "transaction.state.log.min.isr=1",
        "transaction.state.log.replication.factor=1",
        "share.coordinator.state.topic.replication.factor=1",
        "log.dirs=/tmp/kraft-combined-logs",
        "klamm.cluster.id=4L6g3nShT-eMCtK--X86sw",
    ];
    let config = load(&settings, &[]).unwrap();
    assert_eq!(config.quorum.voters.len(), 3);
    assert_eq!(config.listeners.clients.len(), 2);
    assert_eq!(config.listeners.advertised[1].to_string(), "PLAINTEXT_HOST://localhost:9093");
}

#[test]
fn the_settings_of_kafkas_own_example_start_one_node() {
    let settings = [
        "process.roles=broker,controller",
        "node.id=1",
        "controller.quorum.bootstrap.servers=localhost:9093",
        "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
        "inter.broker.listener.name=PLAINTEXT",
        "advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
        "controller.listener.names=CONTROLLER",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "num.network.threads=3",
        "num.io.threads=8",
        "socket.send.buffer.bytes=102400",
        "log.dirs=/tmp/kraft-combined-logs",
        "num.partitions=1",
        "num.recovery.threads.per.data.dir=2",
        "offsets.topic.replication.factor=1",
        "log.retention.hours=168",
        "log.segment.bytes=1073741824",
        "log.retention.check.interval.ms=300000",
    ];
    let config = load(&settings, &[]).unwrap();
    assert_eq!(config.quorum.voters, [Voter { id: 1, host: "localhost".to_owned(), port: 9093 }]);
    let two = load(&settings, &["controller.quorum.bootstrap.servers=a:9093,b:9093"]).unwrap_err();
    assert_eq!(
        two,
        "controller.quorum.voters is missing: the voters need their numbers: write controller.quorum.voters=ID@a:9093,ID@b:9093"
    );
}

#[test]
fn what_is_missing_is_told_at_once() {
    let told = load(&[], &[]).unwrap_err();
    for name in ["node.id is missing", "process.roles is missing", "controller.listener.names is missing"] {
        assert!(told.contains(name), "{told}");
    }
    let by_older_name = load(&ALONE[1..], &["broker.id=1"]).unwrap();
    assert_eq!(by_older_name.node_id, BrokerId(1));
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    for (more, part) in [
        ("broker.id=2", "must be the same as node.id, 1"),
        ("process.roles=", "is empty"),
        ("listeners=9092", "which is not NAME://host:port"),
        ("listeners=A://:1,A://:2", "two listeners with the name A"),
        ("listeners=PLAINTEXT://:1,CONTROLLER://h:1", "the same port"),
        ("listeners=PLAINTEXT://:9092", "lacks the listener of the controllers; add CONTROLLER://:9093"),
        ("listeners=CONTROLLER://:9093", "lacks a listener for clients"),
        ("listeners=CLIENTS://:9092,CONTROLLER://:9093", "lacks listener CLIENTS; add CLIENTS:PLAINTEXT"),
        ("listeners=SSL://:9092,CONTROLLER://:9093", "the protocol SSL, and only PLAINTEXT is built yet"),
        ("listener.security.protocol.map=PLAINTEXT", "which is not NAME:PROTOCOL"),
        ("listener.security.protocol.map=PLAINTEXT:TLS,CONTROLLER:PLAINTEXT", "unknown protocol \"TLS\""),
        ("listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://:9093", "write advertised.listeners as well"),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:9092", "which nobody can connect to"),
        ("advertised.listeners=OTHER://a:1", "there is no such listener"),
        ("inter.broker.listener.name=OTHER", "is \"OTHER\", which is none of PLAINTEXT"),
        ("controller.quorum.voters=2@h:1", "must name this node, 1"),
        ("controller.quorum.voters=1@h:1,1@h:2", "names 1 twice"),
        ("controller.quorum.voters=h:1", "which is not id@host:port"),
        ("log.dirs=/a,/a/", "names /a/ twice"),
        ("klamm.cluster.id=short", "must be 22 letters"),
        ("klamm.admin.listener=9190", "must be host:port"),
        ("broker.heartbeat.interval.ms=3000", "below broker.session.timeout.ms, 3000"),
        ("broker.session.timeout.ms=400", "must be above broker.heartbeat.interval.ms, 500; lower both"),
        ("broker.session.timeout.ms=0", "it must be from 1 to 3600000"),
        ("klamm.broker.session.timeout.max.ms=2999", "must be at least broker.session.timeout.ms, 3000"),
        ("controller.quorum.election.timeout.ms=0", "it must be from 1 to 2147483647"),
        ("initial.broker.registration.timeout.ms=-1", "it must be from 1 to 2147483647"),
        ("default.replication.factor=0", "it must be from 1 to 32767"),
        ("connections.max.idle.ms=0", "it must be at least 1, or -1"),
        ("log.retention.ms=0", "it must be at least 1, or -1"),
        ("log.roll.ms=0", "it must be at least 1"),
        ("replica.lag.time.max.ms=0", "it must be at least 1"),
        ("replica.high.watermark.checkpoint.interval.ms=-1", "it must be at least 0"),
    ] {
        let told = refusal(&[more]);
        assert!(told.contains(part), "{more}: {told}");
        let names_place = told.starts_with("--override: ") || told.starts_with("default: ");
        assert!(names_place, "{more}: {told}");
    }
    let only_broker = refusal(&["process.roles=broker"]);
    assert!(only_broker.contains("has a listener of controllers"), "{only_broker}");
}

#[test]
fn a_node_of_one_role_has_the_listeners_of_one_role() {
    let broker = [
        "node.id=4",
        "process.roles=broker",
        "controller.listener.names=CONTROLLER",
        "listeners=PLAINTEXT://127.0.0.1:9092",
        "controller.quorum.bootstrap.servers=c1:9093,c2:9093",
    ];
    let config = load(&broker, &[]).unwrap();
    assert!(config.quorum.voters.is_empty());
    assert_eq!(config.quorum.addresses.len(), 2);
    let controller = [
        "node.id=1",
        "process.roles=controller",
        "controller.listener.names=CONTROLLER",
        "listeners=CONTROLLER://127.0.0.1:9093",
        "controller.quorum.voters=1@127.0.0.1:9093",
    ];
    let config = load(&controller, &[]).unwrap();
    assert!(config.listeners.clients.is_empty() && config.listeners.advertised.is_empty());
    let mixed = load(&controller, &["listeners=PLAINTEXT://:9092,CONTROLLER://:9093"]).unwrap_err();
    assert!(mixed.contains("this node is only a controller"), "{mixed}");
}
