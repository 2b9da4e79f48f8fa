//! Stand-in.
use crate::api::ApiSetup;
use crate::config::{Config, Effective};
use crate::etcd::EtcdSetup;
use crate::model::Me;
use crate::postgres::{Parameters, Setup};
pub(super) fn parameters(_: &Config, _: &Effective) -> Parameters {
    Parameters::default()
}
pub(super) fn first_config(_: &Config) -> String {
    String::new()
}
pub(super) fn api_setup(_: &Config) -> ApiSetup {
    ApiSetup::default()
}
pub(super) fn server_major(_: &Config) -> Result<u32, String> {
    Ok(15)
}
pub(super) fn postgres_setup(_: &Config) -> Setup {
    Setup::default()
}
pub(super) fn me(_: &Config) -> Me {
    panic!()
}
pub(super) fn etcd_setup(_: &Config) -> EtcdSetup {
    EtcdSetup::default()
}
