//! Reasons why a cluster cannot be found, read or asked.

use std::error::Error;
use std::path::PathBuf;

use crate::etcd::EtcdError;
use crate::os::tls::TlsError;
use crate::peer::PeerError;

/// Why a cluster cannot be found, read or given orders.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration is no readable YAML.
    #[error("failed to read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Neither a name nor a configuration identifies the cluster.
    #[error("which cluster?")]
    NoCluster,
    /// The URL's scheme is not etcd's.
    #[error("`{0}` is no store this program knows")]
    UnknownStore(String),
    /// The configuration names no etcd.
    #[error("no etcd is configured")]
    NoEtcd,
    /// The settings of etcd are unusable.
    #[error("failed to use etcd")]
    EtcdSetup(#[source] EtcdError),
    /// The certificates for members' REST cannot be used.
    #[error("failed to use the certificates of the section `ctl`")]
    Certificates(#[source] TlsError),
    /// etcd did not return the cluster.
    #[error("failed to read the cluster {scope} from etcd")]
    Read {
        /// The cluster.
        scope: String,
        /// The error.
        source: EtcdError,
    },
    /// It is unknown whether etcd has accepted the configuration.
    #[error("failed to write the dynamic configuration to etcd")]
    WriteConfig(#[source] EtcdError),
    /// It is unknown whether etcd has accepted the request.
    #[error("failed to write the request to etcd")]
    Request(#[source] EtcdError),
    /// It is unknown whether etcd has withdrawn the request.
    #[error("failed to withdraw the switchover in etcd")]
    Withdraw(#[source] EtcdError),
    /// It is unknown whether etcd has deleted the keys.
    #[error("failed to delete the cluster's keys from etcd")]
    Remove(#[source] EtcdError),
    /// A member gave no answer.
    #[error("a member does not answer")]
    Silent(#[source] PeerError),
    /// No member has published a REST address.
    #[error("the cluster has no member with a REST address")]
    NoMembers,
}
