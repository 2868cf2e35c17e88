//! Where a node listens.

use std::fmt;

use http::Uri;
use http::uri::Authority;

/// Host and port of a node's listener. The host is a name or an address; an IPv6 address stands without brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeAddress {
    /// Host name, IPv4 or IPv6 address.
    pub host: String,
    /// TCP port; 0 is nowhere.
    pub port: u16,
}

/// A host that cannot stand in an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{address} is no address of a node")]
pub struct AddressError {
    /// The address as it was given.
    pub address: NodeAddress,
}

impl NodeAddress {
    /// The address of `port` at `host`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// The address as the target of gRPC calls, unencrypted.
    pub(crate) fn uri(&self) -> Result<Uri, AddressError> {
        let error = || AddressError { address: self.clone() };
        // The authority is parsed alone, so that a host with a slash in it cannot become a path.
        let authority: Authority = self.to_string().parse().map_err(|_| error())?;
        if self.host.is_empty() || authority.port_u16() != Some(self.port) {
            return Err(error());
        }
        format!("http://{authority}/").parse().map_err(|_| error())
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_target() {
        let uri = |host: &str| NodeAddress::new(host, 9093).uri().map(|uri| uri.to_string());
        assert_eq!(uri("localhost").unwrap(), "http://localhost:9093/");
        assert_eq!(uri("10.0.0.7").unwrap(), "http://10.0.0.7:9093/");
        assert_eq!(uri("::1").unwrap(), "http://[::1]:9093/");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "a b", "a/b", "a\n", "a?b", "[::1"] {
            assert!(NodeAddress::new(host, 1).uri().is_err(), "{host:?}");
        }
    }
}
