//! zstd frames.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, SafeResult};

use super::{CodecError, Piece};
use crate::compression::Codec;

/// The largest window a frame may ask for, as a power of two: 128 MiB, which level 22 uses and the reference decoder
/// accepts by default.
const WINDOW_LOG_MAX: u32 = 27;

/// What the library needs to decompress: about 160 KiB of tables, and the window of the last frames.
pub(super) struct Context(DCtx<'static>);

impl Context {
    fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok()?;
        Some(Self(context))
    }

    /// Its size in bytes, the window included.
    pub(super) fn size(&self) -> usize {
        self.0.sizeof()
    }
}

pub(super) struct Decoder<'a> {
    context: Context,
    input: &'a [u8],
    position: usize,
    /// Whether the input so far ends with a frame.
    between_frames: bool,
}

impl<'a> Decoder<'a> {
    /// Decompresses `input` with `context`, or with a new one.
    pub(super) fn new(input: &'a [u8], context: Option<Context>) -> Result<Self, CodecError> {
        let decoder = context.or_else(Context::new).and_then(|mut context| {
            context.0.reset(ResetDirective::SessionOnly).ok()?;
            Some(Self { context, input, position: 0, between_frames: true })
        });
        decoder.ok_or(CodecError::Corrupt { codec: Codec::Zstd, position: 0 })
    }

    pub(super) fn into_context(self) -> Context {
        self.context
    }

    /// The next piece of at most [`PIECE_LEN`](super::PIECE_LEN) bytes.
    pub(super) fn piece(&mut self, buffer: &mut Vec<u8>) -> Result<Piece<'a>, CodecError> {
        let buffer = super::first_piece(buffer);
        loop {
            let rest = self.input.get(self.position..).unwrap_or_default();
            if rest.is_empty() && self.between_frames {
                return Ok(Piece::End);
            }
            let (mut input, mut output) = (InBuffer::around(rest), OutBuffer::around(&mut *buffer));
            let hint: SafeResult = self.context.0.decompress_stream(&mut output, &mut input);
            let (read, written) = (input.pos(), output.pos());
            let corrupt = CodecError::Corrupt { codec: Codec::Zstd, position: self.position };
            self.between_frames = hint.map_err(|_| corrupt)? == 0;
            self.position += read;
            if written > 0 {
                return Ok(Piece::Buffer(0, written));
            }
            if read == 0 && !self.between_frames {
                return Err(CodecError::Truncated { codec: Codec::Zstd });
            }
        }
    }
}
