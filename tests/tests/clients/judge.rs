//! The judge: what was to be written, what the log holds, and what each reader saw of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use klamm_client::ConsumedRecord;
use klamm_types::TopicPartition;

use super::records::{Record, hash};
use super::work::{From, ReadLine, ReadWork, Seen};

/// What the partitions hold, as our own client reads it.
pub(crate) type Truth = BTreeMap<TopicPartition, Vec<Seen>>;

/// A record of our own client in the common form.
pub(crate) fn seen(record: &ConsumedRecord) -> Seen {
    let hashed = |bytes: &Option<bytes::Bytes>| bytes.as_deref().map(hash);
    let name = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Seen {
        offset: record.offset.0,
        timestamp: record.timestamp.0,
        key: hashed(&record.key),
        value: hashed(&record.value),
        headers: record.headers.iter().map(|(key, value)| (name(key), hashed(value))).collect(),
    }
}

/// Compares a partition's content with what was asked for. `places` are the offsets that the client told; `sent_within`
/// holds the times that a record without one of its own may bear.
pub(crate) fn judge_written(
    asked: &[Record],
    places: &[Option<i64>],
    found: &[Seen],
    sent_within: &RangeInclusive<i64>,
) -> Result<(), String> {
    if asked.len() != found.len() || asked.len() != places.len() {
        let (asked, places, found) = (asked.len(), places.len(), found.len());
        return Err(format!("{asked} records were asked for, {places} acknowledged, {found} are there"));
    }
    for (((record, told), found), offset) in asked.iter().zip(places).zip(found).zip(0..) {
        let timestamp = match record.timestamp {
            Some(timestamp) => timestamp,
            None if sent_within.contains(&found.timestamp) => found.timestamp,
            None => return Err(format!("the time of {found:?} is not within {sent_within:?}")),
        };
        let expected = record.seen(offset, timestamp);
        if *found != expected {
            return Err(format!("at {offset} is\n{found:?}, to be\n{expected:?}"));
        }
        if told.is_some_and(|told| told != offset) {
            return Err(format!("the record at {offset} was told to be at {told:?}"));
        }
    }
    Ok(())
}

/// What a reader must see that begins at `from`: by a timestamp, at the first record that is not older.
pub(crate) fn expected(from: From, content: &[Seen]) -> &[Seen] {
    let first = match from {
        From::Beginning => Some(0),
        From::Offset(offset) => content.iter().position(|seen| seen.offset >= offset),
        From::Timestamp(timestamp) => content.iter().position(|seen| seen.timestamp >= timestamp),
        From::End => None,
    };
    first.and_then(|first| content.get(first..)).unwrap_or_default()
}

/// Splits the lines of a reader into what each read gave.
pub(crate) fn by_read(lines: Vec<ReadLine>, reads: usize) -> Result<Vec<Vec<Seen>>, String> {
    let mut found: Vec<Vec<Seen>> = Vec::new();
    for line in lines {
        match line {
            ReadLine::Read { read, ready: false } if read == found.len() => found.push(Vec::new()),
            ReadLine::Read { read, ready } => {
                if read + 1 != found.len() || !ready {
                    return Err(format!("read {read} begins after {}", found.len()));
                }
            }
            ReadLine::Record(seen) => match found.last_mut() {
                Some(records) => records.push(seen),
                None => return Err("a record of no read".to_owned()),
            },
        }
    }
    if found.len() == reads { Ok(found) } else { Err(format!("{} reads of {reads}", found.len())) }
}

/// Compares what one read gave with the truth.
pub(crate) fn judge_read(work: &ReadWork, found: &[Seen], expected: &[Seen]) -> Result<(), String> {
    let place = format!("{}-{} from {:?}", work.topic, work.partition, work.from);
    if let Some((found, expected)) = found.iter().zip(expected).find(|(found, expected)| found != expected) {
        return Err(format!("{place}: read\n{found:?}, to be\n{expected:?}"));
    }
    if found.len() != expected.len() || found.is_empty() {
        return Err(format!("{place}: {} records of {}", found.len(), expected.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: RangeInclusive<i64> = 0..=i64::MAX;

    fn asked() -> Vec<Record> {
        let record = |timestamp, value: &str| Record {
            timestamp: Some(timestamp),
            value: Some(value.into()),
            headers: Vec::new(),
            key: None,
        };
        vec![record(10, "a"), record(30, "b"), record(20, "c"), record(40, "d")]
    }

    fn content() -> Vec<Seen> {
        asked()
            .iter()
            .zip(0..)
            .map(|(record, offset)| record.seen(offset, record.timestamp.unwrap()))
            .collect()
    }

    fn told() -> Vec<Option<i64>> {
        vec![Some(0), None, Some(2), Some(3)]
    }

    #[test]
    fn what_was_written_as_asked_is_good() {
        judge_written(&asked(), &told(), &content(), &ALWAYS).unwrap();
    }

    #[test]
    fn every_change_of_what_was_written_is_found() {
        let refused = |change: &dyn Fn(&mut Vec<Seen>)| {
            let mut content = content();
            change(&mut content);
            judge_written(&asked(), &told(), &content, &ALWAYS).unwrap_err();
        };
        refused(&|content| content[1].offset = 7);
        refused(&|content| content[1].timestamp += 1);
        refused(&|content| content[1].key = Some(hash(b"")));
        refused(&|content| content[1].value = None);
        refused(&|content| content[1].headers.push(("h".to_owned(), None)));
        refused(&|content| content.swap(1, 2));
        refused(&|content| drop(content.pop()));
        let mut elsewhere = told();
        elsewhere[0] = Some(1);
        judge_written(&asked(), &elsewhere, &content(), &ALWAYS).unwrap_err();
        judge_written(&asked(), &told()[1..], &content(), &ALWAYS).unwrap_err();
    }

    #[test]
    fn a_time_of_the_clients_own_is_within_the_run() {
        let mut asked = asked();
        asked[3].timestamp = None;
        judge_written(&asked, &told(), &content(), &(40..=50)).unwrap();
        judge_written(&asked, &told(), &content(), &(41..=50)).unwrap_err();
    }

    #[test]
    fn a_read_begins_where_it_is_told() {
        let content = content();
        assert_eq!(expected(From::Beginning, &content), content);
        assert_eq!(expected(From::Offset(2), &content), &content[2..]);
        assert_eq!(expected(From::Timestamp(20), &content), &content[1..]);
        assert!(expected(From::Timestamp(41), &content).is_empty());
        assert!(expected(From::End, &content).is_empty());
    }

    #[test]
    fn a_reader_that_saw_something_else_is_found() {
        let content = content();
        let work = ReadWork { read: 0, topic: "t".to_owned(), partition: 0, from: From::Beginning, until: 4 };
        judge_read(&work, &content, &content).unwrap();
        judge_read(&work, &content[1..], &content).unwrap_err();
        judge_read(&work, &content[..3], &content).unwrap_err();
        judge_read(&work, &content, &content[..3]).unwrap_err();
        judge_read(&work, &[], &[]).unwrap_err();
        let mut other = content.clone();
        other[3].value = None;
        judge_read(&work, &other, &content).unwrap_err();
    }

    #[test]
    fn lines_go_to_the_read_that_began_last() {
        let begin = |read| ReadLine::Read { read, ready: false };
        let record = || ReadLine::Record(content().remove(0));
        let reads = by_read(vec![begin(0), record(), begin(1), ReadLine::Read { read: 1, ready: true }], 2);
        assert_eq!(reads.unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
        by_read(vec![record()], 0).unwrap_err();
        by_read(vec![begin(1)], 1).unwrap_err();
        by_read(vec![begin(0)], 2).unwrap_err();
    }
}
