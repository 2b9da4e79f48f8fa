//! Members in a temporary directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use matriarch::model::{FollowTarget, ReplicaMethod};
use matriarch::os::process;
use matriarch::postgres::{CloneStatus, Parameters, Postgres, ReplicaOrder, RoleCredentials, Setup};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tokio::sync::watch;

use super::{facts_until, promote, start, target};

/// A directory with members, all killed and removed at the end, however the test ends.
pub(super) struct Herd {
    pub(super) root: PathBuf,
    owner: (u32, u32),
}

impl Herd {
    pub(super) fn new(name: &str) -> Herd {
        let user = User::from_name("postgres").expect("passwd").expect("the user postgres");
        let root = std::env::temp_dir().join(format!("mt-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("temporary directory");
        let owner = (user.uid.as_raw(), user.gid.as_raw());
        chown(&root, Some(owner.0), Some(owner.1)).expect("chown");
        Herd { root, owner }
    }

    pub(super) fn setup(&self, name: &str) -> Setup {
        let who = |username: &str| RoleCredentials {
            username: username.to_owned(),
            password: Some(format!("{username}: it's \\ secret")).into(),
            options: BTreeMap::new(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("address").port();
        Setup {
            scope: "herd".to_owned(),
            name: name.to_owned(),
            data_dir: self.root.join(name),
            config_dir: self.root.join(name),
            bin_dir: Some(bin_dir()),
            listen_addresses: "127.0.0.1".to_owned(),
            port,
            local_host: "127.0.0.1".to_owned(),
            pgpass: self.root.join(format!("{name}.pgpass")),
            superuser: who("postgres"),
            replication: who("replicator"),
            rewind: Some(who("rewinder")),
            uid_gid: Some(self.owner),
            ..Setup::default()
        }
    }

    pub(super) fn member(&self, name: &str) -> Postgres {
        let setup = self.setup(name);
        let parameters = self.parameters(&setup);
        Postgres::new(setup, parameters)
    }

    pub(super) fn parameters(&self, setup: &Setup) -> Parameters {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let socket = self.root.display().to_string();
        Parameters {
            parameters: BTreeMap::from([
                pair("unix_socket_directories", &socket),
                pair("shared_buffers", "16MB"),
                pair("wal_keep_size", "128MB"),
                pair("fsync", "off"),
            ]),
            command_line: vec![
                pair("listen_addresses", &setup.listen_addresses),
                pair("port", &setup.port.to_string()),
                pair("cluster_name", "test"),
                pair("wal_level", "replica"),
                pair("hot_standby", "on"),
                pair("max_connections", "50"),
                pair("max_wal_senders", "5"),
                pair("wal_log_hints", "on"),
            ],
            pg_hba: Some(vec![
                "host all all 127.0.0.1/32 scram-sha-256".to_owned(),
                "host replication replicator 127.0.0.1/32 scram-sha-256".to_owned(),
            ]),
            ..Parameters::default()
        }
    }

    /// A new cluster whose only member is a primary.
    pub(super) async fn primary(&self, name: &str) -> Postgres {
        let member = self.member(name);
        member.bootstrap().await.expect("bootstrap");
        start(&member, None).await;
        facts_until(&member, "answering", |facts| !facts.is_primary()).await;
        promote(&member).await;
        member
    }

    pub(super) async fn standby(&self, name: &str, leader: &Postgres) -> Postgres {
        let member = self.member(name);
        member
            .make_replica(order(&target(leader)), watch::channel(CloneStatus::default()).0)
            .await
            .expect("clone");
        start(&member, Some(leader)).await;
        member
    }
}

/// A base backup of this member.
pub(super) fn order(from: &FollowTarget) -> ReplicaOrder {
    ReplicaOrder { from: Some(from.clone()), methods: vec![ReplicaMethod::Basebackup], system_id: None }
}

impl Drop for Herd {
    fn drop(&mut self) {
        for pid in process::all().collect::<Vec<_>>() {
            if process::cwd(pid).is_some_and(|cwd| cwd.starts_with(&self.root)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub(super) fn bin_dir() -> PathBuf {
    let pg_config = Command::new("pg_config").arg("--bindir").output();
    let named = pg_config.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let versions = (13..=18).rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let mut all = named.into_iter().chain(versions);
    all.find(|path| path.join("postgres").exists()).expect("PostgreSQL is installed")
}
