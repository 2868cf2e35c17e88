//! Topic names and the partitions they have.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::PartitionId;

/// A topic's name: 1 to 249 characters of `[a-zA-Z0-9._-]`, but neither `.` nor `..`.
///
/// Such a name is safe as a part of a file name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicName(Arc<str>);

/// Why a text is no [`TopicName`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicNameError {
    /// The text is empty.
    Empty,
    /// The text is `.` or `..`.
    Dots,
    /// The text has this many characters, more than 249.
    Length(usize),
    /// The text has this character, which is not of `[a-zA-Z0-9._-]`.
    Character(char),
}

impl TopicName {
    /// The most characters a name may have.
    pub const LEN_MAX: usize = 249;

    /// Checks `name` by Kafka's rules.
    ///
    /// # Errors
    /// [`TopicNameError`] with the first rule that `name` breaks.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if name == "." || name == ".." {
            return Err(TopicNameError::Dots);
        }
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(c) = name.chars().find(|c| !legal(c)) {
            return Err(TopicNameError::Character(c));
        }
        if name.len() > Self::LEN_MAX {
            return Err(TopicNameError::Length(name.len()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the two names differ only in `.` against `_`: metric names would then clash, so that Kafka
    /// refuses to create the second.
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        let fold = |b: u8| if b == b'.' { b'_' } else { b };
        self.0.len() == other.0.len() && self.0.bytes().map(fold).eq(other.0.bytes().map(fold))
    }
}

impl FromStr for TopicName {
    type Err = TopicNameError;

    fn from_str(name: &str) -> Result<Self, TopicNameError> {
        Self::new(name)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a topic name cannot be empty"),
            Self::Dots => f.write_str("a topic name cannot be '.' or '..'"),
            Self::Length(len) => write!(f, "a topic name has at most 249 characters, not {len}"),
            Self::Character(c) => {
                write!(f, "a topic name is made of [a-zA-Z0-9._-], not '{}'", c.escape_default())
            }
        }
    }
}

impl std::error::Error for TopicNameError {}

/// One partition of one topic. Its text form, `topic-partition`, names its directory on disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: TopicName, partition: PartitionId) -> Self {
        Self { topic, partition }
    }

    /// Reads a directory name, `topic-partition`. `None` if it is not one: the number must be written as we
    /// write it (no sign, no leading zero), so that two directories never name one partition.
    #[must_use]
    pub fn parse_dir_name(name: &str) -> Option<Self> {
        let (topic, number) = name.rsplit_once('-')?;
        let partition: i32 = number.parse().ok()?;
        let canonical = partition >= 0 && partition.to_string() == number;
        let topic = TopicName::new(topic).ok()?;
        canonical.then(|| Self::new(topic, PartitionId(partition)))
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "orders", "__consumer_offsets", "a.b-c_D9", "...", &"x".repeat(249)] {
            assert_eq!(TopicName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::Dots));
        assert_eq!(TopicName::new("a/b"), Err(TopicNameError::Character('/')));
        assert_eq!(TopicName::new("caf\u{e9}"), Err(TopicNameError::Character('\u{e9}')));
        assert_eq!(TopicName::new(&"x".repeat(250)), Err(TopicNameError::Length(250)));
    }

    #[test]
    fn dots_and_underscores_collide() {
        let name = |n| TopicName::new(n).unwrap();
        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }

    #[test]
    fn a_directory_name_is_canonical() {
        let dir = TopicPartition::parse_dir_name("my-topic-12").unwrap();
        assert_eq!((dir.topic.as_str(), dir.partition), ("my-topic", PartitionId(12)));
        assert_eq!(dir.to_string(), "my-topic-12");
        for bad in ["topic", "topic-", "topic-01", "topic-+1", "-1", "t/x-1", "t-99999999999"] {
            assert_eq!(TopicPartition::parse_dir_name(bad), None, "{bad}");
        }
    }
}
