//! Snappy blocks: framed by the Java library's stream format ("xerial"), or one bare block.
//!
//! ```text
//!   82 'SNAPPY' 00 | version i32 | compatible version i32 | { length i32 | block }*
//! ```

mod elements;

use super::{CodecError, Fault, Piece};
use crate::compression::Codec;
use elements::Elements;

/// The first bytes of the framed form. No bare block starts with them: after the length, its first element would be a
/// copy, and there is nothing yet to copy from.
pub(crate) const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Length in bytes of the magic and the two versions after it.
pub(crate) const STREAM_HEADER_LEN: usize = 16;
/// The version written in both fields, and the least that is read.
pub(crate) const VERSION: i32 = 1;

/// No element of a block yields more than 64 bytes from 3.
const RATIO_MAX: usize = 22;
/// The largest block that is decompressed at once, by the library; larger ones go through a window.
///
/// When fuzzing the window is to be reached by inputs of a usual size.
const WHOLE_BLOCK_MAX: usize = if cfg!(fuzzing) { 1 << 10 } else { 1 << 20 };

pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    input_len: usize,
    framed: bool,
    /// What is left of a block that is decompressed through a window, and where it starts.
    open_block: Option<(Elements<'a>, usize)>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Self, CodecError> {
        let input_len = input.len();
        if !input.starts_with(&MAGIC) {
            return Ok(Self { rest: input, input_len, framed: false, open_block: None });
        }
        let (Some(version), Some(rest)) = (input.get(8..12), input.get(STREAM_HEADER_LEN..)) else {
            return Err(CodecError::Truncated { codec: Codec::Snappy });
        };
        if version.first_chunk().is_none_or(|version| i32::from_be_bytes(*version) < VERSION) {
            return Err(CodecError::Corrupt { codec: Codec::Snappy, position: MAGIC.len() });
        }
        Ok(Self { rest, input_len, framed: true, open_block: None })
    }

    /// The next block or part of one, decompressed; `room` is what the limit has left.
    pub(super) fn piece(&mut self, buffer: &mut Vec<u8>, room: u64) -> Result<Piece<'a>, Fault> {
        if let Some((elements, position)) = &mut self.open_block {
            let (start, end) = elements.produce(buffer).ok_or(Fault::Corrupt(*position))?;
            if end > start {
                return Ok(Piece::Buffer(start, end));
            }
            self.open_block = None;
        }
        if self.rest.is_empty() {
            return Ok(Piece::End);
        }
        let position = self.input_len - self.rest.len();
        let block = if self.framed { self.framed_block()? } else { std::mem::take(&mut self.rest) };
        let len = snap::raw::decompress_len(block).map_err(|_| Fault::Corrupt(position))?;
        if len > block.len().saturating_mul(RATIO_MAX) {
            return Err(Fault::Corrupt(position));
        }
        if len as u64 > room {
            return Err(Fault::OutputLimit);
        }
        if len > WHOLE_BLOCK_MAX {
            self.open_block =
                Some((Elements::of_block(block, len).ok_or(Fault::Corrupt(position))?, position));
            return Ok(Piece::Buffer(0, 0));
        }
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let len =
            snap::raw::Decoder::new().decompress(block, buffer).map_err(|_| Fault::Corrupt(position))?;
        Ok(Piece::Buffer(0, len))
    }

    fn framed_block(&mut self) -> Result<&'a [u8], Fault> {
        let position = self.input_len - self.rest.len();
        let Some((len, rest)) = self.rest.split_first_chunk() else { return Err(Fault::Truncated) };
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| Fault::Corrupt(position))?;
        let Some((block, rest)) = rest.split_at_checked(len) else { return Err(Fault::Truncated) };
        self.rest = rest;
        Ok(block)
    }
}
