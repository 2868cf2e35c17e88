//! Whether a node is ready, by what its admin listener says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// How long one look may take.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The most that an answer may have, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// What a node says of itself.
pub(crate) struct Readiness {
    pub(crate) is_ready: bool,
    /// Why not, on one line.
    pub(crate) text: String,
}

/// Asks the node whose admin listener is at `address`, as host:port.
///
/// # Errors
/// It does not answer.
pub(crate) fn readiness(address: &str) -> io::Result<Readiness> {
    let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    ask(address).map(|answer| read(&answer))
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read(answer: &str) -> Readiness {
    let is_ready = answer.starts_with("HTTP/1.1 200 ");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let text = body.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Readiness { is_ready, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let ready = read("HTTP/1.1 200 OK\r\nx: y\r\n\r\nready\n");
        assert!(ready.is_ready && ready.text == "ready");
        let starting = read("HTTP/1.1 503 Service Unavailable\r\n\r\nbroker: Fenced\nstarting\n");
        assert!(!starting.is_ready && starting.text == "broker: Fenced; starting");
        assert!(!read("").is_ready);
    }
}
