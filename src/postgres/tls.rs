//! `sslmode` and its companions, with libpq's meaning, for connections to other members.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Credentials, Error};

/// The mode, and the connector that verifies what these credentials ask to verify.
pub(super) fn connector(who: &Credentials) -> Result<(SslMode, MakeRustlsConnect), Error> {
    let option = |name: &str| who.options.get(name).map(String::as_str);
    let mode = option("sslmode").unwrap_or("prefer");
    let roots = option("sslrootcert").filter(|path| Path::new(path).exists());
    // With a root certificate, libpq's `require` verifies too.
    let trust = match (mode, roots) {
        ("verify-full", Some(path)) => Trust::Name(verifier(path)?),
        ("verify-ca" | "require", Some(path)) => Trust::Chain(verifier(path)?),
        ("verify-ca" | "verify-full", None) => {
            return Err(Error::Unfit(format!("sslmode {mode} needs the file sslrootcert names")));
        }
        _ => Trust::Anyone,
    };
    let ssl_mode = match mode {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        _ => SslMode::Require,
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (option("sslcert"), option("sslkey")) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(
                certificates(certificate)?,
                PrivateKeyDer::from_pem_file(key).map_err(fault)?,
            )
            .map_err(fault)?,
        (_, _) => builder.with_no_client_auth(),
    };
    Ok((ssl_mode, MakeRustlsConnect::new(config)))
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Unfit(format!("prepare TLS: {error}"))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(fault)
}

fn verifier(roots: &str) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates(roots)?);
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::new(ring::default_provider()))
        .build()
        .map_err(fault)
}

/// Whom to believe.
#[derive(Debug)]
enum Trust {
    /// Encrypted, but to whomever.
    Anyone,
    /// Whoever our authority signed for, under any name.
    Chain(Arc<WebPkiServerVerifier>),
    /// Whoever our authority signed for under the name we asked for.
    Name(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ask = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
        };
        match &self.trust {
            Trust::Anyone => Ok(ServerCertVerified::assertion()),
            Trust::Name(verifier) => ask(verifier),
            Trust::Chain(verifier) => match ask(verifier) {
                // The name is looked at last, so everything else was right.
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
