//! Compression of a stream of pieces into one run of bytes.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::compression::{Codec, Compression};
use crate::decompress::snappy;

/// Size in bytes of the blocks that the Java library cuts snappy data into.
const SNAPPY_BLOCK_LEN: usize = 32 << 10;

/// The compressor refused its input; none of the libraries here is known to, short of memory aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec} compression failed")]
pub struct CompressError {
    /// The codec.
    pub codec: Codec,
}

/// Compresses what is written to it, in memory. Deterministic: equal input gives equal output.
pub struct Compressor {
    engine: Engine,
    codec: Codec,
}

enum Engine {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Snappy(Box<SnappyEncoder>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// Starts with `output`, which the compressed bytes are appended to.
    ///
    /// # Errors
    /// [`CompressError`] if the library cannot set up its state.
    pub fn new(compression: Compression, output: Vec<u8>) -> Result<Self, CompressError> {
        let codec = compression.codec();
        let level = compression.level();
        let engine = match codec {
            Codec::None => Engine::Plain(output),
            Codec::Gzip => {
                let level = u32::try_from(level)
                    .map_or_else(|_| flate2::Compression::default(), flate2::Compression::new);
                Engine::Gzip(GzEncoder::new(output, level))
            }
            Codec::Snappy => Engine::Snappy(Box::new(SnappyEncoder::new(output))),
            Codec::Lz4 => {
                let frame =
                    FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
                Engine::Lz4(Box::new(FrameEncoder::with_frame_info(frame, output)))
            }
            Codec::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(output, level);
                Engine::Zstd(encoder.map_err(|_| CompressError { codec })?)
            }
        };
        Ok(Self { engine, codec })
    }

    /// Tells how many bytes will be written in all, so that zstd takes no larger window than they need. Call it before
    /// the first write, or not at all.
    ///
    /// # Errors
    /// [`CompressError`] if the library refuses.
    pub fn expect(&mut self, len: u64) -> Result<(), CompressError> {
        let codec = self.codec;
        match &mut self.engine {
            Engine::Zstd(encoder) => {
                encoder.set_pledged_src_size(Some(len)).map_err(|_| CompressError { codec })
            }
            _ => Ok(()),
        }
    }

    /// Compresses `bytes`.
    ///
    /// # Errors
    /// [`CompressError`] if the library refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        let codec = self.codec;
        self.write_all(bytes).map_err(|_| CompressError { codec })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.engine {
            Engine::Plain(output) => {
                output.extend_from_slice(bytes);
                Ok(())
            }
            Engine::Gzip(encoder) => encoder.write_all(bytes),
            Engine::Snappy(encoder) => encoder.write(bytes),
            Engine::Lz4(encoder) => encoder.write_all(bytes),
            Engine::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the stream and returns the output.
    ///
    /// # Errors
    /// [`CompressError`] if the library refuses, or fewer bytes were written than [`expect`](Self::expect)ed.
    pub fn finish(self) -> Result<Vec<u8>, CompressError> {
        let codec = self.codec;
        let output = match self.engine {
            Engine::Plain(output) => Ok(output),
            Engine::Gzip(encoder) => encoder.finish(),
            Engine::Snappy(encoder) => encoder.finish(),
            Engine::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Engine::Zstd(encoder) => encoder.finish(),
        };
        output.map_err(|_| CompressError { codec })
    }
}

/// Writes the Java library's stream format; see [`snappy`].
struct SnappyEncoder {
    output: Vec<u8>,
    block: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl SnappyEncoder {
    fn new(mut output: Vec<u8>) -> Self {
        output.extend_from_slice(&snappy::MAGIC);
        output.extend_from_slice(&snappy::VERSION.to_be_bytes());
        output.extend_from_slice(&snappy::VERSION.to_be_bytes());
        Self { output, block: Vec::new(), encoder: snap::raw::Encoder::new() }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let missing = SNAPPY_BLOCK_LEN - self.block.len();
            if self.block.is_empty() && bytes.len() >= SNAPPY_BLOCK_LEN {
                let (block, rest) = bytes.split_at(SNAPPY_BLOCK_LEN);
                write_snappy_block(&mut self.encoder, block, &mut self.output)?;
                bytes = rest;
                continue;
            }
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.block.extend_from_slice(taken);
            bytes = rest;
            if self.block.len() == SNAPPY_BLOCK_LEN {
                write_snappy_block(&mut self.encoder, &self.block, &mut self.output)?;
                self.block.clear();
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        if !self.block.is_empty() {
            write_snappy_block(&mut self.encoder, &self.block, &mut self.output)?;
        }
        Ok(self.output)
    }
}

fn write_snappy_block(
    encoder: &mut snap::raw::Encoder,
    block: &[u8],
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let length_at = output.len();
    let block_at = length_at + 4;
    output.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
    let (head, room) = output.split_at_mut(block_at);
    let len = encoder.compress(block, room)?;
    head[length_at..].copy_from_slice(&(len as u32).to_be_bytes());
    output.truncate(block_at + len);
    Ok(())
}
