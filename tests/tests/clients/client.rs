//! The clients: what each knows, and how its driver is run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use klamm_record::Codec;
use klamm_tests::tools::{self, GoProgram, Jars, JavaProgram, NodePackages, PythonEnvironment, ToolError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::time::timeout;

use super::DRIVER_TIME_MAX;

/// One client, as far as the cases must know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Its name, which is that of its topic as well.
    pub(crate) name: &'static str,
    /// The codecs that it can write.
    pub(crate) codecs: &'static [Codec],
    /// Whether it can read partitions without being in a group.
    pub(crate) reads: bool,
    /// Whether it tells where each record went.
    pub(crate) tells_offsets: bool,
    /// Whether it can be given a record's timestamp.
    pub(crate) takes_timestamps: bool,
    /// Whether it can write a key or value that is empty and not null.
    pub(crate) writes_empty: bool,
    /// Whether it can write a record with neither key nor value.
    pub(crate) writes_nothing: bool,
    /// Whether it can write a header without a value.
    pub(crate) writes_null_headers: bool,
    driver: DriverKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DriverKind {
    Java,
    Python,
    Kcat,
    Go,
    Node,
}

/// What most clients can do: everything.
const ABLE: Client = Client {
    name: "",
    codecs: &Codec::ALL,
    reads: true,
    tells_offsets: true,
    takes_timestamps: true,
    writes_empty: true,
    writes_nothing: true,
    writes_null_headers: true,
    driver: DriverKind::Python,
};

pub(crate) const JAVA: Client = Client { name: "java", driver: DriverKind::Java, ..ABLE };
pub(crate) const LIBRDKAFKA: Client = Client { name: "librdkafka", ..ABLE };

/// All clients.
pub(crate) const CLIENTS: [Client; 7] = [
    // First, because it takes longest: a process for each of its steps.
    Client {
        name: "kcat",
        driver: DriverKind::Kcat,
        tells_offsets: false,
        takes_timestamps: false,
        writes_empty: false,
        ..ABLE
    },
    JAVA,
    LIBRDKAFKA,
    Client { name: "kafka-python", writes_nothing: false, writes_null_headers: false, ..ABLE },
    Client { name: "aiokafka", writes_nothing: false, ..ABLE },
    Client { name: "franz-go", driver: DriverKind::Go, ..ABLE },
    // Its own codecs are none and gzip; snappy comes as a plugin, and its consumer knows only groups.
    Client {
        name: "kafkajs",
        driver: DriverKind::Node,
        codecs: &[Codec::None, Codec::Gzip, Codec::Snappy],
        reads: false,
        writes_null_headers: false,
        ..ABLE
    },
];

/// A client whose driver can be run.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) client: Client,
    program: Program,
}

#[derive(Clone, Debug)]
enum Program {
    Java(JavaProgram),
    Python(PythonEnvironment, Option<PathBuf>),
    Go(GoProgram),
    Node(NodePackages),
}

fn drivers() -> PathBuf {
    tools::workspace().join("tests").join("clients")
}

impl Client {
    /// Installs what the driver needs.
    pub(crate) fn driver(self) -> Result<Driver, ToolError> {
        let program = match self.driver {
            DriverKind::Java => {
                let pom = tools::workspace().join("tests/interop/java/pom.xml");
                let jars = Jars::of_pom("interop", &pom)?;
                Program::Java(JavaProgram::compile(jars, &drivers().join("java/ClientDriver.java"))?)
            }
            DriverKind::Python => Program::Python(python()?, None),
            DriverKind::Kcat => Program::Python(python()?, Some(tools::kcat()?)),
            DriverKind::Go => Program::Go(GoProgram::build("franz-go", &drivers().join("franz-go"))?),
            DriverKind::Node => Program::Node(NodePackages::of_lock("kafkajs", &drivers().join("kafkajs"))?),
        };
        Ok(Driver { client: self, program })
    }
}

fn python() -> Result<PythonEnvironment, ToolError> {
    let packages: Vec<&str> = include_str!("../../interop/requirements.txt").lines().collect();
    PythonEnvironment::with("clients", &packages)
}

impl Driver {
    fn command(&self) -> std::process::Command {
        match &self.program {
            Program::Java(program) => program.command(),
            Program::Go(program) => program.command(),
            Program::Python(python, kcat) => {
                let mut command = python.command();
                command.arg(drivers().join("python/driver.py")).arg(self.client.name);
                if let Some(kcat) = kcat {
                    command.env("KCAT", kcat);
                }
                command
            }
            Program::Node(node) => {
                let mut command = node.command();
                command.arg(drivers().join("kafkajs/driver.js"));
                command
            }
        }
    }

    /// The driver with its work in a file, which must outlive it.
    pub(crate) fn prepared(&self, verb: &str, bootstrap: &str, work: &[impl Serialize]) -> Prepared {
        let mut file = NamedTempFile::with_suffix(".jsonl").unwrap();
        for line in work {
            serde_json::to_writer(&mut file, line).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.flush().unwrap();
        let mut command = Command::from(self.command());
        command.arg(verb).arg(bootstrap).arg(file.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        Prepared { command, _work: file }
    }

    /// Lets the driver do its work and gives the lines that it tells.
    pub(crate) async fn run<T: DeserializeOwned>(
        &self,
        verb: &str,
        bootstrap: &str,
        work: &[impl Serialize],
    ) -> Vec<T> {
        self.prepared(verb, bootstrap, work).run(&format!("{} {verb}", self.client.name)).await
    }
}

/// A driver about to be started.
pub(crate) struct Prepared {
    pub(crate) command: Command,
    _work: NamedTempFile,
}

impl Prepared {
    pub(crate) async fn run<T: DeserializeOwned>(mut self, what: &str) -> Vec<T> {
        self.command.stderr(Stdio::piped());
        let running = timeout(DRIVER_TIME_MAX, self.command.output());
        let output = running.await.unwrap_or_else(|_| panic!("{what}: too late")).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {}\n{errors}", output.status);
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| parse(what, line)).collect()
    }
}

/// One line of a driver's answer.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, line: &[u8]) -> T {
    serde_json::from_slice(line)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(line)))
}
