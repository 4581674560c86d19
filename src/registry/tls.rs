//! TLS set-up: which certificates are trusted. Built when the first TLS connection is wanted, not before.

use super::Error;
use crate::sys::input::open_regular;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_native_certs::load_certs_from_paths;
use std::collections::BTreeMap;
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
    /// What all of these held when they were [read](Self::hold); then nothing is read later.
    pub held: Option<Held>,
}

/// Certificates in memory.
#[derive(Debug, Clone)]
pub struct Held(Arc<Files>);

#[derive(Debug)]
struct Files {
    system: Vec<CertificateDer<'static>>,
    own: Vec<CertificateDer<'static>>,
    /// The files of each registry.
    registries: BTreeMap<String, Vec<PathBuf>>,
    /// What is in them, or why they can't be read.
    of_registries: BTreeMap<PathBuf, Result<Vec<CertificateDer<'static>>, String>>,
}

impl Certificates {
    /// Reads all certificates now, for places where others may put files of these names later.
    pub fn hold(mut self) -> Self {
        let folders = self.per_registry.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let hosts = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let registries: BTreeMap<String, Vec<PathBuf>> = hosts.map(|h| (h.clone(), self.of_registry(&h))).collect();
        let of_registries = registries.values().flatten().map(|file| (file.clone(), certificates(file))).collect();
        let (system, own) = (self.system(), self.own());
        self.held = Some(Held(Arc::new(Files { system, own, registries, of_registries })));
        self
    }

    /// The certificates of one registry alone, if there are any.
    pub(crate) fn of_registry(&self, host: &str) -> Vec<PathBuf> {
        if let Some(Held(held)) = &self.held {
            return held.registries.get(host).cloned().unwrap_or_default();
        }
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

    /// Roots built in, the system's, and those in `extra`. Nothing here needs to exist but `extra`.
    pub(crate) fn verifying(&self, extra: &[PathBuf]) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(self.system());
        let mut pinned = self.own();
        for file in extra {
            let found = self.of_file(file);
            pinned.extend(found.map_err(|why| Error::Setup(format!("certificate {}: {why}", file.display())))?);
        }
        roots.add_parsable_certificates(pinned.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
            .build()
            .map_err(|e| Error::Setup(format!("TLS: {e}")))?;
        let verifier = Arc::new(Pinning { chains, pinned });
        Ok(builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    /// The system's roots, where there are any and nothing replaces them.
    fn system(&self) -> Vec<CertificateDer<'static>> {
        match &self.held {
            Some(Held(held)) => held.system.clone(),
            None if self.file.is_none() && self.folder.is_none() => bundle(),
            None => Vec::new(),
        }
    }

    /// The certificates that replace the system's.
    fn own(&self) -> Vec<CertificateDer<'static>> {
        match &self.held {
            Some(Held(held)) => held.own.clone(),
            None => {
                // The library would wait for the other end of a named pipe.
                let file = self.file.as_deref().filter(|file| open_regular(file).is_ok());
                load_certs_from_paths(file, self.folder.as_deref()).certs
            }
        }
    }

    /// What is in a file of a registry's.
    fn of_file(&self, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
        match self.held.as_ref().and_then(|Held(held)| held.of_registries.get(file)) {
            Some(read) => read.clone(),
            None => certificates(file),
        }
    }
}

/// The certificates in a file, or why they can't be read.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    // The library would wait for the other end of a named pipe.
    open_regular(file).map_err(|e| e.to_string())?;
    let found = load_certs_from_paths(Some(file), None);
    found.errors.first().map_or(Ok(found.certs), |error| Err(error.to_string()))
}

/// The system's roots, where there are any.
fn bundle() -> Vec<CertificateDer<'static>> {
    let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
    bundle.map(|path| load_certs_from_paths(Some(path), None).certs).unwrap_or_default()
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

/// Takes chains that end at a root, and certificates that the user named themselves: one that signs itself is a root and
/// a server's at once, as Docker's manual makes it for a registry of one's own, and the chain's rules forbid that.
#[derive(Debug)]
struct Pinning {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinning {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.contains(certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.chains.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
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
