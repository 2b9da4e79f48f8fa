//! What a reload does not put in force: only the next start of the supervisor takes it.

use super::local::Config;
use super::log::Log;
use super::postgresql::{Login, Postgresql};

impl Config {
    /// The keys with another value in `new` that only the next start takes.
    pub fn late_changes(&self, new: &Config) -> Vec<&'static str> {
        let Config { namespace, log, restapi, etcd, bootstrap, watchdog, kubernetes, .. } = self;
        let mut late = vec![
            ("namespace", *namespace != new.namespace),
            ("log, except for level", Log { level: new.log.level, ..log.clone() } != new.log),
            ("restapi.listen, and a connect_address for it", restapi.listen != new.restapi.listen),
            ("etcd3, except for username and password", !etcd.is_same_etcd(&new.etcd)),
            ("bootstrap", *bootstrap != new.bootstrap),
            ("watchdog", *watchdog != new.watchdog),
            ("kubernetes", *kubernetes != new.kubernetes),
        ];
        late.extend(of_postgresql(&self.postgresql, &new.postgresql));
        late.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

fn of_postgresql(old: &Postgresql, new: &Postgresql) -> [(&'static str, bool); 13] {
    // A new password is taken.
    let login = |old: &Login, new: &Login| (&old.username, &old.options) != (&new.username, &new.options);
    let rewind = match (&old.rewind, &new.rewind) {
        (Some(old), Some(new)) => login(old, new),
        (old, new) => old.is_some() != new.is_some(),
    };
    let logins = login(&old.superuser, &new.superuser) || login(&old.replication, &new.replication) || rewind;
    [
        ("postgresql.authentication, except for passwords", logins),
        ("postgresql.data_dir", old.data_dir != new.data_dir),
        ("postgresql.config_dir", old.config_dir != new.config_dir),
        ("postgresql.config_base_name", old.config_base_name != new.config_base_name),
        ("postgresql.custom_conf", old.custom_conf != new.custom_conf),
        ("postgresql.bin_dir", old.bin_dir != new.bin_dir),
        ("postgresql.bin_name", old.bin_name != new.bin_name),
        ("postgresql.database", old.database != new.database),
        ("postgresql.pgpass", old.pgpass != new.pgpass),
        ("postgresql.use_unix_socket", old.use_unix_socket != new.use_unix_socket),
        ("postgresql.basebackup", old.basebackup != new.basebackup),
        ("postgresql.rewind", old.rewind_options != new.rewind_options),
        ("postgresql.krbsrvname", old.krbsrvname != new.krbsrvname),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::{self, Config, Sources};

    fn config(text: &str) -> Config {
        let environment = BTreeMap::from([("PATRONI_CONFIGURATION".to_owned(), text.to_owned())]);
        config::load(&Sources { environment, ..Sources::default() }).expect("a good configuration").config
    }

    const OLD: &str = "{scope: s, name: a, log: {level: INFO}, restapi: {listen: '127.0.0.1:8008'},
        etcd3: {host: 'h:1', username: u, password: p}, tags: {nosync: true},
        postgresql: {listen: '127.0.0.1:5432', data_dir: /d, bin_dir: /b, callbacks: {on_stop: /x},
        authentication: {superuser: {username: pg, password: p}, replication: {username: r, password: p}}}}";

    #[test]
    fn a_reload_names_what_it_does_not_take_and_nothing_else() {
        let old = config(OLD);
        let named = |from: &str, to: &str| {
            assert!(OLD.contains(from), "{from}");
            old.late_changes(&config(&OLD.replace(from, to)))
        };
        for (from, to) in [
            ("level: INFO", "level: DEBUG"),
            ("username: u, password: p", "username: v, password: q"),
            ("nosync: true", "nofailover: true"),
            ("listen: '127.0.0.1:5432'", "listen: '127.0.0.1:5433'"),
            ("on_stop: /x", "on_start: /y"),
            ("username: pg, password: p", "username: pg, password: q"),
        ] {
            assert_eq!(named(from, to), [""; 0], "{to}");
        }
        for (from, to, key) in [
            ("level: INFO", "type: json", "log, except for level"),
            ("127.0.0.1:8008", "127.0.0.1:8009", "restapi.listen, and a connect_address for it"),
            ("'h:1'", "'h:2'", "etcd3, except for username and password"),
            ("tags:", "bootstrap: {initdb: [no-sync]}, tags:", "bootstrap"),
            ("tags:", "watchdog: {mode: off}, tags:", "watchdog"),
            ("tags:", "namespace: /x, tags:", "namespace"),
            ("bin_dir: /b", "bin_dir: /c", "postgresql.bin_dir"),
            ("username: r,", "username: s,", "postgresql.authentication, except for passwords"),
            ("bin_dir: /b", "bin_dir: /b, basebackup: [no-sync]", "postgresql.basebackup"),
        ] {
            assert_eq!(named(from, to), [key], "{to}");
        }
    }
}
