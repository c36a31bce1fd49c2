//! Where a peer can be reached.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A host, or an IP address, and a port. Written `ws://host:port`, as OneX writes peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddress(String);

impl PeerAddress {
    /// `host:port`, as the system's resolver takes it.
    pub fn authority(&self) -> &str {
        &self.0
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}", self.0)
    }
}

/// The text does not say where a peer is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a peer: a peer is ws://HOST:PORT")]
pub struct NotAnAddress(String);

impl FromStr for PeerAddress {
    type Err = NotAnAddress;

    /// Takes `ws://host:port`, with a path or without, and plain `host:port`.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.chars().take(100).collect());
        let rest = match text.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
        let sound = !host.is_empty() && host.len() <= 255 && host.chars().all(plain);
        if !sound || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong());
        }
        Ok(Self(authority.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_as_a_websocket_url() {
        for (text, written) in [
            ("ws://localhost:6001", "ws://localhost:6001"),
            ("ws://genesis.kube-system.svc.onexstack.com:6001/", "ws://genesis.kube-system.svc.onexstack.com:6001"),
            ("127.0.3.4:6001", "ws://127.0.3.4:6001"),
            ("ws://[::1]:6001/path", "ws://[::1]:6001"),
        ] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ws://",
            "ws://host",
            "ws://:6001",
            "wss://host:1",
            "http://host:1",
            "ws://host:0",
            "ws://host:99999",
            "ws://a b:1",
            "ws://user@host:1",
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }
}
