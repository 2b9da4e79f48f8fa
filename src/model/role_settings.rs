//! The operator's settings of PostgreSQL that hold in one role only.

use std::collections::BTreeMap;

use super::Process;

/// The role for which settings hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingsRole {
    /// It accepts writes, or is about to.
    Primary,
    /// A standby.
    #[default]
    Replica,
    /// The leader of a standby cluster.
    StandbyLeader,
}

impl SettingsRole {
    /// The role whose settings belong in the files of the server that runs as `process`; `written`: the role whose
    /// settings they have; `is_standby_cluster`: nobody in this cluster is a primary. A leader that starts its own
    /// server writes a primary's before the start: some are read only then. They stay until the promotion.
    #[must_use]
    pub fn in_files(
        written: SettingsRole,
        process: &Process,
        leads: bool,
        is_standby_cluster: bool,
    ) -> SettingsRole {
        match process {
            Process::Up { standby_start: false, .. } => SettingsRole::Primary,
            Process::Up { standby_start: true, .. } if !leads => SettingsRole::Replica,
            Process::Up { standby_start: true, .. } if is_standby_cluster => SettingsRole::StandbyLeader,
            Process::Up { .. } | Process::Down { .. } => written,
        }
    }
}

/// Settings that take the place of those for all roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleSettings {
    /// Parameters.
    pub parameters: BTreeMap<String, String>,
    /// The lines of `pg_hba.conf`.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of `pg_ident.conf`.
    pub pg_ident: Option<Vec<String>>,
}

/// The settings of each role that has some of its own.
pub type SettingsByRole = BTreeMap<SettingsRole, RoleSettings>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;

    /// The server decides; a leader that has started its own server is not taken for a standby.
    #[test]
    fn the_files_follow_the_role_of_the_server() {
        use SettingsRole::{Primary, Replica, StandbyLeader};
        let up = |standby_start| Process::Up { pid: 7, since: Moment::default(), standby_start };
        let down = Process::Down { exit: None };
        for (written, process, leads, in_cluster, in_standby_cluster) in [
            (Replica, up(false), true, Primary, Primary),
            (Replica, up(false), false, Primary, Primary),
            (Primary, up(true), false, Replica, Replica),
            (Primary, up(true), true, Primary, StandbyLeader),
            (Replica, up(true), true, Replica, StandbyLeader),
            (Primary, down.clone(), false, Primary, Primary),
            (Replica, down, true, Replica, Replica),
        ] {
            let found = [false, true].map(|it| SettingsRole::in_files(written, &process, leads, it));
            assert_eq!(found, [in_cluster, in_standby_cluster], "{written:?} {process:?} {leads}");
        }
    }
}
