//! One walk over the fields of a record, for bytes at hand and for bytes that are still being decompressed.
//!
//! ```text
//!   length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!   key length varint, -1: null | key | value length varint, -1: null | value
//!   header count varint | { key length varint | key | value length varint, -1: null | value }*
//! ```

mod quick;

use crate::decompress::{CodecError, CodecMemory, Decompressor};
use crate::error::RecordError;
use crate::varint::{self, Decoded, VARLONG_LEN_MAX};

/// Why a walk cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Record(RecordError),
    Codec(CodecError),
}

impl From<RecordError> for Fault {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

/// Bytes to walk over, some of them at hand.
pub(crate) trait Source {
    /// The next bytes, as far as they are at hand.
    fn at_hand(&self) -> &[u8];

    /// Passes over `count` bytes, which must be at hand.
    fn consume(&mut self, count: usize);

    /// Called when nothing is at hand: gets more, or tells that there is no more.
    fn refill(&mut self) -> Result<bool, Fault>;
}

/// A slice has everything at hand.
impl Source for &[u8] {
    #[inline]
    fn at_hand(&self) -> &[u8] {
        self
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        *self = self.get(count..).unwrap_or_default();
    }

    #[inline]
    fn refill(&mut self) -> Result<bool, Fault> {
        Ok(false)
    }
}

/// The output of a [`Decompressor`], one piece at hand at a time.
pub(crate) struct Stream<'a> {
    decompressor: Decompressor<'a>,
    position: usize,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(decompressor: Decompressor<'a>) -> Self {
        Self { decompressor, position: 0 }
    }

    /// How many bytes have been decompressed so far.
    pub(crate) fn produced(&self) -> u64 {
        self.decompressor.produced()
    }

    /// Leaves the decompressor's memory to the next.
    pub(crate) fn into_memory(self) -> CodecMemory {
        self.decompressor.into_memory()
    }

    /// Takes the next `len` bytes, which must be at hand.
    pub(crate) fn take(&mut self, len: usize) -> &[u8] {
        let start = self.position;
        self.position += len;
        self.decompressor.chunk().get(start..self.position).unwrap_or_default()
    }
}

impl Source for Stream<'_> {
    #[inline]
    fn at_hand(&self) -> &[u8] {
        self.decompressor.chunk().get(self.position..).unwrap_or_default()
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.position += count;
    }

    fn refill(&mut self) -> Result<bool, Fault> {
        self.position = 0;
        while self.decompressor.advance()? {
            if !self.decompressor.chunk().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The next `left` bytes of a source, which must have that many.
pub(crate) struct Limited<'s, S> {
    pub(crate) source: &'s mut S,
    pub(crate) left: usize,
}

impl<S: Source> Source for Limited<'_, S> {
    fn at_hand(&self) -> &[u8] {
        let bytes = self.source.at_hand();
        bytes.get(..self.left).unwrap_or(bytes)
    }

    fn consume(&mut self, count: usize) {
        self.left -= count;
        self.source.consume(count);
    }

    fn refill(&mut self) -> Result<bool, Fault> {
        match self.left {
            0 => Ok(false),
            _ if self.source.refill()? => Ok(true),
            _ => Err(RecordError::Missing.into()),
        }
    }
}

/// What a walk over a record learns without keeping its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) has_key: bool,
}

/// Walks over the next record.
///
/// # Errors
/// [`RecordError::Missing`] at the end of the records, among the others.
#[inline]
pub(crate) fn next<S: Source>(source: &mut S) -> Result<Shape, Fault> {
    if let Some((shape, len)) = quick::next(source.at_hand()) {
        source.consume(len);
        return Ok(shape);
    }
    let len = record_len(source)?;
    body(&mut Limited { source, left: len })
}

/// Reads the length of the next record.
#[inline]
pub(crate) fn record_len<S: Source>(source: &mut S) -> Result<usize, Fault> {
    match int(source) {
        Ok(length) => usize::try_from(length).map_err(|_| RecordError::Length { length }.into()),
        Err(Fault::Record(RecordError::Overrun)) => Err(RecordError::Missing.into()),
        Err(fault) => Err(fault),
    }
}

/// Walks over all fields of a record; they must end where `source` ends.
#[inline]
fn body<S: Source>(source: &mut S) -> Result<Shape, Fault> {
    let (timestamp_delta, offset_delta) = deltas(source)?;
    let has_key = nullable(source, |length| RecordError::KeyLength { length })?;
    nullable(source, |length| RecordError::ValueLength { length })?;
    headers(source)?;
    Ok(Shape { timestamp_delta, offset_delta, has_key })
}

/// Reads what stands before the key: the unused attributes, timestamp delta and offset delta.
#[inline]
pub(crate) fn deltas<S: Source>(source: &mut S) -> Result<(i64, i32), Fault> {
    skip(source, 1)?;
    Ok((long(source)?, int(source)?))
}

/// Walks over the headers, which end the record.
#[inline]
fn headers<S: Source>(source: &mut S) -> Result<(), Fault> {
    for _ in 0..header_count(source)? {
        let length = int(source)?;
        let len = usize::try_from(length).map_err(|_| RecordError::HeaderKeyLength { length })?;
        skip(source, len)?;
        nullable(source, |length| RecordError::HeaderValueLength { length })?;
    }
    if !source.at_hand().is_empty() || source.refill()? {
        return Err(RecordError::Surplus.into());
    }
    Ok(())
}

#[inline]
fn header_count<S: Source>(source: &mut S) -> Result<u32, Fault> {
    let count = int(source)?;
    u32::try_from(count).map_err(|_| RecordError::HeaderCount { count }.into())
}

/// Takes a length and as many bytes off the front of `bytes`; `None` is null.
#[inline]
pub(crate) fn take_nullable<'a>(
    bytes: &mut &'a [u8],
    wrong: fn(i32) -> RecordError,
) -> Result<Option<&'a [u8]>, Fault> {
    let length = int(bytes)?;
    match usize::try_from(length) {
        Ok(len) => {
            let (field, rest) = bytes.split_at_checked(len).ok_or(RecordError::Overrun)?;
            *bytes = rest;
            Ok(Some(field))
        }
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(wrong(length).into()),
    }
}

/// Takes the headers, which end the record: their count, and their bytes, walked over and found good.
#[inline]
pub(crate) fn take_headers<'a>(bytes: &mut &'a [u8]) -> Result<(u32, &'a [u8]), Fault> {
    let mut walked = *bytes;
    headers(&mut walked)?;
    let count = header_count(bytes)?;
    Ok((count, std::mem::take(bytes)))
}

/// Passes over a length and as many bytes; tells whether they are there, or null.
#[inline]
fn nullable<S: Source>(source: &mut S, wrong: fn(i32) -> RecordError) -> Result<bool, Fault> {
    let length = int(source)?;
    match usize::try_from(length) {
        Ok(len) => skip(source, len).map(|()| true),
        Err(_) if length == -1 => Ok(false),
        Err(_) => Err(wrong(length).into()),
    }
}

#[inline]
fn skip<S: Source>(source: &mut S, mut count: usize) -> Result<(), Fault> {
    loop {
        let at_hand = source.at_hand().len();
        if count <= at_hand {
            source.consume(count);
            return Ok(());
        }
        source.consume(at_hand);
        count -= at_hand;
        if !source.refill()? {
            return Err(RecordError::Overrun.into());
        }
    }
}

#[inline]
fn int<S: Source>(source: &mut S) -> Result<i32, Fault> {
    if let Decoded::Value(value, len) = varint::decode_varint(source.at_hand())? {
        source.consume(len);
        return Ok(value);
    }
    let (bytes, len) = gather(source)?;
    finish(varint::decode_varint(bytes.get(..len).unwrap_or_default())?)
}

#[inline]
fn long<S: Source>(source: &mut S) -> Result<i64, Fault> {
    if let Decoded::Value(value, len) = varint::decode_varlong(source.at_hand())? {
        source.consume(len);
        return Ok(value);
    }
    let (bytes, len) = gather(source)?;
    finish(varint::decode_varlong(bytes.get(..len).unwrap_or_default())?)
}

/// Collects the bytes of one integer that lies across a border between pieces.
#[cold]
fn gather<S: Source>(source: &mut S) -> Result<([u8; VARLONG_LEN_MAX], usize), Fault> {
    let mut bytes = [0; VARLONG_LEN_MAX];
    for (i, slot) in bytes.iter_mut().enumerate() {
        if source.at_hand().is_empty() && !source.refill()? {
            return Err(RecordError::Overrun.into());
        }
        let Some(&byte) = source.at_hand().first() else { return Err(RecordError::Overrun.into()) };
        source.consume(1);
        *slot = byte;
        if byte < 0x80 {
            return Ok((bytes, i + 1));
        }
    }
    Ok((bytes, VARLONG_LEN_MAX))
}

fn finish<T>(decoded: Decoded<T>) -> Result<T, Fault> {
    match decoded {
        Decoded::Value(value, _) => Ok(value),
        Decoded::Partial => Err(RecordError::Varint.into()),
    }
}
