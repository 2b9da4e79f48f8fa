//! The unit of systemd. That the program sends what it asks for is tested by `log_output::systemd_is_notified`.

use std::process::Command;

use super::{PROGRAM, has, output_of, repository, text_of};
use crate::support::Place;

const UNIT: &str = "deploy/systemd/matriarch.service";

/// The first version of systemd that knows `Type=notify-reload`.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

fn unit() -> String {
    std::fs::read_to_string(repository(UNIT)).expect("it is there")
}

/// The last value of a setting, as systemd takes it.
fn setting(unit: &str, name: &str) -> Option<String> {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next_back().map(str::to_owned)
}

#[test]
fn systemd_accepts_the_unit() {
    if !has("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let path = place.path().join("matriarch.service");
    // The program is not installed here.
    std::fs::write(&path, unit().replace("/usr/bin/matriarch", PROGRAM)).expect("our own place is writable");
    let mut verify = Command::new("systemd-analyze");
    let output = output_of(verify.args(["verify", "--man=no"]).arg(&path));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text_of(Command::new("systemd-analyze").arg("--version"));
    let version = version.split_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    let unexpected: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("matriarch.service"))
        .filter(|line| {
            version.is_none_or(|version| KNOWS_NOTIFY_RELOAD <= version) || !line.contains("notify-reload")
        })
        .collect();
    assert!(unexpected.is_empty(), "{said}");
}

/// What the safety of the cluster needs from the unit.
#[test]
fn the_unit_leaves_postgresql_to_the_guard() {
    let unit = unit();
    for (name, value) in [
        ("Type", "notify-reload"),
        ("KillMode", "process"),
        ("User", "postgres"),
        ("Restart", "on-failure"),
        ("StartLimitIntervalSec", "0"),
    ] {
        assert_eq!(setting(&unit, name).as_deref(), Some(value), "{name}");
    }
    for absent in ["ExecReload", "ExecStop", "ExecStopPost", "RemainAfterExit", "PrivateTmp", "DynamicUser"] {
        assert_eq!(setting(&unit, absent), None, "{absent}");
    }
    // A setting in two places would hide the one above; only `Type` has a second line on purpose.
    let names: Vec<&str> = unit
        .lines()
        .filter(|line| !line.starts_with(['#', '[']))
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    for name in &names {
        let lines = names.iter().filter(|other| other == &name).count();
        assert_eq!(lines, if *name == "Type" { 2 } else { 1 }, "{name}");
    }
}

/// The example is a valid configuration, apart from the programs of a PostgreSQL that this machine may lack.
#[test]
fn the_example_is_a_valid_configuration() {
    let example =
        std::fs::read_to_string(repository("deploy/systemd/matriarch.example.yml")).expect("it is there");
    let place = Place::new();
    let data = place.path().join("data");
    let bin = crate::support::postgres_bin();
    let file = place.path().join("matriarch.yml");
    let here = example
        .replace("/var/lib/postgresql/17/main", &data.to_string_lossy())
        .replace("/usr/lib/postgresql/17/bin", &bin.to_string_lossy());
    std::fs::write(&file, here).expect("our own place is writable");
    let mut check = Command::new(PROGRAM);
    let output = output_of(check.arg("check").arg(&file).args(["--ignore-etcd", "--ignore-listen-port"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"), "{output:?}");
}
