//! TLS: ring's algorithms and the system's root certificates (`SSL_CERT_FILE` names others).

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The algorithms.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The system's root certificates.
///
/// # Errors
/// There is none, with what to do about it.
pub(crate) fn roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.is_empty() {
        false => Ok(found.certs),
        true => Err(format!(
            "this system has no root certificates, so no server can be trusted; install its ca-certificates package \
             or name a file in SSL_CERT_FILE{}",
            found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default()
        )),
    }
}

/// What a client needs to speak TLS.
///
/// # Errors
/// As [`roots`].
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots()?);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
