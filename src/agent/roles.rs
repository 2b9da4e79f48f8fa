//! The roles in PostgreSQL that the supervisor uses, and their passwords in files, as a kubelet mounts them: read again
//! when they change, without a restart.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::cycle::Cycle;
use super::events::TaskReport;
use super::peer_channel::PeerChannel;
use super::wiring;
use crate::config::{self, Config};
use crate::core::member::LookId;
use crate::core::roles::DuePasswords;
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::Postgres;

/// The interval between reads of the files: a kubelet takes a minute to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a change of the roles may take.
const SET_WITHIN: Duration = Duration::from_secs(5);

/// Reports each time the content of a file is another than before. `seen`: as it was when the configuration was read.
pub(super) async fn watch(files: Vec<PathBuf>, mut seen: u64, reports: mpsc::UnboundedSender<TaskReport>) {
    while !files.is_empty() && !reports.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = config::secrets_digest(&files);
        if now != seen {
            seen = now;
            // A loop that has ended needs no secrets.
            let _ = reports.send(TaskReport::SecretsChanged);
        }
    }
}

impl Cycle {
    /// Reads the local configuration again, and uses its passwords.
    pub(super) fn reload(&mut self) {
        self.service.reloading();
        self.dynamic.reload_local();
        self.dynamic.apply_again();
        self.tools.etcd.set_credentials(wiring::etcd_setup(self.dynamic.local()).credentials);
        let postgres = self.tools.postgres.clone();
        if postgres.replace_passwords(wiring::passwords(self.dynamic.local())) {
            tracing::info!("passwords were replaced");
            self.state.roles.passwords_replaced();
            self.tools.statements.run("password file", async move {
                if let Err(error) = postgres.write_passwords() {
                    tracing::warn!(error = error.chain(), "could not write the password file");
                }
            });
        }
        use_peer_keys(&self.channel, self.dynamic.local(), &self.tools.postgres);
        self.service.ready();
    }

    /// Begins to create the own role, if that is due. Returns the work with passwords that is due.
    pub(super) fn work_on_roles(&mut self, look: LookId) -> Option<DuePasswords> {
        let (now, status) = (clock::now(), self.status.borrow().clone());
        let leads = status.is_leader(now);
        if self.state.roles.own_role_is_due(&status.postgres, leads, now) {
            let postgres = self.tools.postgres.clone();
            tokio::spawn(async move {
                if let Err(error) = postgres.create_own_role().await {
                    tracing::warn!(error = error.chain(), "could not create the supervisor's own role");
                }
            });
        }
        self.state.roles.due_passwords(&status.postgres, leads, look, now)
    }
}

/// Lets members know each other by the newest passwords.
pub(super) fn use_peer_keys(channel: &PeerChannel, local: &Config, postgres: &Postgres) {
    let keys = wiring::peer_keys(local, postgres);
    if keys.keys.is_empty() {
        tracing::info!(
            "members do not hear each other's heartbeats: that needs a password of the replication user, or \
             restapi.verify_client: required"
        );
    }
    channel.sessions().use_keys(keys);
}

/// Changes the roles or the password file; true when the roles have their new passwords.
pub(super) async fn follow(postgres: &Postgres, due: DuePasswords) -> bool {
    match due {
        DuePasswords::SetInRoles => {
            match tokio::time::timeout(SET_WITHIN, postgres.set_role_passwords()).await {
                Ok(Ok(())) => {
                    tracing::info!("the passwords of the roles were changed");
                    return true;
                }
                Ok(Err(error)) => tracing::warn!(
                    error = error.chain(),
                    "could not change the passwords of the roles; the old passwords stay valid"
                ),
                Err(_) => tracing::warn!("PostgreSQL did not change the passwords in time"),
            }
        }
        DuePasswords::TryOther => {
            if let Err(error) = postgres.try_other_password() {
                tracing::warn!(error = error.chain(), "could not write the password file");
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_after_the_configuration_was_read_is_reported() {
        let file = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        fs::write(&file, "old").expect("written");
        let files = vec![file.clone()];
        let seen = config::secrets_digest(&files);
        fs::write(&file, "new").expect("written");
        let (sender, mut reports) = mpsc::unbounded_channel();
        let watching = tokio::spawn(watch(files, seen, sender));
        assert!(matches!(reports.recv().await, Some(TaskReport::SecretsChanged)));
        watching.abort();
        fs::remove_file(&file).expect("removed");
    }
}
