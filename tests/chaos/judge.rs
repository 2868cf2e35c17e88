//! Holds the logs to what the producers were told.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use klamm_client::{Consumer, ConsumerOptions, Isolation, OffsetSpec, Position};
use klamm_types::{Offset, TopicPartition};
use tokio::time::Instant;

use super::producers::{Ack, CLIENTS, Told};
use super::server::Server;
use super::{PARTITIONS, partitions};

/// How long the reader may see nothing new.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);
/// How many findings are told.
const FINDINGS_MAX: usize = 12;

/// A record in a log: the number that its producer gave it, and where it is.
type Found = (u64, i64);

/// What each log holds, by partition and by client, in the order of the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Logs {
    found: [[Vec<Found>; CLIENTS.len()]; PARTITIONS],
    /// Records that no client wrote: the partition, and the record.
    strange: Vec<(usize, String)>,
    /// The first offset behind each log.
    pub(crate) ends: [i64; PARTITIONS],
}

impl Logs {
    /// Reads all partitions from the beginning to the end that they have now.
    pub(crate) async fn read(server: &Server) -> Self {
        let client = server.client();
        let mut logs = Self::default();
        let mut consumer = Consumer::new(&client, ConsumerOptions::default());
        let queries: Vec<_> = partitions().map(|at| (at, OffsetSpec::Latest)).collect();
        for (at, end) in client.offsets(&queries, Isolation::ReadUncommitted).await {
            logs.ends[place(&at)] = end.unwrap().offset.unwrap_or(Offset::ZERO).0;
            consumer.assign(at, Position::Beginning);
        }
        let mut last_new = Instant::now();
        let is_read = |consumer: &Consumer, ends: &[i64]| {
            partitions().zip(ends).all(|(at, end)| consumer.position(&at).is_some_and(|next| next.0 >= *end))
        };
        while !is_read(&consumer, &logs.ends) {
            assert!(last_new.elapsed() < STANDSTILL_MAX, "the logs cannot be read to {:?}", logs.ends);
            for record in consumer.poll(Duration::from_secs(1)).await.unwrap() {
                last_new = Instant::now();
                logs.note(place(&record.partition), record.offset.0, record.value.as_deref());
            }
        }
        logs
    }

    fn note(&mut self, partition: usize, offset: i64, value: Option<&[u8]>) {
        let text = String::from_utf8_lossy(value.unwrap_or_default());
        let known = || -> Option<(usize, u64)> {
            let (prefix, number) = text.split(' ').next()?.split_once('.')?;
            let client = prefix.parse().ok().filter(|client| *client < CLIENTS.len())?;
            Some((client, number.parse().ok()?))
        };
        match known() {
            Some((client, number)) => self.found[partition][client].push((number, offset)),
            None => self.strange.push((partition, format!("{text} at {offset}"))),
        }
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.found.iter().flatten().map(Vec::len).sum()
    }
}

fn place(at: &TopicPartition) -> usize {
    usize::try_from(at.partition.0).unwrap()
}

/// What is wrong, told in a few words each.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) findings: Vec<String>,
    pub(crate) finding_count: usize,
}

impl Verdict {
    fn find(&mut self, finding: impl FnOnce() -> String) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }

    /// Compares what all producers were told with what the logs hold.
    pub(crate) fn of(told: &[Told], logs: &Logs) -> Self {
        let mut verdict = Self::default();
        for (partition, strange) in &logs.strange {
            verdict.find(|| format!("{partition}: nobody wrote {strange}"));
        }
        for (client, told) in told.iter().enumerate() {
            verdict.judge_answers(CLIENTS[client], told);
            for partition in 0..PARTITIONS {
                let what = format!("{}, partition {partition}", CLIENTS[client]);
                let found = &logs.found[partition][client];
                verdict.judge_log(&what, &told.acked[partition], found);
                if let Some((number, offset)) =
                    found.iter().find(|(number, _)| told.sent.is_some_and(|sent| *number >= sent))
                {
                    verdict.find(|| format!("{what}: number {number} at {offset} was never sent"));
                }
            }
        }
        verdict
    }

    /// Each number that was sent has one answer.
    fn judge_answers(&mut self, client: &str, told: &Told) {
        for line in &told.strange {
            self.find(|| format!("{client} says {line}"));
        }
        for (number, reason) in &told.refused {
            self.find(|| format!("{client}: number {number} was refused: {reason}"));
        }
        let answered: Vec<u64> = told.acked.iter().flatten().map(|ack| ack.number).collect();
        let distinct: BTreeSet<u64> = answered.iter().copied().collect();
        if distinct.len() < answered.len() {
            self.find(|| format!("{client}: {} numbers have two answers", answered.len() - distinct.len()));
        }
        let Some(sent) = told.sent else {
            return self.find(|| format!("{client} did not tell how many it sent"));
        };
        let refused: BTreeSet<u64> = told.refused.iter().map(|(number, _)| *number).collect();
        let silent = (0..sent).filter(|number| !distinct.contains(number) && !refused.contains(number));
        for number in silent {
            self.find(|| format!("{client}: number {number} of {sent} was never answered"));
        }
    }

    /// Every acknowledged record is where its producer was told, if it was, once, and none is before one that was sent earlier.
    fn judge_log(&mut self, what: &str, acked: &[Ack], log: &[Found]) {
        self.acknowledged += acked.len();
        for pair in log.windows(2) {
            let [(first, before), (second, after)] = pair else { continue };
            if first >= second {
                self.find(|| {
                    format!("{what}: number {second} at {after} comes after number {first} at {before}")
                });
            }
        }
        let places: HashMap<u64, i64> = log.iter().copied().collect();
        for ack in acked {
            match places.get(&ack.number) {
                None => self.find(|| {
                    format!("{what}: number {}, acknowledged at {}, is lost", ack.number, ack.offset)
                }),
                Some(found) if ack.offset >= 0 && *found != ack.offset => self
                    .find(|| format!("{what}: number {}, told at {}, is at {found}", ack.number, ack.offset)),
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(acked: &[Found], refused: &[u64], sent: u64) -> Told {
        let mut told = Told { sent: Some(sent), ..Told::default() };
        told.acked[0] =
            acked.iter().map(|(number, offset)| Ack { number: *number, offset: *offset, at: 0.0 }).collect();
        told.refused = refused.iter().map(|number| (*number, "why".to_owned())).collect();
        told
    }

    fn findings(told: Told, log: &[&str]) -> String {
        let mut logs = Logs::default();
        for (offset, value) in (0..).zip(log) {
            logs.note(0, offset, Some(value.as_bytes()));
        }
        let rest = (1..CLIENTS.len()).map(|_| Told { sent: Some(0), ..Told::default() });
        let told: Vec<_> = std::iter::once(told).chain(rest).collect();
        let verdict = Verdict::of(&told, &logs);
        assert_eq!(verdict.findings.len(), verdict.finding_count);
        verdict.findings.join("\n")
    }

    #[test]
    fn logs_that_kept_their_promise_are_found_good() {
        assert_eq!(findings(told(&[(0, 0), (1, -1), (2, 2)], &[], 3), &["0.0 xx", "0.1", "0.2"]), "");
    }

    #[test]
    fn each_fault_is_found() {
        let two = || told(&[(0, 0), (1, 1)], &[], 2);
        for (log, what) in [
            (&["0.0"][..], "number 1, acknowledged at 1, is lost"),
            (&["0.0", "0.1", "0.1"], "number 1 at 2 comes after number 1 at 1"),
            (&["0.1", "0.0"], "number 0 at 1 comes after number 1 at 0"),
            (&["0.0", "0.0", "0.1"], "number 1, told at 1, is at 2"),
            (&["0.0", "0.1", "0.7"], "number 7 at 2 was never sent"),
            (&["0.0", "0.1", "9.0"], "nobody wrote 9.0 at 2"),
        ] {
            let found = findings(two(), log);
            assert!(found.contains(what), "{what}: {found}");
        }
        let log = ["0.0", "0.1"];
        assert!(findings(told(&[(0, 0)], &[1], 2), &log).contains("number 1 was refused: why"));
        assert!(findings(told(&[(0, 0)], &[], 2), &log).contains("number 1 of 2 was never answered"));
        assert!(
            findings(told(&[(0, 0), (1, 1), (1, 1)], &[], 2), &log).contains("1 numbers have two answers")
        );
    }
}
