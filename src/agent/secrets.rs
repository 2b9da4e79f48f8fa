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

/// The interval between reads of the files: a kubelet takes a minute to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a change of the roles may take.
const ENACT_WITHIN: Duration = Duration::from_secs(5);
/// The pause between attempts.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// The remaining work after a change of passwords.
#[derive(Default)]
pub(super) struct Rotation {
    /// A password was changed since the supervisor's start, or before it.
    happened: bool,
    /// The roles still have the former passwords, as far as this member knows.
    is_due: bool,
    retry_at: Option<Moment>,
    /// The look in which the roles are being changed.
    enacting: Option<LookId>,
}

/// The change that is due.
#[derive(Clone, Copy)]
pub(super) enum DuePasswords {
    /// Set the new passwords of the roles.
    Enact,
    /// The standby could not log in: try the other passwords.
    TakeTurns,
}

impl Rotation {
    /// Passwords may have changed while no supervisor ran here.
    pub(super) fn recalled(postgres: &Postgres, files: &[PathBuf]) -> Rotation {
        let happened = postgres.recall_passwords();
        Rotation { happened, is_due: happened && !files.is_empty(), ..Rotation::default() }
    }
}

/// Reports each time the content of a file changes.
pub(super) async fn watch(files: Vec<PathBuf>, reports: mpsc::UnboundedSender<TaskReport>) {
    let read = || files.iter().map(|file| fs::read(file).ok()).collect::<Vec<_>>();
    let mut seen = read();
    while !files.is_empty() && !reports.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = read();
        if now != seen {
            seen = now;
            // A loop that has ended needs no secrets.
            let _ = reports.send(TaskReport::SecretsChanged);
        }
    }
}

impl Cycle {
    /// Reads the local configuration again, and uses its passwords. Roles get new passwords only from secrets in files.
    /// An operator who edits a configuration may err, and changes roles in SQL.
    pub(super) fn reload(&mut self, secrets_changed: bool) {
        self.service.reloading();
        self.dynamic.reload_local();
        self.dynamic.apply_again();
        self.tools.etcd.set_credentials(wiring::etcd_setup(self.dynamic.local()).credentials);
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

    /// The change of passwords that is due now.
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

    /// Records that the roles have the passwords that were the newest when this look began.
    pub(super) fn enacted(&mut self, look: LookId) {
        let rotation = &mut self.state.rotation;
        rotation.is_due &= rotation.enacting != Some(look);
    }
}

/// Changes the roles or the password file; true when the roles have their new passwords.
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
