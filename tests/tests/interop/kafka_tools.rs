//! Apache Kafka's own programs, run over files: `DumpLogSegments`, and a broker that writes or opens a directory.

use std::fs;
use std::path::{Path, PathBuf};

use klamm_tests::tools::{self, Jars, ToolError};

use crate::dump_tool::Dump;
use crate::expected::{interop, run};

/// The jars of Kafka, and the Python that runs its broker.
pub(crate) struct KafkaTools {
    jars: Jars,
    python: Option<PathBuf>,
}

impl KafkaTools {
    pub(crate) fn find() -> Result<Self, ToolError> {
        let jars = Jars::of_pom("interop", &interop().join("java").join("pom.xml"))?;
        Ok(Self { jars, python: None })
    }

    /// With what it takes to run a broker and its clients: Python, and Java's compiler.
    pub(crate) fn with_broker() -> Result<Self, ToolError> {
        let python = Some(tools::python3()?);
        tools::on_path("javac")?;
        Ok(Self { python, ..Self::find()? })
    }

    /// Lets `DumpLogSegments` loose on `files`; it says what it finds, and ends well whatever that is.
    pub(crate) fn dump(&self, options: &[&str], files: &[PathBuf]) -> Dump {
        let names: Vec<_> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
        let quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
        let machine_options = ["-XX:TieredStopAtLevel=1", quiet];
        let mut command = self.jars.command_with(&machine_options, "org.apache.kafka.tools.DumpLogSegments");
        command.args(options).arg("--files").arg(names.join(","));
        // Its findings go to the error output, all but one kind.
        let printed = run(&mut command);
        Dump::parse(&(printed.output + &printed.errors))
    }

    /// Has a broker write a log directory into `out`, with the truth about it.
    pub(crate) fn write_directory(&self, out: &Path) {
        self.script("write_kafka_directory.py", &["--sized", "--out"], out);
    }

    /// Has a broker open the partitions in `partitions`, and notes in `out` what its consumers read.
    pub(crate) fn serve_directory(&self, partitions: &Path, out: &Path) {
        let partitions = partitions.to_str().expect("a path in UTF-8");
        self.script("serve_directory.py", &["--partitions", partitions, "--out"], out);
    }

    fn script(&self, name: &str, options: &[&str], out: &Path) {
        let mut command = std::process::Command::new(self.python.as_ref().expect("tools with a broker"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(interop().join(name));
        command.arg("--libs").arg(self.jars.directory()).args(options).arg(out);
        run(&mut command);
    }
}

/// The files of a partition's directory that end with `kind` (".log"), in order.
pub(crate) fn files_of_kind(partition: &Path, kind: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(partition).unwrap_or_else(|error| panic!("{}: {error}", partition.display()));
    let paths = listed.map(|entry| entry.expect("a directory entry").path());
    let mut found: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(kind)).collect();
    found.sort();
    found
}

/// The offset that a file of a segment is named by.
pub(crate) fn base_offset(segment: &Path) -> i64 {
    let name = segment.file_stem().and_then(|name| name.to_str()).expect("a segment's name");
    name.parse().expect("an offset")
}
