//! The roles in PostgreSQL that the supervisor uses, and their password in a file: the driver of the product's own
//! machine, as `src/agent/roles.rs` is one.

use std::time::Duration;

use matriarch::core::member::LookId;
use matriarch::core::roles::DuePasswords;
use matriarch::model::{AccessWay, FirstPassword, KnownPassword};

use super::Agent;
use super::cycle::Cycle;
use super::statements::APPLY_WITHIN;
use crate::sim::fault::secrets::password;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::roles::RoleChange;
use crate::sim::world::Sim;

/// The interval between reads of the file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Cycle {
    /// Takes the password of the file, if it is another one.
    pub(super) fn take_password(&mut self) {
        let agent = self.agent.clone();
        let newest = agent.sim.world().machines[agent.member()].secret;
        if !agent.shared.password.borrow_mut().replace(Some(password(newest))) {
            return;
        }
        agent.note(|| format!("passwords were replaced: {newest}"));
        agent.sim.world().machines[agent.member()].refused = None;
        agent.shared.roles.borrow_mut().passwords_replaced();
        self.statements.run("password file", async move {
            let written = agent.write_file().await;
            agent.note_failure("password file", &written);
            if written.is_ok() {
                agent.write_password_file(FirstPassword::Newest);
            }
        });
    }

    /// Begins to create the own role, if that is due. Returns the work with passwords that is due.
    pub(super) fn work_on_roles(&mut self, look: LookId) -> Option<DuePasswords> {
        let agent = self.agent.clone();
        let now = agent.now();
        let status = agent.shared.status.borrow();
        let leads = agent.shared.lease.borrow().leading_at(now).is_some();
        let mut roles = agent.shared.roles.borrow_mut();
        if roles.own_role_is_due(&status.postgres, leads, now) {
            let agent = agent.clone();
            self.agent.spawn(async move {
                let created = agent.create_own_role().await;
                agent.note_failure("own role", &created);
            });
        }
        roles.due_passwords(&status.postgres, leads, look, now)
    }
}

impl Agent {
    /// As a kubelet changes the file.
    pub(super) async fn watch_password(self) {
        loop {
            self.sleep(LOOK_EVERY).await;
            let newest = password(self.sim.world().machines[self.member()].secret);
            if self.newest_password() != newest {
                self.shared.password_changed.set(true);
                self.shared.bell.give(&self.sim.exec);
            }
        }
    }

    /// Changes the roles or the password file; true when the roles have their new password.
    pub(super) async fn follow_passwords(&self, due: DuePasswords) -> bool {
        let done = match due {
            DuePasswords::SetInRoles => self.set_password().await,
            DuePasswords::TryOther => self.try_other_password().await,
        };
        self.note_failure("passwords", &done);
        due == DuePasswords::SetInRoles && done.is_ok()
    }

    async fn set_password(&self) -> Result<(), String> {
        let newest = self.newest_password();
        self.connect(APPLY_WITHIN).await?;
        if self.mutation() == Some(Mutation::RolesUnchanged) {
            return Ok(());
        }
        self.sim.change_role(self.member(), RoleChange::Password(newest)).await
    }

    async fn try_other_password(&self) -> Result<(), String> {
        let other = {
            let world = self.sim.world();
            let first = world.machines[self.member()].password_file.first();
            self.shared.password.borrow().other_than(first.map(String::as_str))
        };
        let Some(other) = other.filter(|_| self.mutation() != Some(Mutation::OnePassword)) else {
            return Ok(());
        };
        self.write_file().await?;
        self.write_password_file(other);
        Ok(())
    }

    async fn create_own_role(&self) -> Result<(), String> {
        self.connect(APPLY_WITHIN).await?;
        if self.mutation() == Some(Mutation::OwnRoleDropped) {
            return Ok(());
        }
        self.sim.change_role(self.member(), RoleChange::OwnRole).await
    }

    pub(super) fn newest_password(&self) -> String {
        self.shared.password.borrow().newest().map(str::to_owned).unwrap_or_default()
    }

    /// Writes the password file, after the time that it takes.
    pub(super) fn write_password_file(&self, first: FirstPassword) {
        let lines = self.shared.password.borrow().lines(first);
        self.sim.world().machines[self.member()].password_file = lines;
    }

    /// Where there is no password file, a record for the next supervisor.
    pub(super) fn note_password(&self) {
        if self.sim.world().machines[self.member()].password_file.is_empty() {
            self.write_password_file(FirstPassword::Newest);
        }
    }

    /// For the programs and the WAL receiver that connect to another member.
    pub(super) fn write_likeliest_password(&self) {
        let first = self.shared.password.borrow().likeliest();
        self.write_password_file(first);
    }

    /// A login as a user of this program, which tries all passwords that it knows.
    pub(super) fn log_in(&self, source: usize) -> Result<(), String> {
        let wanted = {
            let world = self.sim.world();
            world.machines[source].roles(&world.role_changes).password
        };
        let mut known = self.shared.password.borrow_mut();
        match known.tries().contains(&wanted) {
            true => {
                known.let_in(wanted.as_ref());
                Ok(())
            }
            false => Err("password authentication failed".to_owned()),
        }
    }

    /// A clone, after a question to the source, which tells which password is in force there.
    pub(super) async fn clone_from(&self, source: usize) -> Result<(), String> {
        let _answer = self.log_in(source);
        self.write_likeliest_password();
        self.sim.clone_from(self.member(), source).await
    }

    /// The way in which PostgreSQL has just been reached.
    pub(super) fn reached(&self) {
        let own_role = {
            let world = self.sim.world();
            world.machines[self.member()].roles(&world.role_changes).own_role
        };
        let way = if own_role { AccessWay::PrivateSocket } else { AccessWay::PrivateSocketAsSuperuser };
        self.shared.access.borrow_mut().way = Some(way);
    }
}

impl Sim {
    /// The password of a supervisor that starts, and whether the one before it had another one.
    pub(super) fn recalled_password(&self, member: usize) -> (KnownPassword, bool) {
        let world = self.world();
        let machine = &world.machines[member];
        let mut known = KnownPassword::new(Some(password(machine.secret)));
        let forgets = world.options.mutation == Some(Mutation::FormerForgotten);
        let mut used = machine.password_file.iter().filter(|_| !forgets);
        let replaced = used.any(|used| known.recall(used.clone()));
        (known, replaced)
    }
}
