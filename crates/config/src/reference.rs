//! The configuration reference, made from the table.

use std::fmt::Write as _;

use crate::{Scope, Setting, Table, Treatment, server_synonyms, topic_synonyms};

const HEAD: &str = "\
# Configuration

<!-- Made from the table in crates/config/settings by
     `cargo run -p klamm-config --example configuration_reference > docs/configuration.md`; a test compares. -->

A node reads its settings from a file in the format of Kafka's `server.properties` (`klamm server --config FILE`), then
from environment variables as the Apache image maps them (`KAFKA_LOG_RETENTION_MS` is `log.retention.ms`: `_` stands
for `.`, `__` for `_`, `___` for `-`; `CLUSTER_ID` is `klamm.cluster.id`), then from `--override NAME=VALUE`. Of a setting
that is given more than once, the last value holds.

All settings of Kafka 4.3 are known here. One that is misspelt, has a value that it cannot have, or would have an effect
that Klamm does not have yet stops the start with its name, its place and what is allowed;
`klamm.unknown.settings=warn` lets names pass that nobody knows. In the column **Klamm**:

- *used*: it does what it says.
- *no effect*: it is accepted, with a notice in the log that says why it does nothing. Variables of the Apache image
  for Java, JMX and Log4j (`KAFKA_HEAP_OPTS`, `KAFKA_OPTS`, `KAFKA_JMX_OPTS`, `KAFKA_LOG4J_...` and the like) get the same.
- *only the default*: anything but the default is refused, since its effect would be missed.

The column **Changes** says when a value can change: *start* means with a restart of the node, *broker* for one broker
while it runs, *cluster* for one broker or for all while they run. Some that Kafka changes in a running broker need a
restart here, and an attempt to change them is refused.

";

/// The reference as Markdown.
#[must_use]
pub fn configuration_reference() -> String {
    let mut text = HEAD.to_owned();
    let server = |own: bool| {
        let settings = Table::Server.settings().iter();
        settings.filter(move |setting| !setting.internal && setting.name.starts_with("klamm.") == own)
    };
    section(&mut text, "Settings of nodes that only Klamm has", Table::Server, server(true));
    section(&mut text, "Settings of nodes", Table::Server, server(false));
    let shown = |table: Table| table.settings().iter().filter(|setting| !setting.internal);
    section(&mut text, "Settings of topics", Table::Topic, shown(Table::Topic));
    section(&mut text, "Settings of groups", Table::Group, shown(Table::Group));
    let subscriptions = "Settings of subscriptions to clients' metrics";
    section(&mut text, subscriptions, Table::ClientMetrics, shown(Table::ClientMetrics));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section<'a>(text: &mut String, title: &str, table: Table, settings: impl Iterator<Item = &'a Setting>) {
    let of_nodes = table == Table::Server;
    // Writing to a string does not fail.
    let _ = writeln!(text, "## {title}\n");
    let _ = writeln!(
        text,
        "| name | type | default | allowed |{} Klamm | meaning |",
        if of_nodes { " Changes |" } else { "" }
    );
    let _ = writeln!(text, "|---|---|---|---|{}---|---|", if of_nodes { "---|" } else { "" });
    for setting in settings {
        let _ = writeln!(text, "{}", row(setting, table));
    }
    text.push('\n');
}

fn row(setting: &Setting, table: Table) -> String {
    let default = match setting.default {
        _ if setting.required => "must be given".to_owned(),
        None => "none".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let changes = match (table, setting.scope) {
        (Table::Server, Scope::ReadOnly) => " start |",
        (Table::Server, Scope::PerBroker) => " broker |",
        (Table::Server, Scope::ClusterWide) => " cluster |",
        (Table::Topic | Table::Group | Table::ClientMetrics, _) => "",
    };
    let treatment = match setting.treatment {
        Treatment::Used => "used".to_owned(),
        Treatment::Ignored(reason) => format!("no effect: {reason}"),
        Treatment::Refused(reason) => format!("only the default: {reason}"),
    };
    let synonyms = match table {
        Table::Topic => topic_synonyms(setting.name),
        Table::Server => server_synonyms(setting.name),
        Table::Group | Table::ClientMetrics => &[],
    };
    let names: Vec<String> = synonyms
        .iter()
        .filter(|synonym| table == Table::Topic || synonym.name != setting.name)
        .map(|synonym| format!("`{}`", synonym.name))
        .collect();
    let also = match (table, names.is_empty()) {
        (_, true) => String::new(),
        (Table::Topic, false) => format!(" Default from {}.", names.join(", ")),
        (_, false) => format!(" Also given as {}.", names.join(", ")),
    };
    let (name, kind, allowed) = (setting.name, setting.kind, setting.allowed_text());
    let allowed = allowed.replace('|', "\\|").replace('*', "\\*");
    let doc = setting.doc.replace('*', "\\*");
    format!("| `{name}` | {kind} | {default} | {allowed} |{changes} {treatment} | {doc}{also} |")
}
