//! Names of brokers, topics, partitions and producers.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A node's number in the cluster (`node.id`); valid from 0.
    BrokerId(i32)
);
id!(
    /// A partition's number within its topic; valid from 0.
    PartitionId(i32)
);
id!(
    /// A producer's number, unique in the cluster; valid from 0 (KIP-98).
    ProducerId(i64)
);

impl BrokerId {
    /// The wire value for "no broker" (-1).
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// The wire value for "not idempotent" (-1).
    pub const NONE: Self = Self(-1);
}

/// A topic's identity: 128 bits drawn when the topic is created, so that a topic deleted and created again
/// under the same name is a different one (KIP-516).
///
/// Its text form is Kafka's: the URL-safe base64 alphabet without padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

/// Which quorum of controllers: 128 bits drawn when it was founded, so that one founded anew, with the metadata of the
/// former lost, is another one, though its terms and offsets look alike.
///
/// Its text form is that of a [`TopicId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuorumId(pub [u8; 16]);

impl fmt::Display for QuorumId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TopicId(self.0).fmt(f)
    }
}

impl fmt::Debug for QuorumId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuorumId({self})")
    }
}

impl FromStr for QuorumId {
    type Err = TopicIdError;

    fn from_str(text: &str) -> Result<Self, TopicIdError> {
        text.parse().map(|TopicId(bits)| Self(bits))
    }
}

/// A text that is no [`TopicId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicIdError {
    /// The text does not have 22 characters; it has this many.
    Length(usize),
    /// The byte at this position is not of the URL-safe base64 alphabet, or has bits past the 128th.
    Character(usize),
}

impl TopicId {
    /// The id that no topic has: "unknown" on the wire.
    pub const ZERO: Self = Self([0; 16]);

    const TEXT_LEN: usize = 22;
    const ALPHABET: &'static [u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits, six at a time from the front; the last character carries two bits and four zeros.
        let bits = u128::from_be_bytes(self.0);
        let mut text = String::with_capacity(Self::TEXT_LEN);
        for i in 0..Self::TEXT_LEN {
            let end = 6 * (i + 1);
            let six = if end <= 128 { bits >> (128 - end) } else { bits << (end - 128) } & 0x3f;
            text.push(char::from(Self::ALPHABET[six as usize]));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl FromStr for TopicId {
    type Err = TopicIdError;

    fn from_str(text: &str) -> Result<Self, TopicIdError> {
        let text = text.as_bytes();
        if text.len() != Self::TEXT_LEN {
            return Err(TopicIdError::Length(text.len()));
        }
        let mut bits: u128 = 0;
        for (i, byte) in text.iter().enumerate() {
            let Some(six) = Self::ALPHABET.iter().position(|a| a == byte) else {
                return Err(TopicIdError::Character(i));
            };
            let six = six as u128;
            if i + 1 < Self::TEXT_LEN {
                bits = bits << 6 | six;
            } else if six & 0xf == 0 {
                bits = bits << 2 | six >> 4;
            } else {
                return Err(TopicIdError::Character(i));
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for TopicIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a topic id has 22 characters, not {len}"),
            Self::Character(at) => write!(f, "character {at} of a topic id is not base64 (URL-safe)"),
        }
    }
}

impl std::error::Error for TopicIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_reads_what_it_wrote() {
        for id in [TopicId::ZERO, TopicId([0xff; 16]), TopicId(*b"0123456789abcdef")] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(TopicId([0xff; 16]).to_string(), "_____________________w");
        assert_eq!(TopicId(*b"0123456789abcdef").to_string(), "MDEyMzQ1Njc4OWFiY2RlZg");
    }

    #[test]
    fn a_bad_topic_id_says_where() {
        assert_eq!("short".parse::<TopicId>(), Err(TopicIdError::Length(5)));
        assert_eq!("AAAAAAAAAA+AAAAAAAAAAA".parse::<TopicId>(), Err(TopicIdError::Character(10)));
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAB".parse::<TopicId>(), Err(TopicIdError::Character(21)));
    }
}
