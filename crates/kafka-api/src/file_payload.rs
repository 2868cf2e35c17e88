//! Record batches that go from the files of a log to a socket, without a place in memory for the time between.

use std::io::{self, IoSliceMut};
use std::sync::Arc;

use klamm_log::LogSlice;
use klamm_log::fs::{LogFile, read_up_to_at};
use klamm_protocol::Records;
use rustix::io::{Errno, ReadWriteFlags};

/// The parts of an answer that lie in files. The answer refers to them by their position here.
#[derive(Clone, Debug, Default)]
pub struct FilePayloads(Vec<LogSlice>);

impl FilePayloads {
    /// Adds a slice; the returned records stand for it in the answer.
    pub(crate) fn add(&mut self, slice: LogSlice) -> Records {
        let records = Records::external(self.0.len() as u64, slice.len());
        self.0.push(slice);
        records
    }

    /// The slice that this token stands for.
    pub(crate) fn get(&self, token: u64) -> Option<&LogSlice> {
        self.0.get(usize::try_from(token).ok()?)
    }
}

/// The same bytes of the same files.
impl PartialEq for FilePayloads {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&LogSlice, &LogSlice)| {
            let bytes = |slice: &LogSlice| (slice.position(), slice.len());
            Arc::ptr_eq(one.file(), other.file()) && bytes(one) == bytes(other)
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same)
    }
}

/// Bytes of a file that are still to be sent. The file stays readable whatever becomes of its name.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    file: Arc<dyn LogFile>,
    position: u64,
    len: usize,
}

impl From<&LogSlice> for FileRange {
    fn from(slice: &LogSlice) -> Self {
        Self { file: Arc::clone(slice.file()), position: slice.position(), len: slice.len() }
    }
}

impl FileRange {
    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where in the file they begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Passes over bytes that were sent, or read.
    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.position = self.position.saturating_add(count as u64);
    }

    /// Fills `buffer` from the front of the range, as far as the bytes are at hand; returns how many.
    ///
    /// # Errors
    /// `WouldBlock` if the first byte must be fetched from the disk; `UnexpectedEof` if the file has become shorter;
    /// whatever the disk says.
    pub(crate) fn read_cached(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (buffer, _) = buffer.split_at_mut(self.len.min(buffer.len()));
        let Some(file) = self.file.as_std_file() else { return self.read(buffer) };
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(file, &mut slices, self.position, ReadWriteFlags::NOWAIT) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            // A file system that cannot tell.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.read(buffer),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads up to `len_max` bytes from the front of the range, waiting for the disk.
    ///
    /// # Errors
    /// As [`read_cached`](Self::read_cached), but for `WouldBlock`.
    pub(crate) fn load(&self, len_max: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; self.len.min(len_max)];
        let count = self.read(&mut buffer)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match read_up_to_at(self.file.as_ref(), buffer, self.position)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}
