//! What a row came to, as a table for people and as lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::load::Sample;
use crate::ratio::{Ratio, median};

/// The passes of one contender.
pub(crate) struct Line {
    pub(crate) contender: String,
    pub(crate) samples: Vec<Sample>,
}

/// Which figures of a row are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figures {
    Throughput,
    Latency,
}

/// One row: the contender that is judged, then those it is compared with.
pub(crate) struct Table {
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) tool: &'static str,
    pub(crate) figures: Figures,
    pub(crate) lines: Vec<Line>,
}

/// Where results go.
pub(crate) struct Report {
    samples: File,
}

#[derive(Serialize)]
struct SampleLine<'a> {
    row: &'a str,
    what: &'a str,
    tool: &'a str,
    contender: &'a str,
    pass: usize,
    #[serde(flatten)]
    sample: &'a Sample,
}

#[derive(Serialize)]
struct FigureLine<'a> {
    row: &'a str,
    what: &'a str,
    contender: &'a str,
    values: &'a [f64],
}

impl Report {
    /// Results are added to the file.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { samples: file.with_context(|| path.display().to_string())? })
    }

    /// Prints a row and keeps its samples.
    pub(crate) fn table(&mut self, table: &Table) -> anyhow::Result<()> {
        for line in &table.lines {
            for (pass, sample) in line.samples.iter().enumerate() {
                let (row, what, tool) = (table.row, &*table.what, table.tool);
                let line = SampleLine { row, what, tool, contender: &line.contender, pass, sample };
                writeln!(self.samples, "{}", serde_json::to_string(&line)?)?;
            }
        }
        print!("{}", table.text());
        Ok(())
    }

    /// Prints single figures, ours first and Kafka's last, each the median of its values, and keeps the values. What is
    /// smaller is better: the ratio is Kafka's by ours.
    pub(crate) fn figure(
        &mut self,
        row: &str,
        what: &str,
        values: &[(&str, Vec<f64>)],
    ) -> anyhow::Result<()> {
        let ratio = match values {
            [(_, ours), .., (_, theirs)] => Some(Ratio::of(theirs, ours)),
            _ => None,
        };
        self.figures(row, what, values, ratio)
    }

    /// As [`figure`](Self::figure), where what is larger is better: the ratio is ours by Kafka's.
    pub(crate) fn rate(&mut self, row: &str, what: &str, values: &[(&str, Vec<f64>)]) -> anyhow::Result<()> {
        let ratio = match values {
            [(_, ours), .., (_, theirs)] => Some(Ratio::of(ours, theirs)),
            _ => None,
        };
        self.figures(row, what, values, ratio)
    }

    fn figures(
        &mut self,
        row: &str,
        what: &str,
        values: &[(&str, Vec<f64>)],
        ratio: Option<Ratio>,
    ) -> anyhow::Result<()> {
        let mut text = format!("| {row} | {what} |");
        for (contender, values) in values {
            let line = FigureLine { row, what, contender, values };
            writeln!(self.samples, "{}", serde_json::to_string(&line)?)?;
            text += &format!(" {contender} {} |", number(median(values)));
        }
        if let Some(ratio) = ratio {
            text += &format!(" {ratio} |");
        }
        println!("{text}");
        Ok(())
    }
}

/// With three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        one if one >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Table {
    fn text(&self) -> String {
        let passes = self.lines.first().map_or(0, |line| line.samples.len());
        let mut text = format!("\n{}: {}; {}; {passes} passes\n\n", self.row, self.what, self.tool);
        text += match self.figures {
            Figures::Throughput => concat!(
                "| | MiB/s | records/s | brokers s/GiB | us/record | client s/GiB | foreign | rate, ours by this | CPU, this by ours |\n",
                "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
            ),
            Figures::Latency => concat!(
                "| | records/s | p50 ms | p99 ms | brokers, share of a core | foreign | p50, this by ours | p99, this by ours |\n",
                "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
            ),
        };
        for line in &self.lines {
            text += &match self.figures {
                Figures::Throughput => self.throughput(line),
                Figures::Latency => self.latency(line),
            };
        }
        text
    }

    fn ours(&self) -> &[Sample] {
        self.lines.first().map_or(&[], |line| &line.samples)
    }

    fn throughput(&self, line: &Line) -> String {
        let of = |value: fn(&Sample) -> f64| -> String {
            number(median(&line.samples.iter().map(value).collect::<Vec<_>>()))
        };
        let rate = ratio(self.ours(), &line.samples, |sample| sample.records_per_second);
        let cpu = ratio(&line.samples, self.ours(), Sample::broker_seconds_per_gib);
        let is_ours = std::ptr::eq(self.ours(), line.samples.as_slice());
        let (rate, cpu) = if is_ours { (String::new(), String::new()) } else { (rate, cpu) };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {rate} | {cpu} |\n",
            line.contender,
            of(|sample| sample.mib_per_second),
            of(|sample| sample.records_per_second),
            of(Sample::broker_seconds_per_gib),
            of(Sample::broker_micros_per_record),
            of(Sample::client_seconds_per_gib),
            of(|sample| sample.foreign),
        )
    }

    fn latency(&self, line: &Line) -> String {
        let of = |value: fn(&Sample) -> f64| -> String {
            number(median(&line.samples.iter().map(value).collect::<Vec<_>>()))
        };
        let p50 = ratio(&line.samples, self.ours(), |sample| sample.p50_ms.unwrap_or(f64::NAN));
        let p99 = ratio(&line.samples, self.ours(), |sample| sample.p99_ms.unwrap_or(f64::NAN));
        let is_ours = std::ptr::eq(self.ours(), line.samples.as_slice());
        let (p50, p99) = if is_ours { (String::new(), String::new()) } else { (p50, p99) };
        format!(
            "| {} | {} | {} | {} | {} | {} | {p50} | {p99} |\n",
            line.contender,
            of(|sample| sample.records_per_second),
            of(|sample| sample.p50_ms.unwrap_or(f64::NAN)),
            of(|sample| sample.p99_ms.unwrap_or(f64::NAN)),
            of(|sample| sample.broker_cpu / (sample.records / sample.records_per_second)),
            of(|sample| sample.foreign),
        )
    }
}

fn ratio(over: &[Sample], under: &[Sample], value: fn(&Sample) -> f64) -> String {
    let values = |samples: &[Sample]| samples.iter().map(value).collect::<Vec<_>>();
    Ratio::of(&values(over), &values(under)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> Sample {
        Sample {
            records_per_second: rate * 1024.0,
            mib_per_second: rate,
            mib: 1024.0,
            records: 1_048_576.0,
            broker_cpu: 100.0 / rate,
            client_cpu: 0.5,
            foreign: 0.1,
            p50_ms: Some(1.0),
            p99_ms: Some(2.0),
        }
    }

    #[test]
    fn a_table_compares_with_its_first_line() {
        let line =
            |contender: &str, rate| Line { contender: contender.to_owned(), samples: vec![sample(rate); 3] };
        let table = Table {
            row: "P1",
            what: "large batches".to_owned(),
            tool: "klamm perf",
            figures: Figures::Throughput,
            lines: vec![line("Klamm", 400.0), line("Kafka", 100.0)],
        };
        let text = table.text();
        let expected = "| Kafka | 100 | 102400 | 1.00 | 0.954 | 0.500 | 0.100 | 4.00 [4.00 .. 4.00] | 4.00 [4.00 .. 4.00] |";
        assert!(text.contains(expected), "{text}");
    }
}
