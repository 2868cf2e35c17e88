//! The lines that go to a driver and come back from it.

use klamm_record::Codec;
use klamm_types::{PartitionId, TopicName, TopicPartition};
use serde::{Deserialize, Serialize};

use super::client::Client;

/// The partitions of every client's topic: one for each codec with idempotence and one without, and one whose end is read.
pub(crate) const PARTITIONS: i32 = 11;
/// The last of them, whose records are written while a reader waits for them.
pub(crate) const TAIL: i32 = PARTITIONS - 1;

/// A topic to create.
#[derive(Debug, Serialize)]
pub(crate) struct CreateWork {
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) replication: i16,
}

/// Records for one partition, in one way of writing them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProduceWork {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    #[serde(serialize_with = "by_name")]
    pub(crate) codec: Codec,
    pub(crate) idempotent: bool,
    /// A file of the records, one JSON object per line.
    pub(crate) records: String,
}

fn by_name<S: serde::Serializer>(codec: &Codec, into: S) -> Result<S::Ok, S::Error> {
    into.collect_str(codec)
}

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum From {
    Beginning,
    Offset(i64),
    Timestamp(i64),
    End,
}

/// One partition to read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadWork {
    /// The place of this line in the work, from 0.
    pub(crate) read: usize,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) from: From,
    /// The end offset: the first one that is not read.
    pub(crate) until: i64,
}

/// Where a driver says that a record went.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: Option<i64>,
}

/// A record in the form that every reader's can be brought to: bytes by their SHA-256, in hex.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// A line of a reader: a read begins, or a record.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ReadLine {
    /// `ready` says that the reader stands at the end, and that what is written from now on will come.
    Read { read: usize, ready: bool },
    /// Of the read that began last.
    Record(Seen),
}

/// The way of writing that a partition of a client's topic is for: its codec, and whether with idempotence.
pub(crate) fn way_of(client: &Client, partition: i32) -> Option<(Codec, bool)> {
    let place = usize::try_from(partition).ok()?;
    client.codecs.get(place / 2).map(|codec| (*codec, place % 2 == 1))
}

/// All ways in which a client can write, with the partition of each.
pub(crate) fn ways(client: &Client) -> impl Iterator<Item = (i32, Codec, bool)> {
    let client = *client;
    (0..TAIL).filter_map(move |partition| {
        way_of(&client, partition).map(|(codec, idempotent)| (partition, codec, idempotent))
    })
}

pub(crate) fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), PartitionId(partition))
}
