//! Records as a reader sees them.

use klamm_types::{Offset, Timestamp};

use crate::batch::RecordBatch;
use crate::compression::Codec;
use crate::decompress::Decompressor;
use crate::error::{BatchError, RecordError};
use crate::header::{BatchHeader, TimestampType};
use crate::scan::{self, Fault, Limited, Source, Stream};

/// One record, borrowed from its batch or from the piece of it that was decompressed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's position in its partition.
    pub offset: Offset,
    /// Its timestamp: its own, or the batch's if that was set by the broker.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; without one the record is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record's headers in their order; keys may repeat. Decoded as they are asked for.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers { left: self.header_count, bytes: self.headers }
    }

    /// How many headers the record has.
    #[must_use]
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The headers as they are encoded, without their count.
    pub(crate) fn headers_encoded(&self) -> &'a [u8] {
        self.headers
    }
}

/// The headers of one record: keys, which are UTF-8 by agreement but not checked to be, and nullable values.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The walk over the whole record has found all headers to be there.
        let wrong = |length| RecordError::HeaderKeyLength { length };
        let key = scan::take_nullable(&mut self.bytes, wrong).ok()??;
        let value = scan::take_nullable(&mut self.bytes, wrong).ok()?;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of one batch, decompressed as far as they are read: a cursor, because a record may lie in a buffer that
/// the next one overwrites.
///
/// The CRC is not checked. Everything else is: after the last record the end of the data is verified too, so that a
/// reader that has seen `None` has seen all that was written.
///
/// Memory: that of the [`Decompressor`], and, where a record lies across two pieces, the record.
pub struct Records<'a> {
    header: BatchHeader,
    source: RecordSource<'a>,
    next: u32,
    done: bool,
    gathered: Vec<u8>,
}

enum RecordSource<'a> {
    Slice(&'a [u8]),
    Stream(Box<Stream<'a>>),
}

/// Where the bytes of the current record are.
enum Place<'a> {
    Slice(&'a [u8]),
    /// In the stream's current piece, of this length from the position.
    Piece(usize),
    Gathered,
}

impl<'a> RecordBatch<'a> {
    /// The records, whatever the codec.
    ///
    /// `decompressed_bytes_max` limits what a compressed batch may become; an uncompressed batch is as long as it is.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`], [`BatchError::RecordCount`] if the count is negative, and [`BatchError::Codec`] if
    /// the payload does not even start like the codec's format.
    pub fn records(&self, decompressed_bytes_max: u64) -> Result<Records<'a>, BatchError> {
        if self.record_count() < 0 {
            return Err(BatchError::RecordCount { count: self.record_count() });
        }
        let source = match self.attributes().compression()? {
            Codec::None => RecordSource::Slice(self.payload()),
            codec => {
                let decompressor = Decompressor::new(codec, self.payload(), decompressed_bytes_max)?;
                RecordSource::Stream(Box::new(Stream::new(decompressor)))
            }
        };
        Ok(Records { header: *self.header(), source, next: 0, done: false, gathered: Vec::new() })
    }
}

impl Records<'_> {
    /// The next record; `None` after the last one, or after an error.
    ///
    /// # Errors
    /// - [`BatchError::Record`] with the record's position;
    /// - [`BatchError::Codec`];
    /// - [`BatchError::Surplus`] if more follows the last record of the batch's count.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, BatchError> {
        if self.done {
            return Ok(None);
        }
        // Until this one is found to be good.
        self.done = true;
        let index = self.next;
        if index == self.header.record_count().cast_unsigned() {
            self.check_end(index)?;
            return Ok(None);
        }
        let place = self.locate().map_err(|fault| BatchError::at(index, fault))?;
        self.next += 1;
        self.done = false;
        let bytes = match place {
            Place::Slice(bytes) => bytes,
            Place::Gathered => &self.gathered,
            Place::Piece(len) => {
                let RecordSource::Stream(stream) = &mut self.source else { return Ok(None) };
                stream.take(len)
            }
        };
        let record = decode(&self.header, bytes);
        if record.is_err() {
            self.done = true;
        }
        record.map(Some).map_err(|fault| BatchError::at(index, fault))
    }

    fn check_end(&mut self, index: u32) -> Result<(), BatchError> {
        let more = match &mut self.source {
            RecordSource::Slice(rest) => !rest.is_empty(),
            RecordSource::Stream(stream) => {
                !stream.at_hand().is_empty()
                    || stream.refill().map_err(|fault| BatchError::at(index, fault))?
            }
        };
        if more { Err(BatchError::Surplus { count: self.header.record_count() }) } else { Ok(()) }
    }
}

impl<'a> Records<'a> {
    /// Finds the bytes of the next record, and gathers them if they are not in one place.
    fn locate(&mut self) -> Result<Place<'a>, Fault> {
        match &mut self.source {
            RecordSource::Slice(rest) => {
                let len = scan::record_len(rest)?;
                let (bytes, after) = rest.split_at_checked(len).ok_or(RecordError::Missing)?;
                *rest = after;
                Ok(Place::Slice(bytes))
            }
            RecordSource::Stream(stream) => {
                let len = scan::record_len(&mut **stream)?;
                if stream.at_hand().len() >= len {
                    return Ok(Place::Piece(len));
                }
                self.gathered.clear();
                let mut record = Limited { source: &mut **stream, left: len };
                while record.left > 0 {
                    let at_hand = record.at_hand();
                    let count = at_hand.len();
                    self.gathered.extend_from_slice(at_hand);
                    record.consume(count);
                    record.refill()?;
                }
                Ok(Place::Gathered)
            }
        }
    }
}

/// Decodes the record that `bytes` hold without its length field.
fn decode<'a>(header: &BatchHeader, mut bytes: &'a [u8]) -> Result<Record<'a>, Fault> {
    let (timestamp_delta, offset_delta) = scan::deltas(&mut bytes)?;
    let key = scan::take_nullable(&mut bytes, |length| RecordError::KeyLength { length })?;
    let value = scan::take_nullable(&mut bytes, |length| RecordError::ValueLength { length })?;
    let (header_count, headers) = scan::take_headers(&mut bytes)?;
    let offset = record_offset(header, offset_delta)?;
    let timestamp = record_timestamp(header, timestamp_delta)?;
    Ok(Record { offset, timestamp, key, value, header_count, headers })
}

/// The offset of a record within the batch's range.
#[inline]
fn record_offset(header: &BatchHeader, offset_delta: i32) -> Result<Offset, RecordError> {
    if offset_delta < 0 || offset_delta > header.last_offset_delta() {
        return Err(RecordError::OffsetDelta { offset_delta });
    }
    Ok(Offset(header.base_offset().0 + i64::from(offset_delta)))
}

/// The timestamp of a record, by the batch's clock.
#[inline]
fn record_timestamp(header: &BatchHeader, timestamp_delta: i64) -> Result<Timestamp, RecordError> {
    match header.attributes().timestamp_type() {
        TimestampType::LogAppendTime => Ok(header.max_timestamp()),
        TimestampType::CreateTime => match header.base_timestamp().0.checked_add(timestamp_delta) {
            Some(timestamp) => Ok(Timestamp(timestamp)),
            None => Err(RecordError::TimestampDelta { timestamp_delta }),
        },
    }
}
