//! From the configuration to the setup of each part. No decisions here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::fencing::WatchdogRule;
use crate::config::{self, Config, Effective, Login, VerifyClient, WatchdogDriver, WatchdogMode};
use crate::etcd::{EtcdSetup, SrvDomain, TlsFiles};
use crate::fence::{DeviceDriver, LinkSetup, WatchdogSetup};
use crate::kube::KubeSetup;
use crate::model::{
    ListenAddress, Me, ReplicaMethod, ScriptsInUse, SessionId, SettingsRole, json_compact, local_host,
};
use crate::os::random;
use crate::peer::PeerKeys;
use crate::postgres::{Parameters, Passwords, Postgres, RoleCredentials, Setup};

/// The parameters for PostgreSQL.
pub(super) fn parameters(effective: &Effective) -> Parameters {
    Parameters {
        parameters: effective.parameters.clone(),
        command_line: effective.command_line.clone(),
        pg_hba: effective.pg_hba.clone(),
        first_pg_hba: effective.first_pg_hba.clone(),
        pg_ident: effective.pg_ident.clone(),
        recovery: effective.recovery.clone(),
        by_role: effective.by_role.clone(),
        role: SettingsRole::default(),
    }
}

/// The first value of a new cluster's key `config`: the text of `bootstrap.dcs`.
pub(super) fn first_config(config: &Config) -> String {
    let dcs = config.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
    json_compact(&serde_json::Value::Object(dcs))
}

/// The dynamic configuration until etcd answers: as saved beside the data, else as the local file has it for a new
/// cluster.
pub(super) fn recalled_config(config: &Config) -> String {
    let first = first_config(config);
    let text = crate::postgres::kept_dynamic(&config.postgresql.data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the saved copy of the dynamic configuration");
        None
    });
    let Some(text) = text else { return first };
    let mended = config::mended(&text, &first);
    for warning in &mended.warnings {
        tracing::warn!("saved copy of the dynamic configuration: {warning}");
    }
    mended.text
}

/// The local PostgreSQL.
pub(super) fn postgres_setup(config: &Config, effective: &Effective) -> Setup {
    let postgresql = &config.postgresql;
    let bootstrap = config.bootstrap.clone().unwrap_or_default();
    let host = local_host(&postgresql.listen.host);
    let sockets = effective.parameters.get("unix_socket_directories").and_then(|list| list.split(',').next());
    let local_host = match postgresql.use_unix_socket {
        true => sockets.map_or_else(|| DEFAULT_SOCKETS.to_owned(), |directory| directory.trim().to_owned()),
        false => host,
    };
    Setup {
        scope: config.scope.clone(),
        name: config.name.to_string(),
        data_dir: postgresql.data_dir.clone(),
        config_dir: postgresql.config_dir.clone(),
        config_base_name: postgresql.config_base_name.clone(),
        custom_conf: postgresql.custom_conf.clone(),
        bin_dir: postgresql.bin_dir.clone(),
        bin_names: postgresql.bin_name.clone(),
        listen_addresses: postgresql.listen.host.clone(),
        port: postgresql.listen.port,
        local_host,
        database: postgresql.database.clone(),
        pgpass: postgresql.pgpass.clone(),
        superuser: credentials(&postgresql.superuser),
        replication: credentials(&postgresql.replication),
        rewind: postgresql.rewind.as_ref().map(credentials),
        krbsrvname: postgresql.krbsrvname.clone(),
        initdb: bootstrap.initdb,
        custom_bootstrap: bootstrap.custom,
        bootstrap_pg_hba: bootstrap.pg_hba,
        post_bootstrap: bootstrap.post_bootstrap,
        new_database: bootstrap.database,
        init_scripts: bootstrap.init_scripts,
        basebackup: postgresql.basebackup.clone(),
        rewind_options: postgresql.rewind_options.clone(),
        uid_gid: None,
    }
}

/// The location of PostgreSQL's programs, and nothing else.
pub(super) fn programs(config: &Config) -> Setup {
    let postgresql = &config.postgresql;
    Setup { bin_dir: postgresql.bin_dir.clone(), bin_names: postgresql.bin_name.clone(), ..Setup::default() }
}

/// The directory where Debian's libpq looks for sockets.
const DEFAULT_SOCKETS: &str = "/var/run/postgresql";

fn credentials(login: &Login) -> RoleCredentials {
    RoleCredentials {
        username: login.username.clone(),
        password: login.password.clone().into(),
        options: login.options.clone(),
    }
}

/// The passwords of the roles.
pub(super) fn passwords(config: &Config) -> Passwords {
    let postgresql = &config.postgresql;
    Passwords {
        superuser: postgresql.superuser.password.clone(),
        replication: postgresql.replication.password.clone(),
        rewind: postgresql.rewind.as_ref().and_then(|rewind| rewind.password.clone()),
    }
}

/// What members know each other by.
pub(super) fn peer_keys(config: &Config, postgres: &Postgres) -> PeerKeys {
    let tls = config.restapi.tls.as_ref();
    let certificates = tls.is_some_and(|tls| matches!(tls.verify_client, VerifyClient::Required(_)));
    PeerKeys::of(&postgres.replication_passwords(), certificates, &config.scope)
}

/// The guard, and its use of the watchdog.
pub(super) fn fence_setup(config: &Config) -> (LinkSetup, WatchdogRule) {
    let watchdog = &config.watchdog;
    let driver = match watchdog.driver {
        WatchdogDriver::Default => DeviceDriver::Linux,
        WatchdogDriver::Testing => DeviceDriver::Testing,
    };
    let device = (watchdog.mode != WatchdogMode::Off)
        .then(|| WatchdogSetup { device: watchdog.device.clone(), driver });
    let required = watchdog.mode == WatchdogMode::Required;
    let rule = WatchdogRule { required, safety_margin: watchdog.safety_margin };
    (LinkSetup::new(config.postgresql.data_dir.clone(), device), rule)
}

/// The pod, and its labels.
pub(super) fn kube_setup(config: &Config, environment: &BTreeMap<String, String>) -> Option<KubeSetup> {
    let kubernetes = config.kubernetes.clone()?;
    Some(KubeSetup {
        namespace: kubernetes.namespace,
        pod: kubernetes.pod,
        pod_uid: kubernetes.pod_uid,
        kubeconfig: environment.get("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from),
        context: kubernetes.context,
        cacert: kubernetes.cacert,
        names: kubernetes.names,
        primary_service: kubernetes.primary_service,
        routing_grace: kubernetes.routing_grace,
    })
}

/// This member as it publishes itself, in this process, while its PostgreSQL listens there.
pub(super) fn me(config: &Config, listen: &ListenAddress) -> Me {
    let (postgresql, rest) = (&config.postgresql, &config.restapi);
    let scheme = if rest.tls.is_some() { "https" } else { "http" };
    let url = |address: &config::Address| format!("postgres://{address}/{}", postgresql.database);
    let mut connect_address = postgresql.connect_address.clone();
    // A postmaster that was started with another configuration listens on its port until its next start.
    if connect_address.port == postgresql.listen.port {
        connect_address.port = listen.port;
    }
    Me {
        scope: config.scope.clone(),
        name: config.name.clone(),
        session: SessionId(random::number()),
        tags: config.tags.clone(),
        conn_url: url(&connect_address),
        api_url: format!("{scheme}://{}/patroni", rest.connect_address),
        proxy_url: postgresql.proxy_address.as_ref().map(url),
        may_bootstrap: config.bootstrap.is_some(),
        wait_for_members: config
            .bootstrap
            .as_ref()
            .map_or(Duration::ZERO, |bootstrap| bootstrap.wait_for_members),
        scripts: scripts_in_use(config),
    }
}

fn scripts_in_use(config: &Config) -> ScriptsInUse {
    let methods = &config.postgresql.replica_methods;
    let custom = config.bootstrap.as_ref().and_then(|bootstrap| bootstrap.custom.as_ref());
    ScriptsInUse {
        replica_without_leader: methods.iter().any(ReplicaMethod::needs_no_source),
        custom_bootstrap: custom.is_some(),
        pre_promote: config.postgresql.pre_promote.is_some(),
    }
}

/// The client settings for etcd.
pub(super) fn etcd_setup(config: &Config) -> EtcdSetup {
    let etcd = &config.etcd;
    let tls = TlsFiles { ca: etcd.cacert.clone(), cert: etcd.cert.clone(), key: etcd.key.clone() };
    EtcdSetup {
        endpoints: etcd.endpoints.clone(),
        srv: etcd.srv.clone().map(|(domain, suffix)| SrvDomain { domain, suffix }),
        with_announced: etcd.with_announced,
        credentials: etcd.credentials.clone().map(|who| (who.username, who.password)),
        tls: Some(tls),
        base: format!("{}/{}/", config.namespace.trim_end_matches('/'), config.scope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(postgresql: &str) -> Config {
        let text = format!(
            "{{scope: s, name: a, restapi: {{listen: '127.0.0.1:8008'}}, etcd3: {{host: h}}, postgresql: {{data_dir: /d,
             authentication: {{replication: {{username: r, password: p}}}}, {postgresql}}}}}"
        );
        let environment = BTreeMap::from([("PATRONI_CONFIGURATION".to_owned(), text)]);
        config::load(&Sources { environment, ..Sources::default() }).expect("a good configuration").config
    }

    /// A postmaster that listens on another port than configured is published with its port, unless clients reach it by
    /// another one anyway.
    #[test]
    fn a_member_publishes_where_its_postgresql_is_reached() {
        let listen = |port| ListenAddress { addresses: "10.0.0.1".to_owned(), port };
        let plain = config("listen: '10.0.0.1:5432', connect_address: 'a:5432', proxy_address: 'a:6432'");
        let urls = |config: &Config, port| {
            let me = me(config, &listen(port));
            (me.conn_url, me.proxy_url.unwrap_or_default())
        };
        let url = |address: &str| format!("postgres://{address}/postgres");
        assert_eq!(urls(&plain, 5432), (url("a:5432"), url("a:6432")));
        assert_eq!(urls(&plain, 5433), (url("a:5433"), url("a:6432")));
        let mapped = config("listen: '10.0.0.1:5432', connect_address: 'a:15432'");
        assert_eq!(urls(&mapped, 5433), (url("a:15432"), String::new()));
    }

    #[test]
    fn the_supervisor_connects_to_the_host_or_to_the_socket_directory() {
        let local_host = |postgresql: &str| {
            let config = config(postgresql);
            let effective = config::effective(&config, None, 15).expect("good");
            postgres_setup(&config, &effective).local_host
        };
        assert_eq!(local_host("listen: '*:5432', connect_address: a"), "127.0.0.1");
        assert_eq!(local_host("listen: '10.0.0.1,127.0.0.1:5432'"), "10.0.0.1");
        let socket = "listen: '10.0.0.1:5432', use_unix_socket: true";
        assert_eq!(local_host(socket), DEFAULT_SOCKETS);
        let named = format!("{socket}, parameters: {{unix_socket_directories: '/x, /y'}}");
        assert_eq!(local_host(&named), "/x");
    }
}
