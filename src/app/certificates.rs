//! The certificates of REST: for this member's answers, and for its requests to others. They are read at the start,
//! when the configuration is read again, and when their files change. Unusable files change nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::api::{self, ApiSetup};
use crate::config::{Config, Ctl, KeyfilePassword, RestTls, VerifyClient};
use crate::os::error_chain::ErrorChain;
use crate::os::tls::{self, ClientCertificates, Identity, TlsError, Trust};
use crate::peer::Peers;

/// The paths of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificateFiles {
    server: Option<RestTls>,
    ctl: Ctl,
    cafile: Option<PathBuf>,
}

/// Whether the files of a configuration are usable.
///
/// # Errors
/// The first fault.
pub(super) fn check_certificates(config: &Config) -> Result<(), TlsError> {
    let files = CertificateFiles::of(config);
    files.server()?;
    files.member_client()?;
    Ok(())
}

impl CertificateFiles {
    fn of(config: &Config) -> CertificateFiles {
        let rest = &config.restapi;
        CertificateFiles { server: rest.tls.clone(), ctl: config.ctl.clone(), cafile: rest.cafile.clone() }
    }

    /// The server's TLS; `None`: plain HTTP.
    fn server(&self) -> Result<Option<(Arc<ServerConfig>, bool)>, TlsError> {
        let Some(RestTls { certfile, keyfile, keyfile_password, ciphers, verify_client }) = &self.server
        else {
            return Ok(None);
        };
        let clients = match verify_client {
            VerifyClient::No => ClientCertificates::Unasked,
            VerifyClient::Optional(authorities) => ClientCertificates::Optional(authorities),
            VerifyClient::Required(authorities) => ClientCertificates::Required(authorities),
        };
        let identity =
            Identity { certificate: certfile, key: keyfile, password: text(keyfile_password.as_ref()) };
        let mut config = tls::server(identity, clients, ciphers.as_deref())?;
        config.alpn_protocols = api::PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Some((Arc::new(config), *verify_client != VerifyClient::No)))
    }

    /// The client's TLS for calls to members. Names are not verified, because members call each other by address.
    fn member_client(&self) -> Result<rustls::ClientConfig, TlsError> {
        let identity = identity(&self.ctl);
        let authorities = match (&self.ctl.cacert, &self.cafile, identity) {
            _ if self.ctl.insecure && identity.is_none() => None,
            (Some(path), _, _) | (None, Some(path), Some(_)) => Some(path),
            (None, _, _) => None,
        };
        let trust = authorities.map_or(Ok(Trust::Anyone), |path| Trust::chain(path))?;
        tls::client(trust, identity)
    }

    fn contents(&self) -> Vec<Option<Vec<u8>>> {
        let server = self.server.iter().flat_map(|tls| {
            let authorities = match &tls.verify_client {
                VerifyClient::No => None,
                VerifyClient::Optional(path) | VerifyClient::Required(path) => Some(path),
            };
            [Some(&tls.certfile), Some(&tls.keyfile), authorities]
        });
        let ctl = [&self.ctl.cacert, &self.ctl.certfile, &self.ctl.keyfile, &self.cafile];
        let files = server.chain(ctl.map(Option::as_ref)).flatten();
        files.map(|path| fs::read(path).ok()).collect()
    }
}

fn identity(ctl: &Ctl) -> Option<Identity<'_>> {
    let certificate: &Path = ctl.certfile.as_deref()?;
    let key = ctl.keyfile.as_deref().unwrap_or(certificate);
    Some(Identity { certificate, key, password: text(ctl.keyfile_password.as_ref()) })
}

fn text(password: Option<&KeyfilePassword>) -> Option<&str> {
    password.map(|password| password.0.as_str())
}

/// The certificates in use.
pub(super) struct Certificates {
    files: CertificateFiles,
    /// The files that were read last, with their content.
    seen: (CertificateFiles, Vec<Option<Vec<u8>>>),
    /// The client for other members. A change applies to every clone.
    pub(super) peers: Peers,
}

impl Certificates {
    /// Reads them for the first time, and puts the server's into `setup`.
    pub(super) fn read(config: &Config, setup: &mut ApiSetup) -> Result<Certificates, TlsError> {
        let files = CertificateFiles::of(config);
        let seen = (files.clone(), files.contents());
        let peers = Peers::with_tls(Arc::new(files.member_client()?));
        serve_with(setup, files.server()?);
        Ok(Certificates { files, seen, peers })
    }

    /// Takes over the file names of a reloaded configuration.
    pub(super) fn rename(&mut self, config: &Config) {
        self.files = CertificateFiles::of(config).replacing(&self.files);
    }

    /// Reads the files again if their content or names have changed.
    pub(super) fn read_again(&mut self, api: &watch::Sender<Arc<ApiSetup>>) {
        let found = (self.files.clone(), self.files.contents());
        if self.seen == found {
            return;
        }
        self.seen = found;
        let read = self.files.server().and_then(|server| Ok((server, self.files.member_client()?)));
        match read {
            Ok((server, client)) => {
                api.send_modify(|setup| serve_with(Arc::make_mut(setup), server));
                self.peers.replace_tls(Arc::new(client));
                tracing::info!("the certificates of the REST interface were reloaded");
            }
            Err(error) => tracing::warn!(
                error = error.chain(),
                "the new certificates of the REST interface are unusable: the old certificates stay in force"
            ),
        }
    }
}

fn serve_with(setup: &mut ApiSetup, server: Option<(Arc<ServerConfig>, bool)>) {
    let (tls, client_certificate) = server.unzip();
    setup.tls = tls;
    setup.client_certificate = client_certificate.unwrap_or(false);
}

impl CertificateFiles {
    /// These files in place of `old`, except that HTTPS is never switched on or off at run time, since the member's key
    /// has the URL.
    fn replacing(mut self, old: &CertificateFiles) -> CertificateFiles {
        if self.server.is_some() != old.server.is_some() {
            tracing::warn!(
                "a change of restapi.certfile switches HTTPS on or off at the next start of this supervisor"
            );
            self.server = old.server.clone();
        }
        self
    }
}
