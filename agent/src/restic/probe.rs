//! Is the repository's server there at all?
//!
//! restic 0.18 and later try to read the repository's configuration for 15 silent minutes before they say that
//! the server is down. So a REST server is called first; the other backends are left to restic.

use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How hard a server is called.
#[derive(Clone, Copy, Debug)]
pub struct ProbeLimits {
    /// How often.
    pub tries: u32,
    /// How long each time.
    pub timeout: Duration,
    /// How long between.
    pub pause: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self { tries: 3, timeout: Duration::from_secs(5), pause: Duration::from_secs(2) }
    }
}

/// Host and port behind a `rest:` address; `None` for everything that can't be called by TCP.
pub fn server(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.strip_prefix("rest:")?.split_once("://")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(address) => address.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        None => host_and_port.split_once(':').map_or((host_and_port, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => default_port,
        Some(port) => port.parse().ok()?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Calls the server of `url`, if it has one that can be called.
///
/// # Errors
/// A sentence that says that it is unreachable, and why.
pub async fn reach(url: &str, limits: ProbeLimits) -> Result<(), String> {
    let Some((host, port)) = server(url) else { return Ok(()) };
    let mut reason = String::new();
    for attempt in 0..limits.tries.max(1) {
        if attempt > 0 {
            sleep(limits.pause).await;
        }
        match timeout(limits.timeout, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = format!("no answer within {} s", limits.timeout.as_secs()),
        }
    }
    Err(format!(
        "repository unreachable: {host}:{port}: {reason}; is its server running, and are address and firewall right?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn servers_are_found_in_addresses() {
        let found = |url| server(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(found("rest:http://h:8000/r").as_deref(), Some("h 8000"));
        assert_eq!(found("rest:http://u:p@ss@h/").as_deref(), Some("h 80"));
        assert_eq!(found("rest:https://h").as_deref(), Some("h 443"));
        assert_eq!(found("rest:https://[::1]:8000/r").as_deref(), Some("::1 8000"));
        for none in
            ["/srv/r", "sftp:u@h:/r", "s3:http://h/b", "rest:http+unix:///s.sock", "rest:http://", "rest:http://h:x/"]
        {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_there_is_reached_and_one_that_is_gone_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("rest:http://u:hidden@127.0.0.1:{port}/r");
        let limits = ProbeLimits { tries: 2, timeout: Duration::from_secs(5), pause: Duration::from_millis(1) };
        assert_eq!(reach(&url, limits).await, Ok(()));
        drop(listener);
        let error = reach(&url, limits).await.unwrap_err();
        assert!(error.starts_with(&format!("repository unreachable: 127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains("refused") && !error.contains("hidden"), "{error}");
    }
}
