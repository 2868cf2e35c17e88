//! What went over TCP connections, by the kernel's own counters.
//!
//! `/proc/net/dev` counts the loopback of all programs together; a dump of the sockets (`sock_diag`, as `ss -ti` takes
//! it) tells of each connection how many bytes it has taken, and how many it has sent that were acknowledged.

use anyhow::{Context, bail};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// A header: length, kind, flags, number, sender.
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_OF_ALL: u16 = 0x301;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const PROTOCOL_TCP: u8 = 6;
const STATE_ESTABLISHED: u32 = 1 << 1;
/// The attribute that holds `struct tcp_info`, and the bit that asks for it.
const INFO: u16 = 2;
/// Where the attributes of a socket begin, behind `struct inet_diag_msg`.
const ATTRIBUTES_AT: usize = 72;
/// Where a socket's own port is, in network order.
const PORT_AT: usize = 4;
/// Of `struct tcp_info`.
const BYTES_ACKED_AT: usize = 120;
const BYTES_RECEIVED_AT: usize = 128;

/// The bytes that went over all connections to these ports, in both directions: as their own ends count them.
pub(crate) fn bytes(ports: &[u16]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))
                .context("ask for sockets")?;
        sendto(&socket, &request(family), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            match sum_of(buffer.get(..len).unwrap_or_default(), ports)? {
                (more, false) => sum += more,
                (last, true) => {
                    sum += last;
                    break;
                }
            }
        }
    }
    Ok(sum)
}

fn request(family: u8) -> Vec<u8> {
    let mut body = vec![family, PROTOCOL_TCP, 1 << (INFO - 1), 0];
    body.extend_from_slice(&STATE_ESTABLISHED.to_ne_bytes());
    // Any addresses and ports.
    body.resize(56, 0);
    let mut request = Vec::new();
    request.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&REQUEST_OF_ALL.to_ne_bytes());
    request.resize(HEADER, 0);
    request.extend_from_slice(&body);
    request
}

/// The bytes of those sockets in one answer whose own port is one of `ports`, and whether it is the last answer.
fn sum_of(mut answer: &[u8], ports: &[u16]) -> anyhow::Result<(u64, bool)> {
    let mut sum = 0;
    while let Some(len) = number(answer, 0).map(u32::from_ne_bytes) {
        let kind = number(answer, 4).map(u16::from_ne_bytes);
        match kind {
            Some(KIND_DONE) => return Ok((sum, true)),
            Some(SOCK_DIAG_BY_FAMILY) => {}
            Some(KIND_ERROR) => bail!("the kernel does not tell of sockets"),
            kind => bail!("an unknown answer about sockets: {kind:?}"),
        }
        let message = answer.get(HEADER..len as usize).context("a cut answer about sockets")?;
        let port = number(message, PORT_AT).map(u16::from_be_bytes);
        if port.is_some_and(|port| ports.contains(&port)) {
            sum += counted(message.get(ATTRIBUTES_AT..).unwrap_or_default())
                .context("the kernel does not count a connection's bytes")?;
        }
        answer = answer.get((len as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((sum, false))
}

/// What `struct tcp_info` among the attributes says.
fn counted(mut attributes: &[u8]) -> Option<u64> {
    loop {
        let len = usize::from(u16::from_ne_bytes(number(attributes, 0)?));
        let kind = u16::from_ne_bytes(number(attributes, 2)?);
        if kind == INFO {
            let info = attributes.get(4..len)?;
            let acked = u64::from_ne_bytes(number(info, BYTES_ACKED_AT)?);
            return Some(acked + u64::from_ne_bytes(number(info, BYTES_RECEIVED_AT)?));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_bytes_of_a_connection_are_counted_in_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut server = listener.accept().unwrap().0;
        let before = bytes(&[port]).unwrap();
        client.write_all(&[1; 5000]).unwrap();
        server.read_exact(&mut [0; 5000]).unwrap();
        server.write_all(&[1; 300]).unwrap();
        client.read_exact(&mut [0; 300]).unwrap();
        let counted = bytes(&[port]).unwrap() - before;
        // The last bytes may not be acknowledged yet.
        assert!((5000..=5300).contains(&counted), "{counted}");
        assert_eq!(bytes(&[]).unwrap(), 0);
    }
}
