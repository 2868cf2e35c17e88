//! The one way from values to bytes: small values gather in one buffer, payloads are put between its parts
//! without being copied.

use bytes::{Bytes, BytesMut};

use crate::reader::STRING_LEN_MAX;
use crate::{EncodeError, External, Payload, Records, Uuid};

/// Payloads up to this many bytes are copied: a piece of its own costs the sender more.
const INLINE_LEN_MAX: usize = 512;
const FRAME_PREFIX_LEN: usize = 4;

/// A payload between two parts of the buffer.
#[derive(Clone, Debug)]
struct Splice {
    at: usize,
    payload: Payload,
}

/// Gathers an encoded message. After an error its contents are unspecified: drop it.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    splices: Vec<Splice>,
    spliced_len: usize,
    framed: bool,
}

/// The place of an open tagged section, from [`Writer::begin_tags`].
#[derive(Clone, Copy, Debug)]
pub struct Tags {
    count_at: usize,
}

/// An encoded message: pieces to be sent one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pieces: Vec<Payload>,
    len: usize,
}

impl Encoded {
    /// The number of bytes of all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order; none is empty.
    pub fn pieces(&self) -> &[Payload] {
        &self.pieces
    }

    /// The pieces in order, to own.
    pub fn into_pieces(self) -> Vec<Payload> {
        self.pieces
    }

    /// All pieces in one, copied unless there is only one.
    ///
    /// # Errors
    /// The first piece whose bytes are not in memory.
    pub fn into_bytes(self) -> Result<Bytes, External> {
        if let [Payload::Bytes(only)] = self.pieces.as_slice() {
            return Ok(only.clone());
        }
        let mut joined = BytesMut::with_capacity(self.len);
        for piece in &self.pieces {
            match piece {
                Payload::Bytes(bytes) => joined.extend_from_slice(bytes),
                Payload::External(external) => return Err(*external),
            }
        }
        Ok(joined.freeze())
    }
}

impl Writer {
    /// A writer for a bare message.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer for a message behind its four-byte length.
    pub fn framed() -> Self {
        Self { buffer: vec![0; FRAME_PREFIX_LEN], framed: true, ..Self::default() }
    }

    /// The bytes written so far, payloads and the length prefix included.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.spliced_len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the message.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if a framed message is longer than its prefix can tell.
    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        let len = self.len();
        if self.framed {
            let body = length_i32(len - FRAME_PREFIX_LEN)?;
            if let Some(prefix) = self.buffer.first_chunk_mut::<FRAME_PREFIX_LEN>() {
                *prefix = body.to_be_bytes();
            }
        }
        let mut rest = Bytes::from(self.buffer);
        let mut pieces = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut taken = 0;
        for splice in self.splices {
            if splice.at > taken {
                pieces.push(Payload::Bytes(rest.split_to(splice.at - taken)));
                taken = splice.at;
            }
            pieces.push(splice.payload);
        }
        if !rest.is_empty() {
            pieces.push(Payload::Bytes(rest));
        }
        Ok(Encoded { pieces, len })
    }

    /// One byte: 1 or 0.
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }

    /// One byte.
    pub fn int8(&mut self, value: i8) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes.
    pub fn int16(&mut self, value: i16) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes.
    pub fn uint16(&mut self, value: u16) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn int32(&mut self, value: i32) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn int64(&mut self, value: i64) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, IEEE 754.
    pub fn float64(&mut self, value: f64) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.extend_from_slice(&value.0);
    }

    /// One to five bytes, seven bits in each, the lowest first.
    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, len) = varint(value);
        self.buffer.extend(bytes.iter().take(len));
    }

    /// The length of an array or byte field, `None` for null.
    fn length(&mut self, flexible: bool, length: Option<usize>) -> Result<(), EncodeError> {
        let length = length.map_or(Ok(-1), length_i32)?;
        if flexible {
            // -1 becomes 0 and the greatest length 2^31, so nothing is lost.
            self.unsigned_varint(length.wrapping_add(1).cast_unsigned());
        } else {
            self.int32(length);
        }
        Ok(())
    }

    /// A text; `flexible` tells its length prefix.
    pub fn string(&mut self, flexible: bool, value: &str) -> Result<(), EncodeError> {
        self.optional_string(flexible, Some(value))
    }

    /// A text or null.
    pub fn optional_string(&mut self, flexible: bool, value: Option<&str>) -> Result<(), EncodeError> {
        let length = value.map(str::len);
        if let Some(length) = length.filter(|length| *length > STRING_LEN_MAX) {
            return Err(EncodeError::TooLong { length, max: STRING_LEN_MAX });
        }
        if flexible {
            self.length(true, length)?;
        } else {
            self.int16(length.map_or(-1, |length| i16::try_from(length).unwrap_or(i16::MAX)));
        }
        self.buffer.extend_from_slice(value.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes, copied.
    pub fn bytes(&mut self, flexible: bool, value: &Bytes) -> Result<(), EncodeError> {
        self.optional_bytes(flexible, Some(value))
    }

    /// Bytes, copied, or null.
    pub fn optional_bytes(&mut self, flexible: bool, value: Option<&Bytes>) -> Result<(), EncodeError> {
        self.length(flexible, value.map(Bytes::len))?;
        self.buffer.extend_from_slice(value.map_or(&[], |value| value));
        Ok(())
    }

    /// Bytes that become a piece of their own unless they are few.
    pub fn shared_bytes(&mut self, flexible: bool, value: &Bytes) -> Result<(), EncodeError> {
        self.optional_shared_bytes(flexible, Some(value))
    }

    /// Bytes that become a piece of their own unless they are few, or null.
    pub fn optional_shared_bytes(
        &mut self,
        flexible: bool,
        value: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        self.length(flexible, value.map(Bytes::len))?;
        if let Some(value) = value {
            self.payload(&Payload::Bytes(value.clone()));
        }
        Ok(())
    }

    /// Record batches, each part a piece of its own unless it is short and in memory.
    pub fn records(&mut self, flexible: bool, value: &Records) -> Result<(), EncodeError> {
        self.optional_records(flexible, Some(value))
    }

    /// Record batches, or null.
    pub fn optional_records(&mut self, flexible: bool, value: Option<&Records>) -> Result<(), EncodeError> {
        self.length(flexible, value.map(Records::len))?;
        for part in value.map_or(&[][..], Records::parts) {
            self.payload(part);
        }
        Ok(())
    }

    fn payload(&mut self, payload: &Payload) {
        match payload {
            Payload::Bytes(bytes) if bytes.len() <= INLINE_LEN_MAX => self.buffer.extend_from_slice(bytes),
            Payload::External(External { len: 0, .. }) => {}
            Payload::Bytes(_) | Payload::External(_) => {
                self.spliced_len += payload.len();
                self.splices.push(Splice { at: self.buffer.len(), payload: payload.clone() });
            }
        }
    }

    /// An array of structures or texts.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        items: &[T],
        write: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.optional_array(flexible, Some(items), write)
    }

    /// An array of structures or texts, or null.
    pub fn optional_array<T>(
        &mut self,
        flexible: bool,
        items: Option<&[T]>,
        mut write: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.length(flexible, items.map(<[T]>::len))?;
        items.unwrap_or_default().iter().try_for_each(|item| write(self, item))
    }

    /// An array of numbers.
    pub fn scalars<T: Copy>(
        &mut self,
        flexible: bool,
        items: &[T],
        write: impl Fn(&mut Self, T),
    ) -> Result<(), EncodeError> {
        self.optional_scalars(flexible, Some(items), write)
    }

    /// An array of numbers, or null.
    pub fn optional_scalars<T: Copy>(
        &mut self,
        flexible: bool,
        items: Option<&[T]>,
        write: impl Fn(&mut Self, T),
    ) -> Result<(), EncodeError> {
        self.length(flexible, items.map(<[T]>::len))?;
        items.unwrap_or_default().iter().for_each(|item| write(self, *item));
        Ok(())
    }

    /// A structure behind a byte that is -1 for null.
    pub fn optional_struct<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match value {
            None => {
                self.int8(-1);
                Ok(())
            }
            Some(value) => {
                self.int8(1);
                write(self, value)
            }
        }
    }

    /// An empty tagged section.
    pub fn no_tags(&mut self) {
        self.buffer.push(0);
    }

    /// Opens a tagged section; fields are added with [`Self::tag`] in ascending order, at most 127 of them.
    pub fn begin_tags(&mut self) -> Tags {
        let tags = Tags { count_at: self.buffer.len() };
        self.buffer.push(0);
        tags
    }

    /// Adds a field to the tagged section.
    pub fn tag(
        &mut self,
        tags: Tags,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        if let Some(count) = self.buffer.get_mut(tags.count_at) {
            *count += 1;
        }
        self.unsigned_varint(tag);
        let (start, len_before, splices_before) = (self.buffer.len(), self.len(), self.splices.len());
        write(self)?;
        let length = length_i32(self.len() - len_before)?;
        // The length goes in front of what was just written: tagged fields are short, so moving them is cheaper
        // than computing every length beforehand.
        let (bytes, len) = varint(length.cast_unsigned());
        self.buffer.splice(start..start, bytes.into_iter().take(len));
        for splice in self.splices.iter_mut().skip(splices_before) {
            splice.at += len;
        }
        Ok(())
    }
}

fn length_i32(length: usize) -> Result<i32, EncodeError> {
    i32::try_from(length).map_err(|_| EncodeError::TooLong { length, max: i32::MAX as usize })
}

/// The bytes of a variable-length number, and how many of them count.
fn varint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    for byte in &mut bytes {
        len += 1;
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            *byte = low;
            break;
        }
        *byte = low | 0x80;
    }
    (bytes, len)
}
