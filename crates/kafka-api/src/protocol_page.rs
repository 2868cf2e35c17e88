//! `docs/protocol.md`, made from the table of handlers and from the record of what clients ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use klamm_protocol::{ApiKey, VersionRange};

use crate::table::ApiTable;

/// The name in the record of the test that asks for everything.
const EVERYTHING: &str = "every-version";

/// Who else asks, by the name in the record, and the test in which.
const CLIENTS: [(&str, &str, &str); 9] = [
    ("aiokafka", "aiokafka", "tests/tests/clients/every_client.rs"),
    ("franz-go", "franz-go", "tests/tests/clients/every_client.rs"),
    ("java", "`kafka-clients`, Kafka's own", "tests/tests/clients/every_client.rs"),
    ("kafka-python", "kafka-python", "tests/tests/clients/every_client.rs"),
    ("kafka-tools", "Kafka's command-line tools", "tests/tests/kafka_tools/main.rs"),
    ("kafkajs", "kafkajs", "tests/tests/clients/every_client.rs"),
    ("kcat", "kcat, on librdkafka", "tests/tests/clients/every_client.rs"),
    ("klamm", "our own commands", "tests/tests/cluster/verbs.rs"),
    ("librdkafka", "librdkafka, through confluent-kafka", "tests/tests/clients/every_client.rs"),
];

const HEAD: &str = "\
# Kafka's APIs, and which are served

Which versions of each API a broker of Kafka 4.3 shows (*Kafka*), which a client of this broker is told (*here*), and by
which test each is shown. No line is written by hand: a test of `crates/kafka-api` makes the page from the table of
handlers and from `tests/requests.txt`, and fails when they differ.

`tests/requests.txt` tells what live nodes were asked in tests. The nodes count it themselves, as
`klamm_front_requests_total` in their metrics, and every run of those tests fails if it does not see again all that the
record tells.

- *each version*: `tests/tests/wire/every_version.rs` asks a live node for something in every version, and checks what the
  answer says; Kafka's own serialisers read each request and each answer and must write the same bytes.
- *clients*: which versions unmodified clients ask for, each in a test that checks what comes of it.
- *file*: the handler, below `crates/kafka-api/src/handlers`, with its own tests.

To make it anew, with the tools at hand that those tests need:

```sh
KLAMM_RECORD_REQUESTS=1 cargo test -p klamm-tests --test wire --test clients --test kafka_tools --test cluster
cargo test -p klamm-kafka-api the_table_is_written_down
```

The second fails, and tells where it has put the new page.

| key | API | Kafka | here | each version | clients | file |
|---|---|---|---|---|---|---|
";

const FOOT: &str = "
Produce is advertised from version 0 on, as Kafka does, and refused below 3. What Kafka's brokers ask of one another and
of its controllers over this protocol goes over gRPC here (`docs/protocol/node-to-node.md`).
";

/// What each client asked for, by API.
type Record<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<i16>>>;

fn parse(record: &str) -> Record<'_> {
    let mut parsed = Record::new();
    for line in record.lines() {
        let mut words = line.split(' ');
        let (client, api) = (words.next().unwrap(), words.next().unwrap());
        let versions = words.map(|word| word.parse().unwrap()).collect();
        parsed.entry(client).or_default().insert(api, versions);
    }
    parsed
}

/// The page.
///
/// # Panics
/// If the record does not show every version that is served, tells of one that is not, or names somebody unknown.
pub(crate) fn page(table: &ApiTable, record: &str) -> String {
    let record = parse(record);
    check(table, &record);
    let mut page = HEAD.to_owned();
    for key in ApiKey::ALL.iter().copied().filter(|key| key.is_on_broker()) {
        let (code, kafka) = (key.code(), range(key.stable_versions()));
        let Some(row) = table.row(key) else {
            writeln!(page, "| {code} | {key} | {kafka} | - | | | |").unwrap();
            continue;
        };
        let here = range(row.versions);
        let shown = listed(&record[EVERYTHING][key.name()]);
        let (clients, file) = (clients(&record, key), file(key));
        writeln!(page, "| {code} | {key} | {kafka} | {here} | {shown} | {clients} | `{file}` |").unwrap();
    }
    page.push_str("\n| name | who asks | in which test |\n|---|---|---|\n");
    for (name, who, test) in CLIENTS {
        writeln!(page, "| {name} | {who} | `{test}` |").unwrap();
    }
    page.push_str(FOOT);
    page
}

fn check(table: &ApiTable, record: &Record<'_>) {
    let known: Vec<_> = CLIENTS.iter().map(|(name, ..)| *name).chain([EVERYTHING]).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, _, test) in CLIENTS {
        assert!(record.contains_key(name), "the record tells nothing of {name}");
        assert!(root.join(test).is_file(), "{test} does not exist");
    }
    let served: BTreeSet<_> = table.served_versions().map(|(key, version)| (key.name(), version)).collect();
    for (client, asked) in record {
        assert!(known.contains(client), "the record tells of {client}, whom this page does not know");
        for (api, versions) in asked {
            for version in versions {
                assert!(served.contains(&(api, *version)), "{client}: {api} {version} is not served");
            }
        }
    }
    for (api, version) in served {
        let asked = record[EVERYTHING].get(api).is_some_and(|versions| versions.contains(&version));
        assert!(asked, "no test shows {api} {version}");
    }
}

/// Where the handler is, below those of all.
pub(crate) fn file(key: ApiKey) -> String {
    let mut snake = String::new();
    for c in key.name().chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake + ".rs"
}

fn range(versions: VersionRange) -> String {
    listed(&versions.iter().collect())
}

/// `0-3, 7` for 0, 1, 2, 3 and 7.
fn listed(versions: &BTreeSet<i16>) -> String {
    let mut runs: Vec<(i16, i16)> = Vec::new();
    for &version in versions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == version => *last = version,
            _ => runs.push((version, version)),
        }
    }
    let text = |(first, last): &(i16, i16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The clients that ask for the API, with their versions, highest first.
fn clients(record: &Record<'_>, key: ApiKey) -> String {
    let mut by_versions = BTreeMap::<_, Vec<&str>>::new();
    for (name, ..) in CLIENTS {
        if let Some(versions) = record[name].get(key.name()) {
            let highest_first: Vec<_> = versions.iter().rev().copied().collect();
            by_versions.entry(highest_first).or_default().push(name);
        }
    }
    let told = by_versions.iter().rev().map(|(versions, names)| {
        format!("{}: {}", listed(&versions.iter().copied().collect()), names.join(", "))
    });
    told.collect::<Vec<_>>().join("; ")
}
