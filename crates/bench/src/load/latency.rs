//! Latency at a fixed rate: records that are sent by the clock.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{
    Found, Sample, Tool, Tools, java, java_produced, librdkafka_produced, measured, perf, perf_line,
};
use crate::bed::Side;

/// Records at a fixed rate, read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) rate: u64,
    pub(crate) record_size: usize,
    pub(crate) seconds: u64,
}

impl Latency {
    /// What the tool measures: from when to when.
    pub(crate) fn span(tool: Tool) -> &'static str {
        match tool {
            Tool::Perf => "from when a record is due until its consumer has it",
            Tool::Librdkafka => "from when a record is sent until its consumer has it",
            Tool::Java => "from when a record is sent until it is acknowledged, in whole ms",
        }
    }

    pub(crate) fn run(
        &self,
        tool: Tool,
        tools: &Tools,
        side: &Side,
        topic: &str,
        scratch: &Path,
    ) -> anyhow::Result<Sample> {
        match tool {
            Tool::Perf => {
                let mut command = perf(tools, "latency", side, topic);
                command.args(["--rate", &self.rate.to_string()]);
                command.args(["--record-size", &self.record_size.to_string()]);
                command.args(["--duration", &self.seconds.to_string(), "--acks", "all"]);
                // The second line is the reader's.
                measured(&mut command, &side.pids, self.record_size, |text| perf_line(text, 1, 1))
            }
            Tool::Librdkafka => self.librdkafka(tools, side, topic, scratch),
            Tool::Java => {
                let mut command = java(tools, "org.apache.kafka.tools.ProducerPerformance");
                command.args(["--topic", topic, "--throughput", &self.rate.to_string()]);
                command.args(["--num-records", &self.records().to_string()]);
                command.args(["--record-size", &self.record_size.to_string(), "--command-property"]);
                command.args([&format!("bootstrap.servers={}", side.bootstrap), "acks=all", "linger.ms=0"]);
                measured(&mut command, &side.pids, self.record_size, java_produced)
            }
        }
    }

    fn records(&self) -> u64 {
        self.rate * self.seconds
    }

    /// Its consumer writes down the latency of each record, from the time that its producer put into it.
    fn librdkafka(&self, tools: &Tools, side: &Side, topic: &str, scratch: &Path) -> anyhow::Result<Sample> {
        let (file, records) = (scratch.join("latency"), self.records().to_string());
        let mut consumer = Command::new(&tools.librdkafka);
        consumer.args(["-C", "-t", topic, "-p", "0", "-b", &side.bootstrap, "-q", "-o", "beginning"]);
        consumer.args(["-l", "-c", &records, "-A"]).arg(&file);
        let mut consumer = consumer.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut producer = Command::new(&tools.librdkafka);
        producer.args(["-P", "-t", topic, "-b", &side.bootstrap, "-q", "-l", "-a", "-1", "-c", &records]);
        producer.args(["-r", &self.rate.to_string(), "-s", &self.record_size.to_string()]);
        producer.args(["-X", "linger.ms=0"]);
        let produced =
            measured(&mut producer, &side.pids, self.record_size, |text| librdkafka_produced(text, 1));
        if produced.is_err() {
            consumer.kill()?;
        }
        let status = consumer.wait()?;
        let mut sample = produced?;
        ensure!(status.success(), "the consumer: {status}");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let found = librdkafka_latencies(&text)?;
        (sample.p50_ms, sample.p99_ms) = (found.p50_ms, found.p99_ms);
        fs::remove_file(&file)?;
        Ok(sample)
    }
}

/// A line for each record, in microseconds. Those of the first tenth are left out: connections are made meanwhile.
fn librdkafka_latencies(text: &str) -> anyhow::Result<Found> {
    let all = text.lines().map(|line| line.trim().parse::<u64>().with_context(|| line.to_owned()));
    let all = all.collect::<anyhow::Result<Vec<u64>>>()?;
    let mut kept = all.get(all.len() / 10..).unwrap_or_default().to_vec();
    kept.sort_unstable();
    let at =
        |share: f64| kept.get((kept.len() as f64 * share) as usize).map(|micros| *micros as f64 / 1000.0);
    ensure!(!kept.is_empty(), "no latencies");
    Ok(Found { records: kept.len() as f64, p50_ms: at(0.5), p99_ms: at(0.99), ..Found::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_after_the_first_tenth() {
        let lines: Vec<String> = (0..1000).map(|i| if i < 100 { 90_000 } else { i }.to_string()).collect();
        let found = librdkafka_latencies(&lines.join("\n")).unwrap();
        assert_eq!((found.records, found.p50_ms, found.p99_ms), (900.0, Some(0.55), Some(0.991)));
        assert!(librdkafka_latencies("12\nx").is_err());
        assert!(librdkafka_latencies("").is_err());
    }
}
