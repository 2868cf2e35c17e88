//! A snappy block decompressed through a window, so that a large one is never in memory as a whole.
//!
//! ```text
//!   tag, low bits 00: literal; length - 1 in the tag if below 60, else in the next 1 to 4 bytes, then the bytes
//!                 01: copy of 4 to 11 bytes, offset of 11 bits      10: of 1 to 64 bytes, offset of 16 bits
//!                 11: of 1 to 64 bytes, offset of 32 bits
//! ```

/// How far back a copy may reach. Encoders cut their input into fragments of this size and copy only within one, so
/// that a block with farther copies has not been written by any of them; it is refused.
const WINDOW_LEN: usize = 64 << 10;
/// How much is produced at a time, at most; room for one more copy included.
const PIECE_LEN: usize = 64 << 10;
/// The most bytes one copy yields.
const COPY_LEN_MAX: usize = 64;

/// The elements of a block that are still to be decompressed.
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    /// How many bytes are still to come by the block's own account.
    output_left: usize,
    /// What is left of a literal that did not fit into the last piece.
    literal_left: usize,
    /// How many bytes of the buffer are output, the last [`WINDOW_LEN`] of which may be copied from.
    end: usize,
}

impl<'a> Elements<'a> {
    /// The elements of `block`, which says to become `output_len` bytes. `None` if it does not even have a length.
    pub(super) fn of_block(block: &'a [u8], output_len: usize) -> Option<Self> {
        let prefix = block.iter().position(|byte| *byte < 0x80)?;
        let rest = block.get(prefix + 1..)?;
        Some(Self { rest, output_left: output_len, literal_left: 0, end: 0 })
    }

    /// Decompresses the next elements into `buffer`, which must be as the last call left it, and returns where there;
    /// an empty range at the end. `None` if they are malformed, or become more or less than the block says.
    pub(super) fn produce(&mut self, buffer: &mut Vec<u8>) -> Option<(usize, usize)> {
        buffer.resize(WINDOW_LEN + PIECE_LEN, 0);
        if let Some(surplus) = self.end.checked_sub(WINDOW_LEN) {
            buffer.copy_within(surplus..self.end, 0);
            self.end = WINDOW_LEN;
        }
        let start = self.end;
        while self.end + COPY_LEN_MAX <= buffer.len() && !(self.rest.is_empty() && self.literal_left == 0) {
            let before = self.end;
            if self.literal_left > 0 {
                self.literal(buffer)?;
            } else {
                self.element(buffer)?;
            }
            self.output_left = self.output_left.checked_sub(self.end - before)?;
        }
        let complete = self.end > start || self.output_left == 0;
        complete.then_some((start, self.end))
    }

    fn element(&mut self, buffer: &mut [u8]) -> Option<()> {
        let tag = self.take(1)?;
        let six_bits = tag >> 2;
        match tag & 3 {
            0 => {
                let length_len = six_bits.saturating_sub(59);
                let length = if length_len == 0 { six_bits } else { self.take(length_len)? };
                self.literal_left = length + 1;
                self.literal(buffer)
            }
            1 => {
                let offset = six_bits >> 3 << 8 | self.take(1)?;
                self.copy(buffer, offset, (six_bits & 7) + 4)
            }
            2 => {
                let offset = self.take(2)?;
                self.copy(buffer, offset, six_bits + 1)
            }
            _ => {
                let offset = self.take(4)?;
                self.copy(buffer, offset, six_bits + 1)
            }
        }
    }

    /// Takes a little endian integer of `len` bytes, at most 4.
    fn take(&mut self, len: usize) -> Option<usize> {
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    /// Continues the literal as far as the buffer reaches.
    fn literal(&mut self, buffer: &mut [u8]) -> Option<()> {
        let room = buffer.get_mut(self.end..)?;
        let count = self.literal_left.min(room.len());
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        room.get_mut(..count)?.copy_from_slice(bytes);
        self.rest = rest;
        self.literal_left -= count;
        self.end += count;
        Some(())
    }

    /// Repeats `len` bytes from `offset` back; the two ranges overlap if the offset is the smaller.
    fn copy(&mut self, buffer: &mut [u8], offset: usize, len: usize) -> Option<()> {
        let from = self.end.checked_sub(offset).filter(|_| offset > 0 && offset <= WINDOW_LEN)?;
        let mut done = 0;
        while done < len {
            let count = (offset + done).min(len - done);
            buffer.copy_within(from..from + count, self.end + done);
            done += count;
        }
        self.end += len;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompress(block: &[u8]) -> Option<Vec<u8>> {
        let len = snap::raw::decompress_len(block).ok()?;
        let mut elements = Elements::of_block(block, len)?;
        let (mut output, mut buffer) = (Vec::new(), Vec::new());
        loop {
            let (start, end) = elements.produce(&mut buffer)?;
            if start == end {
                return Some(output);
            }
            output.extend_from_slice(&buffer[start..end]);
        }
    }

    /// Runs of one byte, random bytes, and repetitions of what came before.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (any::<u8>(), 1..90_000usize).prop_map(|(byte, len)| vec![byte; len]),
            prop::collection::vec(any::<u8>(), 1..300),
            (any::<u64>(), 1..100_000usize).prop_map(|(seed, len)| {
                let bytes =
                    (0..len as u64).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
                bytes.collect()
            }),
            (2..60u8, 1..9000usize).prop_map(|(period, len)| (0..len).map(|i| i as u8 % period).collect()),
        ];
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn the_output_is_that_of_the_library(text in text()) {
            let block = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            prop_assert!(decompress(&block) == Some(text));
        }

        #[test]
        fn a_damaged_block_is_refused_or_read_like_the_library_reads_it(
            text in text(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut block = snap::raw::Encoder::new().compress_vec(&text[..text.len().min(5000)]).unwrap();
            for (index, byte) in damage {
                let at = index.index(block.len());
                block[at] = byte;
            }
            if snap::raw::decompress_len(&block).is_ok_and(|len| len <= 1 << 20) {
                prop_assert!(decompress(&block) == snap::raw::Decoder::new().decompress_vec(&block).ok());
            }
        }
    }

    #[test]
    fn every_kind_of_element_is_read() {
        for (elements, output) in [
            (&[0x0c, b'a', b'b', b'c', b'd', 0x01, 0x04][..], &b"abcdabcd"[..]),
            (&[0x0c, b'a', b'b', b'c', b'd', 0x0e, 0x01, 0x00], b"abcddddd"),
            (&[0x0c, b'a', b'b', b'c', b'd', 0x0f, 0x02, 0x00, 0x00, 0x00], b"abcdcdcd"),
            (&[0xf0, 0x01, b'a', b'b'], b"ab"),
            (&[0xf4, 0x01, 0x00, b'a', b'b'], b"ab"),
            (&[0xf8, 0x01, 0x00, 0x00, b'a', b'b'], b"ab"),
            (&[0xfc, 0x01, 0x00, 0x00, 0x00, b'a', b'b'], b"ab"),
        ] {
            let block = [&[output.len() as u8], elements].concat();
            assert_eq!(decompress(&block).as_deref(), Some(output));
            for wrong_len in [output.len() as u8 - 1, output.len() as u8 + 1] {
                assert_eq!(decompress(&[&[wrong_len], elements].concat()), None);
            }
            for cut in 1..block.len() {
                assert_eq!(decompress(&block[..cut]), None, "cut to {cut} bytes");
            }
        }
        assert_eq!(decompress(&[4, 0x01, 0x01]), None, "a copy from before the start");
        assert_eq!(decompress(&[8, 0x0c, b'a', b'b', b'c', b'd', 0x01, 0x00]), None, "a copy from nowhere");
    }
}
