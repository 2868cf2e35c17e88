//! The LZ4 frame format, version 1, with independent blocks: what Kafka's clients read.
//!
//! ```text
//!   magic u32 | flags u8 | block size u8 | [content size u64] | header checksum u8
//!   { block length u32, top bit: stored | block | [checksum u32] }*  | 0 u32 | [content checksum u32]
//! ```
//! All little endian; checksums are XXH32 with seed 0.

use std::hash::Hasher;

use twox_hash::XxHash32;

use super::{CodecError, Fault, Piece};
use crate::compression::Codec;

const MAGIC: u32 = 0x184d_2204;
const VERSION_1: u8 = 0b0100_0000;
const VERSION_MASK: u8 = 0b1100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
/// The unused bit, and the one for dictionaries, which nobody could supply.
const UNSUPPORTED: u8 = 0b0000_0011;
/// Flags an uncompressed block in its length.
const STORED: u32 = 1 << 31;
/// LZ4 needs at least one byte for 255 bytes of output, and a few more per sequence.
const RATIO_MAX: usize = 255;

pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    input_len: usize,
    flags: u8,
    block_len_max: usize,
    content_size: Option<u64>,
    produced: u64,
    content_hash: XxHash32,
    finished: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Self, CodecError> {
        Self::read_header(input).map_err(|fault| fault.of(Codec::Lz4, 0))
    }

    fn read_header(input: &'a [u8]) -> Result<Self, Fault> {
        let (magic, rest) = input.split_first_chunk().ok_or(Fault::Truncated)?;
        if u32::from_le_bytes(*magic) != MAGIC {
            return Err(Fault::Corrupt(0));
        }
        let (&[flags, block_size], mut after) = rest.split_first_chunk().ok_or(Fault::Truncated)?;
        let legal_flags =
            flags & VERSION_MASK == VERSION_1 && flags & INDEPENDENT != 0 && flags & UNSUPPORTED == 0;
        // 4 to 7 stand for 64 KiB, 256 KiB, 1 MiB and 4 MiB; all other bits are unused.
        let legal_block_size = matches!(block_size >> 4, 4..=7) && block_size & 0x0f == 0;
        if !legal_flags || !legal_block_size {
            return Err(Fault::Corrupt(magic.len()));
        }
        let mut content_size = None;
        if flags & CONTENT_SIZE != 0 {
            let (size, rest) = after.split_first_chunk().ok_or(Fault::Truncated)?;
            content_size = Some(u64::from_le_bytes(*size));
            after = rest;
        }
        let descriptor = rest.get(..rest.len() - after.len()).unwrap_or_default();
        let (&checksum, after) = after.split_first().ok_or(Fault::Truncated)?;
        if checksum != (hash(descriptor) >> 8) as u8 {
            return Err(Fault::Corrupt(magic.len()));
        }
        Ok(Self {
            rest: after,
            input_len: input.len(),
            flags,
            block_len_max: 1 << (8 + 2 * (block_size >> 4)),
            content_size,
            produced: 0,
            content_hash: XxHash32::with_seed(0),
            finished: false,
        })
    }

    /// The next block, decompressed; it may have at most `room` bytes.
    pub(super) fn piece(&mut self, buffer: &mut Vec<u8>, room: u64) -> Result<Piece<'a>, Fault> {
        if self.finished {
            return Ok(Piece::End);
        }
        let position = self.position();
        let length = self.take_u32()?;
        if length == 0 {
            self.finish(position)?;
            return Ok(Piece::End);
        }
        let len = (length & !STORED) as usize;
        if len > self.block_len_max {
            return Err(Fault::Corrupt(position));
        }
        let (block, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        if self.flags & BLOCK_CHECKSUM != 0 && self.take_u32()? != hash(block) {
            return Err(Fault::Corrupt(position));
        }
        if length & STORED != 0 {
            self.account(block);
            return Ok(Piece::Input(block));
        }
        let block_room = self.block_len_max.min(len.saturating_mul(RATIO_MAX).saturating_add(16));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if buffer.len() < block_room.min(room) {
            buffer.resize(block_room.min(room), 0);
        }
        let Some(output) = buffer.get_mut(..block_room.min(room)) else { return Err(Fault::OutputLimit) };
        // Too small an output is the fault of the limit only if the limit has made it small.
        let too_long = if room < block_room { Fault::OutputLimit } else { Fault::Corrupt(position) };
        match lz4_flex::block::decompress_into(block, output) {
            Ok(len) => {
                self.account(output.get(..len).unwrap_or_default());
                Ok(Piece::Buffer(0, len))
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) => Err(too_long),
            Err(_) => Err(Fault::Corrupt(position)),
        }
    }

    fn account(&mut self, output: &[u8]) {
        self.produced += output.len() as u64;
        if self.flags & CONTENT_CHECKSUM != 0 {
            self.content_hash.write(output);
        }
    }

    /// Checks what follows the end mark at `position`.
    fn finish(&mut self, position: usize) -> Result<(), Fault> {
        let expected = self.content_hash.finish() as u32;
        if self.flags & CONTENT_CHECKSUM != 0 && self.take_u32()? != expected {
            return Err(Fault::Corrupt(position));
        }
        if self.content_size.is_some_and(|size| size != self.produced) {
            return Err(Fault::Corrupt(position));
        }
        if !self.rest.is_empty() {
            return Err(Fault::Trailing(self.rest.len()));
        }
        self.finished = true;
        Ok(())
    }

    fn take_u32(&mut self) -> Result<u32, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn position(&self) -> usize {
        self.input_len - self.rest.len()
    }
}

fn hash(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}
