//! The certificates for connections to etcd.

use std::path::PathBuf;

use etcd_client::{Certificate, Identity, TlsOptions};

use super::EtcdError;

/// Certificate files, PEM. They are read anew for every new connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities to trust.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

pub(super) async fn tls(files: &TlsFiles) -> Result<TlsOptions, EtcdError> {
    let read = async |path: &PathBuf| {
        tokio::fs::read(path).await.map_err(|error| EtcdError::Setup(format!("{}: {error}", path.display())))
    };
    let mut options = TlsOptions::new();
    if let Some(ca) = &files.ca {
        options = options.ca_certificate(Certificate::from_pem(read(ca).await?));
    }
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        options = options.identity(Identity::from_pem(read(cert).await?, read(key).await?));
    }
    Ok(options)
}
