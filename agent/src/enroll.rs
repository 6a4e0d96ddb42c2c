//! `fleet-agent enroll`: a token for an identity, once a host.

use crate::address::{AddressError, Server};
use crate::config::EnrollArgs;
use crate::files::{self, FileError};
use crate::identity::Identity;
use crate::{host, tls};
use fleet_wire::Secret;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The coordinator answers at once or not at all.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Why a host was not enrolled; the message says what to do.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// Host name or data folder can't be found out.
    #[error("{0}")]
    Setup(String),
    /// The address is not one to use.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// One of the agent's files.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an identity already.
    #[error("this host is enrolled already, as {host_id} at {server}; --force replaces that")]
    Enrolled {
        /// Its id.
        host_id: String,
        /// Where.
        server: String,
    },
    /// The coordinator did not answer.
    #[error("can't reach {server}: {reason}; see that the address is right and that the coordinator runs")]
    Unreachable {
        /// The address.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The coordinator said no.
    #[error("{server} refuses this host ({status}): {detail}")]
    Refused {
        /// The address.
        server: String,
        /// The HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
    },
    /// Something else answered.
    #[error("{0} does not answer as a coordinator does; see that the address is right")]
    NotACoordinator(String),
}

#[derive(Serialize)]
struct Request<'a> {
    token: &'a Secret,
    hostname: &'a str,
    os: String,
    arch: String,
}

#[derive(Deserialize)]
struct Answer {
    host_id: String,
    agent_token: Secret,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

/// Enrols this host and stores its identity.
///
/// # Errors
/// Nothing was stored; the error says why.
pub fn enroll(args: &EnrollArgs) -> Result<Identity, EnrollError> {
    let data_dir = args.common.data_dir().map_err(EnrollError::Setup)?;
    let hostname = args.common.hostname().map_err(EnrollError::Setup)?;
    let server = Server::parse(&args.server, args.common.allow_plain_http)?;
    // Before the token is used up: a folder that can't be written must not cost it.
    files::make_private_dir(&data_dir)?;
    if !args.force
        && let Some(Identity { host_id, server, .. }) = Identity::load(&data_dir)?
    {
        return Err(EnrollError::Enrolled { host_id, server });
    }
    let request =
        Request { token: &args.token, hostname: &hostname, os: host::os().to_string(), arch: host::arch().to_string() };
    let answer = ask(&server, &request)?;
    let identity = Identity {
        server: server.base(),
        host_id: answer.host_id,
        agent_token: answer.agent_token,
        hostname: Some(hostname),
    };
    identity.store(&data_dir)?;
    Ok(identity)
}

fn ask(server: &Server, request: &Request<'_>) -> Result<Answer, EnrollError> {
    let unreachable =
        |error: ureq::Error| EnrollError::Unreachable { server: server.base(), reason: error.to_string() };
    let mut response = client(server)?.post(server.enroll_url()).send_json(request).map_err(unreachable)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(64 * 1024).read_to_vec().map_err(unreachable)?;
    if status == 201 || status == 200 {
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        return answer
            .filter(|answer| !answer.host_id.is_empty() && !answer.agent_token.expose().is_empty())
            .ok_or_else(|| EnrollError::NotACoordinator(server.base()));
    }
    Err(EnrollError::Refused { server: server.base(), status, detail: reason(&body) })
}

fn client(server: &Server) -> Result<ureq::Agent, EnrollError> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(TIME_LIMIT))
        .user_agent(concat!("fleet-agent/", env!("CARGO_PKG_VERSION")));
    if server.is_tls() {
        let roots = tls::roots().map_err(EnrollError::Setup)?;
        let roots: Vec<_> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(tls::provider());
        config = config.tls_config(tls.build());
    }
    Ok(config.build().into())
}

/// The reason in a `problem+json`, or a word that there is none.
fn reason(body: &[u8]) -> String {
    let Problem { title, detail } = serde_json::from_slice(body).unwrap_or_default();
    [detail, title].into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| "it gives no reason".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_detail_else_the_title() {
        assert_eq!(reason(br#"{"title":"Gone","detail":"the token is used up"}"#), "the token is used up");
        assert_eq!(reason(br#"{"title":"Gone"}"#), "Gone");
        assert_eq!(reason(b"<html>"), "it gives no reason");
    }
}
