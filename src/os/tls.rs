//! TLS from PEM files: the own certificate, and the trusted ones. The provider is always ring.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};

/// A file that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is not PEM.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: pem::Error,
    },
    /// It has no certificate.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key has a password.
    #[error(
        "{path} holds a private key with a password, which is not supported: write it without one, readable for its \
         owner alone, as with `openssl pkey -in {path} -out KEYFILE`"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not match, or no authority of a file is usable.
    #[error("{path} cannot be used for TLS")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This machine has no trusted authorities.
    #[error("this machine has no CA certificates: configure a file with CA certificates")]
    NoAuthorities,
}

/// Certificate and key of this end.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The certificate, with its intermediate certificates.
    pub certificate: &'a Path,
    /// The key, which may be in the same file.
    pub key: &'a Path,
}

/// The servers that a client trusts.
#[derive(Debug)]
pub enum Trust {
    /// All: encrypted, but not authenticated.
    Anyone,
    /// Servers with a certificate of an authority in the file, under any name.
    Chain(Arc<WebPkiServerVerifier>),
    /// Servers with a certificate of an authority for the name that was called.
    Name(Arc<WebPkiServerVerifier>),
}

impl Trust {
    /// [`Trust::Chain`] with the authorities of a file.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn chain(authorities: &Path) -> Result<Trust, TlsError> {
        Ok(Trust::Chain(verifier(roots(authorities)?, authorities)?))
    }

    /// [`Trust::Name`] with the authorities of a file, or of this machine without one.
    ///
    /// # Errors
    /// When there is no authority, or the file cannot be used.
    pub fn name(authorities: Option<&Path>) -> Result<Trust, TlsError> {
        let Some(path) = authorities else {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
            return Ok(Trust::Name(verifier(store, Path::new("the machine's list of authorities"))?));
        };
        Ok(Trust::Name(verifier(roots(path)?, path)?))
    }
}

/// The certificates that clients have to present.
#[derive(Clone, Copy, Debug)]
pub enum ClientCertificates<'a> {
    /// None.
    Unasked,
    /// A certificate of these authorities, if they have one.
    Optional(&'a Path),
    /// A certificate of these authorities.
    Required(&'a Path),
}

/// The configuration of a client.
///
/// # Errors
/// When a file cannot be used.
pub fn client(trust: Trust, identity: Option<Identity<'_>>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(TrustVerifier { trust, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(Path::new("the version of TLS"), error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(Identity { certificate, key }) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder
        .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| unfit(certificate, error))
}

/// The configuration of a server.
///
/// # Errors
/// When a file cannot be used.
pub fn server(identity: Identity<'_>, clients: ClientCertificates<'_>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(Path::new("the version of TLS"), error))?;
    let builder = match clients {
        ClientCertificates::Unasked => builder.with_no_client_auth(),
        ClientCertificates::Optional(path) => builder.with_client_cert_verifier(client_verifier(path, true)?),
        ClientCertificates::Required(path) => {
            builder.with_client_cert_verifier(client_verifier(path, false)?)
        }
    };
    let Identity { certificate, key } = identity;
    builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| unfit(certificate, error))
}

fn client_verifier(authorities: &Path, optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider);
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| unfit(authorities, error))
}

fn verifier(store: RootCertStore, path: &Path) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| unfit(path, error))
}

fn unfit(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Unfit { path: path.to_owned(), source: error.into() }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates(path)?);
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // `BEGIN ENCRYPTED PRIVATE KEY`, or `Proc-Type: 4,ENCRYPTED` in the old form.
    if fs::read(path).is_ok_and(|text| text.windows(9).any(|window| window == b"ENCRYPTED")) {
        return Err(TlsError::EncryptedKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

#[derive(Debug)]
struct TrustVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustVerifier {
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
                // The name is checked last, so everything else was right.
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
