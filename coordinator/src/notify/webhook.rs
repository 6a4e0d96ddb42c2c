//! Sending one webhook: a POST that is signed, whose answer's status is all that counts. Blocking, on a thread for such work.

use super::signature::{self, sign};
use crate::clock;
use crate::db::channels::secret_place;
use crate::db::deliveries::Due;
use crate::vault::Vault;
use serde::Serialize;
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long a receiver has for everything.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest head of an answer, in bytes. Its body is not read.
const LONGEST_HEAD: usize = 32 * 1024;
/// The longest text that is kept of an error, in bytes.
const LONGEST_ERROR: usize = 500;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sent {
    /// The status of the answer, if there was one.
    pub(super) status_code: Option<i64>,
    /// What went wrong; nothing if the receiver has it.
    pub(super) error: Option<String>,
    /// The receiver wants no more of it.
    pub(super) is_final: bool,
    /// It asks for this much time.
    pub(super) retry_after: Option<Duration>,
}

impl Sent {
    pub(super) fn failed(error: impl ToString) -> Self {
        let error = error.to_string();
        let error = error[..error.floor_char_boundary(LONGEST_ERROR)].to_owned();
        Self { error: Some(error), ..Self::default() }
    }
}

/// What receivers get.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    data: &'a Value,
}

/// The body of a delivery: the same each time.
fn body(due: &Due) -> String {
    let timestamp = due.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    // An object always has a JSON form.
    serde_json::to_string(&Body { r#type: &due.event, timestamp, data: &due.data.0 }).unwrap_or_default()
}

/// Sends it.
pub(super) fn send(vault: &Vault, due: &Due) -> Sent {
    match try_send(vault, due) {
        Ok(sent) => sent,
        Err(error) => Sent::failed(error),
    }
}

fn try_send(vault: &Vault, due: &Due) -> Result<Sent, String> {
    let sealed = due.secret.as_deref().unwrap_or_default();
    let secret = vault.unseal_text(secret_place(due.channel_id), sealed).map_err(|error| error.to_string())?;
    let key = signature::key(&secret).ok_or("the channel's secret is none: give it another")?;
    let (id, now, body) = (due.notice_id.to_string(), clock::now().timestamp(), body(due));
    let request = client()
        .post(due.url.as_deref().unwrap_or_default())
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", sign(&key, &id, now, &body));
    // Whoever listens there learns nothing from the error but that it did not work.
    let answer = request.send(&body).map_err(|error| error.to_string())?;
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    let error = (!status.is_success()).then(|| format!("the receiver answered {status}"));
    Ok(Sent {
        status_code: Some(i64::from(status.as_u16())),
        error,
        is_final: status.as_u16() == 410,
        retry_after: retry_after.map(Duration::from_secs),
    })
}

/// The client: it follows no redirects, for who is told was set by an admin and not by a receiver.
fn client() -> &'static ureq::Agent {
    static CLIENT: OnceLock<ureq::Agent> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let roots = rustls_native_certs::load_native_certs().certs;
        let roots: Vec<_> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_response_header_size(LONGEST_HEAD)
            .timeout_global(Some(LIMIT))
            .user_agent(concat!("restic-fleet/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        config.build().into()
    })
}
