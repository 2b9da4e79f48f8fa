//! TLS from PEM files: the own certificate, and the trusted ones. The provider is always ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};

use super::private_key;

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
    /// The key has a password, and none is configured.
    #[error(
        "{path} holds a private key with a password: set `keyfile_password`, or write the key without one, readable for \
         its owner alone, as with `openssl pkey -in {path} -out KEYFILE`"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The password is another one.
    #[error("the password does not open the private key in {path}")]
    WrongPassword {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted in the form from before PKCS#8.
    #[error(
        "{path} holds a private key with a password in OpenSSL's old form, which is not supported: convert it, as with \
         `openssl pkcs8 -topk8 -in {path} -out KEYFILE`"
    )]
    OldEncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted with an algorithm that is not supported.
    #[error(
        "{path} holds a private key with a password that cannot be read ({why}): encrypt it anew, as with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc -in {path} -out KEYFILE`"
    )]
    UnknownEncryption {
        /// The file.
        path: PathBuf,
        /// The algorithm.
        why: String,
    },
    /// None of the chosen ciphers is there.
    #[error("no cipher of TLS 1.2 is left")]
    NoCiphers,
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
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, with its intermediate certificates.
    pub certificate: &'a Path,
    /// The key, which may be in the same file.
    pub key: &'a Path,
    /// The password of the key.
    pub password: Option<&'a str>,
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
    let Some(Identity { certificate, key, password }) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    builder
        .with_client_auth_cert(certificates(certificate)?, private_key::read(key, password)?)
        .map_err(|error| unfit(certificate, error))
}

/// The ciphers of TLS 1.2, by their names in OpenSSL.
const CIPHERS: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The configuration of a server. `ciphers`: those of TLS 1.2, by their names in OpenSSL; `None`: all. Those of TLS 1.3
/// are always there.
///
/// # Errors
/// When a file cannot be used, or no cipher of TLS 1.2 is left.
pub fn server(
    identity: Identity<'_>,
    clients: ClientCertificates<'_>,
    ciphers: Option<&[&str]>,
) -> Result<ServerConfig, TlsError> {
    let mut provider = ring::default_provider();
    if let Some(names) = ciphers {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        let chosen = CIPHERS.iter().filter(|(name, _)| names.contains(name)).map(|(_, suite)| *suite);
        provider.cipher_suites.extend(chosen);
        if provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()) {
            return Err(TlsError::NoCiphers);
        }
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(Path::new("the version of TLS"), error))?;
    let builder = match clients {
        ClientCertificates::Unasked => builder.with_no_client_auth(),
        ClientCertificates::Optional(path) => builder.with_client_cert_verifier(client_verifier(path, true)?),
        ClientCertificates::Required(path) => {
            builder.with_client_cert_verifier(client_verifier(path, false)?)
        }
    };
    let Identity { certificate, key, password } = identity;
    builder
        .with_single_cert(certificates(certificate)?, private_key::read(key, password)?)
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
