//! The two tasks of a connection.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use klamm_protocol::{ApiKey, Encoded, FrameDecoder, FrameLimits, Payload};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::options::ClientOptions;

/// How many pieces one system call may send.
const PIECES_MAX: usize = 64;

/// A request to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Encoded,
    /// Who waits; `None` if the broker will not answer.
    pub(super) pending: Option<Pending>,
}

/// A request whose answer is awaited.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) correlation_id: i32,
    pub(super) api: ApiKey,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
    pub(super) done: oneshot::Sender<Result<Bytes, ClientError>>,
}

/// Starts both tasks. They end when the queue's last sender is gone, or at the first error.
pub(super) fn spawn(
    stream: TcpStream,
    endpoint: Endpoint,
    options: &ClientOptions,
) -> mpsc::Sender<Outgoing> {
    let (read_half, write_half) = stream.into_split();
    let (queue, outgoing) = mpsc::channel(options.in_flight_max.max(1));
    let (pendings, awaited) = mpsc::channel(options.in_flight_max.max(1));
    let writer = tokio::spawn(write(write_half, outgoing, pendings));
    let limits = FrameLimits::for_responses(options.response_bytes_max);
    let answers = Answers {
        stream: read_half,
        decoder: FrameDecoder::new(limits),
        awaited,
        first: None,
        endpoint,
        idle: true,
    };
    tokio::spawn(async move {
        answers.run().await;
        // Nobody could be answered any more; with the writer the queue goes, so that callers learn of it.
        writer.abort();
    });
    queue
}

async fn write(
    mut stream: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    pendings: mpsc::Sender<Pending>,
) {
    while let Some(outgoing) = queue.recv().await {
        let mut pieces = outgoing.frame.into_pieces();
        if let Some(pending) = outgoing.pending
            && pendings.send(pending).await.is_err()
        {
            return;
        }
        // More requests that wait already leave with the first.
        while pieces.len() < PIECES_MAX {
            let Ok(permit) = pendings.try_reserve() else { break };
            let Ok(outgoing) = queue.try_recv() else { break };
            if let Some(pending) = outgoing.pending {
                permit.send(pending);
            }
            pieces.extend(outgoing.frame.into_pieces());
        }
        if send(&mut stream, pieces).await.is_err() {
            // The reader sees the end of the stream as well, and tells everybody.
            return;
        }
    }
    // Nobody can ask any more, but answers may be due: the sending direction stays open until the reader is done.
    drop(pendings);
    std::future::pending::<()>().await;
}

async fn send(stream: &mut OwnedWriteHalf, pieces: Vec<Payload>) -> io::Result<()> {
    let mut left: std::collections::VecDeque<Bytes> = pieces
        .into_iter()
        .filter_map(|piece| match piece {
            Payload::Bytes(bytes) => Some(bytes),
            // A client has all its payloads in memory.
            Payload::External(_) => None,
        })
        .collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> =
            left.iter().take(PIECES_MAX).map(|piece| IoSlice::new(piece)).collect();
        let mut written = stream.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(piece) = left.front_mut() {
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if !piece.is_empty() {
                break;
            }
            left.pop_front();
        }
    }
    Ok(())
}

/// The reading task.
struct Answers {
    stream: OwnedReadHalf,
    decoder: FrameDecoder,
    awaited: mpsc::Receiver<Pending>,
    /// The request whose answer must come next.
    first: Option<Pending>,
    endpoint: Endpoint,
    /// Whether requests may still come.
    idle: bool,
}

impl Answers {
    /// Reads until the connection ends; then fails everything under way.
    async fn run(mut self) {
        let error = loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error,
            }
        };
        self.awaited.close();
        while let Some(pending) = self.first.take().or_else(|| self.awaited.try_recv().ok()) {
            // The one who asked may have given up.
            let _ = pending.done.send(Err(error.clone()));
        }
    }

    /// Takes in what happens next; `false` when nobody can ask any more and nothing is awaited.
    async fn step(&mut self) -> Result<bool, ClientError> {
        while self.answer_one()? {}
        if self.first.is_none() {
            self.first = self.awaited.try_recv().ok();
        }
        let deadline = self.first.as_ref().map(|pending| pending.deadline);
        let expect_more = self.first.is_none() && self.idle;
        if self.first.is_none() && !self.idle {
            return Ok(false);
        }
        tokio::select! {
            biased;
            pending = self.awaited.recv(), if expect_more => {
                self.idle = pending.is_some();
                self.first = pending;
            }
            read = self.stream.read_buf(self.decoder.buffer()) => match read {
                Ok(0) => return Err(self.ended(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(source) => return Err(self.ended(source)),
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return Err(self.overdue());
            }
        }
        Ok(true)
    }

    /// Hands out one frame, if one is complete.
    fn answer_one(&mut self) -> Result<bool, ClientError> {
        let frame = match self.decoder.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(false),
            Err(source) => return Err(ClientError::Frame { endpoint: self.endpoint.clone(), source }),
        };
        let Some(pending) = self.first.take().or_else(|| self.awaited.try_recv().ok()) else {
            return Err(self.ended(io::ErrorKind::InvalidData.into()));
        };
        let correlation_id = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes));
        if correlation_id != Some(pending.correlation_id) {
            let error = ClientError::Mismatch { endpoint: self.endpoint.clone(), api: pending.api };
            self.first = Some(pending);
            return Err(error);
        }
        // The one who asked may have given up.
        let _ = pending.done.send(Ok(frame));
        Ok(true)
    }

    fn ended(&self, source: io::Error) -> ClientError {
        ClientError::Disconnected { endpoint: self.endpoint.clone(), source: Arc::new(source) }
    }

    fn overdue(&self) -> ClientError {
        match &self.first {
            Some(pending) => ClientError::Timeout {
                endpoint: self.endpoint.clone(),
                api: pending.api,
                timeout: pending.timeout,
            },
            None => self.ended(io::ErrorKind::TimedOut.into()),
        }
    }
}
