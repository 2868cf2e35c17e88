//! The outbound half of a connection: answers in order, as far as the client takes them.
//!
//! Bytes in memory are sent from where they lie. Bytes in files are read when the socket has room, through a buffer
//! that all connections of a thread share, so that a client that takes its time holds none of them in memory. What
//! the page cache does not have is read on another thread, a piece at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use klamm_protocol::Payload;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::errors::{AnswerError, CloseCause};
use crate::file_payload::FileRange;
use crate::table::Outgoing;

/// Pieces that one call hands to the socket; more do not pay.
const PIECES_MAX: usize = 32;
/// Bytes of files that one call hands to the socket.
const SCRATCH_LEN: usize = 256 << 10;
/// Bytes that are read at once from a disk that must be waited for.
const LOAD_LEN: usize = 512 << 10;

/// The size of a page, which is also how files lie in the page cache.
const PAGE_LEN: usize = 4096;

thread_local! {
    /// Where bytes of files pass through.
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { bytes: Vec::new(), first_page: 0 }) };
}

/// A buffer in which bytes of files lie as they do in the page cache: at the same distance from the start of a page.
/// Some processors copy five times slower where the two distances differ by little.
#[derive(Debug)]
struct Scratch {
    bytes: Vec<u8>,
    /// Where the first whole page begins.
    first_page: usize,
}

impl Scratch {
    /// Takes its memory, with the first use.
    fn prepare(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.resize(SCRATCH_LEN + PAGE_LEN, 0);
            self.first_page = self.bytes.as_ptr().align_offset(PAGE_LEN).min(PAGE_LEN);
        }
    }

    /// The first place from `filled` on that lies in its page as `position` does in its page of the file.
    fn place_for(&self, filled: usize, position: u64) -> usize {
        let wanted = (position % PAGE_LEN as u64) as usize;
        let found = filled.max(self.first_page);
        let at = (found - self.first_page) % PAGE_LEN;
        found + (wanted + PAGE_LEN - at) % PAGE_LEN
    }

    fn room_from(&mut self, start: usize) -> &mut [u8] {
        self.bytes.get_mut(start..).unwrap_or_default()
    }
}

/// A part of an answer.
#[derive(Debug)]
enum Piece {
    Memory(Bytes),
    File(FileRange),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(range) => range.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Memory(bytes) => bytes.advance(count),
            Self::File(range) => range.advance(count),
        }
    }
}

/// Bytes that the client has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    len: usize,
    /// The front piece is being read from its disk.
    loading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// What a write ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The socket took so many bytes.
    Sent(usize),
    /// The socket takes no more now.
    Full,
    /// The next bytes must be fetched from the disk.
    Cold,
}

/// Where the bytes of one piece of a write are.
#[derive(Clone, Copy)]
enum Source {
    /// In the piece itself.
    Piece,
    /// In the scratch buffer, from the one position to the other.
    Scratch(usize, usize),
}

impl Outbox {
    /// Adds an answer behind the others.
    ///
    /// # Errors
    /// A payload that is neither in memory nor in a file that came with the answer: nothing here can find it. Nothing
    /// of the answer is added then.
    pub(crate) fn push(&mut self, answer: Outgoing) -> Result<(), AnswerError> {
        let Outgoing { encoded, files } = answer;
        let len = encoded.len();
        let found = encoded.into_pieces().into_iter().map(|piece| match piece {
            Payload::Bytes(bytes) => Ok(Piece::Memory(bytes)),
            Payload::External(external) => {
                let slice = files.get(external.token).filter(|slice| slice.len() == external.len);
                let range = slice.map(|slice| Piece::File(FileRange::from(slice)));
                range.ok_or(AnswerError::PayloadElsewhere { token: external.token })
            }
        });
        let pieces = found.collect::<Result<Vec<_>, _>>()?;
        self.len = self.len.saturating_add(len);
        self.pieces.extend(pieces);
        Ok(())
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is something that the socket could take.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_empty() && self.loading.is_none()
    }

    /// Whether the next bytes are on their way from the disk.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Waits for the bytes that are on their way from the disk. May be dropped and called again.
    ///
    /// # Errors
    /// [`CloseCause::Unreadable`].
    pub(crate) async fn loaded(&mut self) -> Result<(), CloseCause> {
        let Some(loading) = &mut self.loading else { return Ok(()) };
        let loaded = loading.await;
        self.loading = None;
        let bytes = loaded.map_err(io::Error::other).flatten().map_err(CloseCause::Unreadable)?;
        if let Some(front) = self.pieces.front_mut() {
            front.advance(bytes.len());
            if front.len() == 0 {
                self.pieces.pop_front();
            }
        }
        self.pieces.push_front(Piece::Memory(bytes.into()));
        Ok(())
    }

    /// Writes until all is sent, the socket takes no more, or the disk must be waited for; returns how many bytes the
    /// socket took.
    ///
    /// # Errors
    /// [`CloseCause::Socket`]; [`CloseCause::Unreadable`].
    pub(crate) fn write(&mut self, socket: &TcpStream) -> Result<usize, CloseCause> {
        let mut total: usize = 0;
        while self.is_ready() {
            match self.step(socket)? {
                Step::Sent(taken) => {
                    self.advance(taken);
                    total = total.saturating_add(taken);
                }
                Step::Full => break,
                Step::Cold => self.load(),
            }
        }
        Ok(total)
    }

    /// Hands the next pieces to the socket.
    fn step(&self, socket: &TcpStream) -> Result<Step, CloseCause> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut sources = [Source::Piece; PIECES_MAX];
            let count = match self.gather(scratch, &mut sources)? {
                0 => return Ok(Step::Cold),
                count => count,
            };
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let gathered = self.pieces.iter().zip(&sources).take(count);
            for (slice, (piece, source)) in slices.iter_mut().zip(gathered) {
                *slice = match (piece, source) {
                    (Piece::Memory(bytes), _) => IoSlice::new(bytes),
                    (Piece::File(_), Source::Scratch(start, end)) => {
                        IoSlice::new(scratch.bytes.get(*start..*end).unwrap_or_default())
                    }
                    (Piece::File(_), Source::Piece) => IoSlice::new(&[]),
                };
            }
            let (used, _) = slices.split_at(count);
            match socket.try_write_vectored(used) {
                Ok(0) => Err(CloseCause::Socket(io::ErrorKind::WriteZero.into())),
                Ok(taken) => Ok(Step::Sent(taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Full),
                Err(error) => Err(CloseCause::Socket(error)),
            }
        })
    }

    /// Finds the bytes of the next pieces; returns of how many. Files are read into `scratch`; the last piece may have
    /// been read in part. None if the very first must be fetched from the disk.
    fn gather(&self, scratch: &mut Scratch, sources: &mut [Source; PIECES_MAX]) -> Result<usize, CloseCause> {
        let (mut filled, mut count) = (0, 0);
        for (source, piece) in sources.iter_mut().zip(&self.pieces) {
            if let Piece::File(range) = piece {
                scratch.prepare();
                let start = scratch.place_for(filled, range.position());
                let room = scratch.room_from(start);
                if room.is_empty() {
                    return Ok(count);
                }
                let read = match range.read_cached(room) {
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                    Err(error) => return Err(CloseCause::Unreadable(error)),
                };
                filled = start + read;
                *source = Source::Scratch(start, filled);
                if read < range.len() {
                    return Ok(count + 1);
                }
            }
            count += 1;
        }
        Ok(count)
    }

    /// Has the front piece read on a thread that may wait.
    fn load(&mut self) {
        if let Some(Piece::File(range)) = self.pieces.front() {
            let range = range.clone();
            self.loading = Some(tokio::task::spawn_blocking(move || range.load(LOAD_LEN)));
        }
    }

    fn advance(&mut self, mut taken: usize) {
        self.len = self.len.saturating_sub(taken);
        while let Some(piece) = self.pieces.front_mut() {
            if taken < piece.len() {
                piece.advance(taken);
                return;
            }
            taken -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::{Encoded, Records, Writer};

    use super::*;

    fn outgoing(payload: &Records) -> Outgoing {
        encoded(payload).into()
    }

    fn encoded(payload: &Records) -> Encoded {
        let mut writer = Writer::new();
        writer.int32(7);
        writer.records(false, payload).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes_at_a_time() {
        let payload = Bytes::from(vec![9; 1000]);
        let mut outbox = Outbox::default();
        outbox.push(outgoing(&payload.into())).unwrap();
        assert_eq!(outbox.len(), 1008);
        for taken in [3, 5, 600, 400] {
            outbox.advance(taken);
        }
        assert!(outbox.is_empty() && outbox.pieces.is_empty());
    }

    #[test]
    fn bytes_lie_in_the_scratch_as_in_their_file() {
        let mut scratch = Scratch { bytes: Vec::new(), first_page: 0 };
        scratch.prepare();
        for (filled, position) in [(0, 0), (0, 1), (0, 4095), (100, 50), (5000, 12_345), (9000, 1 << 40)] {
            let start = scratch.place_for(filled, position);
            assert!(start >= filled && start - filled < 2 * PAGE_LEN, "{start} for {filled}");
            let address = scratch.room_from(start).as_ptr().addr();
            assert_eq!(address % PAGE_LEN, (position % 4096) as usize);
        }
    }

    #[test]
    fn a_payload_that_is_not_in_memory_is_refused() {
        let mut outbox = Outbox::default();
        let refused = outbox.push(outgoing(&Records::external(5, 10)));
        assert_eq!(refused, Err(AnswerError::PayloadElsewhere { token: 5 }));
        assert!(outbox.is_empty() && outbox.pieces.is_empty());
    }
}
