//! The start of a primary in place. It becomes read-write by itself, so the process that will be the postmaster is
//! there first, and waits: a guard can be armed for it before it can write.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use super::handle::PostgresInner;
use super::process::{await_start, launch, prepare, startable};
use super::program::bare;
use super::{Error, Started, files, slot_copies};
use crate::model::SettingsRole;

/// Becomes the postmaster when it has read a line. At the end of its input, which is closed when the supervisor dies,
/// it ends instead. The process stays the same one: `exec` changes neither its id nor its start time.
pub(super) const WAIT_TO_START: &str = r#"read -r line && exec "$@" </dev/null"#;

/// A process that waits before it becomes the postmaster of a primary. When it is dropped before it was released, it
/// ends.
pub struct HeldPostmaster {
    inner: Arc<PostgresInner>,
    line: Vec<String>,
    stdin: Option<ChildStdin>,
}

impl HeldPostmaster {
    /// Writes the files of a primary, and starts the process.
    pub(super) async fn start(inner: &Arc<PostgresInner>) -> Result<HeldPostmaster, Error> {
        let setup = &inner.setup;
        let control = startable(inner).await?;
        if !control.is_of_primary() || control.is_unfinished_copy() {
            let state = control.state;
            return Err(Error::Unfit(format!("start: this was no primary when it went down, but {state:?}")));
        }
        inner.slot_copies.forget();
        inner.configuration.set_role(SettingsRole::Primary);
        let parameters = prepare(inner).await?;
        files::write_of_primary(inner)?;
        let mut line = files::command_line(&parameters, &slot_copies::with_room(setup, &BTreeMap::new()));
        line.extend(inner.access.argument());
        let mut command = bare(setup, "/bin/sh");
        command.arg("-c").arg(WAIT_TO_START).arg("sh").arg(setup.program("postgres"));
        // As PostgreSQL itself does: what works there is found by a supervisor that was restarted.
        command.current_dir(&setup.data_dir).stdin(Stdio::piped());
        let stdin = launch(inner, command, &line, false)?;
        Ok(HeldPostmaster { inner: inner.clone(), line, stdin })
    }

    /// Lets it start. It may accept writes at any moment from now on.
    pub async fn release(&mut self) -> Result<(), Error> {
        let spawn = |source| Error::Spawn { program: "postgres".to_owned(), source };
        match self.stdin.take() {
            Some(mut stdin) => stdin.write_all(b"\n").await.map_err(spawn),
            None => Err(Error::Unfit("start: the postmaster was released already".to_owned())),
        }
    }

    /// Waits until it accepts connections, or for so long.
    pub async fn await_ready(&self, within: Duration) -> Result<Started, Error> {
        let started = await_start(&self.inner, &self.line, within).await?;
        if started == Started::Ready {
            self.inner.has_started();
        }
        Ok(started)
    }
}
