//! Certificates of REST, both ways: how this member answers, and how it calls others. Read at the start, when the
//! configuration is read again, and when their files change. Files that cannot be used change nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::api::ApiSetup;
use crate::config::{Config, Ctl, RestTls, VerifyClient};
use crate::os::error_chain::ErrorChain;
use crate::os::tls::{self, ClientCertificates, Identity, TlsError, Trust};
use crate::peer::Peers;

/// Which files there are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificateFiles {
    server: Option<RestTls>,
    ctl: Ctl,
    cafile: Option<PathBuf>,
}

/// Whether the files of a configuration can be used.
///
/// # Errors
/// The first that cannot.
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

    /// What is served with; `None`: plain HTTP.
    fn server(&self) -> Result<Option<(Arc<ServerConfig>, bool)>, TlsError> {
        let Some(RestTls { certfile, keyfile, verify_client }) = &self.server else { return Ok(None) };
        let clients = match verify_client {
            VerifyClient::No => ClientCertificates::Unasked,
            VerifyClient::Optional(authorities) => ClientCertificates::Optional(authorities),
            VerifyClient::Required(authorities) => ClientCertificates::Required(authorities),
        };
        let config = tls::server(Identity { certificate: certfile, key: keyfile }, clients)?;
        Ok(Some((Arc::new(config), *verify_client != VerifyClient::No)))
    }

    /// How members are called. Their names are not compared: they call each other by addresses.
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
    Some(Identity { certificate, key: ctl.keyfile.as_deref().unwrap_or(certificate) })
}

/// What was read from the files, in use.
pub(super) struct Certificates {
    files: CertificateFiles,
    /// The files that were read last, and what they held.
    seen: (CertificateFiles, Vec<Option<Vec<u8>>>),
    /// How other members are called. Every clone takes part in every change.
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

    /// Takes the names of the files from a configuration that was read again.
    pub(super) fn rename(&mut self, config: &Config) {
        self.files = CertificateFiles::of(config).replacing(&self.files);
    }

    /// Reads the files again where they have changed, or others are named.
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
    /// These in place of `old`, except that HTTPS is not switched on or off while running: the member's key says which.
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
