//! zstd frames.

use zstd::stream::raw::{DParameter, Decoder as Frames, Operation};

use super::{CodecError, PIECE_LEN, Piece};
use crate::compression::Codec;

/// The largest window a frame may ask for, as a power of two: 128 MiB, which level 22 uses and the reference decoder
/// accepts by default.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) struct Decoder<'a> {
    frames: Frames<'static>,
    input: &'a [u8],
    position: usize,
    /// Whether the input so far ends with a frame.
    between_frames: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Self, CodecError> {
        let corrupt = |_| CodecError::Corrupt { codec: Codec::Zstd, position: 0 };
        let mut frames = Frames::new().map_err(corrupt)?;
        frames.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(corrupt)?;
        Ok(Self { frames, input, position: 0, between_frames: true })
    }

    /// The next piece of at most [`PIECE_LEN`] bytes.
    pub(super) fn piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece<'a>, CodecError> {
        buffer.resize(PIECE_LEN, 0);
        loop {
            let rest = self.input.get(self.position..).unwrap_or_default();
            if rest.is_empty() && self.between_frames {
                return Ok(Piece::End);
            }
            let status = self
                .frames
                .run_on_buffers(rest, buffer)
                .map_err(|_| CodecError::Corrupt { codec: Codec::Zstd, position: self.position })?;
            self.position += status.bytes_read;
            self.between_frames = status.remaining == 0;
            if status.bytes_written > 0 {
                return Ok(Piece::Buffer(status.bytes_written));
            }
            if status.bytes_read == 0 && !self.between_frames {
                return Err(CodecError::Truncated { codec: Codec::Zstd });
            }
        }
    }
}
