//! Looking whether somebody listens.

use std::io::ErrorKind;
use std::time::Duration;

use klamm_rpc::NodeAddress;
use tokio::net::{TcpStream, lookup_host};

/// Between two probes of one suspect.
const PROBE_PAUSE: Duration = Duration::from_millis(10);
/// How long an answer may take: one that takes longer proves nothing.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// Between the probes of one that still answers, in milliseconds.
const DYING_PAUSES_MS: [u64; 4] = [10, 30, 60, 120];

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// Somebody listens.
    Answered,
    /// The host is up and nobody listens, or there is no way to the host.
    Refused,
    /// Nothing came back, or the name is nobody's: so it is when a container has gone with its network.
    Silent,
    /// Something else, which proves nothing.
    Unknown,
}

/// Tries to connect to `address`, once.
pub(crate) async fn probe(address: &NodeAddress) -> Probe {
    let connect = async {
        // An error here is one of the name.
        let Ok(found) = lookup_host((address.host.as_str(), address.port)).await else {
            return Probe::Silent;
        };
        match TcpStream::connect(&*found.collect::<Vec<_>>()).await {
            Ok(_) => Probe::Answered,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    Probe::Refused
                }
                _ => Probe::Unknown,
            },
        }
    };
    tokio::time::timeout(PROBE_TIMEOUT, connect).await.unwrap_or(Probe::Silent)
}

/// Whether nobody listens at any of `addresses`: one that answers is enough, and one that tells nothing leaves it open.
pub(crate) async fn probe_any(addresses: &[NodeAddress]) -> Probe {
    let mut outcome = if addresses.is_empty() { Probe::Unknown } else { Probe::Refused };
    for address in addresses {
        match probe(address).await {
            Probe::Answered => return Probe::Answered,
            Probe::Refused => {}
            Probe::Silent if outcome == Probe::Unknown => {}
            silent @ (Probe::Silent | Probe::Unknown) => outcome = silent,
        }
    }
    outcome
}

/// As [`probe_any`], again after pauses for as long as somebody answers. The kernel takes a dead process apart bit by bit: its
/// listener may still answer, or break the connection, some time after its streams have ended.
pub(crate) async fn probe_dying(addresses: &[NodeAddress]) -> Probe {
    let mut outcome = probe_any(addresses).await;
    for pause in DYING_PAUSES_MS {
        if matches!(outcome, Probe::Refused | Probe::Silent) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        outcome = probe_any(addresses).await;
    }
    outcome
}

/// Whether two probes, a pause apart, were both refused.
pub(crate) async fn is_refused_twice(address: &NodeAddress) -> bool {
    if probe(address).await != Probe::Refused {
        return false;
    }
    tokio::time::sleep(PROBE_PAUSE).await;
    probe(address).await == Probe::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_answers_and_a_closed_port_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
        assert_eq!(probe(&address).await, Probe::Answered);
        assert!(!is_refused_twice(&address).await);
        let gone = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            NodeAddress::new("127.0.0.1", other.local_addr().unwrap().port())
        };
        assert_eq!(probe(&gone).await, Probe::Refused);
        assert!(is_refused_twice(&gone).await);
        assert_eq!(probe_any(&[gone.clone(), address.clone()]).await, Probe::Answered);
        assert_eq!(probe_any(std::slice::from_ref(&gone)).await, Probe::Refused);
        assert_eq!(probe_any(&[]).await, Probe::Unknown, "nobody to ask proves nothing");
        let nobody = NodeAddress::new("nobody.invalid", 1);
        assert_eq!(probe_any(&[gone.clone(), nobody.clone()]).await, Probe::Silent);
        assert_eq!(probe_any(&[nobody, address]).await, Probe::Answered);
    }

    #[tokio::test]
    async fn a_listener_that_outlives_its_streams_a_little_is_found_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
        let probed = probe_dying(std::slice::from_ref(&address));
        let dies = async {
            let answered = listener.accept().await;
            drop((answered, listener));
        };
        assert_eq!(tokio::join!(probed, dies).0, Probe::Refused);
        let lives = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = NodeAddress::new("127.0.0.1", lives.local_addr().unwrap().port());
        assert_eq!(probe_dying(&[address]).await, Probe::Answered);
    }
}
