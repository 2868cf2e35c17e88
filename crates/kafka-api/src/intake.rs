//! The inbound half of a connection: bytes from the socket become frames, and every byte is paid for before it is
//! read.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use klamm_protocol::{FrameDecoder, FrameError, FrameLimits};
use tokio::net::TcpStream;

use crate::config::as_u64;
use crate::memory::{Acquire, MemoryPermit, MemoryPool};

/// What stands before a frame.
const PREFIX_LEN: usize = 4;

/// The largest buffer that is kept when nothing of it is waited for. One that has grown beyond that was needed for a
/// single large request; kept, it would be reused for small ones as long as the client goes on sending.
const BUFFER_BYTES_KEPT_MAX: usize = 2 << 20;

/// Frames as they arrive from one socket.
#[derive(Debug)]
pub(crate) struct Intake {
    decoder: FrameDecoder,
    limits: FrameLimits,
    pool: Arc<MemoryPool>,
    /// Covers the buffer of the decoder.
    held: MemoryPermit,
    /// The decoder's buffer: what it can hold, and what of that are bytes not yet handed on.
    capacity: usize,
    len: usize,
}

/// A request as it arrived, without its length, and the memory that it takes.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) memory: MemoryPermit,
}

/// What a socket that seemed readable had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// So many bytes, at least one.
    Arrived(usize),
    /// Nothing yet.
    NotYet,
    /// The client sends no more.
    End,
}

impl Intake {
    pub(crate) fn new(request_bytes_max: usize, pool: &Arc<MemoryPool>) -> Self {
        let limits = FrameLimits::for_requests(request_bytes_max);
        Self {
            decoder: FrameDecoder::new(limits),
            limits,
            pool: pool.clone(),
            held: MemoryPermit::none(pool),
            capacity: 0,
            len: 0,
        }
    }

    /// The memory that the next read may need beyond what is held. The length that a client declares has no part in
    /// it: it follows from the bytes that have arrived.
    pub(crate) fn acquire(&self) -> Acquire {
        let spare = self.capacity.saturating_sub(self.len);
        if self.held.is_on_reserve() || spare >= self.limits.grant {
            return self.pool.take(0);
        }
        let doubled = if self.len == 0 { 0 } else { self.capacity.saturating_mul(2) };
        let bound = doubled.max(self.len.saturating_add(self.limits.grant));
        self.pool.take(as_u64(bound).saturating_sub(self.held.bytes()))
    }

    /// Reads once. `permit` is what [`Self::acquire`] gave.
    ///
    /// # Errors
    /// What the socket tells, but for "would block".
    pub(crate) fn read(&mut self, socket: &TcpStream, permit: MemoryPermit) -> io::Result<ReadOutcome> {
        self.held.merge(permit);
        // Whoever is on the reserve reads no byte beyond its own request: what it leaves behind would be overdrawn.
        let most = if self.held.is_on_reserve() { self.decoder.missing().max(1) } else { usize::MAX };
        let buffer = self.decoder.buffer();
        self.capacity = buffer.capacity();
        self.held.cover(as_u64(self.capacity));
        let outcome = match socket.try_read_buf(&mut buffer.limit(most)) {
            Ok(0) => ReadOutcome::End,
            Ok(count) => {
                self.len = self.len.saturating_add(count);
                ReadOutcome::Arrived(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::NotYet,
            Err(error) => return Err(error),
        };
        self.held.shrink_to(as_u64(self.capacity));
        if self.len == 0 && self.held.is_on_reserve() {
            self.release();
        }
        Ok(outcome)
    }

    /// The next whole request, `None` if more bytes are needed.
    ///
    /// # Errors
    /// A length that no request has.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(bytes) = self.decoder.next_frame()? else {
            return Ok(None);
        };
        let len = bytes.len().saturating_add(PREFIX_LEN);
        let is_large = self.capacity > BUFFER_BYTES_KEPT_MAX;
        self.len = self.len.saturating_sub(len);
        self.capacity = self.capacity.saturating_sub(len);
        let was_on_reserve = self.held.is_on_reserve();
        let memory = self.held.split(as_u64(len));
        // What is left of the buffer is one allocation with the frame, and would hold it all.
        if (was_on_reserve || is_large) && self.len == 0 {
            self.release();
        }
        Ok(Some(Frame { bytes, memory }))
    }

    /// Whether no request has begun to arrive.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.decoder.is_between_frames()
    }

    /// Whether the client must finish its request in one go, as others wait for the reserve.
    pub(crate) fn is_on_reserve(&self) -> bool {
        self.held.is_on_reserve()
    }

    /// Whether memory is held for bytes that may never come.
    pub(crate) fn has_spare_memory(&self) -> bool {
        self.is_between_frames() && self.capacity > 0
    }

    /// Gives the buffer back; only between frames, or when what was read is of no more use.
    pub(crate) fn release(&mut self) {
        self.decoder = FrameDecoder::new(self.limits);
        self.held = MemoryPermit::none(&self.pool);
        self.capacity = 0;
        self.len = 0;
    }
}
