//! Roles: whom a server lets in. A change of a role is a record of the WAL. A standby has it when it has replayed the
//! record, and a member that goes back to another history may not have it any more.

use super::Phase;
use crate::sim::world::{Machine, Sim};

/// WAL bytes of a change.
const CHANGE_BYTES: u64 = 300;

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RoleChange {
    /// The password of the roles that other members use.
    Password(String),
    /// The supervisors' own role is there.
    OwnRole,
}

/// All changes on all histories, with the numbers of their records, the newest last.
pub(crate) type RoleChanges = Vec<(u64, RoleChange)>;

/// What holds on one member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) password: Option<String>,
    pub(crate) own_role: bool,
}

impl Machine {
    /// As a session sees them.
    pub(crate) fn roles(&self, changes: &RoleChanges) -> Roles {
        let wal = &self.disk.wal;
        let replayed = match self.server.as_ref() {
            Some(server) if server.phase != Phase::Primary => server.replayed,
            Some(_) | None => wal.end(),
        };
        let is_seen = |record: &u64| {
            let found = wal.records.binary_search_by_key(record, |record| record.number);
            found.is_ok_and(|index| wal.records[index].end <= replayed)
        };
        let mut roles = Roles::default();
        for (_, change) in changes.iter().filter(|(record, _)| is_seen(record)) {
            match change {
                RoleChange::Password(password) => roles.password = Some(password.clone()),
                RoleChange::OwnRole => roles.own_role = true,
            }
        }
        roles
    }
}

impl Sim {
    /// A transaction that waits for no standby.
    pub(crate) async fn change_role(&self, member: usize, change: RoleChange) -> Result<(), String> {
        let (end, slow_ms) = {
            let mut world = self.world();
            let world = &mut *world;
            let machine = &mut world.machines[member];
            if !machine.server.as_ref().is_some_and(super::Server::is_writable) {
                return Err("cannot execute in a read-only transaction".to_owned());
            }
            if machine.disk.full {
                return Err("no space left on device".to_owned());
            }
            world.next_record += 1;
            world.role_changes.push((world.next_record, change));
            (machine.disk.wal.append(world.next_record, CHANGE_BYTES), machine.disk.slow_ms)
        };
        let takes = self.exec.rng(|rng| rng.micros(150, 1500 + slow_ms * 1000));
        self.exec.sleep(takes).await;
        self.until_disk_answers(member).await;
        let mut world = self.world();
        let machine = &mut world.machines[member];
        let server = machine.server.as_ref().ok_or("the server has ended")?;
        machine.disk.flushed = machine.disk.flushed.max(machine.disk.wal.end().min(end));
        server.changed.give(&self.exec);
        Ok(())
    }

    /// Whether the source lets in a program of this member, or its WAL receiver: libpq takes the first password.
    pub(crate) fn log_in(&self, member: usize, source: usize) -> Result<(), String> {
        let now = self.now();
        let mut world = self.world();
        let world = &mut *world;
        let wanted = world.machines[source].roles(&world.role_changes).password;
        let machine = &mut world.machines[member];
        if machine.password_file.first() == wanted.as_ref() {
            machine.refused = None;
            return Ok(());
        }
        let before = machine.refused.take().filter(|(_, at, what)| (*at, what) == (source, &wanted));
        machine.refused = before.or(Some((now, source, wanted)));
        Err("password authentication failed".to_owned())
    }
}
