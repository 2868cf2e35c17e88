//! Batches of an append that have their place in the log, and are written nowhere yet.

use std::io::IoSlice;

use klamm_record::{BatchHeader, EndTxnMarker, HEADER_LEN, PatchedHeader, RecordBatch};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::append::marker_of;
use crate::error::AppendError;

/// One batch, ready to be written.
pub(crate) struct Ready {
    pub(crate) header: BatchHeader,
    pub(crate) marker: Option<EndTxnMarker>,
}

/// The batches of a leader's append: their headers are new, the rest of them lies where it came in.
pub(crate) struct Assigned<'a> {
    pub(crate) ready: Vec<Ready>,
    parts: Vec<(PatchedHeader, &'a [u8])>,
}

/// Where the batches of a leader's append start, and as whose.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) first_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// [`Timestamp::NONE`] where the records keep their own times.
    pub(crate) append_time: Timestamp,
}

impl<'a> Assigned<'a> {
    /// Gives the batches of `records` consecutive offsets. `max_timestamps` are those that the records of each have.
    ///
    /// # Errors
    /// [`AppendError::OffsetsExhausted`], and whatever is wrong with a batch.
    pub(crate) fn new(
        records: &'a [u8],
        place: Place,
        max_timestamps: &[Timestamp],
    ) -> Result<Self, AppendError> {
        let mut assigned = Self { ready: Vec::with_capacity(1), parts: Vec::with_capacity(1) };
        let mut offset = place.first_offset;
        let mut rest = records;
        for max_timestamp in max_timestamps {
            let batch = RecordBatch::parse(rest)?;
            let mut patched = PatchedHeader::of(&batch);
            patched.assign(offset, place.epoch)?;
            if place.append_time != Timestamp::NONE {
                patched.set_append_time(place.append_time);
            } else if batch.max_timestamp() != *max_timestamp {
                // The header's field is the client's claim.
                patched.set_max_timestamp(*max_timestamp);
            }
            let header = *patched.header();
            offset = header.last_offset().checked_plus(1).ok_or(AppendError::OffsetsExhausted)?;
            assigned.ready.push(Ready { header, marker: marker_of(&batch)? });
            assigned.parts.push((patched, batch.payload()));
            rest = rest.get(header.size()..).unwrap_or_default();
        }
        Ok(assigned)
    }

    /// The bytes to be written, in their order.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let slices = self.parts.iter().flat_map(|(header, payload)| {
            let header: &[u8; HEADER_LEN] = header.bytes();
            [IoSlice::new(header), IoSlice::new(payload)]
        });
        slices.collect()
    }
}
