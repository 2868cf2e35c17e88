//! What the nodes of a cluster were asked, by their own count, and the record of what each client asks.
//!
//! The record, `tests/requests.txt`, has a line for each client and API with the versions that the client was seen to
//! ask for: `java Produce 13`. A test that lets a client work compares with [`Record::check`]: all that the record tells
//! of the client must be seen again in every run. `docs/protocol.md` is made from it, so the page cannot tell of a test
//! what it does not do. `KLAMM_RECORD_REQUESTS=1` makes a run write down what it saw instead; where a client asks for
//! something only now and then, the line must not have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use klamm_client::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, HarnessError, wait_for};
use crate::tools::workspace;

/// When set to `1`, what is seen is recorded and not compared.
pub const RECORD: &str = "KLAMM_RECORD_REQUESTS";

/// How long clients that have ended may stay connected.
const PARTING_TIME_MAX: Duration = Duration::from_secs(60);

/// APIs by Kafka's names, each with the versions that were asked for.
pub type Versions = BTreeMap<String, BTreeSet<i16>>;

/// How many requests of each API and version the nodes of a cluster have answered since they started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<(String, i16), u64>);

impl Requests {
    /// What the nodes tell now.
    ///
    /// # Errors
    /// [`HarnessError`] if a node does not tell.
    pub async fn answered(cluster: &Cluster) -> Result<Self, HarnessError> {
        let mut sum = Self::default();
        for id in cluster.ids() {
            sum.add(&metrics(cluster, id).await?);
        }
        Ok(sum)
    }

    /// What the nodes tell once no client is connected, so that nothing is on its way any more.
    ///
    /// # Errors
    /// [`HarnessError`] if a node does not tell, or a client stays connected for a minute.
    pub async fn settled(cluster: &Cluster) -> Result<Self, HarnessError> {
        wait_for("all clients part", PARTING_TIME_MAX, async || {
            for id in cluster.ids() {
                let page = metrics(cluster, id).await.map_err(|error| error.to_string())?;
                let count = |name: &str| counter(&page, &format!("klamm_front_connections_{name}_total"));
                let (opened, closed) = (count("opened"), count("closed"));
                if opened.is_none() || opened != closed {
                    return Err(format!("node {id} has opened {opened:?} and closed {closed:?}"));
                }
            }
            Ok(())
        })
        .await?;
        Self::answered(cluster).await
    }

    fn add(&mut self, page: &str) {
        for (labels, count) in page.lines().filter_map(|line| sample(line, "klamm_front_requests_total")) {
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let version = label("version").and_then(|version| version.parse().ok());
            if let (Some(request), Some(version)) = (label("request"), version) {
                *self.0.entry((request.to_owned(), version)).or_default() += count;
            }
        }
    }

    /// What was asked after `earlier` was told.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Versions {
        let mut versions = Versions::new();
        for ((request, version), count) in &self.0 {
            if earlier.0.get(&(request.clone(), *version)).is_none_or(|before| before < count) {
                versions.entry(request.clone()).or_default().insert(*version);
            }
        }
        versions
    }
}

async fn metrics(cluster: &Cluster, id: u16) -> Result<String, HarnessError> {
    let page = admin_page(&cluster.admin_endpoint(id), "/metrics").await;
    page.map_err(HarnessError::io(format!("read the metrics of node {id}")))
}

/// What a node tells its administrator at `path`, the head of the answer included.
///
/// # Errors
/// The socket's.
pub async fn admin_page(at: &Endpoint, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect((at.host.as_str(), at.port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut told = String::new();
    socket.read_to_string(&mut told).await?;
    Ok(told)
}

/// The labels and the value of a line that tells of `name`.
fn sample<'a>(line: &'a str, name: &str) -> Option<(&'a str, u64)> {
    let rest = line.strip_prefix(name)?;
    let (labels, value) = rest.rsplit_once(' ')?;
    Some((labels, value.parse().ok()?))
}

fn counter(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| sample(line, name)).map(|(_, value)| value)
}

/// Adds what was asked in another part of a run.
pub fn add(versions: &mut Versions, more: Versions) {
    for (request, more) in more {
        versions.entry(request).or_default().extend(more);
    }
}

/// Why the record is not what a run shows.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The record.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not `CLIENT API VERSION...`.
    #[error("line {number} of the record is not CLIENT API VERSION...: {line}")]
    Line {
        /// From 1.
        number: usize,
        /// What it is.
        line: String,
    },
    /// The record tells nothing of a client.
    #[error("the record tells nothing of {client}; {RECORD}=1 makes it")]
    Unknown {
        /// Which.
        client: String,
    },
    /// The record tells of a client what this run did not show.
    #[error("{client} has not asked for what the record tells of it:{missing}")]
    NotSeen {
        /// Which.
        client: String,
        /// APIs and versions.
        missing: String,
    },
}

/// What each client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<String, Versions>);

impl Record {
    /// Where it is.
    #[must_use]
    pub fn path() -> PathBuf {
        workspace().join("tests/requests.txt")
    }

    /// Compares what `client` was seen to ask for with the record, or records it.
    ///
    /// # Errors
    /// [`RecordError`] if the record tells more of the client than was seen, or nothing.
    pub fn check(client: &str, seen: &Versions) -> Result<(), RecordError> {
        let path = Self::path();
        let io = |source| RecordError::Io { path: path.clone(), source };
        #[expect(clippy::disallowed_methods, reason = "a developer asks for a new record")]
        let records = std::env::var(RECORD).is_ok_and(|value| value == "1");
        let mut file = File::options().read(true).write(records).open(&path).map_err(io)?;
        if records {
            file.lock().map_err(io)?;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        let mut record = Self::parse(&text)?;
        if !records {
            return record.compare(client, seen);
        }
        record.0.insert(client.to_owned(), seen.clone());
        file.rewind().and_then(|()| file.set_len(0)).map_err(io)?;
        file.write_all(record.to_string().as_bytes()).map_err(io)
    }

    fn compare(&self, client: &str, seen: &Versions) -> Result<(), RecordError> {
        let unknown = || RecordError::Unknown { client: client.to_owned() };
        let told = self.0.get(client).filter(|told| !told.is_empty()).ok_or_else(unknown)?;
        let mut missing = String::new();
        for (request, versions) in told {
            let seen = seen.get(request).cloned().unwrap_or_default();
            for version in versions.difference(&seen) {
                missing += &format!(" {request} {version}");
            }
        }
        let not_seen = |missing| RecordError::NotSeen { client: client.to_owned(), missing };
        if missing.is_empty() { Ok(()) } else { Err(not_seen(missing)) }
    }

    fn parse(text: &str) -> Result<Self, RecordError> {
        let mut record = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let parsed = parse_line(line).filter(|(_, _, versions)| !versions.is_empty());
            let (client, request, versions) =
                parsed.ok_or_else(|| RecordError::Line { number, line: line.to_owned() })?;
            record.0.entry(client.to_owned()).or_default().insert(request.to_owned(), versions);
        }
        Ok(record)
    }
}

fn parse_line(line: &str) -> Option<(&str, &str, BTreeSet<i16>)> {
    let mut words = line.split(' ');
    let (client, request) = (words.next()?, words.next()?);
    if client.is_empty() || request.is_empty() {
        return None;
    }
    Some((client, request, words.map(str::parse).collect::<Result<_, _>>().ok()?))
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (client, told) in &self.0 {
            for (request, versions) in told {
                write!(f, "{client} {request}")?;
                versions.iter().try_for_each(|version| write!(f, " {version}"))?;
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE klamm_front_requests counter\n\
         klamm_front_requests_total{request=\"Fetch\",version=\"4\"} 2\n\
         klamm_front_requests_total{request=\"Fetch\",version=\"18\"} 1\n\
         klamm_front_requests_received_total 3\n";

    fn versions(of: &[(&str, &[i16])]) -> Versions {
        of.iter().map(|(name, versions)| ((*name).to_owned(), versions.iter().copied().collect())).collect()
    }

    #[test]
    fn what_nodes_tell_is_added_up() {
        let mut before = Requests::default();
        before.add(PAGE);
        let mut after = before.clone();
        assert_eq!(after.since(&before), Versions::new());
        after.add("klamm_front_requests_total{request=\"Fetch\",version=\"4\"} 1\n");
        assert_eq!(after.since(&before), versions(&[("Fetch", &[4])]));
        assert_eq!(after.since(&Requests::default()), versions(&[("Fetch", &[4, 18])]));
        assert_eq!(counter(PAGE, "klamm_front_requests_received_total"), Some(3));
        assert_eq!(counter(PAGE, "klamm_front_responses_sent_total"), None);
    }

    #[test]
    fn what_a_run_did_not_show_is_found() {
        let record = Record::parse("java Fetch 4 18\njava Produce 13\nkcat Fetch 16\n").unwrap();
        let missing = |client: &str, seen: &[(&str, &[i16])]| {
            record.compare(client, &versions(seen)).map_err(|error| error.to_string())
        };
        missing("java", &[("Fetch", &[4, 5, 18]), ("Produce", &[13]), ("Metadata", &[1])]).unwrap();
        let fault = missing("java", &[("Fetch", &[4, 17])]).unwrap_err();
        assert!(fault.ends_with(": Fetch 18 Produce 13"), "{fault}");
        missing("franz-go", &[("Fetch", &[18])]).unwrap_err();
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let text = "java Fetch 4 18\njava Produce 13\nkcat Fetch 16\n";
        assert_eq!(Record::parse(text).unwrap().to_string(), text);
        for wrong in ["java\n", "java Fetch\n", "java Fetch 1 x\n", "\n", "java  1\n"] {
            assert!(matches!(Record::parse(wrong), Err(RecordError::Line { number: 1, .. })), "{wrong}");
        }
    }
}
