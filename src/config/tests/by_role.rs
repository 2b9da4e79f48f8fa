//! What holds in one role only.

use super::*;
use crate::model::{RoleSettings, SettingsRole};

const DYNAMIC: &str = r#"{"postgresql":{
    "parameters_primary":{"Work_mem":"9MB","max_connections":500,"port":1,"archive_mode":true},
    "parameters_replica":{"work_mem":"2MB","wal_keep_segments":8},
    "pg_hba":["local all all peer"],"pg_hba_replica":["host all all all md5"]}}"#;

fn of(effective: &Effective, role: SettingsRole) -> RoleSettings {
    effective.by_role.get(&role).cloned().unwrap_or_default()
}

fn parameters(settings: &RoleSettings) -> Vec<(&str, &str)> {
    settings.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Parameters on which all members must agree are refused, with the place where they belong.
#[test]
fn each_role_has_its_own_settings() {
    let effective = effective_of(WHOLE, DYNAMIC);
    let (primary, replica) = (of(&effective, SettingsRole::Primary), of(&effective, SettingsRole::Replica));
    assert_eq!(parameters(&primary), [("archive_mode", "on"), ("work_mem", "9MB")]);
    assert_eq!(parameters(&replica), [("work_mem", "2MB")]);
    assert_eq!((primary.pg_hba, replica.pg_hba), (None, Some(vec!["host all all all md5".to_owned()])));
    assert_eq!(controlled(&effective, "max_connections"), "100");
    let expected = [
        "config: postgresql.parameters_primary.max_connections: found `500`; it has no effect here: all members must \
         agree on it. Write it under `postgresql.parameters` of the dynamic configuration",
        "config: postgresql.parameters_primary.port: found `1`; Matriarch sets this parameter itself: this one has no \
         effect",
        "config: postgresql.parameters_replica.wal_keep_segments: found `8`; write `wal_keep_size`",
    ];
    assert_eq!(effective.warnings, expected);
}

/// A key of the member's own file counts as a whole; other keys of the dynamic configuration stay.
#[test]
fn the_own_file_replaces_keys_of_one_role() {
    let own = "  parameters_primary: {jit: off}\n  pg_hba_replica: [local all all trust]\n  data_dir";
    let effective = effective_of(&WHOLE.replace("  data_dir", own), DYNAMIC);
    assert_eq!(parameters(&of(&effective, SettingsRole::Primary)), [("jit", "off")]);
    let replica = of(&effective, SettingsRole::Replica);
    assert_eq!(parameters(&replica), [("work_mem", "2MB")]);
    assert_eq!(replica.pg_hba, Some(vec!["local all all trust".to_owned()]));
}

/// Without rules for the other roles the file would keep those of the former role.
#[test]
fn rules_of_one_role_alone_are_warned_about() {
    let warned = |dynamic| effective_of(WHOLE, dynamic).warnings;
    let said = warned(r#"{"postgresql":{"pg_hba_primary":["local all all peer"]}}"#);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("postgresql.pg_hba_primary: is set, and `pg_hba` is not; write `pg_hba` too"),
        "{said:?}"
    );
    let both = r#"{"postgresql":{"pg_ident_primary":["a b c"],"pg_ident_replica":["a b d"]}}"#;
    assert_eq!(warned(both), [""; 0]);
}

/// What `parameters` and `standby_cluster` say takes precedence over `recovery_conf`.
#[test]
fn a_recovery_parameter_replaces_that_of_recovery_conf() {
    let dynamic = r#"{"postgresql": {"recovery_conf": {"Restore_command": "old", "archive_cleanup_command": "clean",
        "primary_conninfo": "x", "work_mem": "1MB"}, "parameters": {"restore_command": "new"}}}"#;
    let effective = effective_of(WHOLE, dynamic);
    let value = |name: &str| effective.parameters.get(name).map(String::as_str);
    assert_eq!((value("restore_command"), value("archive_cleanup_command")), (Some("new"), Some("clean")));
    assert_eq!((value("primary_conninfo"), value("work_mem"), effective.recovery.len()), (None, None, 0));
    let standby =
        dynamic.replacen('{', r#"{"standby_cluster": {"host": "h", "restore_command": "of it"}, "#, 1);
    assert_eq!(effective_of(WHOLE, &standby).recovery["restore_command"], "of it");
}
