//! What is due on the roles in PostgreSQL that a supervisor uses: new passwords, and its own role.

use std::time::Duration;

use super::member::LookId;
use crate::model::{AccessWay, Moment, PostgresFacts, Process, SqlFacts, Standby, Timeline};

/// The pause between attempts with passwords.
const PASSWORDS_EVERY: Duration = Duration::from_secs(5);
/// The pause between attempts to create the own role: a role with that name may belong to another user, and every
/// attempt adds a line to the server's log.
const OWN_ROLE_EVERY: Duration = Duration::from_secs(60);

/// What is known of the roles.
#[derive(Clone, Debug, Default)]
pub struct RoleWork {
    /// The configuration has the passwords from files, as a kubelet mounts them. Only then do roles get new ones: an
    /// operator who edits a configuration may err, and changes roles in SQL.
    from_files: bool,
    /// A password was replaced since the supervisor's start, or before it.
    replaced: bool,
    /// The timeline on which this member has set the newest passwords. A promotion may lose them.
    set_on: Option<Timeline>,
    passwords_again_at: Option<Moment>,
    /// The look in which the roles get their passwords, and the timeline on which they do.
    setting: Option<(LookId, Timeline)>,
    own_role_again_at: Option<Moment>,
}

/// The work with passwords that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuePasswords {
    /// Set the new passwords of the roles on this primary.
    SetInRoles,
    /// The standby may not be able to log in: put the other password first in the password file.
    TryOther,
}

impl RoleWork {
    /// At a supervisor's start. `replaced`: its passwords differ from those of the one before it, so that the roles may
    /// still have the former ones.
    pub fn recalled(replaced: bool, from_files: bool) -> RoleWork {
        RoleWork { from_files, replaced, ..RoleWork::default() }
    }

    /// The configuration has other passwords than before.
    pub fn passwords_replaced(&mut self) {
        *self = RoleWork { replaced: true, set_on: None, passwords_again_at: None, setting: None, ..*self };
    }

    /// What is due now on this PostgreSQL, as work of this look. `leads`: this member is the leader.
    pub fn due_passwords(
        &mut self,
        postgres: &PostgresFacts,
        leads: bool,
        look: LookId,
        now: Moment,
    ) -> Option<DuePasswords> {
        if !self.replaced || self.passwords_again_at.is_some_and(|at| now < at) {
            return None;
        }
        let starts_as_standby =
            postgres.sql.is_none() && matches!(postgres.process, Process::Up { standby_start: true, .. });
        let due = match postgres.answering().map(|sql| (&sql.standby, sql.timeline)) {
            Some((Standby::No, Some(timeline)))
                if self.from_files && leads && self.set_on != Some(timeline) =>
            {
                self.setting = Some((look, timeline));
                DuePasswords::SetInRoles
            }
            Some((Standby::Yes { receiver: None, .. }, _)) => DuePasswords::TryOther,
            // It has never answered: before it is consistent, a copy may need another member's WAL.
            None if starts_as_standby => DuePasswords::TryOther,
            Some(_) | None => return None,
        };
        self.passwords_again_at = Some(now + PASSWORDS_EVERY);
        Some(due)
    }

    /// The roles have the passwords that were the newest when this look began.
    pub fn passwords_set(&mut self, look: LookId) {
        let set = self.setting.take_if(|(setting, _)| *setting == look);
        self.set_on = set.map(|(_, timeline)| timeline).or(self.set_on);
    }

    /// Whether the leader is to create the supervisor's own role now: it could not log in with it.
    pub fn own_role_is_due(&mut self, postgres: &PostgresFacts, leads: bool, now: Moment) -> bool {
        let pauses = self.own_role_again_at.is_some_and(|at| now < at);
        let is_primary = postgres.answering().is_some_and(SqlFacts::is_primary);
        if pauses || !leads || !is_primary || postgres.access.way == Some(AccessWay::PrivateSocket) {
            return false;
        }
        self.own_role_again_at = Some(now + OWN_ROLE_EVERY);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    fn answering(standby: Standby, timeline: u32) -> PostgresFacts {
        let sql = SqlFacts {
            at: Moment::default(),
            server_version: 170_000,
            postmaster_start_time: String::new(),
            timeline: Some(Timeline(timeline)),
            standby,
            flushed: Lsn(0),
            slots: Default::default(),
            sync: Default::default(),
            replication: Vec::new(),
            is_detached: false,
        };
        let process = Process::Up { pid: 1, since: Moment::default(), standby_start: true };
        PostgresFacts { process, sql: Some(sql), ..PostgresFacts::default() }
    }

    fn primary_on(timeline: u32) -> PostgresFacts {
        answering(Standby::No, timeline)
    }

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    /// A promotion may have lost what the former primary had set, also where that was this member.
    #[test]
    fn roles_get_their_passwords_once_on_each_timeline() {
        let (mut work, look) = (RoleWork::recalled(false, true), LookId::default());
        let due = |work: &mut RoleWork, timeline, second| {
            work.due_passwords(&primary_on(timeline), true, look, at(second))
        };
        assert_eq!(due(&mut work, 1, 1), None, "nothing was replaced");
        work.passwords_replaced();
        assert_eq!(due(&mut work, 1, 1), Some(DuePasswords::SetInRoles));
        assert_eq!(due(&mut work, 1, 2), None, "it is under way");
        assert_eq!(due(&mut work, 1, 6), Some(DuePasswords::SetInRoles), "it failed");
        work.passwords_set(look);
        assert_eq!(due(&mut work, 1, 20), None);
        assert_eq!(due(&mut work, 3, 21), Some(DuePasswords::SetInRoles));
    }

    #[test]
    fn passwords_in_a_configuration_change_no_role() {
        let (mut work, look) = (RoleWork::recalled(true, false), LookId::default());
        assert_eq!(work.due_passwords(&primary_on(1), true, look, at(1)), None);
        let standby = Standby::Yes {
            received: Default::default(),
            replayed: Default::default(),
            replayed_timestamp: None,
            paused: false,
            receiver: None,
            restores: false,
        };
        let unfed = answering(standby, 1);
        assert_eq!(work.due_passwords(&unfed, false, look, at(1)), Some(DuePasswords::TryOther));
        let hung = PostgresFacts { sql_trouble: Some("no answer in time".to_owned()), ..unfed.clone() };
        assert_eq!(work.due_passwords(&hung, false, look, at(10)), None, "it may stream");
        let starting = PostgresFacts { sql: None, ..unfed };
        assert_eq!(work.due_passwords(&starting, false, look, at(10)), Some(DuePasswords::TryOther));
    }

    #[test]
    fn only_a_leader_without_its_own_role_creates_it() {
        let (mut work, mut postgres) = (RoleWork::default(), primary_on(1));
        postgres.access.way = Some(AccessWay::PrivateSocket);
        assert!(!work.own_role_is_due(&postgres, true, at(1)));
        postgres.access.way = Some(AccessWay::Address);
        assert!(!work.own_role_is_due(&postgres, false, at(1)));
        assert!(work.own_role_is_due(&postgres, true, at(1)));
        assert!(!work.own_role_is_due(&postgres, true, at(2)), "it is under way");
    }
}
