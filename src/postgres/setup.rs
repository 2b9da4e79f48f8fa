//! The settings of this Postgres: some are fixed for the life of the supervisor, others are replaceable at run time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::Password;
use crate::model::{CustomBootstrap, ListenAddress, SettingsByRole, SettingsRole};

/// The settings that need a restart of the supervisor, except for passwords.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The cluster's name, for scripts.
    pub scope: String,
    /// The member's name: `application_name` of its WAL receiver.
    pub name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of `postgresql.conf`; the data directory unless configured otherwise.
    pub config_dir: PathBuf,
    /// `config_base_name`: `<base>.conf` and `<base>.base.conf`; empty means `postgresql`.
    pub config_base_name: String,
    /// Included instead of `<base>.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// The directory of the programs; `None` searches `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// File names of programs, where they differ from the program's name (`bin_name`).
    pub bin_names: BTreeMap<String, String>,
    /// `listen_addresses`.
    pub listen_addresses: String,
    /// `port`.
    pub port: u16,
    /// How this supervisor itself connects: an absolute directory of Unix sockets, or a host.
    pub local_host: String,
    /// The database to connect to; `postgres` by default.
    pub database: String,
    /// The password file for PostgreSQL's programs.
    pub pgpass: PathBuf,
    /// The superuser: local connections, checkpoints.
    pub superuser: RoleCredentials,
    /// The user that streams and takes base backups.
    pub replication: RoleCredentials,
    /// The user that rewinds; the superuser when `None`.
    pub rewind: Option<RoleCredentials>,
    /// `krbsrvname`, exported as `PGKRBSRVNAME`.
    pub krbsrvname: Option<String>,
    /// Options of `initdb`, without the leading dashes (`data-checksums`, `locale=C`, …).
    pub initdb: Vec<String>,
    /// The script that makes a new cluster; `None`: initdb does.
    pub custom_bootstrap: Option<CustomBootstrap>,
    /// Access rules of a new cluster, for a `pg_hba.conf` that a script has made.
    pub bootstrap_pg_hba: Vec<String>,
    /// The words of a command run once in the new cluster; gets a connection string as its last argument.
    pub post_bootstrap: Option<Vec<String>>,
    /// The database to create in the new cluster, unless initdb did.
    pub new_database: Option<String>,
    /// A directory of scripts run once in the new cluster, in the order of their names; need not exist.
    pub init_scripts: PathBuf,
    /// Options of `pg_basebackup`, without the leading dashes.
    pub basebackup: Vec<String>,
    /// Options of `pg_rewind`, without the leading dashes.
    pub rewind_options: Vec<String>,
    /// The user and group of every program. Only for tests: Postgres refuses to run as root.
    pub uid_gid: Option<(u32, u32)>,
}

impl Setup {
    /// The rewind user, or the superuser in its place.
    pub fn rewind_credentials(&self) -> &RoleCredentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }

    /// Where PostgreSQL listens, unless the configuration has changed since.
    pub(super) fn listen(&self) -> ListenAddress {
        ListenAddress { addresses: self.listen_addresses.clone(), port: self.port }
    }

    /// How this supervisor itself connects to a postmaster that listens there: see [`Setup::local_host`].
    pub(super) fn local_host(&self, listen: &ListenAddress) -> String {
        match self.local_host.starts_with('/') || listen.addresses == self.listen_addresses {
            true => self.local_host.clone(),
            false => listen.local_host(),
        }
    }

    /// The base of the configuration's file names.
    pub fn base_name(&self) -> &str {
        if self.config_base_name.is_empty() { "postgresql" } else { &self.config_base_name }
    }

    /// The path of one of PostgreSQL's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let file = self.bin_names.get(name).map_or(name, String::as_str);
        match &self.bin_dir {
            Some(dir) => dir.join(file),
            None => std::env::var_os("PATH")
                .into_iter()
                .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
                .map(|dir| dir.join(file))
                .find(|path| path.is_file())
                .unwrap_or_else(|| PathBuf::from(file)),
        }
    }
}

/// A user with its credentials. `Debug` hides the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RoleCredentials {
    /// Its name.
    pub username: String,
    /// Its password, if it needs one.
    pub password: Password,
    /// Further connection options of libpq (`sslmode`, `sslcert`, `channel_binding`, …).
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleCredentials")
            .field("username", &self.username)
            .field("password", &self.password)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// The settings that can be replaced while Postgres runs (`Postgres::apply`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Written to `postgresql.conf`, sorted. The controlled ones belong in `command_line`.
    pub parameters: BTreeMap<String, String>,
    /// The controlled parameters in order, for the postmaster's command line (`listen_addresses`, `port` and
    /// `cluster_name` first). They take precedence over every file.
    pub command_line: Vec<(String, String)>,
    /// The lines of `pg_hba.conf`; `None`: the file is not changed.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of a first `pg_hba.conf`.
    pub first_pg_hba: Vec<String>,
    /// The lines of `pg_ident.conf`; `None`: the file is not changed.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery settings that take precedence over all others (`restore_command`, …).
    pub recovery: BTreeMap<String, String>,
    /// What takes the place of the above in one role.
    pub by_role: SettingsByRole,
    /// The role of the server.
    pub role: SettingsRole,
}

impl Parameters {
    /// Where a postmaster with this command line listens.
    pub(super) fn listen(&self) -> Option<ListenAddress> {
        let value =
            |name: &str| self.command_line.iter().find(|(given, _)| given == name).map(|(_, value)| value);
        let port = value("port")?.parse().ok()?;
        Some(ListenAddress { addresses: value("listen_addresses")?.clone(), port })
    }

    /// What holds in the role of the server.
    pub(super) fn in_force(mut self) -> Parameters {
        if let Some(own) = std::mem::take(&mut self.by_role).remove(&self.role) {
            self.parameters.extend(own.parameters);
            self.pg_hba = own.pg_hba.or(self.pg_hba);
            self.pg_ident = own.pg_ident.or(self.pg_ident);
        }
        self
    }

    /// Goes back to the access rules that the role has in `former`.
    pub(super) fn keep_access_rules(&mut self, former: &Parameters) {
        let kept = Parameters { role: self.role, ..former.clone() }.in_force();
        // Without a rule for all roles the file stays as it is.
        self.pg_hba = self.pg_hba.take().filter(|_| kept.pg_hba.is_some());
        self.pg_ident = self.pg_ident.take().filter(|_| kept.pg_ident.is_some());
        let own = self.by_role.entry(self.role).or_default();
        (own.pg_hba, own.pg_ident) = (kept.pg_hba, kept.pg_ident);
    }
}
