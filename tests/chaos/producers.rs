//! The producers: one process of each client, which tells what became of every record.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klamm_tests::cluster::wait_for;
use klamm_tests::tools::{self, Jars, PythonEnvironment, ToolError};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::Server;
use super::{PARTITIONS, TOPIC};

/// How many records each producer sends in a second, to all partitions together.
const RATE: u32 = 300;
/// So many keys are spread best over three partitions by the hash that Java's producer uses: 5, 5 and 4 of them.
const JAVA_KEYS: &str = "14";
/// How long a producer may take until it has sent its first record, and to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is set. All else is as the clients have it by default: how long they wait before they try again, above all.
const JAVA_SETTINGS: &str = "enable.idempotence=true\nacks=all\nretries=2147483647\n";

/// The clients; the place of each is the prefix of its values.
pub(crate) const CLIENTS: [&str; 3] = ["librdkafka", "kafka-python", "java"];

/// What the clients need, installed.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    python: PythonEnvironment,
    pub(crate) jars: Jars,
}

impl Tools {
    pub(crate) async fn install() -> Result<Self, ToolError> {
        let install = || {
            let packages: Vec<&str> = include_str!("../interop/requirements.txt").lines().collect();
            let python = PythonEnvironment::with("clients", &packages)?;
            let pom = tools::workspace().join("tests/interop/java/pom.xml");
            Ok(Self { python, jars: Jars::of_pom("interop", &pom)? })
        };
        tokio::task::spawn_blocking(install).await.unwrap()
    }

    /// Where the packages of Python are that the clients need.
    pub(crate) fn python_packages(&self) -> PathBuf {
        let tell = "import kafka, pathlib; print(pathlib.Path(kafka.__file__).parent.parent)";
        let told = self.python.command().args(["-c", tell]).output().unwrap();
        PathBuf::from(String::from_utf8(told.stdout).unwrap().trim())
    }

    fn command(&self, place: usize, server: &Server) -> std::process::Command {
        let nodes: Vec<_> = server.bootstrap().iter().map(|at| format!("{}:{}", at.host, at.port)).collect();
        let (nodes, prefix) = (nodes.join(","), place.to_string());
        if CLIENTS[place] == "java" {
            let settings = server.path().join("java-producer.properties");
            fs::write(&settings, JAVA_SETTINGS).unwrap();
            let machine = ["-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
            let mut command = self.jars.command_with(&machine, "org.apache.kafka.tools.VerifiableProducer");
            command.args(["--bootstrap-server", &nodes, "--topic", TOPIC, "--value-prefix", &prefix]);
            command.args(["--throughput", &RATE.to_string(), "--repeating-keys", JAVA_KEYS]);
            command.arg("--command-config").arg(settings);
            return command;
        }
        let mut command = self.python.command();
        command.arg(tools::workspace().join("tests/clients/python/verifiable_producer.py"));
        command.args([CLIENTS[place], &nodes, TOPIC, &PARTITIONS.to_string(), &prefix, &RATE.to_string()]);
        command
    }
}

/// An acknowledgement, as the client told it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) number: u64,
    pub(crate) offset: i64,
    /// Milliseconds since 1970, by the client's clock, which is the machine's.
    pub(crate) at: f64,
}

/// What one producer has told. The offset of an acknowledgement that names none is -1.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By partition, in the order in which it came.
    pub(crate) acked: [Vec<Ack>; PARTITIONS],
    /// Numbers that were refused, and why.
    pub(crate) refused: Vec<(u64, String)>,
    /// How many were sent, told at the end.
    pub(crate) sent: Option<u64>,
    /// Lines that make no sense.
    pub(crate) strange: Vec<String>,
}

/// A line of a producer, as Kafka's `VerifiableProducer` writes them.
#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum Line {
    StartupComplete,
    ProducerSendSuccess { timestamp: f64, value: String, partition: usize, offset: i64 },
    ProducerSendError { value: String, exception: String, message: String },
    ShutdownComplete,
    ToolData { sent: u64 },
}

impl Told {
    fn note(&mut self, text: &str, place: usize) {
        let known = serde_json::from_str(text).ok().and_then(|line| self.take(line, place));
        if known.is_none() {
            self.strange.push(text.to_owned());
        }
    }

    fn take(&mut self, line: Line, place: usize) -> Option<()> {
        let number = |value: &str| -> Option<u64> {
            let (prefix, number) = value.split_once('.')?;
            (prefix == place.to_string()).then(|| number.parse().ok())?
        };
        match line {
            Line::StartupComplete | Line::ShutdownComplete => {}
            Line::ProducerSendSuccess { timestamp, value, partition, offset } => {
                let ack = Ack { number: number(&value)?, offset, at: timestamp };
                self.acked.get_mut(partition)?.push(ack);
            }
            Line::ProducerSendError { value, exception, message } => {
                self.refused.push((number(&value)?, format!("{exception}: {message}")));
            }
            Line::ToolData { sent } => self.sent = Some(sent),
        }
        Some(())
    }
}

struct Running {
    name: &'static str,
    child: Child,
    told: Arc<Mutex<Told>>,
    reader: JoinHandle<()>,
    errors: PathBuf,
}

/// All producers at work.
pub(crate) struct Producers(Vec<Running>);

impl Producers {
    /// Starts all of them, and waits until each partition has acknowledged records of each.
    pub(crate) async fn start(tools: &Tools, server: &Server) -> Self {
        let start = |place: usize| {
            let errors = server.path().join(format!("producer-{}.log", CLIENTS[place]));
            let mut command = Command::from(tools.command(place, server));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors).unwrap());
            let mut child = command.kill_on_drop(true).spawn().unwrap();
            let told = Arc::new(Mutex::new(Told::default()));
            let reader = tokio::spawn(read(child.stdout.take().unwrap(), place, Arc::clone(&told)));
            Running { name: CLIENTS[place], child, told, reader, errors }
        };
        let mut producers = Self((0..CLIENTS.len()).map(start).collect());
        producers.acknowledge(1).await;
        producers
    }

    /// Waits until each partition has acknowledged so many records more of each producer, from those that it has
    /// acknowledged when this is called.
    pub(crate) async fn acknowledge(&mut self, more: usize) {
        let begin = self.counts();
        let done = wait_for("all producers go on", PATIENCE, async || {
            for running in &self.0 {
                assert!(!running.reader.is_finished(), "{} ended: {}", running.name, end_of(&running.errors));
            }
            let now = self.counts();
            for ((running, begin), now) in self.0.iter().zip(&begin).zip(&now) {
                if begin.iter().zip(now).any(|(begin, now)| *now < begin + more) {
                    let end = end_of(&running.errors);
                    return Err(format!("{}, by partition: {begin:?}, then {now:?}; {end}", running.name));
                }
            }
            Ok(())
        });
        done.await.unwrap();
    }

    fn counts(&self) -> Vec<[usize; PARTITIONS]> {
        self.0.iter().map(|running| guard(&running.told).acked.each_ref().map(Vec::len)).collect()
    }

    /// The longest time without an acknowledgement that each client saw in one of these partitions between two moments
    /// (milliseconds since 1970), the steps across them included.
    pub(crate) fn gaps(&self, partitions: &[usize], from: f64, until: f64) -> Vec<f64> {
        let of_client = |running: &Running| {
            let told = guard(&running.told);
            let gaps = partitions.iter().map(|partition| gap(&told.acked[*partition], from, until));
            gaps.fold(0.0, f64::max)
        };
        self.0.iter().map(of_client).collect()
    }

    /// Lets all of them finish what they have sent, and gives what they told.
    pub(crate) async fn stop(self) -> Vec<Told> {
        let mut all = Vec::new();
        for running in &self.0 {
            let pid = running.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            kill_process(pid.unwrap(), Signal::TERM).unwrap();
        }
        for mut running in self.0 {
            let ended = timeout(PATIENCE, running.reader).await;
            ended.unwrap_or_else(|_| panic!("{}: {}", running.name, end_of(&running.errors))).unwrap();
            timeout(PATIENCE, running.child.wait()).await.expect("a producer ends").unwrap();
            all.push(std::mem::take(&mut *guard(&running.told)));
        }
        all
    }
}

fn guard(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap()
}

async fn read(output: ChildStdout, place: usize, told: Arc<Mutex<Told>>) {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        guard(&told).note(&line, place);
    }
}

/// The last lines that a producer complained with.
fn end_of(errors: &Path) -> String {
    let text = fs::read_to_string(errors).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The longest step between two acknowledgements, of those steps that overlap the time between two moments.
fn gap(acked: &[Ack], from: f64, until: f64) -> f64 {
    // Acknowledgements come in the order of their times, but for some that a client tells from two threads.
    let first = acked.partition_point(|ack| ack.at < from).saturating_sub(1);
    let steps = acked.get(first..).unwrap_or_default().windows(2);
    let within = steps.take_while(|step| step[0].at <= until);
    within.map(|step| step[1].at - step[0].at).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_step_that_touches_the_time() {
        let acked = [0.0, 10.0, 20.0, 320.0, 330.0, 5_000.0];
        let acked = acked.map(|at| Ack { number: 0, offset: 0, at });
        assert_eq!(gap(&acked, 25.0, 300.0), 300.0);
        assert_eq!(gap(&acked, 25.0, 1_000.0), 4_670.0);
        assert_eq!(gap(&acked, 9_000.0, 9_100.0), 0.0);
    }

    #[test]
    fn what_a_producer_tells_is_noted() {
        let mut told = Told::default();
        let acked = r#"{"timestamp":5,"name":"producer_send_success","key":"3","value":"2.7","topic":"t","partition":1,"offset":9}"#;
        told.note(acked, 2);
        told.note(r#"{"timestamp":5,"name":"tool_data","sent":8,"acked":1}"#, 2);
        assert_eq!((told.acked[1][0].number, told.acked[1][0].offset, told.sent), (7, 9, Some(8)));
        let refused =
            r#"{"timestamp":5,"name":"producer_send_error","value":"2.8","exception":"E","message":"m"}"#;
        told.note(refused, 2);
        assert_eq!(told.refused, [(8, "E: m".to_owned())]);
        // Another's value, and what is no line.
        told.note(acked, 1);
        told.note("Exception in thread", 2);
        assert_eq!(told.strange, [acked, "Exception in thread"]);
    }
}
