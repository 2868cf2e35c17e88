//! What the same work costs without a broker: sockets, files and checksums, and nothing else.
//!
//! Each part is a process of its own, as a broker and its client are, with one blocking thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Subcommand;
use klamm_record::{BatchBuilder, Compression, NewRecord};
use klamm_types::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

mod relay;
mod sync;

/// The bytes that one read takes from a socket, or one write gives it.
const CHUNK: usize = 1 << 20;
/// The bytes before a batch's checksum, and before what it covers (KIP-98).
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

/// The parts.
#[derive(Debug, Subcommand)]
pub(crate) enum Bare {
    /// Takes batches, checks their CRC-32C, appends them to a file, acknowledges them; until the sender closes
    Sink {
        /// Where to listen
        port: u16,
        /// The file, made anew
        file: PathBuf,
    },
    /// Sends a batch again and again
    Send {
        /// Where the sink listens
        port: u16,
        /// Bytes of each record's value
        record_size: usize,
        /// Bytes of each batch
        batch_size: usize,
        /// How many batches may be unacknowledged
        in_flight: usize,
        /// How many records to send
        records: u64,
    },
    /// As the sink, and passes what it takes on to two sinks: a batch is acknowledged when both have acknowledged it
    Relay {
        /// Where to listen
        port: u16,
        /// Where the one sink listens
        first: u16,
        /// Where the other sink listens
        second: u16,
        /// The file, made anew
        file: PathBuf,
    },
    /// Appends 4 KiB and waits until they are on the disk, by the clock
    Sync {
        /// How often
        count: u64,
        /// How often in a second
        rate: f64,
        /// The file, made anew
        file: PathBuf,
    },
    /// Sends a file to whoever connects, once, by pread and write
    Serve {
        /// Where to listen
        port: u16,
        /// The file
        file: PathBuf,
    },
    /// Takes all that comes
    Take {
        /// Where the server listens
        port: u16,
    },
}

/// What a client found, as a line of JSON.
#[derive(Serialize)]
struct Run {
    seconds: f64,
    records: u64,
    bytes: u64,
}

impl Bare {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Sink { port, file } => sink(listen(*port)?, file),
            Self::Relay { port, first, second, file } => {
                let followers = [connect(*first)?, connect(*second)?];
                relay::relay(listen(*port)?, followers, file)
            }
            Self::Sync { count, rate, file } => {
                println!("{}", serde_json::to_string(&sync::append_and_sync(*count, *rate, file)?)?);
                Ok(())
            }
            Self::Send { port, record_size, batch_size, in_flight, records } => {
                let run = send(*port, &batch(*record_size, *batch_size)?, *in_flight, *records)?;
                println!("{}", serde_json::to_string(&run)?);
                Ok(())
            }
            Self::Serve { port, file } => serve(listen(*port)?, file),
            Self::Take { port } => {
                println!("{}", serde_json::to_string(&take(*port)?)?);
                Ok(())
            }
        }
    }
}

fn listen(port: u16) -> anyhow::Result<TcpStream> {
    let (socket, _) = TcpListener::bind(("127.0.0.1", port))?.accept()?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A batch, and how many records it has.
fn batch(record_size: usize, batch_size: usize) -> anyhow::Result<(Vec<u8>, u64)> {
    let mut builder = BatchBuilder::new(Compression::NONE);
    let value = vec![b'.'; record_size];
    loop {
        let record = NewRecord::new(Timestamp(0), None, Some(&value));
        if builder.record_count() > 0 && builder.size_with(&record) > batch_size {
            break;
        }
        builder.append(&record)?;
    }
    let records = u64::from(builder.record_count().unsigned_abs());
    Ok((builder.build()?, records))
}

/// Each batch behind its length, in four bytes.
fn send(port: u16, batch: &(Vec<u8>, u64), in_flight: usize, records: u64) -> anyhow::Result<Run> {
    let (bytes, batch_records) = batch;
    let mut framed = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    let mut socket = connect(port)?;
    let start = Instant::now();
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    let count = records.div_ceil(*batch_records);
    let mut answers = vec![0; in_flight.max(1)];
    while acknowledged < count {
        while sent < count && sent - acknowledged < in_flight as u64 {
            socket.write_all(&framed)?;
            sent += 1;
        }
        let arrived = socket.read(&mut answers)?;
        ensure!(arrived > 0, "the sink closed the connection");
        acknowledged += arrived as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Run { seconds, records: count * batch_records, bytes: count * bytes.len() as u64 })
}

/// One byte acknowledges one batch.
fn sink(mut socket: TcpStream, path: &PathBuf) -> anyhow::Result<()> {
    let mut log = BareLog::create(path)?;
    let mut inbox = Inbox::new();
    while inbox.fill(&mut socket)? {
        let whole = inbox.whole();
        let (len, batches) = (whole.len(), log.append(whole)?);
        inbox.drop_front(len);
        socket.write_all(&vec![1; batches])?;
    }
    Ok(())
}

/// What came from a socket and was not used yet.
struct Inbox {
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbox {
    fn new() -> Self {
        Self { buffer: vec![0; 4 * CHUNK], filled: 0 }
    }

    /// Reads once; `false` if the sender has closed.
    fn fill(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let arrived = socket.read(self.buffer.get_mut(self.filled..).unwrap_or_default())?;
        self.filled += arrived;
        Ok(arrived > 0)
    }

    /// All batches that are there from end to end, each behind its length.
    fn whole(&self) -> &[u8] {
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        let mut end = 0;
        while let Some(batch) = next_batch(filled.get(end..).unwrap_or_default()) {
            end += 4 + batch.len();
        }
        filled.get(..end).unwrap_or_default()
    }

    fn drop_front(&mut self, len: usize) {
        self.buffer.copy_within(len..self.filled, 0);
        self.filled -= len;
    }
}

/// A file of batches.
struct BareLog {
    file: File,
    end: u64,
}

impl BareLog {
    fn create(path: &PathBuf) -> anyhow::Result<Self> {
        Ok(Self { file: File::create(path).with_context(|| path.display().to_string())?, end: 0 })
    }

    /// Checks and appends batches, each behind its length, one after the other; returns how many there were.
    fn append(&mut self, mut framed: &[u8]) -> anyhow::Result<usize> {
        let mut batches = 0;
        while let Some(batch) = next_batch(framed) {
            let stored = batch.get(CRC_AT..CRC_COVERS_FROM).context("a batch is short")?;
            let crc = crc32c::crc32c(batch.get(CRC_COVERS_FROM..).unwrap_or_default());
            ensure!(stored == crc.to_be_bytes(), "a checksum is wrong");
            self.file.write_all_at(batch, self.end)?;
            self.end += batch.len() as u64;
            framed = framed.get(4 + batch.len()..).unwrap_or_default();
            batches += 1;
        }
        Ok(batches)
    }
}

fn next_batch(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
    bytes.get(4..)?.get(..usize::try_from(len).ok()?)
}

fn serve(mut socket: TcpStream, path: &PathBuf) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut buffer = vec![0; CHUNK / 4];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(());
        }
        socket.write_all(buffer.get(..read).unwrap_or_default())?;
        at += read as u64;
    }
}

fn take(port: u16) -> anyhow::Result<Run> {
    let mut socket = connect(port)?;
    let start = Instant::now();
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(arrived) => bytes += arrived as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Run { seconds: start.elapsed().as_secs_f64(), records: 0, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_takes_what_is_whole_and_refuses_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        for damaged in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let path = dir.path().join("file");
            let server = std::thread::spawn(move || sink(listener.accept().unwrap().0, &path));
            let mut batch = batch(100, 1000).unwrap();
            batch.0[200] ^= u8::from(damaged);
            let sent = send(port, &batch, 5, 100);
            assert_eq!(server.join().unwrap().is_err(), damaged);
            assert_eq!(sent.is_err(), damaged);
            if !damaged {
                let stored = std::fs::metadata(dir.path().join("file")).unwrap().len();
                assert_eq!(stored, sent.unwrap().bytes);
            }
        }
    }
}
