//! The Java program, run over many messages at once.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use klamm_tests::tools::{Jars, ToolError, workspace};

/// Kafka's serialisers.
pub(crate) struct Judge {
    jars: Jars,
}

/// A message to be judged.
pub(crate) struct Case {
    /// The message's name in the schema.
    pub(crate) message: String,
    pub(crate) version: i16,
    pub(crate) body: Vec<u8>,
}

impl Judge {
    pub(crate) fn find() -> Result<Self, ToolError> {
        let pom = workspace().join("tests/interop/java/pom.xml");
        Ok(Self { jars: Jars::of_pom("interop", &pom)? })
    }

    /// For each case the bytes that Kafka encodes after decoding it, or why it refuses.
    pub(crate) fn recode(&self, cases: &[Case]) -> Vec<Result<Vec<u8>, String>> {
        let mut input = String::new();
        for case in cases {
            writeln!(input, "{} {} {}", case.message, case.version, hex(&case.body)).unwrap();
        }
        let output = self.run("recode", &input);
        let verdicts: Vec<_> = output
            .lines()
            .map(|line| match line.split_once(' ') {
                Some(("ok", hex)) => Ok(unhex(hex)),
                Some(("no", reason)) => Err(reason.to_owned()),
                _ => panic!("not a verdict: {line}"),
            })
            .collect();
        assert_eq!(verdicts.len(), cases.len());
        verdicts
    }

    /// The archive that carries the published schemas.
    pub(crate) fn clients_jar(&self) -> PathBuf {
        let entries = fs::read_dir(self.jars.directory()).unwrap().map(|entry| entry.unwrap().path());
        let is_clients = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("kafka-clients-") && name.ends_with(".jar")
        };
        entries.filter(is_clients).min().expect("kafka-clients among the jars")
    }

    /// Kafka's tables of APIs and errors, as lines.
    pub(crate) fn facts(&self) -> String {
        self.run("facts", "")
    }

    fn run(&self, verb: &str, input: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cases");
        fs::write(&file, input).unwrap();
        let program = workspace().join("tests/tests/wire/WireJudge.java");
        // Java compiles a single source file by itself.
        let output = self
            .jars
            .command_with(
                &["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"],
                program.to_str().unwrap(),
            )
            .arg(verb)
            .stdin(Stdio::from(File::open(&file).unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
