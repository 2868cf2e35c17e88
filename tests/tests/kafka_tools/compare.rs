//! Holds what the tools printed against the recording, and differences against the table of those with a reason.

use std::collections::BTreeSet;

use crate::differences::DIFFERENCES;

/// A line that only one of two has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Only<'a> {
    Kafka(&'a str),
    Klamm(&'a str),
}

/// The lines of a step that only one of the two has and that no listed difference explains, ready to be told.
pub(crate) fn unexplained(step: &str, kafka: &[String], klamm: &[String]) -> Vec<String> {
    let lines = differing(kafka, klamm).into_iter();
    let unlisted = lines.filter(|only| listed(step, *only).next().is_none());
    unlisted
        .map(|only| match only {
            Only::Kafka(line) => format!("{step}: only Kafka: {line}"),
            Only::Klamm(line) => format!("{step}: only Klamm: {line}"),
        })
        .collect()
}

/// Which lines of the table were met.
#[derive(Debug, Default)]
pub(crate) struct Hits(BTreeSet<(usize, bool, usize)>);

impl Hits {
    /// Notes the listed differences that a step shows.
    pub(crate) fn note(&mut self, step: &str, kafka: &[String], klamm: &[String]) {
        for only in differing(kafka, klamm) {
            self.0.extend(listed(step, only));
        }
    }

    /// The listed differences that no step shows any more, ready to be told.
    pub(crate) fn never(&self) -> Vec<String> {
        let mut never = Vec::new();
        for (number, difference) in DIFFERENCES.iter().enumerate() {
            for (is_kafka, patterns) in [(true, difference.kafka), (false, difference.klamm)] {
                let missed = (0..).zip(patterns).filter(|(at, _)| !self.0.contains(&(number, is_kafka, *at)));
                let who = if is_kafka { "Kafka" } else { "Klamm" };
                never.extend(missed.map(|(_, pattern)| {
                    format!("listed for {}, but occurs no more: only {who}: {pattern}", difference.steps)
                }));
            }
        }
        never
    }
}

/// The places in the table that explain a line: entry, whether Kafka's, pattern.
fn listed<'a>(step: &'a str, only: Only<'a>) -> impl Iterator<Item = (usize, bool, usize)> + 'a {
    let entries = DIFFERENCES.iter().enumerate();
    let entries = entries.filter(|(_, entry)| entry.steps.split(' ').any(|pattern| is_like(step, pattern)));
    entries.flat_map(move |(number, entry)| {
        let (is_kafka, patterns, line) = match only {
            Only::Kafka(line) => (true, entry.kafka, line),
            Only::Klamm(line) => (false, entry.klamm, line),
        };
        let places = (0..).zip(patterns).filter(move |(_, pattern)| is_like(line, pattern));
        places.map(move |(at, _)| (number, is_kafka, at))
    })
}

/// Whether a text is like a pattern, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<_> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// The lines that are not in the longest common subsequence.
fn differing<'a>(kafka: &'a [String], klamm: &'a [String]) -> Vec<Only<'a>> {
    // common[i][j]: how many lines the ends from i and j have in common.
    let mut common = vec![vec![0_usize; klamm.len() + 1]; kafka.len() + 1];
    for i in (0..kafka.len()).rev() {
        for j in (0..klamm.len()).rev() {
            common[i][j] = if kafka[i] == klamm[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < kafka.len() || j < klamm.len() {
        if i < kafka.len() && j < klamm.len() && kafka[i] == klamm[j] {
            i += 1;
            j += 1;
        } else if j == klamm.len() || (i < kafka.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Only::Kafka(&kafka[i]));
            i += 1;
        } else {
            lines.push(Only::Klamm(&klamm[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn lines_of_one_side_are_found() {
        let (kafka, klamm) = (lines("a b c d"), lines("a x c d e"));
        assert_eq!(differing(&kafka, &klamm), [Only::Kafka("b"), Only::Klamm("x"), Only::Klamm("e")]);
        assert!(differing(&kafka, &kafka).is_empty());
    }

    #[test]
    fn patterns_match() {
        assert!(
            is_like("abc", "abc")
                && is_like("abc", "a*")
                && is_like("abc", "*c")
                && is_like("a-b-c", "a*b*c")
        );
        assert!(
            !is_like("abc", "ab")
                && !is_like("abc", "b*")
                && !is_like("abc", "*b")
                && !is_like("acb", "a*b*c")
        );
    }

    #[test]
    fn an_unlisted_difference_is_told() {
        let found = unexplained("no-such-step", &lines("a b"), &lines("a c"));
        assert_eq!(found, ["no-such-step: only Kafka: b", "no-such-step: only Klamm: c"]);
    }

    #[test]
    fn a_listed_difference_that_never_occurs_is_told() {
        let count: usize = DIFFERENCES.iter().map(|entry| entry.kafka.len() + entry.klamm.len()).sum();
        assert_eq!(Hits::default().never().len(), count);
    }
}
