//! TLS set-up: which certificates are trusted. Built when the first TLS connection is wanted, not before.

use super::Error;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions keep all roots in one file.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates beside those built in.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// A file of certificates that replaces the system's: `$SSL_CERT_FILE`.
    pub file: Option<PathBuf>,
    /// A folder of certificates that replaces the system's: `$SSL_CERT_DIR`.
    pub folder: Option<PathBuf>,
    /// Folders with one folder for each registry, named like it, whose `*.crt` are trusted for it alone:
    /// `/etc/docker/certs.d`.
    pub per_registry: Vec<PathBuf>,
}

impl Certificates {
    /// The certificates of one registry alone, if there are any.
    pub(crate) fn of_registry(&self, host: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self
            .per_registry
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder.join(host)).ok())
            .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
            .filter(|path| path.extension().is_some_and(|e| e == "crt"))
            .collect();
        files.sort();
        files
    }

    /// Roots built in, the system's, and those in `extra`. Nothing here needs to exist.
    pub(crate) fn verifying(&self, extra: &[PathBuf]) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(self.system());
        for file in extra {
            let found = rustls_native_certs::load_certs_from_paths(Some(file), None);
            if let Some(error) = found.errors.first() {
                return Err(Error::Setup(format!("certificate {}: {error}", file.display())));
            }
            roots.add_parsable_certificates(found.certs);
        }
        Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
    }

    fn system(&self) -> Vec<CertificateDer<'static>> {
        if self.file.is_some() || self.folder.is_some() {
            return rustls_native_certs::load_certs_from_paths(self.file.as_deref(), self.folder.as_deref()).certs;
        }
        let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
        bundle.map(|path| rustls_native_certs::load_certs_from_paths(Some(path), None).certs).unwrap_or_default()
    }
}

/// Trusts nothing: for a client that only speaks plain HTTP.
pub(crate) fn none() -> Result<ClientConfig, Error> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Trusts whoever answers: for registries that the user named insecure, and loopback.
pub(crate) fn unverified() -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Anybody(ring::default_provider()));
    Ok(builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Setup(format!("TLS: {e}")))
}

/// Takes any certificate, but still wants the handshake signed by its key.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
