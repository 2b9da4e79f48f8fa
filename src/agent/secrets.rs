//! Secrets in files, as a kubelet mounts them: read again when they change, without a restart.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::cycle::Cycle;
use super::events::TaskReport;
use super::wiring;
use crate::core::member::LookId;
use crate::model::{Moment, Standby};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::Postgres;

/// How often the files are looked at: a kubelet takes a minute to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the roles may take to be changed.
const ENACT_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// What is left to do about passwords that were replaced.
#[derive(Default)]
pub(super) struct Rotation {
    /// Some were, in this life.
    happened: bool,
    /// The roles still have their former ones, as far as this member knows.
    is_due: bool,
    retry_at: Option<Moment>,
    /// The roles are being changed, for this look.
    enacting: Option<LookId>,
}

/// What PostgreSQL or its password file is missing.
#[derive(Clone, Copy)]
pub(super) enum DuePasswords {
    /// The roles shall have the new ones.
    Enact,
    /// The standby could not log in: it tries the other ones.
    TakeTurns,
}

impl Rotation {
    /// Passwords may have been replaced while nothing ran here.
    pub(super) fn recalled(postgres: &Postgres, files: &[PathBuf]) -> Rotation {
        let happened = postgres.recall_passwords();
        Rotation { happened, is_due: happened && !files.is_empty(), ..Rotation::default() }
    }
}

/// Says whenever one of the files holds something else than before.
pub(super) async fn watch(files: Vec<PathBuf>, reports: mpsc::UnboundedSender<TaskReport>) {
    let read = || files.iter().map(|file| fs::read(file).ok()).collect::<Vec<_>>();
    let mut seen = read();
    while !files.is_empty() && !reports.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = read();
        if now != seen {
            seen = now;
            // The loop that has ended needs no secrets.
            let _ = reports.send(TaskReport::SecretsChanged);
        }
    }
}

impl Cycle {
    /// Reads the local configuration again, and uses its passwords. Only those of secrets in files become the roles':
    /// who edits a configuration may err, and changes roles in SQL.
    pub(super) fn reload(&mut self, secrets_changed: bool) {
        self.service.reloading();
        self.dynamic.reload_local();
        match self.tools.postgres.replace_passwords(wiring::passwords(self.dynamic.local())) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("passwords were replaced");
                self.state.rotation =
                    Rotation { happened: true, is_due: secrets_changed, ..Rotation::default() };
            }
            Err(error) => tracing::warn!(error = error.chain(), "could not write the password file"),
        }
        self.service.ready();
    }

    /// What is to be done now about passwords that were replaced.
    pub(super) fn due_passwords(&mut self, look: LookId) -> Option<DuePasswords> {
        let now = clock::now();
        let rotation = &self.state.rotation;
        if !rotation.happened || rotation.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let status = self.status.borrow().clone();
        let due = match status.postgres.answering().map(|sql| &sql.standby) {
            Some(Standby::No) if rotation.is_due && status.is_leader(now) => DuePasswords::Enact,
            Some(Standby::Yes { receiver: None, .. }) => DuePasswords::TakeTurns,
            Some(Standby::No | Standby::Yes { .. }) | None => return None,
        };
        let rotation = &mut self.state.rotation;
        (rotation.retry_at, rotation.enacting) = (Some(now + RETRY_EVERY), Some(look));
        Some(due)
    }

    /// The roles have the passwords that were the newest when this look began.
    pub(super) fn enacted(&mut self, look: LookId) {
        let rotation = &mut self.state.rotation;
        rotation.is_due &= rotation.enacting != Some(look);
    }
}

/// Brings roles or password file in line; true where the roles have their new passwords.
pub(super) async fn follow(postgres: &Postgres, due: DuePasswords) -> bool {
    match due {
        DuePasswords::Enact => match tokio::time::timeout(ENACT_WITHIN, postgres.enact_passwords()).await {
            Ok(Ok(())) => {
                tracing::info!("the passwords of the roles were changed");
                return true;
            }
            Ok(Err(error)) => tracing::warn!(
                error = error.chain(),
                "could not change the passwords of the roles; the old passwords stay valid"
            ),
            Err(_) => tracing::warn!("PostgreSQL did not change the passwords in time"),
        },
        DuePasswords::TakeTurns => {
            if let Err(error) = postgres.take_turns_with_passwords() {
                tracing::warn!(error = error.chain(), "could not write the password file");
            }
        }
    }
    false
}
