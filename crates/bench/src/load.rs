//! Load generators: what they are told, what they find, and what it costs them and the brokers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use klamm_tests::node_process;
use klamm_tests::tools::{self, Jars};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bed::Side;
use crate::machine;

pub(crate) mod lanes;
pub(crate) mod latency;
pub(crate) mod paced;
pub(crate) mod steady;

/// Takes records and prints nothing.
const NO_OUTPUT: &str = "org.apache.kafka.tools.consumer.NoOpMessageFormatter";
const MIB: f64 = (1 << 20) as f64;

/// Which program loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tool {
    /// `klamm perf`.
    Perf,
    /// `rdkafka_performance`.
    Librdkafka,
    /// Kafka's `ProducerPerformance` and `ConsumerPerformance`.
    Java,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Perf => "klamm perf",
            Self::Librdkafka => "rdkafka_performance",
            Self::Java => "Kafka's perf tools",
        }
    }

    /// How much of the usual work it is given: foreign tools are slower, and stand beside ours once.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::Perf => 1.0,
            Self::Librdkafka => 0.5,
            Self::Java => 0.25,
        }
    }
}

/// Where they are.
pub(crate) struct Tools {
    pub(crate) klamm: PathBuf,
    pub(crate) librdkafka: PathBuf,
    pub(crate) jars: Jars,
}

impl Tools {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let pom = tools::workspace().join("tests/interop/java/pom.xml");
        Ok(Self {
            klamm: node_process::binary()?,
            librdkafka: tools::rdkafka_performance()?,
            jars: Jars::of_pom("interop", &pom)?,
        })
    }
}

/// What a producer does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Produce {
    pub(crate) records: u64,
    pub(crate) record_size: usize,
    pub(crate) batch_size: usize,
    pub(crate) codec: &'static str,
    pub(crate) acks: &'static str,
    /// Requests under way to each partition, on each connection.
    pub(crate) in_flight: u16,
    pub(crate) connections: u16,
}

/// One run of a load.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) records_per_second: f64,
    /// Of values, before compression.
    pub(crate) mib_per_second: f64,
    pub(crate) mib: f64,
    pub(crate) records: f64,
    pub(crate) broker_cpu: f64,
    pub(crate) client_cpu: f64,
    /// Share of the machine's busy time that was neither the brokers' nor the client's.
    pub(crate) foreign: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

impl Sample {
    pub(crate) fn broker_seconds_per_gib(&self) -> f64 {
        self.broker_cpu / self.mib * 1024.0
    }

    pub(crate) fn client_seconds_per_gib(&self) -> f64 {
        self.client_cpu / self.mib * 1024.0
    }

    pub(crate) fn broker_micros_per_record(&self) -> f64 {
        self.broker_cpu / self.records * 1e6
    }
}

/// What a generator found by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) seconds: f64,
    pub(crate) records: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// A line of `klamm perf`.
#[derive(Deserialize)]
struct PerfLine {
    seconds: f64,
    records: f64,
    #[serde(default)]
    errors: u64,
    latency: Option<PerfLatency>,
}

#[derive(Deserialize)]
struct PerfLatency {
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs a generator to its end and accounts for the CPU time of `brokers` and of itself.
pub(crate) fn measured(
    command: &mut Command,
    brokers: &[u32],
    record_size: usize,
    read: impl FnOnce(&str) -> anyhow::Result<Found>,
) -> anyhow::Result<Sample> {
    let before = (machine::cpu_of(brokers)?, machine::cpu_of_ended_children()?, machine::busy()?);
    let text = output(command)?;
    let (broker_cpu, client_cpu) =
        (machine::cpu_of(brokers)? - before.0, machine::cpu_of_ended_children()? - before.1);
    let busy = machine::busy()? - before.2;
    let found = read(&text).with_context(|| text.clone())?;
    ensure!(found.records > 0.0 && found.seconds > 0.0, "nothing was done: {text}");
    let mib = found.records * record_size as f64 / MIB;
    Ok(Sample {
        records_per_second: found.records / found.seconds,
        mib_per_second: mib / found.seconds,
        mib,
        records: found.records,
        broker_cpu,
        client_cpu,
        foreign: ((busy - broker_cpu - client_cpu) / busy.max(0.01)).max(0.0),
        p50_ms: found.p50_ms,
        p99_ms: found.p99_ms,
    })
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{name}: {}: {errors}{text}", output.status);
    // rdkafka_performance tells its results on the one stream, and what went wrong on the other.
    Ok(format!("{text}\n{errors}"))
}

impl Produce {
    pub(crate) fn run(&self, tool: Tool, tools: &Tools, side: &Side, topic: &str) -> anyhow::Result<Sample> {
        let mut command = match tool {
            Tool::Perf => self.perf(tools, side, topic),
            Tool::Librdkafka => self.librdkafka(tools, side, topic),
            Tool::Java => self.java(tools, side, topic),
        };
        let start = Instant::now();
        measured(&mut command, &side.pids, self.record_size, |text| match tool {
            Tool::Perf => perf_line(text, 0, self.records),
            Tool::Librdkafka => librdkafka_produced(text, self.connections),
            Tool::Java => java_produced(text),
        })
        .with_context(|| format!("after {:.1} s", start.elapsed().as_secs_f64()))
    }

    fn perf(&self, tools: &Tools, side: &Side, topic: &str) -> Command {
        let mut command = perf(tools, "produce", side, topic);
        command.args(["--compression", self.codec, "--acks", self.acks, "--duration", "600"]);
        for (name, value) in [
            ("--record-size", self.record_size as u64),
            ("--batch-size", self.batch_size as u64),
            ("--records", self.records),
            ("--in-flight", u64::from(self.in_flight)),
            ("--connections", u64::from(self.connections)),
        ] {
            command.arg(name).arg(value.to_string());
        }
        command
    }

    fn acks_number(&self) -> &'static str {
        if self.acks == "all" { "-1" } else { self.acks }
    }

    /// A process of its own for each connection: one has one connection to a broker.
    fn librdkafka(&self, tools: &Tools, side: &Side, topic: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "n=$1; shift; for i in $(seq \"$n\"); do \"$@\" & done; wait", "sh"]);
        command.arg(self.connections.to_string()).arg(&tools.librdkafka);
        let records = self.records / u64::from(self.connections);
        command.args(["-P", "-t", topic, "-b", &side.bootstrap, "-q", "-z", self.codec]);
        command.args(["-a", self.acks_number(), "-s", &self.record_size.to_string()]);
        command.args(["-c", &records.to_string()]);
        let settings = [
            format!("batch.size={}", self.batch_size),
            format!("batch.num.messages={}", (self.batch_size / self.record_size).max(1)),
            format!("max.in.flight.requests.per.connection={}", self.in_flight),
            "linger.ms=5".to_owned(),
            "queue.buffering.max.messages=100000".to_owned(),
            "message.max.bytes=2000000".to_owned(),
        ];
        for setting in settings {
            command.arg("-X").arg(setting);
        }
        command
    }

    fn java(&self, tools: &Tools, side: &Side, topic: &str) -> Command {
        let mut command = java(tools, "org.apache.kafka.tools.ProducerPerformance");
        command.args(["--topic", topic, "--num-records", &self.records.to_string(), "--throughput", "-1"]);
        command.args(["--record-size", &self.record_size.to_string(), "--command-property"]);
        command.args([
            format!("bootstrap.servers={}", side.bootstrap),
            format!("acks={}", self.acks_number()),
            format!("batch.size={}", self.batch_size),
            format!("compression.type={}", self.codec),
            format!("max.in.flight.requests.per.connection={}", self.in_flight),
            format!("enable.idempotence={}", self.acks == "all" && self.in_flight <= 5),
            "linger.ms=5".to_owned(),
            "buffer.memory=67108864".to_owned(),
            "max.request.size=2000000".to_owned(),
        ]);
        command
    }
}

fn perf(tools: &Tools, verb: &str, side: &Side, topic: &str) -> Command {
    let mut command = Command::new(&tools.klamm);
    command.args(["perf", verb, "--json", "--bootstrap-server", &side.bootstrap, "--topic", topic]);
    command
}

fn java(tools: &Tools, class: &str) -> Command {
    tools.jars.command_with(&["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"], class)
}

/// Reads a topic of `records` from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consume {
    pub(crate) records: u64,
    pub(crate) record_size: usize,
    pub(crate) fetch_size: usize,
}

impl Consume {
    pub(crate) fn run(&self, tool: Tool, tools: &Tools, side: &Side, topic: &str) -> anyhow::Result<Sample> {
        let mut command = match tool {
            Tool::Perf => {
                let mut command = perf(tools, "consume", side, topic);
                command.args(["--fetch-size", &self.fetch_size.to_string()]);
                command
            }
            Tool::Librdkafka => {
                let mut command = Command::new(&tools.librdkafka);
                command.args(["-C", "-t", topic, "-p", "0", "-b", &side.bootstrap, "-q", "-o", "beginning"]);
                command.args(["-c", &self.records.to_string(), "-X", "enable.partition.eof=true"]);
                command.args(["-X", &format!("fetch.message.max.bytes={}", self.fetch_size)]);
                command
            }
            // Its consumer joins a group; the partition is read through the console's consumer instead.
            Tool::Java => {
                let mut command = java(tools, "org.apache.kafka.tools.consumer.ConsoleConsumer");
                command.args(["--topic", topic, "--partition", "0", "--offset", "earliest"]);
                command.args(["--bootstrap-server", &side.bootstrap]);
                command.args(["--max-messages", &self.records.to_string()]);
                command.args(["--formatter", NO_OUTPUT, "--timeout-ms", "30000"]);
                command
                    .args(["--command-property", &format!("max.partition.fetch.bytes={}", self.fetch_size)]);
                command
            }
        };
        let start = Instant::now();
        measured(&mut command, &side.pids, self.record_size, |text| match tool {
            Tool::Perf => perf_line(text, 0, self.records),
            Tool::Librdkafka => librdkafka_consumed(text),
            Tool::Java => java_consumed(text, start.elapsed().as_secs_f64(), self.records),
        })
    }
}

/// A result of `klamm perf`, which must have done at least `records` without an error.
fn perf_line(text: &str, index: usize, records: u64) -> anyhow::Result<Found> {
    let line = text.lines().filter(|line| line.starts_with('{')).nth(index).context("no result")?;
    let line: PerfLine = serde_json::from_str(line)?;
    ensure!(line.errors == 0, "{} errors", line.errors);
    ensure!(line.records >= records as f64, "{} records of {records}", line.records);
    let quantile = |of: fn(&PerfLatency) -> f64| line.latency.as_ref().map(of);
    Ok(Found {
        seconds: line.seconds,
        records: line.records,
        p50_ms: quantile(|latency| latency.p50_ms),
        p99_ms: quantile(|latency| latency.p99_ms),
    })
}

/// `% 200000 messages produced (204800000 bytes), 200000 delivered (offset 0, 0 failed) in 1012ms: ...`
fn librdkafka_produced(text: &str, processes: u16) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let results: Vec<&str> = text.lines().filter(|line| line.contains(" delivered (")).collect();
    ensure!(results.len() == usize::from(processes), "{} results of {processes}", results.len());
    for line in results {
        ensure!(line.contains(" 0 failed)"), "some were not delivered");
        found.records += number_before(line, " delivered")?;
        // All began at once.
        found.seconds = found.seconds.max(number_before(line, "ms:")? / 1000.0);
    }
    Ok(found)
}

/// `% 200000 messages (204800000 bytes) consumed in 500ms: ...`
fn librdkafka_consumed(text: &str) -> anyhow::Result<Found> {
    let line = text.lines().rfind(|line| line.contains(" consumed in ")).context("no result")?;
    Ok(Found {
        seconds: number_before(line, "ms:")? / 1000.0,
        records: number_before(line, " messages")?,
        ..Found::default()
    })
}

/// `200000 records sent, 95000.0 records/sec (92.77 MB/sec), 2.10 ms avg latency, ..., 1 ms 50th, ..., 12 ms 99th, ...`
fn java_produced(text: &str) -> anyhow::Result<Found> {
    let line = text.lines().rfind(|line| line.contains(" 99th")).context("no result")?;
    let records = number_before(line, " records sent")?;
    Ok(Found {
        seconds: records / number_before(line, " records/sec")?,
        records,
        p50_ms: Some(number_before(line, " ms 50th")?),
        p99_ms: Some(number_before(line, " ms 99th")?),
    })
}

/// `Processed a total of 200000 messages`; the time is that of the whole program, the start of its Java machine included.
fn java_consumed(text: &str, seconds: f64, records: u64) -> anyhow::Result<Found> {
    let total = text.lines().find_map(|line| line.strip_prefix("Processed a total of "));
    let total = total.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    match total {
        Some(total) if total >= records as f64 => Ok(Found { seconds, records: total, ..Found::default() }),
        total => bail!("{total:?} records of {records}"),
    }
}

/// The number that ends where `mark` begins.
fn number_before(line: &str, mark: &str) -> anyhow::Result<f64> {
    let head = line.split(mark).next().filter(|head| head.len() < line.len());
    let head = head.with_context(|| format!("no {mark:?} in {line:?}"))?;
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let digits = head.rsplit(|c| !is_part(c)).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number before {mark:?} in {line:?}"))
}

/// A program of this crate as a process of its own.
pub(crate) fn this_program(arguments: &[&str], path: Option<&Path>) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").args(arguments).args(path);
    Ok(command)
}

/// A result of the bare client.
pub(crate) fn bare_line(text: &str, record_size: usize) -> anyhow::Result<Found> {
    #[derive(Deserialize)]
    struct Line {
        seconds: f64,
        records: f64,
        bytes: f64,
    }
    let line = text.lines().find(|line| line.starts_with('{')).context("no result")?;
    let line: Line = serde_json::from_str(line)?;
    let records = if line.records > 0.0 { line.records } else { line.bytes / record_size as f64 };
    Ok(Found { seconds: line.seconds, records, ..Found::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_foreign_tools_are_read() {
        let line = "% 500000 messages produced (512000000 bytes), 499999 delivered (offset 0, 0 failed) in 2500ms: 200000 msgs/s";
        let found = librdkafka_produced(line, 1).unwrap();
        assert_eq!((found.records, found.seconds), (499_999.0, 2.5));
        assert!(librdkafka_produced(line, 2).is_err());
        let two = format!("{line}\n{}", line.replace("2500ms", "3000ms"));
        let found = librdkafka_produced(&two, 2).unwrap();
        assert_eq!((found.records, found.seconds), (999_998.0, 3.0));
        assert!(librdkafka_produced(&line.replace("0 failed", "1 failed"), 1).is_err());
        let line = "1000 records sent, 500.0 records/sec (0.49 MB/sec), 2.10 ms avg latency, 45.00 ms max latency, 1 ms 50th, 7 ms 95th, 12 ms 99th, 45 ms 99.9th.";
        let found = java_produced(line).unwrap();
        assert_eq!((found.records, found.seconds, found.p99_ms), (1000.0, 2.0, Some(12.0)));
        assert!(java_consumed("Processed a total of 9 messages", 1.0, 10).is_err());
    }

    #[test]
    fn a_run_with_errors_is_no_result() {
        let line = r#"{"seconds":2.0,"records":10,"errors":1}"#;
        assert!(perf_line(line, 0, 10).is_err());
        assert!(perf_line(&line.replace(":1}", ":0}"), 0, 11).is_err());
        assert_eq!(perf_line(&line.replace(":1}", ":0}"), 0, 10).unwrap().seconds, 2.0);
    }
}
