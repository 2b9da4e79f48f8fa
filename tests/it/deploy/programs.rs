//! Every program that an overlay starts, started with the files that are rendered for it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{Bundle, overlay, run};
use super::pods::pods;
use super::started::{Etcd, Moves, files, mount, moved};
use super::{CLUSTERS, folder, scripts, secrets, settings};
use crate::support::kubernetes::Kubernetes;
use crate::support::{
    Cluster, PASSWORD, Place, Plan, binary_in, command_as, free_port, merge, postgres_bin, query, request,
    until,
};

const SOON: Duration = Duration::from_secs(60);
const APP_PASSWORD: &str = "of an application";

/// A file of a ConfigMap, whose name may end with a hash.
fn file_of(bundle: &Bundle, map: &str, key: &str) -> String {
    let mut maps = bundle.objects.iter().filter(|object| object.kind == "ConfigMap");
    let found = maps.find(|object| object.name.starts_with(map) && !object.json["data"][key].is_null());
    let found = found.unwrap_or_else(|| panic!("{}: no {key} in {map}", bundle.name));
    found.json["data"][key].as_str().expect("a text").to_owned()
}

/// A member of a pod: `matriarch` with the rendered settings and environment.
struct Member {
    place: Place,
    rest: u16,
    moves: Moves,
    settings: PathBuf,
    environment: Vec<(String, String)>,
}

impl Member {
    fn new(place: Place, bundle: &Bundle, hosts: &str) -> Member {
        let (rest, postgres) = (free_port(), free_port());
        let path = |name: &str| place.folder(name).display().to_string();
        let secret = |name: &str| mount(&place, name).display().to_string();
        let keys = ["superuser", "replication", "rewind", "restapi"].map(|name| format!("{name}-password"));
        let passwords = keys.iter().map(|key| (key.as_str(), secrets::text("pg-credentials", key)));
        let credentials = files(&place, "credentials", passwords).display().to_string();
        let moves: Moves = [
            ("/etc/matriarch/credentials", credentials),
            ("/etc/matriarch/tls/postgres", secret("pg-postgres-tls")),
            ("/etc/matriarch/tls/etcd", secret("pg-etcd-client-tls")),
            ("/var/lib/postgresql/data", path("volume")),
            ("/var/run/postgresql", path("s")),
            ("10.1.2.3", "127.0.0.1".to_owned()),
            (":5432", format!(":{postgres}")),
            (":8008", format!(":{rest}")),
        ]
        .map(|(from, to)| (from.to_owned(), to))
        .into();
        let rendered = settings::files(bundle);
        let texts = rendered.iter().map(|(name, text)| (name.as_str(), moved(text, &moves)));
        let settings = files(&place, "settings", texts);
        let pod = pods(bundle).into_iter().find(|pod| pod.owner == "StatefulSet pg").expect("it is there");
        let variables = settings::environment(&pod.spec.containers[0]).into_iter();
        let mut environment: Vec<(String, String)> =
            variables.map(|(name, value)| (name, moved(&value, &moves))).collect();
        let programs = format!("{}:{}", postgres_bin().display(), std::env::var("PATH").unwrap_or_default());
        environment.push(("PATH".to_owned(), programs));
        environment.push(("MATRIARCH_ETCD3_HOSTS".to_owned(), hosts.to_owned()));
        // No other member will join.
        environment.push(("MATRIARCH_BOOTSTRAP_WAIT_FOR_MEMBERS".to_owned(), "0".to_owned()));
        Member { place, rest, moves, settings, environment }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command_as(binary_in(&self.place), self.place.path());
        command.args(words).arg(&self.settings).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }
}

/// `check` reports nothing for any rendered configuration, nor for the files that it names.
#[test]
fn the_settings_of_every_cluster_pass_the_check() {
    for name in CLUSTERS {
        let member = Member::new(Place::new(), &overlay(name), "localhost:2379");
        let output = run(&mut member.command(&["check", "--strict", "--ignore-etcd"]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("The configuration is valid") && !said.contains("warning"), "{name}: {said}");
        // A configuration that names a missing file is reported.
        std::fs::remove_dir_all(moved("/etc/matriarch/credentials", &member.moves)).expect("it was made");
        assert!(
            !member.command(&["check", "--ignore-etcd"]).output().expect("it starts").status.success(),
            "{name}"
        );
    }
}

/// A user's own overlay, with the component.
#[test]
fn the_settings_of_the_readiness_gate_pass_the_check() {
    let place = Place::new();
    let gate = folder().join("components/readiness-gate/40-readiness-gate.yml");
    let mut bundle = overlay("production");
    let text = std::fs::read_to_string(gate).expect("it is there");
    let maps = bundle.objects.iter_mut().find(|object| object.name.starts_with("pg-settings-"));
    maps.expect("it is there").json["data"]["40-readiness-gate.yml"] = json!(text);
    run(&mut Member::new(place, &bundle, "localhost:2379").command(&["check", "--strict", "--ignore-etcd"]));
}

/// A member, started as in its pod, becomes primary, beside as many etcd servers as the overlay has, started as in
/// their pods.
async fn runs(name: &str) {
    let bundle = overlay(name);
    let place = Place::new();
    let mut etcd = Etcd::start(&place, &bundle);
    let kubernetes = Kubernetes::double().await;
    let pod = kubernetes.create_pod("pg-1", json!({})).await;
    let kubeconfig = kubernetes.kubeconfig(place.path(), "pg-1");
    let mut member = Member::new(place, &bundle, &etcd.hosts());
    member
        .environment
        .push(("POD_UID".to_owned(), pod["metadata"]["uid"].as_str().expect("it has").to_owned()));
    member.environment.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
    member.environment.push(("MATRIARCH_KUBERNETES_NAMESPACE".to_owned(), kubernetes.namespace.clone()));
    let log = member.place.path().join("log");
    let file = std::fs::File::create(&log).expect("our own place is writable");
    let mut command = member.command(&["run"]);
    let mut child =
        command.stderr(file.try_clone().expect("a copy")).stdout(file).spawn().expect("it starts");
    let leads = until(SOON, async || {
        let ask = request(member.rest, "GET", "/primary", None, None, Duration::from_secs(5));
        ask.await.filter(|answer| answer.status == 200).map(drop)
    });
    let leads = leads.await.is_some();
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = child.kill();
    let _ = child.wait();
    assert!(leads && etcd.runs(), "{name}:\n{said}");
}

#[tokio::test]
async fn dev_runs() {
    runs("dev").await;
}

#[tokio::test]
async fn production_runs() {
    runs("production").await;
}

#[tokio::test]
async fn backup_pgbackrest_runs() {
    runs("backup-pgbackrest").await;
}

#[tokio::test]
async fn external_etcd_runs() {
    runs("external-etcd").await;
}

/// Settings that a PgBouncer older than the image's (1.24) does not know, with the version that introduced each.
const LATER: [(&str, u32); 2] = [("auth_dbname", 19), ("max_prepared_statements", 21)];

/// The `n` of PgBouncer 1.n.
fn pgbouncer_version() -> u32 {
    let output = run(Command::new("pgbouncer").arg("--version"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.trim_start_matches("PgBouncer 1.").split('.').next().and_then(|minor| minor.parse().ok());
    version.unwrap_or_else(|| panic!("a version: {text}"))
}

/// PgBouncer, started as in its pod, in front of this port of PostgreSQL.
fn start_pgbouncer(place: &Place, server: u16, port: u16) -> Child {
    let userlist = [("userlist.txt", secrets::text("pg-credentials", "userlist.txt"))];
    let moves: Moves = [
        ("/etc/pgbouncer/tls", mount(place, "pg-pooler-tls").display().to_string()),
        ("/etc/pgbouncer/credentials", files(place, "userlist", userlist).display().to_string()),
        ("host=pg-rw port=5432", format!("host=127.0.0.1 port={server}")),
        // The name pg-rw, for which the certificate is issued, resolves to nothing here.
        ("verify-full", "verify-ca".to_owned()),
        ("listen_addr = *", "listen_addr = 127.0.0.1".to_owned()),
        ("listen_port = 6432", format!("listen_port = {port}")),
    ]
    .map(|(from, to)| (from.to_owned(), to))
    .into();
    let version = pgbouncer_version();
    let later = |line: &&str| !LATER.iter().any(|(name, since)| line.starts_with(name) && version < *since);
    let text = file_of(&overlay("pooler"), "pg-pooler", "pgbouncer.ini");
    // Without this setting the system's file is loaded. The image has none, but the test's machine may have one.
    for side in ["client", "server"] {
        assert!(text.contains(&format!("\n{side}_tls_ca_file = ")), "{side}: {text}");
    }
    let text: String = text.lines().filter(later).map(|line| moved(line, &moves) + "\n").collect();
    let settings = files(place, "pooler", [("pgbouncer.ini", text)]);
    let log = std::fs::File::create(settings.join("log")).expect("our own place is writable");
    let mut command = command_as("pgbouncer", &settings);
    command.arg(settings.join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("pgbouncer starts: see `make setup`")
}

/// A client that verifies the pooler reaches PostgreSQL through it, with TLS on both connections and its own password.
#[tokio::test]
async fn the_pooler_passes_its_clients_on() {
    let mut cluster = Plan::new(1).prepare().await;
    let server = mount(&cluster.place, "pg-postgres-tls");
    let mut config = cluster.members[0].read_config();
    let rules = file_of(&overlay("dev"), "pg-settings-", "10-matriarch.yml");
    let mut rules: Value =
        serde_saphyr::from_str::<Value>(&rules).expect("YAML")["postgresql"]["pg_hba"].take();
    // The settings of this test's client.
    rules.as_array_mut().expect("a list").push(json!("host all postgres 127.0.0.1/32 scram-sha-256"));
    let parameters = json!({
        "ssl": "on", "ssl_cert_file": server.join("tls.crt"), "ssl_key_file": server.join("tls.key"),
    });
    let replication = json!({ "sslmode": "verify-ca", "sslrootcert": server.join("ca.crt") });
    merge(
        &mut config,
        &json!({ "postgresql": {
            "parameters": parameters, "pg_hba": rules, "authentication": { "replication": replication },
        }}),
    );
    cluster.members[0].write_config(&config);
    cluster.start().await;
    let postgres = cluster.members[0].postgres;
    query(postgres, &format!("CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}'"))
        .await
        .expect("it takes writes");
    scripts::make_role(&cluster, postgres, &secrets::text("pg-credentials", "pooler-password"));
    let port = free_port();
    let mut pooler = start_pgbouncer(&cluster.place, postgres, port);
    let authority = mount(&cluster.place, "pg-pooler-tls").join("ca.crt");
    let through = |user: &str, password: &str, mode: &str| {
        let mut psql = scripts::client("psql", port);
        let target =
            format!("user={user} dbname=postgres sslmode={mode} sslrootcert={}", authority.display());
        let asked = "SELECT current_user || ' by ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        psql.env("PGPASSWORD", password).args(["-XAtw", "-c", asked, &target]);
        psql.output().expect("psql starts")
    };
    let mut answer = String::new();
    let passed = until(SOON, async || {
        let output = through("app", APP_PASSWORD, "verify-ca");
        answer = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        output.status.success().then_some(())
    });
    let passed = passed.await.is_some();
    let log = std::fs::read_to_string(cluster.place.path().join("pooler/log")).unwrap_or_default();
    assert!(passed, "{answer}\n{log}");
    assert_eq!(answer.trim(), "app by true");
    assert!(!through("app", APP_PASSWORD, "disable").status.success(), "not without TLS");
    assert!(
        !through("postgres", PASSWORD, "verify-ca").status.success(),
        "superusers do not come through it"
    );
    assert!(matches!(pooler.try_wait(), Ok(None)), "it runs on: {log}");
    let _ = pooler.kill();
    let _ = pooler.wait();
}

/// The rendered files of pgBackRest for this member, in a folder that stands for the pod's /etc/pgbackrest.
fn write_backrest(cluster: &Cluster, folder: &str, part: &str, port: u16) -> PathBuf {
    let (member, place) = (&cluster.members[0], &cluster.place);
    let moves: Moves = [
        ("/etc/matriarch/tls/postgres", mount(place, "pg-postgres-tls").display().to_string()),
        ("/var/lib/postgresql/data/pgdata", member.data().display().to_string()),
        ("/var/run/postgresql", place.folder("s").display().to_string()),
        ("/tmp/pgbackrest", place.folder("backrest").display().to_string()),
        // The volume that the file itself suggests instead of an object store.
        ("repo1-type=s3", "repo1-type=posix".to_owned()),
        ("repo1-path=/pg", format!("repo1-path={}", place.folder("backups").display())),
        ("tls-server-address=*", "tls-server-address=127.0.0.1".to_owned()),
        ("8432", port.to_string()),
    ]
    .map(|(from, to)| (from.to_owned(), to))
    .into();
    let bundle = overlay("backup-pgbackrest");
    let text = |key: &str| moved(&file_of(&bundle, "pg-backrest", key), &moves);
    files(place, &format!("{folder}/conf.d"), [(part, text(part))]);
    files(place, folder, [("pgbackrest.conf", text("repository.conf"))])
}

fn backrest(cluster: &Cluster, config: &Path) -> Command {
    let mut command = command_as("pgbackrest", &cluster.members[0].folder);
    command.arg("--config-path").arg(config).env("PGPASSWORD", PASSWORD);
    // From the Secret that the operator creates.
    command.env("PGBACKREST_REPO1_CIPHER_PASS", "a passphrase");
    command.stdin(Stdio::null());
    command
}

/// A member creates the stanza and serves the jobs, and the jobs read the repository, each with its rendered files.
/// pgBackRest warns of nothing.
#[tokio::test]
async fn members_and_jobs_start_pgbackrest() {
    let cluster = Plan::new(1).start().await;
    let port = free_port();
    let (member, jobs) = (
        write_backrest(&cluster, "backrest-member", "member.conf", port),
        write_backrest(&cluster, "backrest-jobs", "jobs.conf", port),
    );
    let postgres = format!("--pg1-port={}", cluster.members[0].postgres);
    let mut said = Vec::new();
    said.push(run(backrest(&cluster, &member).args(["--stanza=pg", &postgres, "stanza-create"])));
    said.push(run(backrest(&cluster, &jobs).args(["--stanza=pg", "info"])));
    assert!(String::from_utf8_lossy(&said[1].stdout).contains("cipher: aes-256-cbc"), "{said:?}");
    let mut server =
        backrest(&cluster, &member).arg("server").stdout(Stdio::null()).spawn().expect("it starts");
    let answers = until(SOON, async || {
        let address = format!("--tls-server-port={port}");
        let ping = backrest(&cluster, &member).args(["server-ping", &address, "127.0.0.1"]).output();
        ping.ok().filter(|output| output.status.success())
    });
    let answers = answers.await;
    let _ = server.kill();
    let _ = server.wait();
    said.push(answers.expect("the server answers"));
    for output in said {
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(!text.contains("WARN"), "{text}");
    }
}
