//! A certificate for 127.0.0.1 that nobody else trusts, and servers that show it.

use crate::{Context, Failure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What bytes go through, encrypted or not.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificate: PathBuf,
}

impl Tls {
    /// Makes a certificate and its key in `folder`.
    ///
    /// # Errors
    /// The program `openssl` is not there, or fails.
    pub fn make(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).context(folder.display())?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=a test", "-addext", "subjectAltName=IP:127.0.0.1"]);
        // As a certificate of its own, and not of one who may sign others.
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let made = openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key).output().context("openssl")?;
        if !made.status.success() {
            return Err(Failure::new(String::from_utf8_lossy(&made.stderr)));
        }
        let chain = vec![CertificateDer::from_pem_file(&certificate)?];
        let key = PrivateKeyDer::from_pem_file(&key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(chain, key)?;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// The file for `SSL_CERT_FILE` of who is to trust it.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Speaks TLS over a connection.
    pub(crate) fn over(&self, stream: TcpStream) -> Result<Box<dyn Stream>, Failure> {
        Ok(Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&self.config))?, stream)))
    }
}
