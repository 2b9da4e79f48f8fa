//! The program under the names of Patroni's programs: what `patronictl` and `patroni` take and print.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, PASSWORD, Place, Plan, binary_in, command_as, python_program};

mod target;

const SOON: Duration = Duration::from_secs(20);

/// One cluster, and the same questions to the stock program and to ours.
#[tokio::test]
async fn patronictl_and_the_link_print_the_same() {
    let tags = json!({ "tags": { "clonefrom": true, "dc": "a" } });
    let cluster = Plan::new(3).member(1, tags).start().await;
    let ours = link(&cluster.place, "patronictl");
    let stock = python_program("patronictl");
    let same = async |words: &[&str], canonical: fn(&str) -> Value| {
        let mut answers = Vec::new();
        for _ in 0..20 {
            // Positions move on.
            let text_of = async |program| canonical(&text(&run(&cluster, program, words, "").await));
            answers = vec![text_of(&stock).await, text_of(&ours).await];
            if answers[0] == answers[1] {
                return;
            }
        }
        assert_eq!(answers[1], answers[0], "{words:?}");
    };
    for words in [&["list"][..], &["topology", "herd"], &["history"]] {
        same(words, table).await;
    }
    for words in [
        &["list", "-f", "tsv"][..],
        &["history", "herd", "-f", "tsv"],
        &["dsn"],
        &["dsn", "herd", "-r", "replica"],
        &["dsn", "-m", "m3"],
        &["version"],
        &["version", "herd", "m2"],
        &["query", "herd", "-c", "SELECT 7 AS a, true AS b, NULL AS c", "-d", "postgres"],
        &["query", "-r", "replica", "-c", "SELECT pg_is_in_recovery()", "--delimiter", "|"],
        &["query", "-m", "m3", "-U", "postgres", "-c", "SELECT 1 AS a", "--format", "pretty"],
    ] {
        same(words, |text| json!(text)).await;
    }
    for words in [
        &["list", "-f", "json"][..],
        &["list", "-e", "-f", "yml"],
        &["show-config"],
        &["history", "-f", "json"],
        &["query", "-c", "SELECT 1 AS a, 1.5::float8 AS b, NULL AS c, false AS d", "--format", "json"],
    ] {
        same(words, |text| serde_saphyr::from_str(text).expect("YAML, or JSON")).await;
    }
    for words in [&["dsn", "-m", "m9"][..], &["dsn", "-m", "m1", "-r", "any"], &["query"], &["nonsense"]] {
        for program in [&stock, &ours] {
            let output = run(&cluster, program, words, "").await;
            assert!(
                !output.status.success() && output.stdout.is_empty(),
                "{program:?} {words:?}: {output:?}"
            );
        }
    }
}

/// `query` from a file, several statements, an error, and a password file.
#[tokio::test]
async fn query_runs_sql_as_libpq_would_log_in() {
    let cluster = Plan::new(1).start().await;
    let ours = link(&cluster.place, "patronictl");
    let sql = "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT a FROM t ORDER BY a;";
    let output = run(&cluster, &ours, &["query", "-f", "-", "-U", "postgres"], sql).await;
    assert_eq!(text(&output), "a\n1\n2\n");
    let output = run(&cluster, &ours, &["query", "-c", "DROP TABLE t"], "").await;
    assert_eq!(text(&output), "");
    let output = run(&cluster, &ours, &["query", "-c", "SELECT * FROM t"], "").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(r#"relation "t" does not exist"#), "{output:?}");

    let passwords = cluster.members[0].folder.join("passwords");
    let written = PASSWORD.replace(':', "\\:");
    std::fs::write(&passwords, format!("127.0.0.1:*:*:postgres:{written}\n"))
        .expect("our own place is writable");
    crate::support::give(&passwords);
    for (mode, accepted) in [(0o600, true), (0o644, false)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&passwords, permissions).expect("ours");
        let mut command = command(&cluster, &ours, &["query", "-c", "SELECT 1"]);
        command.env_remove("PGPASSWORD").env("PGPASSFILE", &passwords);
        let output = answer(&mut command, "").await;
        assert_eq!(output.status.success(), accepted, "{mode:o}: {output:?}");
    }
}

/// `flush`, the prompts of `switchover` through a pipe, and `remove` while the members run.
#[tokio::test]
async fn the_link_withdraws_schedules_and_removes_a_cluster() {
    let cluster = Plan::new(2).start().await;
    let ours = link(&cluster.place, "patronictl");
    let stock = python_program("patronictl");
    let later = "2099-01-01T00:00:00+00:00";
    let scheduled = async |what: &str, expected: bool| {
        cluster
            .wait_until(SOON, &format!("{what} is scheduled: {expected}"), async || {
                cluster.seen().await.is_some_and(|seen| seen.0.to_string().contains(what) == expected)
            })
            .await;
    };
    let schedule = ["restart", "herd", "--scheduled", later, "--force"];
    assert!(run(&cluster, &stock, &schedule, "").await.status.success());
    scheduled("scheduled_restart", true).await;
    let said = text(&run(&cluster, &ours, &["flush", "herd", "m1", "restart"], "y\n").await);
    assert!(said.contains("m1: scheduled restart deleted"), "{said}");
    let said = text(&run(&cluster, &ours, &["flush", "herd", "restart", "--force"], "").await);
    assert!(said.contains("m1: no restart") && said.contains("m2: scheduled restart deleted"), "{said}");
    scheduled("scheduled_restart", false).await;

    // Leader, candidate, time, consent.
    let said = text(&run(&cluster, &ours, &["switchover"], &format!("m1\nm2\n{later}\ny\n")).await);
    assert!(said.contains("Switchover scheduled at"), "{said}");
    scheduled("scheduled_switchover", true).await;
    let said = text(&run(&cluster, &ours, &["flush", "herd", "switchover"], "").await);
    assert!(said.contains("scheduled switchover deleted"), "{said}");
    scheduled("scheduled_switchover", false).await;
    let said = text(&run(&cluster, &ours, &["flush", "herd", "switchover"], "").await);
    assert!(said.contains("No switchover is scheduled"), "{said}");

    for answers in ["", "other\n", "herd\nyes\n", "herd\nYes I am aware\nm2\n"] {
        let output = run(&cluster, &ours, &["remove", "herd"], answers).await;
        assert!(!output.status.success(), "{answers:?}: {output:?}");
    }
    let before = cluster.wait_until_well().await;
    let removed = run(&cluster, &ours, &["remove", "herd"], "herd\nYes I am aware\nm1\n").await;
    assert!(text(&removed).contains("Removed the cluster herd from etcd"), "{removed:?}");
    let after = cluster.wait_until_well().await;
    assert_eq!(
        (after.leader(), after.timeline()),
        (before.leader(), before.timeline()),
        "{}",
        cluster.story()
    );
    cluster
        .wait_until(SOON, "the primary wrote the cluster again", async || {
            cluster.etcd.get("/service/herd/config").await.is_some()
        })
        .await;

    for member in &cluster.members {
        member.terminate();
    }
    cluster
        .wait_until(SOON, "no member is registered", async || {
            let keys = ["leader", "members/m1", "members/m2"];
            let mut left = false;
            for key in keys {
                left |= cluster.etcd.get(&format!("/service/herd/{key}")).await.is_some();
            }
            !left
        })
        .await;
    let removed = run(&cluster, &ours, &["remove", "herd"], "herd\nYes I am aware\n").await;
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(cluster.etcd.get("/service/herd/initialize").await, None);
}

/// A member under Patroni's name, its configuration written anew from its PostgreSQL, and checked.
#[tokio::test]
async fn the_link_named_patroni_runs_checks_and_generates() {
    let cluster = Plan::new(1).prepare().await;
    let patroni = link(&cluster.place, "patroni");
    let member = &cluster.members[0];
    let version = text(&answer(command_as(&patroni, &member.folder).args(["--version"]), "").await);
    assert!(version.starts_with("patroni 4."), "{version}");
    let log = std::fs::File::create(member.log()).expect("our own place is writable");
    let mut command = command_as(&patroni, &member.folder);
    command
        .arg(member.config_file())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a handle"))
        .stderr(log);
    let mut supervisor = command.spawn().expect("the binary starts");
    cluster.wait_until_well().await;

    let generated = member.folder.join("generated.yml");
    let dsn = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", member.postgres);
    let mut command = command_as(&patroni, &member.folder);
    command.arg("--generate-config").arg(&generated).args(["--dsn", &dsn]).env("PGPASSWORD", PASSWORD);
    let output = answer(&mut command, "").await;
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&generated).expect("it was written");
    let config: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(config["scope"], "herd", "{text}");
    assert_eq!(config["postgresql"]["data_dir"], json!(member.data()), "{text}");
    assert_eq!(config["postgresql"]["authentication"]["superuser"]["password"], PASSWORD, "{text}");
    assert_eq!(config["postgresql"]["pg_hba"].as_array().map(Vec::len), Some(3), "{text}");
    let checked = member.binary(&["check", "--ignore-etcd", &generated.to_string_lossy()]).await;
    assert!(checked.status.success(), "{checked:?}\n{text}");

    let validate = async |words: &[&str]| {
        let mut command = command_as(&patroni, &member.folder);
        answer(command.arg("--validate-config").arg(member.config_file()).args(words), "")
            .await
            .status
            .success()
    };
    assert!(!validate(&[]).await, "the port of REST is in use");
    assert!(validate(&["--ignore-listen-port"]).await);
    let sample = answer(command_as(&patroni, &member.folder).arg("--generate-sample-config"), "").await;
    assert!(String::from_utf8_lossy(&sample.stdout).contains("data_dir"), "{sample:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor.id() as i32), nix::sys::signal::SIGTERM)
        .expect("it runs");
    let ended = tokio::task::spawn_blocking(move || supervisor.wait()).await;
    assert!(ended.expect("it is waited for").expect("it ends").success());
}

/// A link to the program under test.
fn link(place: &Place, name: &str) -> PathBuf {
    let binary = binary_in(place);
    let link = binary.with_file_name(name);
    std::os::unix::fs::symlink(&binary, &link).expect("our own place is writable");
    link
}

fn command(cluster: &Cluster, program: &Path, words: &[&str]) -> Command {
    // As the test's own user, who can read the stock program.
    let mut command = Command::new(program);
    command.arg("-c").arg(cluster.members[0].config_file()).args(words).env("COLUMNS", "200");
    command.envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres"), ("PGPASSWORD", PASSWORD)]);
    command
}

/// Runs `program` with the configuration of a member, and with `input` on its standard input.
async fn run(cluster: &Cluster, program: &Path, words: &[&str], input: &str) -> Output {
    answer(&mut command(cluster, program, words), input).await
}

async fn answer(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // The program may end before it reads.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    done.expect("it is waited for").expect("it ends")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of a table, without what stands below it.
fn table(text: &str) -> Value {
    json!(text.lines().filter(|line| line.starts_with(['+', '|'])).collect::<Vec<_>>())
}
