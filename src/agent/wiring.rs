//! Stand-in.
use crate::api::ApiSetup;
use crate::config::{Config, Effective};
use crate::etcd::EtcdSetup;
use crate::model::Me;
use crate::postgres::{Credentials, Parameters, Setup};
use serde_json::Value;
use std::time::Duration;
fn s(c: &Config, k: &str) -> Option<String> {
    c.raw.pointer(k).and_then(|v| match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    })
}
pub(super) fn parameters(_: &Config, e: &Effective) -> Parameters {
    Parameters {
        parameters: e.parameters.clone(),
        command_line: e.command_line.clone(),
        pg_hba: e.pg_hba.clone(),
        ..Parameters::default()
    }
}
pub(super) fn first_config(c: &Config) -> String {
    c.raw.pointer("/bootstrap/dcs").map_or("{}".into(), |v| v.to_string())
}
pub(super) fn api_setup(c: &Config) -> ApiSetup {
    let listen = s(c, "/restapi/listen").unwrap();
    let (h, p) = listen.rsplit_once(':').unwrap();
    ApiSetup {
        listen: (h.to_owned(), p.parse().unwrap()),
        credentials: s(c, "/restapi/authentication/username").zip(s(c, "/restapi/authentication/password")),
        scope: c.scope.clone(),
        ..ApiSetup::default()
    }
}
pub(super) fn server_major(_: &Config) -> Result<u32, String> {
    Ok(15)
}
pub(super) fn postgres_setup(c: &Config) -> Setup {
    let cred = |k: &str, u: &str| Credentials {
        username: s(c, &format!("/postgresql/authentication/{k}/username")).unwrap_or(u.into()),
        password: s(c, &format!("/postgresql/authentication/{k}/password")),
        ..Credentials::default()
    };
    let listen = s(c, "/postgresql/listen").unwrap();
    let (h, p) = listen.rsplit_once(':').unwrap();
    Setup {
        name: c.name.to_string(),
        data_dir: c.postgresql.data_dir.clone(),
        config_dir: c.postgresql.data_dir.clone(),
        bin_dir: s(c, "/postgresql/bin_dir").map(Into::into),
        listen_addresses: h.into(),
        port: p.parse().unwrap(),
        local_host: h.into(),
        database: "postgres".into(),
        pgpass: s(c, "/postgresql/pgpass").unwrap_or("/tmp/pgpass".into()).into(),
        superuser: cred("superuser", "postgres"),
        replication: cred("replication", "replicator"),
        rewind: c.raw.pointer("/postgresql/authentication/rewind").map(|_| cred("rewind", "rewind")),
        initdb: vec!["data-checksums".into()],
        pg_ctl_timeout: Duration::from_secs(60),
        ..Setup::default()
    }
}
pub(super) fn me(c: &Config) -> Me {
    let pg = s(c, "/postgresql/connect_address").or(s(c, "/postgresql/listen")).unwrap();
    let api = s(c, "/restapi/connect_address").or(s(c, "/restapi/listen")).unwrap();
    Me {
        name: c.name.clone(),
        tags: c.tags.clone(),
        conn_url: format!("postgres://{pg}/postgres"),
        api_url: format!("http://{api}/patroni"),
        proxy_url: None,
        may_bootstrap: c.raw.get("bootstrap").is_some(),
    }
}
pub(super) fn etcd_setup(c: &Config) -> EtcdSetup {
    let hosts = match c.raw.pointer("/etcd3/hosts").or(c.raw.pointer("/etcd3/host")) {
        Some(Value::Array(a)) => a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>(),
        Some(Value::String(t)) => t.split(',').map(|x| x.trim().to_owned()).collect(),
        _ => vec![],
    };
    EtcdSetup {
        endpoints: hosts.into_iter().map(|h| format!("http://{h}")).collect(),
        base: format!("{}/{}/", c.namespace, c.scope),
        ..EtcdSetup::default()
    }
}
