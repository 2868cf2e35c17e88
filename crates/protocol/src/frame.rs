//! Frames: a message behind its length in four bytes.

use bytes::{Bytes, BytesMut};

const PREFIX_LEN: usize = 4;
/// A correlation id: no response is shorter.
const BODY_LEN_MIN: usize = 4;
/// What a waiting connection is granted before anything has arrived.
const GRANT_LEN_MIN: usize = 4 << 10;

/// A length prefix that no frame can have. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length below zero.
    #[error("frame of {len} bytes")]
    Negative {
        /// The declared length.
        len: i32,
    },
    /// Too few bytes for any header.
    #[error("frame of {len} bytes, at least {min} expected")]
    TooShort {
        /// The declared length.
        len: usize,
        /// The least length.
        min: usize,
    },
    /// More than the configured limit.
    #[error("frame of {len} bytes, at most {max} allowed")]
    TooLong {
        /// The declared length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl FrameError {
    /// Never: the position in the stream is lost.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Limits for the frames of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest body, in bytes (`socket.request.max.bytes`).
    pub len_max: usize,
    /// The shortest body, in bytes: 8 for requests (key, version, correlation id), 4 for responses.
    pub len_min: usize,
    /// How far ahead of the bytes that have arrived memory is granted, in bytes, at least 4 KiB. A declared
    /// length alone never gets more than this.
    pub grant: usize,
}

impl FrameLimits {
    /// For requests of up to `len_max` bytes, with 64 KiB granted ahead.
    pub fn for_requests(len_max: usize) -> Self {
        Self { len_max, len_min: 8, grant: 64 << 10 }
    }

    /// For responses of up to `len_max` bytes, with 64 KiB granted ahead.
    pub fn for_responses(len_max: usize) -> Self {
        Self { len_max, len_min: BODY_LEN_MIN, grant: 64 << 10 }
    }
}

/// Cuts a byte stream into frames. The owner reads from its socket into [`Self::buffer`], then takes frames with
/// [`Self::next_frame`] until there is none.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limits: FrameLimits,
    /// What the next read is granted at least: more after each read that filled its room, as a client does that
    /// sends many requests at once; less again when reads come in small.
    grant: usize,
    /// Whether the room granted last was found full.
    was_full: bool,
}

impl FrameDecoder {
    /// A decoder at the start of a stream; nothing is allocated yet.
    pub fn new(limits: FrameLimits) -> Self {
        Self { buffer: BytesMut::new(), limits, grant: GRANT_LEN_MIN, was_full: false }
    }

    /// Where the next bytes of the stream go: append them. It has room for some, for as many as the frame under
    /// way still needs if that is no more than the limits grant.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let grant_max = self.limits.grant.max(GRANT_LEN_MIN);
        let wanted = if self.was_full { self.grant.saturating_mul(2) } else { self.grant / 2 };
        self.grant = wanted.clamp(GRANT_LEN_MIN, grant_max);
        self.was_full = false;
        let grant = self.missing().clamp(self.grant, grant_max);
        if self.buffer.capacity() - self.buffer.len() < grant {
            self.buffer.reserve(grant);
        }
        &mut self.buffer
    }

    /// How many bytes the frame under way still needs, its prefix included; 0 if it is complete.
    pub fn missing(&self) -> usize {
        let whole = match self.buffer.first_chunk::<PREFIX_LEN>() {
            None => PREFIX_LEN,
            Some(prefix) => {
                usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0).saturating_add(PREFIX_LEN)
            }
        };
        whole.saturating_sub(self.buffer.len())
    }

    /// Whether the stream may end here without cutting a frame.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame without its prefix, `None` if more bytes are needed. The length is judged as soon as
    /// its four bytes are there.
    ///
    /// # Errors
    /// [`FrameError`]; every later call gives the same error.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.was_full |= !self.buffer.is_empty() && self.buffer.len() == self.buffer.capacity();
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let declared = i32::from_be_bytes(*prefix);
        let len = usize::try_from(declared).map_err(|_| FrameError::Negative { len: declared })?;
        let FrameLimits { len_min: min, len_max: max, .. } = self.limits;
        if len < min {
            return Err(FrameError::TooShort { len, min });
        }
        if len > max {
            return Err(FrameError::TooLong { len, max });
        }
        if self.buffer.len() - PREFIX_LEN < len {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(PREFIX_LEN + len).freeze();
        Ok(Some(frame.split_off(PREFIX_LEN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    fn all(decoder: &mut FrameDecoder) -> Vec<Bytes> {
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[test]
    fn w01_and_w02_impossible_lengths_are_refused_without_allocating() {
        let cases: [(i32, FrameError); 5] = [
            (0, FrameError::TooShort { len: 0, min: 8 }),
            (7, FrameError::TooShort { len: 7, min: 8 }),
            (-1, FrameError::Negative { len: -1 }),
            (i32::MIN, FrameError::Negative { len: i32::MIN }),
            (101, FrameError::TooLong { len: 101, max: 100 }),
        ];
        for (len, expected) in cases {
            let mut decoder = FrameDecoder::new(FrameLimits::for_requests(100));
            decoder.buffer().extend_from_slice(&len.to_be_bytes());
            assert_eq!(decoder.next_frame(), Err(expected));
            assert_eq!(decoder.next_frame(), Err(expected), "the error stays");
            assert!(decoder.buffer().capacity() <= 4 * GRANT_LEN_MIN);
        }
    }

    #[test]
    fn w03_memory_is_granted_as_bytes_arrive() {
        let limits = FrameLimits::for_requests(100 << 20);
        let mut decoder = FrameDecoder::new(limits);
        decoder.buffer().extend_from_slice(&(100i32 << 20).to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.missing(), 100 << 20);
        let mut arrived = 4;
        for _ in 0..64 {
            let capacity = decoder.buffer().capacity();
            assert!(capacity <= 2 * arrived + 2 * limits.grant, "{capacity} for {arrived} bytes");
            decoder.buffer().extend_from_slice(&[7; 32 << 10]);
            arrived += 32 << 10;
            assert_eq!(decoder.next_frame(), Ok(None));
        }
    }

    #[test]
    fn w06_glued_and_split_frames_are_the_same() {
        let bodies: [&[u8]; 3] = [b"12345678", b"second frame", b"the third one"];
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let mut glued = FrameDecoder::new(FrameLimits::for_requests(100));
        glued.buffer().extend_from_slice(&stream);
        assert_eq!(all(&mut glued), bodies);
        assert!(glued.is_between_frames());
        for cut in 0..=stream.len() {
            let mut decoder = FrameDecoder::new(FrameLimits::for_requests(100));
            let mut frames = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                decoder.buffer().extend_from_slice(part);
                frames.extend(all(&mut decoder));
            }
            assert_eq!(frames, bodies, "cut at {cut}");
        }
        let mut slow = FrameDecoder::new(FrameLimits::for_requests(100));
        let mut frames = Vec::new();
        for byte in &stream {
            let missing = slow.missing();
            assert!(missing > 0);
            slow.buffer().extend_from_slice(&[*byte]);
            frames.extend(all(&mut slow));
        }
        assert_eq!(frames, bodies);
    }

    /// Reads as a socket does: whatever there is, up to the room in the buffer.
    fn read(decoder: &mut FrameDecoder, stream: &mut &[u8]) -> usize {
        let buffer = decoder.buffer();
        let room = buffer.capacity() - buffer.len();
        let (part, rest) = stream.split_at(room.min(stream.len()));
        buffer.extend_from_slice(part);
        *stream = rest;
        room
    }

    #[test]
    fn reads_grow_while_they_fill_their_room_and_shrink_again() {
        let limits = FrameLimits::for_requests(100);
        let mut decoder = FrameDecoder::new(limits);
        let stream = framed(&[1; 96]).repeat(20_000);
        let (mut rest, mut reads, mut frames) = (stream.as_slice(), 0, 0);
        while !rest.is_empty() {
            let room = read(&mut decoder, &mut rest);
            assert!(room <= 4 * limits.grant, "{room}");
            frames += all(&mut decoder).len();
            reads += 1;
        }
        assert_eq!(frames, 20_000);
        assert!(reads <= stream.len() / limits.grant + 10, "{reads} reads");
        for _ in 0..10 {
            let body = framed(&[2; 96]);
            read(&mut decoder, &mut body.as_slice());
            assert_eq!(all(&mut decoder).len(), 1);
        }
        assert_eq!(decoder.grant, GRANT_LEN_MIN);
    }

    #[test]
    fn the_longest_and_the_shortest_frame_pass() {
        let mut decoder = FrameDecoder::new(FrameLimits::for_requests(100));
        decoder.buffer().extend_from_slice(&framed(&[1; 100]));
        decoder.buffer().extend_from_slice(&framed(&[2; 8]));
        assert_eq!(all(&mut decoder), [vec![1; 100], vec![2; 8]]);
    }
}
