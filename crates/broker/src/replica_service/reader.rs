//! Reading batches for followers, into buffers that are used again.

use std::collections::VecDeque;

use bytes::Bytes;
use klamm_log::{LogSlice, ReadError};
use klamm_record::Batches;
use klamm_replica::{FetchBounds, FetchRefusal, FollowerFetch};

use crate::partition::PartitionHandle;

/// How many buffers are kept: those of the messages that wait for the transport, and the one being made.
const BUFFERS_MAX: usize = 4;
/// A buffer that is larger is not kept.
const BUFFER_BYTES_MAX: usize = 2 << 20;

/// Reads for one session.
#[derive(Debug, Default)]
pub(super) struct BatchReader {
    /// Buffers that were given out, oldest first. One that nobody else holds any longer is free: new memory would have
    /// to be mapped and cleared, which takes as long as the read.
    given: VecDeque<Bytes>,
}

impl BatchReader {
    /// Reads whole batches for a fetch. The bounds are those from before the read. `None` if there is nothing to read
    /// after all.
    pub(super) fn read(
        &mut self,
        partition: &PartitionHandle,
        fetch: &FollowerFetch,
        bytes_max: usize,
    ) -> Result<Option<(FetchBounds, Bytes)>, FetchRefusal> {
        let bounds = partition.check_follower_fetch(fetch)?;
        let read = partition.read_for_follower(&bounds, bytes_max);
        let batches = read.and_then(|slice| slice.map(|slice| self.fill(&slice)).transpose());
        // A leader does not truncate. If it still leads in this epoch, then it did during the read.
        partition.check_follower_fetch(fetch)?;
        match batches {
            Ok(batches) => {
                let batches = batches.filter(|batches| !batches.is_empty());
                Ok(batches.map(|batches| (bounds, batches)))
            }
            Err(ReadError::OutOfRange { .. }) => Ok(None),
            Err(error) => {
                tracing::error!(partition = %partition.partition(), %error, "cannot read for a follower");
                Err(FetchRefusal::LogFailed)
            }
        }
    }

    /// The bytes of the slice, without the batch at the end that the limit of the read has cut off.
    fn fill(&mut self, slice: &LogSlice) -> Result<Bytes, ReadError> {
        let mut buffer = self.free_buffer();
        slice.read_into(&mut buffer)?;
        let mut batches = Batches::new(&buffer);
        while batches.next().is_some_and(|batch| batch.is_ok()) {}
        let end = batches.position();
        let bytes = Bytes::from(buffer);
        let whole = bytes.slice(..end);
        if bytes.len() <= BUFFER_BYTES_MAX {
            self.given.push_back(bytes);
        }
        Ok(whole)
    }

    fn free_buffer(&mut self) -> Vec<u8> {
        if self.given.front().is_some_and(Bytes::is_unique)
            && let Some(free) = self.given.pop_front()
        {
            return free.into();
        }
        if self.given.len() >= BUFFERS_MAX {
            self.given.pop_front();
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_holds_it() {
        let mut reader = BatchReader::default();
        let bytes = Bytes::from(vec![7; 1 << 16]);
        let memory = bytes.as_ptr();
        let given = bytes.slice(..10);
        reader.given.push_back(bytes);
        assert!(reader.free_buffer().is_empty(), "the buffer is still in use");
        drop(given);
        let again = reader.free_buffer();
        assert_eq!((again.len(), again.as_ptr()), (1 << 16, memory));
        for _ in 0..10 {
            reader.given.push_back(Bytes::from(vec![1]));
        }
        let held: Vec<_> = reader.given.iter().cloned().collect();
        for _ in 0..10 {
            assert!(reader.free_buffer().is_empty());
        }
        assert!(reader.given.len() < BUFFERS_MAX && !held.is_empty());
    }
}
