//! `check`, and `patroni --validate-config`: what the machine and etcd say to a configuration.

use std::os::unix::fs::symlink;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, binary_in, command_as, free_port, give, merge, postgres_bin};

/// The exit code, and the lines on standard error.
async fn check(cluster: &Cluster, over: &Value, words: &[&str]) -> (Option<i32>, String) {
    let member = &cluster.members[0];
    let mut config = member.read_config();
    merge(&mut config, over);
    let file = member.folder.join("checked.yml");
    std::fs::write(&file, config.to_string()).expect("our own place is writable");
    give(&file);
    let file = file.display().to_string();
    let output: Output = member.binary(&[&["check", &file], words].concat()).await;
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn data_dir(path: &std::path::Path) -> Value {
    json!({ "postgresql": { "data_dir": path } })
}

/// Each endpoint that does not answer is named. One that answers is enough to run.
#[tokio::test]
async fn check_asks_every_endpoint_of_etcd() {
    let cluster = Plan::new(1).prepare().await;
    let answers = cluster.etcd.hosts().remove(0);
    let silent = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let hosts = |hosts: &[&String]| json!({ "etcd3": { "hosts": hosts } });

    let some = hosts(&[&silent[0], &answers]);
    let (code, said) = check(&cluster, &some, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let warning = format!("warning: this machine: etcd3: http://{} does not answer", silent[0]);
    assert!(said.contains(&warning) && !said.contains(&answers), "{said}");
    assert_eq!(check(&cluster, &some, &["--strict"]).await.0, Some(3));

    let none = hosts(&[&silent[0], &silent[1]]);
    let (code, said) = check(&cluster, &none, &[]).await;
    assert_eq!(code, Some(3), "{said}");
    for host in &silent {
        let lines = said.lines().filter(|line| line.contains(host) && line.contains("does not answer"));
        assert_eq!(lines.count(), 1, "{host}: {said}");
    }
    let (code, said) = check(&cluster, &none, &["--ignore-etcd", "--strict"]).await;
    assert_eq!(code, Some(0), "{said}");
}

/// A data directory on which no PostgreSQL starts.
#[tokio::test]
async fn check_looks_into_the_data_directory() {
    let cluster = Plan::new(1).prepare().await;
    let place = cluster.place.folder("m1/other");
    give(&place);
    let (data, file) = (place.join("data"), place.join("file"));
    std::fs::create_dir(&data).expect("our own place is writable");
    give(&data);
    std::fs::write(&file, "").expect("our own place is writable");
    assert_eq!(check(&cluster, &data_dir(&data), &[]).await.0, Some(0), "an empty one is for a new database");
    let refused = async |path: &std::path::Path, words: &str| {
        let (code, said) = check(&cluster, &data_dir(path), &[]).await;
        let lines =
            said.lines().filter(|line| line.contains("postgresql.data_dir: ") && line.contains(words));
        assert_eq!((code, lines.count()), (Some(3), 1), "{words}: {said}");
    };
    refused(&file, "is no directory").await;
    std::fs::create_dir(data.join("lost+found")).expect("our own place is writable");
    refused(&data, "has no PG_VERSION").await;
    std::fs::write(data.join("PG_VERSION"), "9\n").expect("our own place is writable");
    refused(&data, "has no pg_wal").await;
    std::fs::create_dir(data.join("pg_wal")).expect("our own place is writable");
    refused(&data, "was made by PostgreSQL 9").await;
}

/// Every needed program is named that is missing, and no other.
#[tokio::test]
async fn check_looks_for_the_needed_programs() {
    let cluster = Plan::new(1).prepare().await;
    let programs = cluster.place.folder("m1/programs");
    symlink(postgres_bin().join("postgres"), programs.join("postgres")).expect("our own place is writable");
    let missing = async |over: Value| {
        let mut settings = json!({ "postgresql": { "bin_dir": programs } });
        merge(&mut settings, &over);
        let (code, said) = check(&cluster, &settings, &[]).await;
        assert_eq!(code, Some(3), "{said}");
        let lines = said.lines().filter(|line| line.contains("postgresql.bin_dir: "));
        let name = |line: &str| {
            let (before, _) = line.split_once(" cannot be run").expect("that is the fault");
            before.rsplit('/').next().expect("a path").to_owned()
        };
        lines.map(name).collect::<Vec<_>>()
    };
    assert_eq!(missing(json!({})).await, ["pg_controldata", "initdb", "pg_basebackup", "pg_rewind"]);
    let otherwise = json!({
        "bootstrap": { "method": "restore", "restore": { "command": "/bin/true" } },
        "postgresql": {
            "use_pg_rewind": false, "create_replica_methods": ["copy"], "copy": { "command": "/bin/true" },
        },
    });
    assert_eq!(missing(otherwise).await, ["pg_controldata"]);

    let script = programs.join("pg_controldata");
    std::fs::write(&script, "#!/bin/sh\necho 'pg_controldata (PostgreSQL) 9.6'\n").expect("our own place");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let (_, said) = check(&cluster, &json!({ "postgresql": { "bin_dir": programs } }), &[]).await;
    assert!(said.contains("versions 13 to 18 are supported"), "{said}");
}

/// Patroni's exit codes: nothing is printed for a valid configuration, and any fault is a 1.
#[tokio::test]
async fn the_link_named_patroni_validates_as_patroni_does() {
    let cluster = Plan::new(1).prepare().await;
    let member = &cluster.members[0];
    let binary = binary_in(&cluster.place);
    let patroni = binary.with_file_name("patroni");
    symlink(&binary, &patroni).expect("our own place is writable");
    let validate = async |option: Option<&str>| {
        let mut command = command_as(&patroni, &member.folder);
        command.arg("--validate-config").arg(member.config_file()).args(option);
        command.env("PATRONI_LOG_LEVEL", "DEBUG");
        let done = tokio::task::spawn_blocking(move || command.output()).await;
        done.expect("it is waited for").expect("it starts")
    };
    let valid = validate(None).await;
    let printed = [valid.stdout.as_slice(), &valid.stderr].concat();
    assert_eq!((valid.status.code(), String::from_utf8_lossy(&printed).as_ref()), (Some(0), ""));
    let printed = String::from_utf8(validate(Some("--print")).await.stdout).expect("text");
    for line in ["log:\n  level: DEBUG\n", "\nrestapi:\n", "\nscope: herd\n"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let mut config = member.read_config();
    config["etcd3"]["hosts"] = json!([format!("127.0.0.1:{}", free_port())]);
    config["restapi"]["listen"] = json!("nowhere");
    member.write_config(&config);
    let faulty = validate(Some("--print")).await;
    let said = String::from_utf8_lossy(&faulty.stderr).into_owned();
    assert_eq!((faulty.status.code(), faulty.stdout.len()), (Some(1), 0), "{said}");
    for fault in ["restapi.listen", "does not answer"] {
        assert_eq!(said.lines().filter(|line| line.contains(fault)).count(), 1, "{fault}: {said}");
    }
}
