//! What a configuration names outside of itself, as `check` finds it: etcd, and the data directory.

use super::wiring;
use crate::config::Config;
use crate::etcd::unreachable;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{self, Setup};

/// How etcd answers: the endpoints that do not, each with the reason.
pub struct EtcdAnswers {
    /// How many were asked.
    pub asked: usize,
    /// Those that do not answer.
    pub silent: Vec<(String, String)>,
}

/// Asks every endpoint of etcd, with the configured login and certificates.
///
/// # Errors
/// A sentence: DNS does not say which endpoints there are.
pub async fn ask_etcd(config: &Config) -> Result<EtcdAnswers, String> {
    let setup = wiring::etcd_setup(config).discovered().await.map_err(|error| error.chain())?;
    let asked = setup.endpoints.len();
    let silent = unreachable(setup).await.map_err(|error| error.chain())?;
    let silent = silent.into_iter().map(|(url, error)| (url, error.chain())).collect();
    Ok(EtcdAnswers { asked, silent })
}

/// The entry that the data directory lacks to be a database, although it has content.
pub fn data_lacks(config: &Config) -> Option<&'static str> {
    let data_dir = config.postgresql.data_dir.clone();
    postgres::lacks(&Setup { data_dir, ..wiring::programs(config) })
}
