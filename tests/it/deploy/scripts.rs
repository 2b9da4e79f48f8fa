//! The scripts of the jobs, run here against a real PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::folder;
use super::objects::run;
use crate::support::{Cluster, PASSWORD, Place, Plan, connect, postgres_bin, query, settings};

/// A command that finds the programs of PostgreSQL and this member.
pub(super) fn client(program: impl AsRef<std::ffi::OsStr>, port: u16) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:{path}", postgres_bin().display()));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string());
    command.env("PGUSER", "postgres").env("PGPASSWORD", PASSWORD);
    command
}

/// Runs dump.sh into `dumps`.
fn dump(command: &mut Command, dumps: &Path) -> Output {
    let script = folder().join("overlays/backup-dump/dump.sh");
    command.arg(script).arg(dumps).env("KEEP", "2").output().expect("bash starts")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Two dumps that are older than every dump of the test.
fn with_old_dumps(place: &Place) -> (PathBuf, [&'static str; 2]) {
    let (dumps, old) = (place.folder("dumps"), ["20200101T000000Z.sql.gz", "20200102T000000Z.sql.gz"]);
    for name in old {
        std::fs::write(dumps.join(name), name).expect("our own place is writable");
    }
    (dumps, old)
}

/// A dump contains the data. The oldest dump is removed when there is one more than are to be kept.
#[tokio::test]
async fn a_dump_holds_everything_and_the_oldest_goes() {
    let cluster = Plan::new(1).start().await;
    let port = cluster.members[0].postgres;
    query(port, "CREATE TABLE elephants AS SELECT 'matriarch' AS name").await.expect("it takes writes");
    let (dumps, old) = with_old_dumps(&cluster.place);
    let output = dump(&mut client("bash", port), &dumps);
    assert!(output.status.success(), "{output:?}");
    let found = names(&dumps);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], old[1], "the newer of the old ones stays");
    let text = run(Command::new("gzip").arg("-dc").arg(dumps.join(&found[1]))).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("COPY public.elephants") && text.contains("CREATE ROLE replicator"), "{text}");
}

/// A dump that fails, or ends too early without an error, removes none of the older ones.
#[test]
fn a_failed_dump_keeps_the_older_dumps() {
    let place = Place::new();
    let (dumps, old) = with_old_dumps(&place);
    for answer in ["exit 1", "echo '-- PostgreSQL database cluster dump'"] {
        let programs = place.folder("programs");
        let program = programs.join("pg_dumpall");
        std::fs::write(&program, format!("#!/bin/sh\n{answer}\n")).expect("our own place is writable");
        run(Command::new("chmod").arg("+x").arg(&program));
        let path = std::env::var("PATH").unwrap_or_default();
        let output = dump(Command::new("bash").env("PATH", format!("{}:{path}", programs.display())), &dumps);
        assert!(!output.status.success(), "{answer}: {output:?}");
        let whole: Vec<String> = names(&dumps).into_iter().filter(|name| name.ends_with(".sql.gz")).collect();
        assert_eq!(whole, old, "{answer}");
    }
}

/// The pooler's account can query the verifiers of the users that may use the pooler, and nothing else.
#[tokio::test]
async fn the_poolers_account_can_only_look_up() {
    let cluster = Plan::new(1).start().await;
    let port = cluster.members[0].postgres;
    query(port, "CREATE ROLE app LOGIN PASSWORD 'x'").await.expect("it takes writes");
    // Runs again with another password, as after a rotation.
    for password in ["first", "it's the second"] {
        make_role(&cluster, port, password);
        let mut config = settings(&[port]);
        config.user("pooler").password(password);
        let pooler = connect(&config).await.expect("it may log in");
        let found =
            pooler.query("SELECT usename, passwd FROM pooler.lookup('app')", &[]).await.expect("it may ask");
        assert_eq!(found.len(), 1);
        assert!(found[0].get::<_, String>("passwd").starts_with("SCRAM-SHA-256$"));
        for who in ["postgres", "replicator", "nobody"] {
            let asked = pooler.query("SELECT FROM pooler.lookup($1)", &[&who]).await.expect("it may ask");
            assert!(asked.is_empty(), "{who} does not come through a pooler");
        }
        assert!(pooler.query("SELECT FROM pg_authid", &[]).await.is_err(), "and nothing else");
    }
    let mut config = settings(&[port]);
    config.user("app").password("x");
    let app = connect(&config).await.expect("it may log in");
    assert!(app.query("SELECT FROM pooler.lookup('app')", &[]).await.is_err(), "nobody else may ask");
}

/// Runs role.sql as the job does, with the password in a file of the test.
pub(super) fn make_role(cluster: &Cluster, port: u16, password: &str) {
    let mounted = "/etc/pooler/credentials/pooler-password";
    let file = cluster.place.path().join("pooler-password");
    std::fs::write(&file, password).expect("our own place is writable");
    let text = std::fs::read_to_string(folder().join("overlays/pooler/role.sql")).expect("it is there");
    assert!(text.contains(mounted), "it reads the mounted password");
    let script = cluster.place.path().join("role.sql");
    std::fs::write(&script, text.replace(mounted, &file.to_string_lossy()))
        .expect("our own place is writable");
    let mut psql = client("psql", port);
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=on", "--dbname=postgres", "--file"])
        .arg(script);
    run(&mut psql);
}
