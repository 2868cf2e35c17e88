//! Host names of listeners.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::error::NodeError;

/// The address to bind for a host of a setting; without a host, every address of the machine.
///
/// # Errors
/// A name that does not resolve.
pub(crate) async fn resolve(host: &str, port: u16, setting: &'static str) -> Result<SocketAddr, NodeError> {
    if host.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let unknown = |source| NodeError::Bind {
        address: format!("{host}:{port}"),
        name: "no such host".to_owned(),
        setting,
        source,
    };
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(unknown)?.collect();
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| unknown(std::io::ErrorKind::NotFound.into()))
}

/// What this machine calls itself, for listeners that name no host.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
