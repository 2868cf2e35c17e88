use proptest::prelude::*;

use super::*;
use crate::compress::Compressor;

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec.into(), Vec::new()).unwrap();
    compressor.write(bytes).unwrap();
    compressor.finish().unwrap()
}

/// The output as far as it came, how many bytes the largest buffer took, and how it ended.
fn decompress(decompressor: &mut Decompressor<'_>) -> (Vec<u8>, usize, Result<(), CodecError>) {
    let (mut output, mut buffer_max) = (Vec::new(), 0);
    loop {
        let more = decompressor.advance();
        buffer_max = buffer_max.max(decompressor.buffer.capacity());
        match more {
            Ok(true) => output.extend_from_slice(decompressor.chunk()),
            Ok(false) => return (output, buffer_max, Ok(())),
            Err(error) => return (output, buffer_max, Err(error)),
        }
        assert_eq!(output.len() as u64, decompressor.produced());
    }
}

#[test]
fn a_bomb_stays_below_the_limit_and_in_a_small_buffer() {
    const LIMIT: u64 = 3 << 20;
    let zeros = vec![0; 8 << 20];
    let bare = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
    let large_blocks = {
        use std::io::Write;
        let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max4MB);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    for (codec, bomb, buffer_limit) in [
        (Codec::Gzip, compress(Codec::Gzip, &zeros), PIECE_LEN),
        (Codec::Snappy, compress(Codec::Snappy, &zeros), 32 << 10),
        (Codec::Snappy, bare, 128 << 10),
        (Codec::Lz4, compress(Codec::Lz4, &zeros), 64 << 10),
        (Codec::Lz4, large_blocks, 4 << 20),
        (Codec::Zstd, compress(Codec::Zstd, &zeros), PIECE_LEN),
    ] {
        assert!(bomb.len() * 20 < zeros.len(), "{codec}: {} bytes", bomb.len());
        let mut decompressor = Decompressor::new(codec, &bomb, LIMIT).unwrap();
        let (output, buffer_max, end) = decompress(&mut decompressor);
        assert_eq!(end, Err(CodecError::OutputLimit { codec, limit: LIMIT }));
        assert!(output.len() as u64 <= LIMIT, "{codec}");
        assert!(buffer_max <= buffer_limit, "{codec}: a buffer of {buffer_max} bytes");
        // Without the limit it is whole, and the buffer is no larger.
        let mut decompressor = Decompressor::new(codec, &bomb, zeros.len() as u64).unwrap();
        let (output, buffer_max, end) = decompress(&mut decompressor);
        assert_eq!(end, Ok(()));
        assert!(output == zeros);
        assert!(buffer_max <= buffer_limit, "{codec}: a buffer of {buffer_max} bytes");
    }
}

#[test]
fn a_large_bare_block_of_snappy_is_read_through_a_window() {
    let text: Vec<u8> = (0..600_000u32).flat_map(|i| [b'a', (i >> 3) as u8, (i * 7 % 13) as u8]).collect();
    let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    let mut decompressor = Decompressor::new(Codec::Snappy, &block, u64::MAX).unwrap();
    let (output, buffer_max, end) = decompress(&mut decompressor);
    assert_eq!(end, Ok(()));
    assert!(output == text && buffer_max <= 128 << 10);
}

#[test]
fn an_empty_input_is_truncated() {
    for codec in COMPRESSED {
        let error = Decompressor::new(codec, &[], 1).err();
        assert_eq!(error, Some(CodecError::Truncated { codec }));
    }
    let mut nothing = Decompressor::new(Codec::None, &[], 1).unwrap();
    assert_eq!(nothing.advance(), Ok(false));
}

#[test]
fn a_large_window_is_not_kept() {
    // Magic, descriptor without content size, window of 2^(10 + exponent), one last raw block.
    let frame = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1 << 3 | 1, 0, 0, b'a'];
    for (exponent, kept) in [(7, true), (13, true), (15, false), (17, false)] {
        let frame = frame(exponent);
        let mut decompressor = Decompressor::new(Codec::Zstd, &frame, u64::MAX).unwrap();
        assert_eq!(decompress(&mut decompressor).2, Ok(()));
        assert_eq!(decompressor.into_memory().zstd.is_some(), kept, "window 2^{}", 10 + u32::from(exponent));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn memory_carries_nothing_from_one_input_to_the_next(
        inputs in prop::collection::vec(
            (0..4usize, prop::collection::vec(any::<u8>(), 1..300), 1..400usize, any::<prop::sample::Index>()),
            1..8,
        ),
    ) {
        let mut memory = CodecMemory::default();
        for (codec, pattern, repeat, cut) in inputs {
            let codec = COMPRESSED[codec];
            let text = pattern.repeat(repeat);
            let input = compress(codec, &text);
            // A decompression that is abandoned or fails half way...
            let cut = cut.index(input.len());
            if let Ok(mut decompressor) = Decompressor::with_memory(codec, &input[..cut], 1 << 20, memory) {
                let _ = decompress(&mut decompressor);
                memory = decompressor.into_memory();
            } else {
                memory = CodecMemory::default();
            }
            // ...does not show in the next.
            let mut decompressor = Decompressor::with_memory(codec, &input, 1 << 20, memory).unwrap();
            let (output, _, end) = decompress(&mut decompressor);
            prop_assert_eq!(end, Ok(()));
            prop_assert!(output == text);
            memory = decompressor.into_memory();
        }
    }

    #[test]
    fn random_bytes_never_panic(codec in 0..4usize, bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        if let Ok(mut decompressor) = Decompressor::new(COMPRESSED[codec], &bytes, 1 << 20) {
            let (output, _, _) = decompress(&mut decompressor);
            prop_assert!(output.len() <= 1 << 20);
        }
    }
}
