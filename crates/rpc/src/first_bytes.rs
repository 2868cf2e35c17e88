//! Telling HTTP/2 from Kafka on one listener.

use std::io;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// With what every HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Calls of another node.
    Http2,
    /// Anything else: requests of Kafka clients, or nonsense, which the Kafka side refuses.
    Kafka,
}

/// Why a connection's protocol is not known.
#[derive(Debug, thiserror::Error)]
pub enum FirstBytesError {
    /// The peer closed the connection before it had said enough.
    #[error("closed before its first bytes")]
    Closed,
    /// The peer said too little for too long.
    #[error("silent for {timeout:?}")]
    Silent {
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The connection failed.
    #[error("cannot be read")]
    Io(#[from] io::Error),
}

/// What the peer speaks, by its first bytes, which stay in the socket for whoever serves it. Waits up to `timeout`
/// for as many as it takes.
///
/// A Kafka request begins with its length; one that begins like the preface of HTTP/2 would be 1.3 GB long.
///
/// # Errors
/// [`FirstBytesError`]; the connection is then of no use.
pub async fn first_bytes(stream: &TcpStream, timeout: Duration) -> Result<Protocol, FirstBytesError> {
    match tokio::time::timeout(timeout, decide(stream)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(FirstBytesError::Silent { timeout }),
    }
}

async fn decide(stream: &TcpStream) -> Result<Protocol, FirstBytesError> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Too few bytes count as none, so that the next turn waits for more instead of seeing the same again.
        let outcome = stream.try_io(Interest::READABLE, || match peek(stream)? {
            Peeked::Undecided => Err(io::ErrorKind::WouldBlock.into()),
            decided => Ok(decided),
        });
        match outcome {
            Ok(Peeked::Is(protocol)) => return Ok(protocol),
            Ok(Peeked::Closed | Peeked::Undecided) => return Err(FirstBytesError::Closed),
            // What has come before the end is all there will be.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Err(FirstBytesError::Closed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a connection that speaks no HTTP/2 most likely speaks, by what has come so far: a name for people who look for
/// whoever called the wrong port.
pub fn likely_protocol(stream: &TcpStream) -> &'static str {
    let mut buffer = [0; PREFACE.len()];
    let seen = rustix::net::recv(stream, &mut buffer, RecvFlags::PEEK);
    let length = seen.map_or(0, |(_, length)| length);
    match buffer.get(..length).unwrap_or(&buffer) {
        // A record of a handshake.
        [0x16, 0x03, ..] => "TLS",
        [b'A'..=b'Z', ..] => "HTTP/1, or another protocol of text",
        // The length of a request, which is below 16 MiB but for the largest batches.
        [0, ..] => "Kafka's protocol",
        _ => "no known protocol",
    }
}

enum Peeked {
    Is(Protocol),
    Undecided,
    Closed,
}

fn peek(stream: &TcpStream) -> io::Result<Peeked> {
    let mut buffer = [0; PREFACE.len()];
    let (_, length) = rustix::net::recv(stream, &mut buffer, RecvFlags::PEEK)?;
    let seen = buffer.get(..length).unwrap_or(&buffer);
    Ok(match PREFACE.strip_prefix(seen) {
        _ if seen.is_empty() => Peeked::Closed,
        None => Peeked::Is(Protocol::Kafka),
        Some([]) => Peeked::Is(Protocol::Http2),
        Some(_) => Peeked::Undecided,
    })
}

#[cfg(test)]
#[path = "first_bytes_test.rs"]
mod tests;
