//! Secrets in files, as a kubelet mounts them: read again when they change, without a restart.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::cycle::Cycle;
use super::events::Report;
use super::wiring;
use crate::model::{Moment, Standby};
use crate::os::clock;
use crate::postgres::Postgres;

/// How often the files are looked at: a kubelet takes a minute to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the roles may take to be changed before the loop goes on without that.
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
}

impl Rotation {
    /// Passwords may have been replaced while nothing ran here.
    pub(super) fn recalled(postgres: &Postgres, files: &[PathBuf]) -> Rotation {
        let happened = postgres.recall_passwords();
        Rotation { happened, is_due: happened && !files.is_empty(), retry_at: None }
    }
}

/// Says whenever one of the files holds something else than before.
pub(super) async fn watch(files: Vec<PathBuf>, reports: mpsc::UnboundedSender<Report>) {
    let read = || files.iter().map(|file| fs::read(file).ok()).collect::<Vec<_>>();
    let mut seen = read();
    while !files.is_empty() && !reports.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = read();
        if now != seen {
            seen = now;
            // The loop that has ended needs no secrets.
            let _ = reports.send(Report::SecretsChanged);
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
                self.state.rotation = Rotation { happened: true, is_due: secrets_changed, retry_at: None };
            }
            Err(error) => tracing::warn!(error = error.chain(), "could not write the password file"),
        }
        self.service.ready();
    }

    /// Brings roles and password file in line with passwords that were replaced.
    pub(super) async fn follow_passwords(&mut self) {
        let now = clock::now();
        let rotation = &self.state.rotation;
        if !rotation.happened || rotation.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let status = self.status.borrow().clone();
        let postgres = &self.tools.postgres;
        match status.postgres.answering().map(|sql| &sql.standby) {
            Some(Standby::No) if rotation.is_due && status.is_leader(now) => {
                match tokio::time::timeout(ENACT_WITHIN, postgres.enact_passwords()).await {
                    Ok(Ok(())) => {
                        tracing::info!("the passwords of the roles were changed");
                        self.state.rotation.is_due = false;
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(
                            error = error.chain(),
                            "could not change the passwords of the roles; the old passwords stay valid"
                        )
                    }
                    Err(_) => tracing::warn!("PostgreSQL did not change the passwords in time"),
                }
            }
            Some(Standby::Yes { receiver: None, .. }) => {
                if let Err(error) = postgres.take_turns_with_passwords() {
                    tracing::warn!(error = error.chain(), "could not write the password file");
                }
            }
            Some(Standby::No | Standby::Yes { .. }) | None => return,
        }
        self.state.rotation.retry_at = Some(now + RETRY_EVERY);
    }
}
