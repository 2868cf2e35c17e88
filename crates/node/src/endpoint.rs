//! Listeners and the addresses in settings.

use std::fmt;

/// `NAME://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The listener's name, in capitals.
    pub name: String,
    /// The host, without brackets; empty is every address.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Endpoint {
    /// Reads one item of `listeners` or `advertised.listeners`. `None` if it is not in the form.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (name, address) = text.trim().split_once("://")?;
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        let (host, port) = host_and_port(address)?;
        is_name.then(|| Self { name: name.to_ascii_uppercase(), host, port })
    }

    /// Whether it stands for every address of the machine.
    #[must_use]
    pub fn is_every_address(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }

    /// Whether only this machine can connect to it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let as_address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || as_address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, host, port } = self;
        if host.contains(':') {
            write!(f, "{name}://[{host}]:{port}")
        } else {
            write!(f, "{name}://{host}:{port}")
        }
    }
}

/// `host:port`, the host of IPv6 in brackets; the host may be empty.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let host = rest.strip_suffix(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            host
        }
        None => host,
    };
    let bracketed = host.contains(':');
    let is_host =
        bracketed || host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let is_port = port.bytes().all(|b| b.is_ascii_digit());
    (is_host && is_port && (!bracketed || text.trim().starts_with('['))).then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// A voter of the metadata quorum: `id@host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The node.
    pub id: i32,
    /// Where its controller listens.
    pub host: String,
    /// On which port.
    pub port: u16,
}

impl Voter {
    /// Reads one item of `controller.quorum.voters`. `None` if it is not in the form.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (id, address) = text.trim().split_once('@')?;
        let id = id.parse().ok().filter(|id| *id >= 0)?;
        let (host, port) = host_and_port(address)?;
        (!host.is_empty() && port > 0).then_some(Self { id, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for text in
            ["PLAINTEXT://:9092", "A_B-c.1://host-1.example:0", "X://[::1]:9093", "X://127.0.0.1:65535"]
        {
            let endpoint = Endpoint::read(text).unwrap();
            assert_eq!(endpoint.to_string(), text.replace("A_B-c", "A_B-C"));
        }
        for bad in [
            "",
            "9092",
            ":9092",
            "://h:1",
            "A://h",
            "A://h:",
            "A://h:65536",
            "A://h:-1",
            "A://::1:9",
            "A://[h]:1",
            "A B://h:1",
            "A://h h:1",
            "A://h:+1",
        ] {
            assert_eq!(Endpoint::read(bad), None, "{bad}");
        }
        assert!(Endpoint::read("A://:1").unwrap().is_every_address());
        assert!(Endpoint::read("A://localhost:1").unwrap().is_loopback());
        assert!(Endpoint::read("A://[::1]:1").unwrap().is_loopback());
        assert!(!Endpoint::read("A://10.0.0.1:1").unwrap().is_loopback());
    }

    #[test]
    fn voters_are_read() {
        let voter = Voter { id: 3, host: "c3".to_owned(), port: 9093 };
        assert_eq!(Voter::read(" 3@c3:9093 "), Some(voter));
        for bad in ["", "3", "c3:9093", "-1@c3:9093", "x@c3:9093", "3@:9093", "3@c3:0", "3@c3"] {
            assert_eq!(Voter::read(bad), None, "{bad}");
        }
    }
}
