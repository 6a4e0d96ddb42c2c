//! The coordinator's address: what it may be, and the URLs made from it.

use std::net::IpAddr;
use thiserror::Error;
use tokio_tungstenite::tungstenite::http::Uri;

/// Where the coordinator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    tls: bool,
    /// `host[:port][/prefix]`, without a slash at the end.
    rest: String,
}

/// Why an address is not used.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not a URL of a kind that fits.
    #[error("{0:?} is no address of a coordinator; give one such as https://fleet.example.org")]
    Malformed(String),
    /// Unencrypted, over a network.
    #[error(
        "{0} is not encrypted: anyone on the way could read the repository's password; \
         use https, or allow it with --allow-plain-http"
    )]
    Plain(String),
}

impl Server {
    /// Reads `address` (`http`, `https`, `ws` or `wss`). Unencrypted ones are taken for this machine itself only,
    /// unless `allow_plain`.
    ///
    /// # Errors
    /// It is no such URL, or it is unencrypted and leads elsewhere.
    pub fn parse(address: &str, allow_plain: bool) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(address.to_owned());
        let uri: Uri = address.trim().parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        if uri.query().is_some() || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(malformed());
        }
        if !tls && !allow_plain && !is_loopback(authority.host()) {
            return Err(AddressError::Plain(address.to_owned()));
        }
        Ok(Self { tls, rest: format!("{authority}{}", uri.path().trim_end_matches('/')) })
    }

    /// The address as it is stored.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.rest)
    }

    /// Where an agent enrols.
    pub fn enroll_url(&self) -> String {
        format!("{}/v1/agent/enroll", self.base())
    }

    /// Where an agent connects.
    pub fn connect_url(&self) -> String {
        format!("{}://{}/v1/agent/connect", if self.tls { "wss" } else { "ws" }, self.rest)
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_port_and_prefix() {
        let server = Server::parse("https://fleet.example.org:8443/backup/", false).unwrap();
        assert_eq!(server.connect_url(), "wss://fleet.example.org:8443/backup/v1/agent/connect");
        assert_eq!(server.enroll_url(), "https://fleet.example.org:8443/backup/v1/agent/enroll");
        assert_eq!(Server::parse(&server.base(), false).unwrap(), server);
        assert_eq!(Server::parse("ws://127.0.0.1:1", false).unwrap().base(), "http://127.0.0.1:1");
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_allowed() {
        for local in ["http://localhost:8080", "http://127.9.0.1", "http://[::1]:80", "ws://LOCALHOST"] {
            assert!(Server::parse(local, false).is_ok(), "{local}");
        }
        for far in ["http://fleet.example.org", "ws://10.0.0.1:80", "http://localhost.example.org"] {
            assert!(matches!(Server::parse(far, false), Err(AddressError::Plain(_))), "{far}");
            assert!(Server::parse(far, true).is_ok(), "{far}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "fleet.example.org", "ftp://x", "https://", "https://a@b", "https://a/?x=1", "https://a b"] {
            assert!(matches!(Server::parse(bad, true), Err(AddressError::Malformed(_))), "{bad}");
        }
    }
}
