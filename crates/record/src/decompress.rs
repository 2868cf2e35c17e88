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

/// Memory that one decompression leaves to the next: tables and buffers that are costly to set up.
///
/// At most 4 MiB for a piece and 16 MiB for zstd are kept; what a batch needed beyond that is freed with it.
#[derive(Default)]
pub struct CodecMemory {
    buffer: Vec<u8>,
    zstd: Option<zstd::Context>,
}

/// The largest buffer that is kept: one block of LZ4.
const BUFFER_KEPT_MAX: usize = 4 << 20;
/// The largest zstd context that is kept: a window of 8 MiB, which levels up to 19 use.
const ZSTD_KEPT_MAX: usize = 16 << 20;

/// Decompresses one run of bytes, piece by piece.
///
/// The sum of all pieces never passes the limit. Memory: one piece, that is
/// - nothing for uncompressed bytes, which are handed on as they are;
/// - 32 KiB for gzip, and its history of 32 KiB;
/// - 32 KiB for zstd, and its window: at most 128 MiB, of which no more is touched than has been produced;
/// - one block for LZ4: at most 4 MiB, and no more than 255 times the compressed block;
/// - one block for snappy, at most 1 MiB; larger ones, as librdkafka writes a whole batch, go through 128 KiB.
pub struct Decompressor<'a> {
    engine: Engine<'a>,
    codec: Codec,
    limit: u64,
    produced: u64,
    piece: Piece<'a>,
    buffer: Vec<u8>,
    /// Kept for others while another codec is at work.
    zstd: Option<zstd::Context>,
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
    /// In the buffer, from the one position to the other.
    Buffer(usize, usize),
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
        Self::with_memory(codec, input, limit, CodecMemory::default())
    }

    /// Like [`new`](Self::new), with memory from an earlier decompression; see [`into_memory`](Self::into_memory).
    ///
    /// # Errors
    /// As [`new`](Self::new); the memory is then freed.
    pub fn with_memory(
        codec: Codec,
        input: &'a [u8],
        limit: u64,
        memory: CodecMemory,
    ) -> Result<Self, CodecError> {
        let CodecMemory { buffer, mut zstd } = memory;
        if codec != Codec::None && input.is_empty() {
            return Err(CodecError::Truncated { codec });
        }
        let engine = match codec {
            Codec::None => Engine::Plain(input),
            Codec::Gzip => Engine::Gzip(Box::new(MultiGzDecoder::new(input)), input.len()),
            Codec::Snappy => Engine::Snappy(snappy::Decoder::new(input)?),
            Codec::Lz4 => Engine::Lz4(lz4::Decoder::new(input)?),
            Codec::Zstd => Engine::Zstd(Box::new(zstd::Decoder::new(input, zstd.take())?)),
        };
        Ok(Self { engine, codec, limit, produced: 0, piece: Piece::Buffer(0, 0), buffer, zstd })
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
            Piece::Buffer(start, end) => self.buffer.get(start..end).unwrap_or_default(),
            Piece::End => &[],
        }
    }

    /// How many bytes all pieces so far have together.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// Ends the decompression, wherever it stands, and leaves its memory to the next.
    #[must_use]
    pub fn into_memory(self) -> CodecMemory {
        let zstd = match self.engine {
            Engine::Zstd(decoder) => Some(decoder.into_context()),
            _ => self.zstd,
        };
        let buffer = if self.buffer.capacity() > BUFFER_KEPT_MAX { Vec::new() } else { self.buffer };
        CodecMemory { buffer, zstd: zstd.filter(|context| context.size() <= ZSTD_KEPT_MAX) }
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
    match decoder.read(first_piece(buffer)) {
        Ok(0) => Ok(Piece::End),
        Ok(len) => Ok(Piece::Buffer(0, len)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(CodecError::Truncated { codec: Codec::Gzip }),
        Err(_) => {
            let position = input_len - decoder.get_ref().len();
            Err(CodecError::Corrupt { codec: Codec::Gzip, position })
        }
    }
}

/// The first [`PIECE_LEN`] bytes of `buffer`, made so long if it is shorter.
fn first_piece(buffer: &mut Vec<u8>) -> &mut [u8] {
    if buffer.len() < PIECE_LEN {
        buffer.resize(PIECE_LEN, 0);
    }
    buffer.get_mut(..PIECE_LEN).unwrap_or_default()
}

#[cfg(test)]
#[path = "decompress_test.rs"]
mod tests;
