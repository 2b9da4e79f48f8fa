//! Settings of PostgreSQL that hold in one role only: `parameters_primary`, `pg_hba_replica` and so on.

use super::guc;
use super::reader::{ConfigFindings, Section};
use crate::model::{RoleSettings, SettingsByRole, SettingsRole};

/// For each role the keys of parameters, access rules and user maps.
const KEYS: [(SettingsRole, [&str; 3]); 3] = [
    (SettingsRole::Primary, ["parameters_primary", "pg_hba_primary", "pg_ident_primary"]),
    (SettingsRole::Replica, ["parameters_replica", "pg_hba_replica", "pg_ident_replica"]),
    (
        SettingsRole::StandbyLeader,
        ["parameters_standby_leader", "pg_hba_standby_leader", "pg_ident_standby_leader"],
    ),
];

/// The keys of parameters.
pub(super) fn parameter_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(_, [parameters, ..])| *parameters)
}

/// Reads the keys of a section `postgresql`. Parameters on which all members must agree are refused with a warning.
pub(super) fn read(section: &mut Section<'_>, findings: &mut ConfigFindings) -> SettingsByRole {
    let some = |rules: &Vec<String>| !rules.is_empty();
    let of = |(role, [parameters, pg_hba, pg_ident]): (SettingsRole, [&'static str; 3])| {
        let settings = RoleSettings {
            parameters: guc::role_parameters(section, parameters, findings),
            pg_hba: section.list(pg_hba, false, findings).filter(some),
            pg_ident: section.list(pg_ident, false, findings).filter(some),
        };
        (settings != RoleSettings::default()).then_some((role, settings))
    };
    KEYS.into_iter().filter_map(of).collect()
}

/// A key of the member's own file takes the place of the same key of the dynamic configuration.
pub(super) fn merged(local: &SettingsByRole, dynamic: SettingsByRole) -> SettingsByRole {
    let mut merged = dynamic;
    for (role, mine) in local {
        let both = merged.entry(*role).or_default();
        if !mine.parameters.is_empty() {
            both.parameters.clone_from(&mine.parameters);
        }
        both.pg_hba = mine.pg_hba.clone().or(both.pg_hba.take());
        both.pg_ident = mine.pg_ident.clone().or(both.pg_ident.take());
    }
    merged
}

/// Warns if one role has rules under `key` and another has none: the file keeps the lines of the former role then.
pub(super) fn warning(
    by_role: &SettingsByRole,
    key: &str,
    for_all: Option<&Vec<String>>,
    lines: impl Fn(&RoleSettings) -> Option<&Vec<String>>,
) -> Option<String> {
    let has = |role: SettingsRole| by_role.get(&role).and_then(&lines).is_some();
    let (primary, replica) = (has(SettingsRole::Primary), has(SettingsRole::Replica));
    (for_all.is_none() && primary != replica).then(|| {
        let role = if primary { "primary" } else { "replica" };
        format!(
            "postgresql.{key}_{role}: is set, and `{key}` is not; write `{key}` too: in other roles the file keeps the \
             lines of this one"
        )
    })
}
