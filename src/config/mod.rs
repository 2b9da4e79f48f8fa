//! Settings: the local file, the environment over it, and the dynamic configuration under both.
//!
//! ```text
//! file(s) ─► tree ◄─ environment        every value knows its file and line
//!             │  ◄─ image, pod          beneath: what a container says without being asked
//!           local: Config               complete; every fault reported at once
//!             │      ◄─ key `config`, mended: a faulty key counts as it last could be read
//!          effective: Effective         what is in force
//! ```
//!
//! Deliberately absent: any use of the settings, and whether the machine fits them. Only `load`, `pod` and `variables`
//! read files.

mod arguments;
mod bootstrap;
mod by_role;
mod ciphers;
mod dynamic;
mod environment;
mod etcd;
mod fault;
mod given;
mod guc;
mod image;
mod in_force;
mod kubernetes;
mod late;
mod load;
mod local;
mod log;
mod mend;
mod pod;
mod postgresql;
mod reader;
mod restapi;
mod scalar;
mod scripts;
mod slots;
mod standby_cluster;
mod synchronous;
mod tree;
mod units;
mod variables;
mod watchdog;

#[cfg(test)]
mod tests;

pub use bootstrap::BootstrapConfig;
pub use dynamic::{Effective, effective, is_of_standby_cluster, pauses, settings, sync_settings};
pub use etcd::EtcdConfig;
pub use fault::{Fault, Faults, ValueOrigin};
pub use given::{Given, new_parameters};
pub use guc::{SetBy, set_by};
pub use in_force::DynamicInForce;
pub use kubernetes::Kubernetes;
pub use load::{Checked, Loaded, Sources, check, load};
pub use local::{Address, Config, Credentials};
pub use log::{Log, LogField, LogFile, LogKind, LogPart};
pub use mend::{Mended, mended, new_warnings, refuse_faults, restored};
pub use postgresql::{Login, POSTGRES_MAJORS, Postgresql};
pub use reader::list_items;
pub use restapi::{Ctl, KeyfilePassword, RestApi, RestTls, VerifyClient, WriteAccess};
pub use standby_cluster::StandbyRecovery;
pub use variables::{canonical, role_passwords_are_in_files, secret_files, secrets_digest};
pub use watchdog::{WatchdogConfig, WatchdogDriver, WatchdogMode};
