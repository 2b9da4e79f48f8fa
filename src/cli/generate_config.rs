//! `generate-config`: write the configuration for a running PostgreSQL, or a sample.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::to_yaml;
use super::target::environment;
use crate::client::{SqlLogin, SqlSession};
use crate::config::{self, Address, SetBy};

/// Stands for what only the operator knows.
const UNKNOWN: &str = "CHANGE_ME";
const REST_PORT: u16 = 8008;
/// The end of each line that a supervisor adds to the access rules of its PostgreSQL.
const OWN_LINE: &str = "# Matriarch's own line";
/// A part of the path of the sockets that a supervisor adds.
const OWN_SOCKETS: &str = "matriarch-sockets";

/// All parameters, and whether the operator has set them.
const PARAMETERS: &str = "SELECT name, pg_catalog.current_setting(name, true), \
    context <> 'internal' AND source IN ('configuration file', 'command line', 'environment variable') \
    AND category <> 'Write-Ahead Log / Recovery Target' AND setting <> '(disabled)' FROM pg_catalog.pg_settings";
/// The directory of the programs, and the access rules.
const FILES: &str = "SELECT (SELECT setting FROM pg_catalog.pg_config() WHERE name = 'BINDIR'), \
    pg_catalog.pg_read_file(pg_catalog.current_setting('hba_file')), \
    pg_catalog.pg_read_file(pg_catalog.current_setting('ident_file'))";

/// Options of `generate-config`.
#[derive(Debug, Args)]
pub struct GenerateConfigArgs {
    /// The file to write; default: standard output.
    pub file: Option<PathBuf>,
    /// Connection string of a superuser of the running PostgreSQL; default: as for libpq.
    #[arg(long, conflicts_with = "sample")]
    pub dsn: Option<String>,
    /// Write a sample, without a running PostgreSQL.
    #[arg(long)]
    pub sample: bool,
}

/// What a configuration says of its PostgreSQL.
#[derive(Debug, Default)]
struct DescribedPostgres {
    scope: Option<String>,
    data_dir: String,
    /// The directory of its own configuration files.
    config_dir: String,
    bin_dir: Option<String>,
    listen: String,
    port: u16,
    superuser: String,
    password: Option<String>,
    /// For this member.
    own: Map<String, Value>,
    /// For the whole cluster.
    shared: Map<String, Value>,
    pg_hba: Vec<String>,
    pg_ident: Vec<String>,
}

/// Runs `generate-config`.
pub async fn execute(context: &Context, args: &GenerateConfigArgs) -> CliResult {
    let server = match args.sample {
        true => sample(),
        false => running(args.dsn.as_deref().unwrap_or_default()).await?,
    };
    let text = to_yaml(&document(&server, &ThisMachine::look()))?;
    match &args.file {
        Some(path) => write(path, &text)?,
        None => context.ui.data(&text),
    }
    context.ui.fail(&format!(
        "Replace every {UNKNOWN}, look at `etcd3`, and check the result with `matriarch check FILE`"
    ));
    Ok(Exit::Done)
}

/// The file has passwords. An existing file is not touched.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let fault = |error: std::io::Error| {
        CliError::failed(format!("failed to write {}", path.display())).because(&error)
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(fault)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)
}

/// This machine, and settings from the environment.
struct ThisMachine {
    name: String,
    address: String,
    scope: Option<String>,
    etcd: String,
}

impl ThisMachine {
    fn look() -> ThisMachine {
        let environment = environment();
        let set = |name: &str| environment.get(name).filter(|text| !text.is_empty()).cloned();
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.unwrap_or_else(|| UNKNOWN.to_owned());
        let mut addresses: Vec<IpAddr> =
            (host.as_str(), 0).to_socket_addrs().into_iter().flatten().map(|address| address.ip()).collect();
        addresses.sort();
        let address = addresses.first().map_or_else(|| "127.0.0.1".to_owned(), IpAddr::to_string);
        ThisMachine {
            name: set("PATRONI_NAME").unwrap_or(host),
            address,
            scope: set("PATRONI_SCOPE"),
            etcd: set("PATRONI_ETCD3_HOSTS").unwrap_or_else(|| "127.0.0.1:2379".to_owned()),
        }
    }
}

async fn running(dsn: &str) -> Result<DescribedPostgres, CliError> {
    let login = SqlLogin::new(dsn, environment(), None)?;
    let session = login.connect().await?;
    let config = login.config();
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let superuser = config.get_user().unwrap_or_default().to_owned();
    let mut server = DescribedPostgres { superuser, password, ..DescribedPostgres::default() };
    for row in &rows(&session, PARAMETERS).await? {
        if let [Value::String(name), Value::String(value), is_set] = row.as_slice() {
            take_parameter(&mut server, name, value, *is_set == json!(true));
        }
    }
    let files = rows(&session, FILES).await?;
    let text = |index: usize| files.first().and_then(|row| row.get(index)?.as_str()).unwrap_or_default();
    server.bin_dir = Some(text(0).to_owned());
    (server.pg_hba, server.pg_ident) = (rules(text(1)), rules(text(2)));
    let beside = |name: &str| json!(format!("{}/{name}", server.config_dir));
    for (name, default) in [("hba_file", beside("pg_hba.conf")), ("ident_file", beside("pg_ident.conf"))] {
        if server.own.get(name) == Some(&default) {
            server.own.shift_remove(name);
        }
    }
    Ok(server)
}

async fn rows(session: &SqlSession, sql: &str) -> Result<Vec<Vec<Value>>, CliError> {
    let found = session.run(sql).await.map_err(|error| {
        CliError::from(error).hint("connect as a superuser: others cannot see all settings")
    })?;
    Ok(found.map(|found| found.rows).unwrap_or_default())
}

fn take_parameter(server: &mut DescribedPostgres, name: &str, value: &str, is_set: bool) {
    let value_json = json!(value);
    match (name, config::set_by(name)) {
        ("data_directory", _) => server.data_dir = value.to_owned(),
        ("config_file", _) => {
            server.config_dir =
                value.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned());
        }
        ("cluster_name", _) => server.scope = Some(value.to_owned()).filter(|scope| !scope.is_empty()),
        ("listen_addresses", _) => server.listen = value.replace(' ', ""),
        ("port", _) => server.port = value.parse().unwrap_or_default(),
        // A cluster needs more.
        ("wal_level", _) if value == "minimal" => {}
        (_, SetBy::Cluster) => drop(server.shared.insert(name.to_owned(), value_json)),
        (_, SetBy::Supervisor) => {}
        ("unix_socket_directories", _) => drop(server.own.insert(name.to_owned(), json!(sockets(value)))),
        ("hba_file" | "ident_file", _) => drop(server.own.insert(name.to_owned(), value_json)),
        (_, SetBy::Operator) if is_set && name.ends_with("_command") => {
            drop(server.own.insert(name.to_owned(), value_json));
        }
        (_, SetBy::Operator) if is_set => drop(server.shared.insert(name.to_owned(), value_json)),
        (_, SetBy::Operator) => {}
    }
}

/// The lines of an access file that are rules, without those that a supervisor adds.
fn rules(text: &str) -> Vec<String> {
    let rule = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.ends_with(OWN_LINE);
    text.lines().map(str::trim).filter(rule).map(str::to_owned).collect()
}

/// The directories of sockets, without the one that a supervisor adds.
fn sockets(value: &str) -> String {
    let others = value.split(',').map(str::trim).filter(|directory| !directory.contains(OWN_SOCKETS));
    others.collect::<Vec<_>>().join(", ")
}

fn sample() -> DescribedPostgres {
    DescribedPostgres {
        data_dir: "/var/lib/postgresql/data".to_owned(),
        listen: "*".to_owned(),
        port: 5432,
        superuser: "postgres".to_owned(),
        password: Some(UNKNOWN.to_owned()),
        own: Map::from_iter([("password_encryption".to_owned(), json!("scram-sha-256"))]),
        pg_hba: vec![
            "local all all scram-sha-256".to_owned(),
            "host replication all all scram-sha-256".to_owned(),
            "host all all all scram-sha-256".to_owned(),
        ],
        ..DescribedPostgres::default()
    }
}

fn document(server: &DescribedPostgres, machine: &ThisMachine) -> Value {
    let scope = machine.scope.as_deref().or(server.scope.as_deref()).unwrap_or(UNKNOWN);
    let at = |port: u16| Address { host: machine.address.clone(), port }.to_string();
    let listen = if server.listen.is_empty() { "127.0.0.1" } else { &server.listen };
    let mut superuser = json!({"username": server.superuser});
    if let Some(password) = &server.password {
        superuser["password"] = json!(password);
    }
    let mut postgresql = json!({
        "data_dir": server.data_dir,
        "listen": format!("{listen}:{}", server.port),
        "connect_address": at(server.port),
        "authentication": {
            "superuser": superuser,
            "replication": {"username": "replicator", "password": UNKNOWN},
        },
    });
    if !server.config_dir.is_empty() && server.config_dir != server.data_dir {
        postgresql["config_dir"] = json!(server.config_dir);
    }
    if let Some(bin_dir) = &server.bin_dir {
        postgresql["bin_dir"] = json!(bin_dir);
    }
    if !server.own.is_empty() {
        postgresql["parameters"] = Value::Object(server.own.clone());
    }
    for (key, rules) in [("pg_hba", &server.pg_hba), ("pg_ident", &server.pg_ident)] {
        if !rules.is_empty() {
            postgresql[key] = json!(rules);
        }
    }
    let mut dcs = json!({});
    if !server.shared.is_empty() {
        dcs["postgresql"] = json!({"parameters": server.shared});
    }
    json!({
        "scope": scope,
        "name": machine.name,
        "restapi": {"listen": at(REST_PORT), "connect_address": at(REST_PORT)},
        "etcd3": {"hosts": machine.etcd},
        "bootstrap": {"dcs": dcs},
        "postgresql": postgresql,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn machine() -> ThisMachine {
        ThisMachine { name: "m1".into(), address: "10.0.0.1".into(), scope: None, etcd: "e:2379".into() }
    }

    fn faults(name: &str, server: &DescribedPostgres) -> Vec<String> {
        let path = std::env::temp_dir().join(format!("matriarch-generated-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let text = to_yaml(&document(server, &machine())).expect("yaml");
        write(&path, &text).expect("the temporary folder is writable");
        assert!(write(&path, "").is_err(), "an existing file is not touched");
        let checked = config::check(&Sources { path: Some(path.clone()), ..Sources::default() });
        std::fs::remove_file(&path).expect("it was written");
        [checked.faults, checked.warnings].concat().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_sample_is_a_configuration_without_a_fault() {
        assert_eq!(faults("sample", &sample()), Vec::<String>::new());
    }

    #[test]
    fn parameters_go_where_they_count() {
        let mut server = DescribedPostgres { superuser: "postgres".into(), ..DescribedPostgres::default() };
        for (name, value, is_set) in [
            ("data_directory", "/data", false),
            ("cluster_name", "c", true),
            ("listen_addresses", "a, b", true),
            ("port", "5433", true),
            ("config_file", "/etc/p.conf", false),
            ("wal_level", "minimal", true),
            ("max_connections", "100", false),
            ("work_mem", "8MB", true),
            ("temp_buffers", "8MB", false),
            ("archive_command", "cp", true),
            ("unix_socket_directories", "/run, /d.matriarch-sockets", true),
        ] {
            take_parameter(&mut server, name, value, is_set);
        }
        assert_eq!((server.listen.as_str(), server.port), ("a,b", 5433));
        assert_eq!(json!(server.shared), json!({"max_connections": "100", "work_mem": "8MB"}));
        assert_eq!(json!(server.own), json!({"archive_command": "cp", "unix_socket_directories": "/run"}));
        let document = document(&server, &machine());
        assert_eq!(document["scope"], "c");
        assert_eq!(document["postgresql"]["listen"], "a,b:5433");
        assert_eq!(document["postgresql"]["config_dir"], "/etc");
        assert_eq!(faults("running", &server), Vec::<String>::new());
    }

    #[test]
    fn rules_are_lines_without_comments() {
        let own = "local all matriarch_supervisor peer map=m # Matriarch's own line\n";
        assert_eq!(rules(&format!("# x\n\n{own} local all all peer \n")), ["local all all peer"]);
        assert_eq!(sockets("/a, \"/d.matriarch-sockets\""), "/a");
    }
}
