//! Ports for nodes that are restarted on the ports that they had.
//!
//! They lie below the range from which the system takes the ports of outgoing connections: another node's connection
//! could otherwise take a killed node's port.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::cluster::HarnessError;

const FIRST: u16 = 20_000;
const END: u16 = 32_000;

/// Where this process looks next: processes begin at different places.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// As many ports on loopback that nobody listens on, and that no other caller in this process was given lately.
///
/// # Errors
/// [`HarnessError::Io`] if there are not as many.
pub fn free(count: usize) -> Result<Vec<u16>, HarnessError> {
    let range = END - FIRST;
    let offset = (std::process::id().wrapping_mul(97) % u32::from(range)) as u16;
    let mut found = Vec::new();
    for _ in 0..range {
        if found.len() == count {
            return Ok(found);
        }
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % range;
        let port = FIRST + (u32::from(offset) + u32::from(step)).rem_euclid(u32::from(range)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    Err(HarnessError::io("find free ports")(io::ErrorKind::AddrInUse.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_and_distinct() {
        let ports: BTreeSet<u16> = (0..3).flat_map(|_| free(3).unwrap()).collect();
        assert_eq!(ports.len(), 9);
        assert!(ports.iter().all(|port| (FIRST..END).contains(port)));
    }
}
