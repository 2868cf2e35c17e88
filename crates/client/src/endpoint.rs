//! Where a broker listens.

use std::fmt;
use std::str::FromStr;

/// A host name or address, and a port. The name is resolved at each dial, never kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A host name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no colon, or nothing in front of it.
    #[error("`{text}` is not host:port")]
    Shape {
        /// The text.
        text: String,
    },
    /// What follows the last colon is no port.
    #[error("`{text}` does not end in a port from 1 to 65535")]
    Port {
        /// The text.
        text: String,
    },
}

impl Endpoint {
    /// Reads a comma-separated list as in `bootstrap.servers`; empty items are skipped.
    ///
    /// # Errors
    /// The first item that is no endpoint; [`EndpointError::Shape`] if there is none at all.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EndpointError> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let list = items.map(Self::from_str).collect::<Result<Vec<_>, _>>()?;
        if list.is_empty() {
            return Err(EndpointError::Shape { text: text.to_owned() });
        }
        Ok(list)
    }

    /// What a broker says of itself, `None` if that is no place one can dial.
    pub(crate) fn from_wire(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let shape = || EndpointError::Shape { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(shape());
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(EndpointError::Port { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_bootstrap_servers_are() {
        let list = Endpoint::parse_list("a:1, [::1]:9092,,b.example:65535").unwrap();
        let texts: Vec<String> = list.iter().map(Endpoint::to_string).collect();
        assert_eq!(texts, ["a:1", "[::1]:9092", "b.example:65535"]);
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for text in ["", ",", "host", ":9092"] {
            assert!(matches!(Endpoint::parse_list(text), Err(EndpointError::Shape { .. })), "{text}");
        }
        for text in ["host:", "host:0", "host:65536", "host:x"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Port { .. })), "{text}");
        }
        assert_eq!(Endpoint::from_wire("", 1), None);
        assert_eq!(Endpoint::from_wire("h", -1), None);
    }
}
