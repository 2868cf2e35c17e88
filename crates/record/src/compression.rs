//! Codecs and their levels, by Kafka's names and ranges (KIP-390).

use std::fmt;
use std::str::FromStr;

use crate::error::BatchError;
use crate::header::Attributes;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Blocks of the snappy format, framed as the Java library does it, or one bare block as librdkafka writes it.
    Snappy,
    /// The LZ4 frame format, version 1, with independent blocks.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

/// A codec with the level to compress at. The level is not stored: any reader reads every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    codec: Codec,
    level: i32,
}

/// A level that the codec does not have, or a text that names no codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The level is outside [`Codec::levels`].
    #[error("{codec} has no compression level {level}")]
    Level {
        /// The codec.
        codec: Codec,
        /// The level asked for.
        level: i32,
    },
    /// The text is none of `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    #[error("no compression codec has this name")]
    Name,
}

impl Codec {
    /// Every codec, in the order of the numbers in a batch's attributes.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec's name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The least, the default and the greatest level, as Kafka's `compression.<codec>.level` has them; `None` for a
    /// codec without levels. For gzip, -1 stands for the library's choice, and 0 is not allowed.
    #[must_use]
    pub fn levels(self) -> Option<(i32, i32, i32)> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some((-1, -1, 9)),
            Self::Lz4 => Some((1, 9, 17)),
            Self::Zstd => Some((-131_072, 3, 22)),
        }
    }

    pub(crate) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

impl Attributes {
    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the numbers 5, 6 and 7.
    pub fn compression(self) -> Result<Codec, BatchError> {
        match self.0 & Self::CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            codec => Err(BatchError::UnknownCodec { codec: codec as u8 }),
        }
    }

    pub(crate) fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC_MASK | codec.bits())
    }
}

impl Compression {
    /// No compression.
    pub const NONE: Self = Self { codec: Codec::None, level: 0 };

    /// `codec` at `level`. The level of a codec that has none is ignored.
    ///
    /// The LZ4 library here knows one level only: any level of Kafka's range is accepted, and compresses like the
    /// fast end of that range.
    ///
    /// # Errors
    /// [`CompressionError::Level`] outside [`Codec::levels`].
    pub fn new(codec: Codec, level: i32) -> Result<Self, CompressionError> {
        match codec.levels() {
            None => Ok(Self { codec, level: 0 }),
            Some((least, _, greatest)) => {
                let legal = (least..=greatest).contains(&level) && !(codec == Codec::Gzip && level == 0);
                if legal { Ok(Self { codec, level }) } else { Err(CompressionError::Level { codec, level }) }
            }
        }
    }

    /// The codec.
    #[must_use]
    pub fn codec(self) -> Codec {
        self.codec
    }

    /// The level; 0 for a codec without levels.
    #[must_use]
    pub fn level(self) -> i32 {
        self.level
    }
}

/// The codec at its default level.
impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        Self { codec, level: codec.levels().map_or(0, |(_, default, _)| default) }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = CompressionError;

    fn from_str(name: &str) -> Result<Self, CompressionError> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or(CompressionError::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_kafka() {
        let legal = |codec, level| Compression::new(codec, level).is_ok();
        assert!(legal(Codec::Gzip, -1) && legal(Codec::Gzip, 1) && legal(Codec::Gzip, 9));
        assert!(!legal(Codec::Gzip, 0) && !legal(Codec::Gzip, 10) && !legal(Codec::Gzip, -2));
        assert!(legal(Codec::Lz4, 1) && legal(Codec::Lz4, 17));
        assert!(!legal(Codec::Lz4, 0) && !legal(Codec::Lz4, 18));
        assert!(legal(Codec::Zstd, -131_072) && legal(Codec::Zstd, 22));
        assert!(!legal(Codec::Zstd, -131_073) && !legal(Codec::Zstd, 23));
        assert_eq!(Compression::new(Codec::Snappy, 99), Ok(Compression::from(Codec::Snappy)));
        assert_eq!(Compression::new(Codec::None, 99), Ok(Compression::NONE));
    }

    #[test]
    fn the_default_level_is_legal() {
        for codec in Codec::ALL {
            let default = Compression::from(codec);
            assert_eq!(Compression::new(codec, default.level()), Ok(default));
            assert_eq!(codec.name().parse(), Ok(codec));
        }
        assert_eq!("GZIP".parse::<Codec>(), Err(CompressionError::Name));
    }

    #[test]
    fn attributes_carry_the_codec_in_three_bits() {
        for codec in Codec::ALL {
            let attributes = Attributes(0x7f).with_codec(codec);
            assert_eq!(attributes.compression(), Ok(codec));
            assert_eq!(attributes.0 & !Attributes::CODEC_MASK, 0x78);
        }
        for codec in 5..=7 {
            let unknown = Err(BatchError::UnknownCodec { codec: codec as u8 });
            assert_eq!(Attributes(codec).compression(), unknown);
        }
    }
}
