//! How long each client was without an acknowledgement, fault by fault and over all of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use klamm_tests::distribution::Distribution;
use serde_json::{Map, Value, json};

use super::producers::CLIENTS;
use super::schedule::Kind;

/// What a gap was measured over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Span {
    /// The partitions that the victim led, from the fault until all of them take records again.
    Led,
    /// Those that it followed, in the same time.
    Followed,
    /// All partitions, from the victim's return until it is in sync.
    Return,
    /// All partitions, while leaderships are moved for the fault, before it.
    Move,
}

impl Span {
    const fn name(self) -> &'static str {
        match self {
            Self::Led => "led",
            Self::Followed => "followed",
            Self::Return => "return",
            Self::Move => "move",
        }
    }
}

/// One fault, and what came of it.
pub(crate) struct Fault {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) victim: u16,
    pub(crate) was_active: bool,
    /// Milliseconds since 1970.
    pub(crate) at: f64,
    /// Milliseconds from the fault until the others showed new leaders.
    pub(crate) replaced: f64,
    /// Milliseconds from the victim's return until all replicas were in sync.
    pub(crate) healed: f64,
    /// Milliseconds, by client; a span without partitions is absent.
    pub(crate) gaps: Vec<(Span, Vec<f64>)>,
}

/// The upper ends of the classes of a histogram, in milliseconds.
const CLASSES: [f64; 9] = [25.0, 50.0, 100.0, 150.0, 250.0, 500.0, 1_000.0, 3_000.0, 10_000.0];

/// All faults so far, each written down as it is over.
pub(crate) struct Report {
    seed: u64,
    file: File,
    pub(crate) path: PathBuf,
    gaps: BTreeMap<(Kind, Span, usize), Vec<f64>>,
}

impl Report {
    pub(crate) fn create(seed: u64, path: PathBuf) -> Self {
        let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { seed, file, path, gaps: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, fault: &Fault) {
        let mut gaps = Map::new();
        for (span, times) in &fault.gaps {
            let by_client: Map<String, Value> = CLIENTS
                .iter()
                .zip(times)
                .map(|(client, time)| ((*client).to_owned(), json!(tenths(*time))))
                .collect();
            gaps.insert(format!("{}_gap_ms", span.name()), Value::Object(by_client));
            for (client, time) in times.iter().enumerate() {
                self.gaps.entry((fault.kind, *span, client)).or_default().push(*time);
            }
        }
        let mut line = json!({
            "seed": self.seed, "fault": fault.number, "kind": fault.kind.name(), "node": fault.victim,
            "active_controller": fault.was_active, "at_ms": tenths(fault.at), "new_leaders_ms": tenths(fault.replaced),
            "in_sync_ms": tenths(fault.healed),
        });
        line.as_object_mut().unwrap().append(&mut gaps);
        writeln!(self.file, "{line}").unwrap();
        eprintln!("{line}");
    }
}

fn tenths(time: f64) -> f64 {
    (time * 10.0).round() / 10.0
}

impl fmt::Display for Report {
    /// A line for each kind, span and client, with its histogram.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the longest time between two acknowledgements around a fault; how many, up to so many ms:"
        )?;
        let classes: String = CLASSES.iter().fold(String::new(), |mut line, class| {
            let _ = write!(line, "{class:>7}");
            line
        });
        writeln!(f, "{:<22}{:<9}{:<13}{classes}   more", "fault", "span", "client")?;
        for ((kind, span, client), gaps) in &self.gaps {
            let mut distribution = Distribution::default();
            let mut counts = [0; CLASSES.len() + 1];
            for gap in gaps {
                distribution.add(Duration::from_secs_f64(gap.max(0.0) / 1_000.0));
                counts[CLASSES.partition_point(|class| class < gap)] += 1;
            }
            write!(f, "{kind:<22}{:<9}{:<13}", span.name(), CLIENTS[*client])?;
            counts.iter().try_for_each(|count| write!(f, "{count:>7}"))?;
            writeln!(f, "   {distribution}")?;
        }
        Ok(())
    }
}

#[test]
fn a_fault_is_a_line_and_counts_in_its_class() {
    let directory = tempfile::tempdir().unwrap();
    let mut report = Report::create(5, directory.path().join("faults.jsonl"));
    let gaps = vec![(Span::Led, vec![150.0, 20.0, 12_000.0])];
    let fault = Fault {
        number: 0,
        kind: Kind::Leader,
        victim: 2,
        was_active: false,
        at: 1.0,
        replaced: 9.0,
        healed: 8.0,
        gaps,
    };
    report.add(&fault);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&report.path).unwrap()).unwrap();
    assert_eq!((&line["seed"], &line["led_gap_ms"]["java"]), (&5.into(), &12_000.0.into()));
    let text = report.to_string();
    let counts = |client: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.contains(client)).unwrap();
        line.split_whitespace().skip(3).take(10).map(str::to_owned).collect()
    };
    assert_eq!(counts("librdkafka"), ["0", "0", "0", "1", "0", "0", "0", "0", "0", "0"], "{text}");
    assert_eq!(counts("java"), ["0", "0", "0", "0", "0", "0", "0", "0", "0", "1"], "{text}");
}
