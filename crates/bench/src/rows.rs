//! The rows, and how they are run.

mod consume;
mod faults;
mod footprint;
mod latency;
mod produce;
mod replicated;
mod scale;

use std::time::Duration;

use anyhow::{Context, ensure};
use klamm_tests::tools;
use tokio::time::Instant;

use crate::Options;
use crate::ballast::Ballast;
use crate::bed::{Bed, System};
use crate::load::{Produce, Sample, Tool, Tools};
use crate::report::{Figures, Line, Report, Table};

/// What stands in a row: who, under which name, and with which settings of the topic.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: &'static str,
    system: System,
    topic: &'static [(&'static str, &'static str)],
    replicas: i16,
}

const KLAMM: Entry = Entry { name: "Klamm", system: System::Klamm, topic: &[], replicas: 1 };
const KLAMM_CACHED: Entry =
    Entry { name: "Klamm, write.caching=true", topic: &[("write.caching", "true")], ..KLAMM };
const KAFKA: Entry = Entry { name: "Kafka", system: System::Kafka, ..KLAMM };
const KAFKA_SYNCED: Entry =
    Entry { name: "Kafka, flush.messages=1", topic: &[("flush.messages", "1")], ..KAFKA };
const BARE: Entry = Entry { name: "bare", system: System::Bare, ..KLAMM };

/// What a row needs to run.
struct Run<'a> {
    options: &'a Options,
    tools: &'a Tools,
    bed: &'a mut Bed,
    report: &'a mut Report,
    ballast: Ballast,
    /// Topics so far: each pass has its own.
    topics: u32,
}

/// A row, of one or more tables.
struct Row {
    id: &'static str,
    what: &'static str,
    nodes: u16,
    work: Work,
}

enum Work {
    Produce(&'static [produce::Case]),
    Consume,
    Latency,
    /// Ten thousand partitions: M1, N1, M2.
    Partitions,
    /// Ten thousand connections.
    Connections,
    /// Topics on three replicas.
    Topics,
    /// Memory and start.
    Footprint,
    /// Producing to three replicas.
    Replicated(&'static [replicated::Case]),
    /// Keyed records of many producers.
    Keyed,
    /// One record at a time to three replicas, by the clock.
    Slow,
    /// Batches to three replicas, by the clock, at shares of what can be sent.
    Shares,
    /// What faults cost.
    Fault(faults::Fault),
}

const ROWS: [Row; 25] = [
    Row { id: "P1", what: "batches of 1 MiB", nodes: 1, work: Work::Produce(&produce::LARGE) },
    Row { id: "P2", what: "batches of 16 KiB", nodes: 1, work: Work::Produce(&produce::SMALL) },
    Row { id: "P3", what: "compressed batches", nodes: 1, work: Work::Produce(&produce::COMPRESSED) },
    Row { id: "P7", what: "a record per batch", nodes: 1, work: Work::Produce(&produce::SINGLE) },
    Row {
        id: "S1",
        what: "on disk before it is acknowledged",
        nodes: 1,
        work: Work::Produce(&produce::SYNCED),
    },
    Row { id: "D1", what: "what durability costs", nodes: 1, work: Work::Produce(&produce::DURABLE) },
    Row { id: "C2", what: "reading all of a topic, from the page cache", nodes: 1, work: Work::Consume },
    Row { id: "L1", what: "from when a record is due until it is read", nodes: 1, work: Work::Latency },
    Row { id: "N1", what: "10,000 partitions (with M1 and M2)", nodes: 1, work: Work::Partitions },
    Row { id: "N3", what: "10,000 idle connections", nodes: 1, work: Work::Connections },
    // Of nodes that have done nothing yet.
    Row { id: "Z1", what: "memory and start (with Z2)", nodes: 3, work: Work::Footprint },
    Row { id: "M1", what: "creating topics of three replicas", nodes: 3, work: Work::Topics },
    replicated("P4", "three replicas, batches of 1 MiB", Work::Replicated(&replicated::LARGE)),
    replicated("P5", "three replicas, batches of 16 KiB", Work::Replicated(&replicated::SMALL)),
    replicated("P6", "three replicas, 64 partitions", Work::Replicated(&replicated::MANY)),
    replicated("P7R", "three replicas, a record per batch", Work::Replicated(&replicated::SINGLE)),
    replicated("P9", "three replicas, 100 producers of keyed records", Work::Keyed),
    replicated("S1R", "three replicas, all on disk", Work::Replicated(&replicated::SYNCED)),
    replicated("L1R", "three replicas, latency of single records", Work::Slow),
    replicated("L2", "three replicas, latency of batches at 20 % and 50 % of P4", Work::Shares),
    replicated("F1", "the active controller dies", Work::Fault(faults::Fault::Controller)),
    replicated("F2", "a leader dies under load", Work::Fault(faults::Fault::Leader)),
    replicated("F3", "a follower stands still under load", Work::Fault(faults::Fault::Pause)),
    replicated(
        "F5",
        "an emptied replica, and one that is behind, catch up",
        Work::Fault(faults::Fault::Join),
    ),
    // The last one, because it leaves a broker of each dead.
    replicated(
        "N1R",
        "1,000 and 10,000 partitions of three replicas",
        Work::Fault(faults::Fault::Partitions),
    ),
];

const fn replicated(id: &'static str, what: &'static str, work: Work) -> Row {
    Row { id, what, nodes: 3, work }
}

pub(crate) fn list() {
    for row in &ROWS {
        println!("{:<4} {}", row.id, row.what);
    }
}

/// Runs the rows that are asked for.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    for name in &options.rows {
        ensure!(ROWS.iter().any(|row| row.id == name), "no row {name}; see `klamm-bench list`");
    }
    ensure!(options.passes > 0 && options.scale > 0.0, "nothing would be measured");
    raise_open_files()?;
    let tools = Tools::find()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut report = Report::open(&tools::workspace().join(&options.samples))?;
    for nodes in [1, 3] {
        let is_chosen = |row: &&Row| options.rows.is_empty() || options.rows.iter().any(|id| id == row.id);
        let chosen: Vec<&Row> = ROWS.iter().filter(|row| row.nodes == nodes).filter(is_chosen).collect();
        if chosen.is_empty() {
            continue;
        }
        runtime.block_on(async {
            let mut bed = Bed::start(&tools.jars, nodes).await?;
            let ballast = Ballast::new(bed.scratch())?;
            let report = &mut report;
            let mut run = Run { options, tools: &tools, bed: &mut bed, report, ballast, topics: 0 };
            let mut is_warm = false;
            for row in chosen {
                if !is_warm && !matches!(row.work, Work::Footprint) {
                    run.warm_up().await?;
                    is_warm = true;
                }
                let start = Instant::now();
                run.row(row).await.with_context(|| format!("row {}", row.id))?;
                eprintln!("{} took {:.0} s", row.id, start.elapsed().as_secs_f64());
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

/// Ten thousand connections are ten thousand files on this side, too.
fn raise_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

impl Run<'_> {
    async fn row(&mut self, row: &Row) -> anyhow::Result<()> {
        match row.work {
            Work::Produce(cases) => produce::run(self, row.id, cases).await,
            Work::Consume => consume::run(self, row.id).await,
            Work::Latency => latency::run(self, row.id).await,
            Work::Partitions => scale::partitions(self).await,
            Work::Connections => scale::connections(self).await,
            Work::Topics => scale::topics(self, row.id).await,
            Work::Footprint => footprint::run(self).await,
            Work::Replicated(cases) => replicated::run(self, row.id, cases).await,
            Work::Keyed => replicated::keyed::run(self, row.id).await,
            Work::Slow => replicated::latency::slow(self, row.id).await,
            Work::Shares => replicated::latency::shares(self, row.id).await,
            Work::Fault(fault) => faults::run(self, row.id, fault).await,
        }
    }

    /// A name for a topic that there was not yet.
    fn topic_name(&mut self) -> String {
        self.topics += 1;
        format!("bench-{}", self.topics)
    }

    /// A number of things to do, of which `--scale` may want less.
    fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.options.scale) as u64).max(1)
    }

    /// A Java machine is slow until it has compiled what it runs.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        // On several nodes, all of them lead and all of them follow.
        let nodes = self.bed.nodes;
        let (partitions, replicas) = (i32::from(nodes), i16::try_from(nodes.min(3))?);
        while start.elapsed() < Duration::from_secs(self.options.warm_up) {
            for (batch_size, codec, acks) in
                [(1 << 20, "none", "1"), (16 << 10, "lz4", "all"), (1 << 10, "none", "1")]
            {
                let records = if batch_size > 1024 { 300_000 } else { 30_000 };
                let (record_size, in_flight, connections) = (1024, 5, 4);
                let load = Produce { records, record_size, batch_size, codec, acks, in_flight, connections };
                for system in [System::Klamm, System::Kafka] {
                    let (topic, side) = (self.topic_name(), self.bed.side(system));
                    side.create(&topic, partitions, replicas, &[]).await?;
                    load.run(Tool::Perf, self.tools, &side, &topic)?;
                    self.bed.delete(system, &topic).await?;
                }
            }
        }
        Ok(())
    }

    /// Lets the entries take turns: forwards, backwards, and so on. The first pass does not count.
    async fn turns(
        &mut self,
        entries: &[Entry],
        passes: usize,
        measure: impl AsyncFnMut(&mut Self, &Entry) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Vec<Line>> {
        let found = self.take_turns(entries, passes, measure).await?;
        let line = |(entry, samples): (&Entry, _)| Line { contender: entry.name.to_owned(), samples };
        Ok(entries.iter().zip(found).map(line).collect())
    }

    /// As [`turns`](Self::turns), for whatever is found in a pass; of each entry, what all passes that count have found.
    async fn take_turns<T>(
        &mut self,
        entries: &[Entry],
        passes: usize,
        mut measure: impl AsyncFnMut(&mut Self, &Entry) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Vec<T>>> {
        let mut found: Vec<Vec<T>> = entries.iter().map(|_| Vec::new()).collect();
        for pass in 0..=passes {
            let mut order: Vec<usize> = (0..entries.len()).collect();
            if pass % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let (Some(entry), Some(found)) = (entries.get(index), found.get_mut(index)) else { continue };
                self.ballast.fill()?;
                let sample = measure(self, entry).await.with_context(|| entry.name)?;
                if pass > 0 {
                    found.push(sample);
                }
            }
        }
        Ok(found)
    }

    fn tell(
        &mut self,
        row: &'static str,
        what: String,
        tool: Tool,
        figures: Figures,
        lines: Vec<Line>,
    ) -> anyhow::Result<()> {
        self.report.table(&Table { row, what, tool: tool.name(), figures, lines })
    }
}
