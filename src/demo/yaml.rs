//! A demo member's configuration: short enough to be read as an example.

/// The settings that differ between members.
#[derive(Clone, Debug)]
pub struct MemberPlan {
    /// Its name.
    pub name: String,
    /// Port of its PostgreSQL.
    pub port: u16,
    /// Port of its REST.
    pub rest_port: u16,
}

/// The settings that members share.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// The directory of the demo.
    pub dir: String,
    /// PostgreSQL's programs.
    pub bin_dir: String,
    /// Port of etcd.
    pub etcd_port: u16,
    /// Password of `postgres`.
    pub superuser: String,
    /// Password of `replicator`.
    pub replication: String,
    /// Password of `rewind_user`.
    pub rewind: String,
    /// Password of the REST user `demo`.
    pub rest: String,
}

/// The cluster's name.
pub const SCOPE: &str = "demo";

/// The configuration of `plan`, as a member reads it.
pub fn member(shared: &SharedSettings, plan: &MemberPlan) -> String {
    let MemberPlan { name, port, rest_port } = plan;
    let SharedSettings { dir, bin_dir, etcd_port, superuser, replication, rewind, rest } = shared;
    format!(
        r#"scope: {SCOPE}
name: {name}

etcd3:
  host: 127.0.0.1:{etcd_port}

restapi:
  listen: 127.0.0.1:{rest_port}
  connect_address: 127.0.0.1:{rest_port}
  authentication: {{username: demo, password: "{rest}"}}

bootstrap:
  wait_for_members: 0
  dcs:
    ttl: 10
    loop_wait: 4
    retry_timeout: 3
    synchronous_mode: quorum
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 50
        wal_log_hints: "on"
        wal_keep_size: 64MB
  initdb:
    - encoding: UTF8
    - data-checksums

postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: "{dir}/{name}"
  bin_dir: "{bin_dir}"
  pgpass: "{dir}/{name}.pgpass"
  authentication:
    superuser: {{username: postgres, password: "{superuser}"}}
    replication: {{username: replicator, password: "{replication}"}}
    rewind: {{username: rewind_user, password: "{rewind}"}}
  parameters:
    unix_socket_directories: "{dir}"
    shared_buffers: 16MB
  pg_hba:
    - local all all scram-sha-256
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
"#
    )
}
