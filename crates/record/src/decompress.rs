//! Decompression piece by piece, with a limit on what comes out.

mod lz4;
pub(crate) mod snappy;
mod zstd;

use std::io::{ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use crate::compression::Codec;

/// Size in bytes of the pieces that gzip and zstd are decompressed in.
const PIECE_LEN: usize = 32 << 10;

/// Why compressed records cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not of the codec's format, or a checksum of that format is wrong, or they use a feature of it
    /// that Kafka's clients do not read: linked LZ4 blocks, dictionaries, a zstd window above 128 MiB.
    #[error("{codec} data is corrupt at byte {position}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// How far into the compressed bytes the decoder had come: the fault lies within the block or frame there.
        position: usize,
    },
    /// The bytes end before the format says so.
    #[error("{codec} data is truncated")]
    Truncated {
        /// The codec.
        codec: Codec,
    },
    /// Bytes follow the end that the format has marked. (gzip and zstd data may consist of several frames.)
    #[error("{codec} data is followed by {count} stray bytes")]
    Trailing {
        /// The codec.
        codec: Codec,
        /// How many bytes follow.
        count: usize,
    },
    /// More comes out than allowed.
    #[error("{codec} data decompresses to more than {limit} bytes")]
    OutputLimit {
        /// The codec.
        codec: Codec,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Decompresses one run of bytes, piece by piece.
///
/// The sum of all pieces never passes the limit. Memory: one piece, that is
/// - nothing for uncompressed bytes, which are handed on as they are;
/// - 32 KiB for gzip, and its history of 32 KiB;
/// - 32 KiB for zstd, and its window: at most 128 MiB, of which no more is touched than has been produced;
/// - one block for LZ4: at most 4 MiB, and no more than 255 times the compressed block;
/// - one block for snappy: at most 22 times the compressed block. librdkafka writes a batch as one block.
pub struct Decompressor<'a> {
    engine: Engine<'a>,
    codec: Codec,
    limit: u64,
    produced: u64,
    piece: Piece<'a>,
    buffer: Vec<u8>,
}

enum Engine<'a> {
    Plain(&'a [u8]),
    Gzip(Box<MultiGzDecoder<&'a [u8]>>, usize),
    Snappy(snappy::Decoder<'a>),
    Lz4(lz4::Decoder<'a>),
    Zstd(Box<zstd::Decoder<'a>>),
}

/// Where a piece of output lies.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// In the input: it was stored as it is.
    Input(&'a [u8]),
    /// At the start of the buffer, with this length.
    Buffer(usize),
    /// Nowhere: all has been produced.
    End,
}

impl<'a> Decompressor<'a> {
    /// Prepares to decompress `input`, which may become at most `limit` bytes.
    ///
    /// # Errors
    /// [`CodecError`] if `input` does not even start like the codec's format; the empty input is truncated data of
    /// every codec but [`Codec::None`].
    pub fn new(codec: Codec, input: &'a [u8], limit: u64) -> Result<Self, CodecError> {
        if codec != Codec::None && input.is_empty() {
            return Err(CodecError::Truncated { codec });
        }
        let engine = match codec {
            Codec::None => Engine::Plain(input),
            Codec::Gzip => Engine::Gzip(Box::new(MultiGzDecoder::new(input)), input.len()),
            Codec::Snappy => Engine::Snappy(snappy::Decoder::new(input)?),
            Codec::Lz4 => Engine::Lz4(lz4::Decoder::new(input)?),
            Codec::Zstd => Engine::Zstd(Box::new(zstd::Decoder::new(input)?)),
        };
        Ok(Self { engine, codec, limit, produced: 0, piece: Piece::Buffer(0), buffer: Vec::new() })
    }

    /// Produces the next piece; `false` once the input has ended as its format demands. A piece may be empty.
    ///
    /// # Errors
    /// [`CodecError`]; do not call again after an error.
    pub fn advance(&mut self) -> Result<bool, CodecError> {
        let room = self.limit - self.produced;
        let (buffer, codec) = (&mut self.buffer, self.codec);
        self.piece = match &mut self.engine {
            Engine::Plain(rest) => plain_piece(rest),
            Engine::Gzip(decoder, len) => gzip_piece(decoder, *len, buffer)?,
            Engine::Snappy(decoder) => decoder.piece(buffer, room).map_err(|e| e.of(codec, self.limit))?,
            Engine::Lz4(decoder) => decoder.piece(buffer, room).map_err(|e| e.of(codec, self.limit))?,
            Engine::Zstd(decoder) => decoder.piece(buffer)?,
        };
        let len = self.chunk().len() as u64;
        if len > room {
            return Err(CodecError::OutputLimit { codec, limit: self.limit });
        }
        self.produced += len;
        Ok(!matches!(self.piece, Piece::End))
    }

    /// The piece that [`advance`](Self::advance) produced last; empty before the first and after the last.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        match self.piece {
            Piece::Input(bytes) => bytes,
            Piece::Buffer(len) => self.buffer.get(..len).unwrap_or_default(),
            Piece::End => &[],
        }
    }

    /// How many bytes all pieces so far have together.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced
    }
}

/// What a block decoder finds; [`CodecError`] without what every decoder would have to repeat.
enum Fault {
    Corrupt(usize),
    Truncated,
    Trailing(usize),
    OutputLimit,
}

impl Fault {
    fn of(self, codec: Codec, limit: u64) -> CodecError {
        match self {
            Self::Corrupt(position) => CodecError::Corrupt { codec, position },
            Self::Truncated => CodecError::Truncated { codec },
            Self::Trailing(count) => CodecError::Trailing { codec, count },
            Self::OutputLimit => CodecError::OutputLimit { codec, limit },
        }
    }
}

fn plain_piece<'a>(rest: &mut &'a [u8]) -> Piece<'a> {
    match std::mem::take(rest) {
        [] => Piece::End,
        bytes => Piece::Input(bytes),
    }
}

fn gzip_piece<'a>(
    decoder: &mut MultiGzDecoder<&'a [u8]>,
    input_len: usize,
    buffer: &mut Vec<u8>,
) -> Result<Piece<'a>, CodecError> {
    buffer.resize(PIECE_LEN, 0);
    match decoder.read(buffer) {
        Ok(0) => Ok(Piece::End),
        Ok(len) => Ok(Piece::Buffer(len)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(CodecError::Truncated { codec: Codec::Gzip }),
        Err(_) => {
            let position = input_len - decoder.get_ref().len();
            Err(CodecError::Corrupt { codec: Codec::Gzip, position })
        }
    }
}
