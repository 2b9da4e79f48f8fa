//! A copy of the dynamic configuration beside the data. A start begins with it, and an emptied etcd is filled from it.

use tokio::task::JoinHandle;

use crate::core::last_written::LastWritten;
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{Error, Postgres};

/// The content of the file, as far as it is known.
#[derive(Default)]
pub(super) struct SavedConfig {
    file: LastWritten<String>,
    writing: Option<(String, JoinHandle<Result<(), Error>>)>,
}

impl SavedConfig {
    /// The file belongs to another member, or is gone: it is written again.
    pub(super) fn forget(&mut self) {
        self.file.forget();
    }

    /// Begins to write `text`, unless the file has it. A disk that does not answer delays nothing else.
    pub(super) async fn save(&mut self, postgres: &Postgres, text: &str) {
        if self.writing.as_ref().is_some_and(|(_, writing)| !writing.is_finished()) {
            return;
        }
        if let Some((text, writing)) = self.writing.take() {
            let written = writing.await;
            if let Ok(Err(error)) = &written {
                tracing::warn!(error = error.chain(), "could not save the dynamic configuration to disk");
            }
            self.file.ended(text, matches!(written, Ok(Ok(()))), clock::now());
        }
        if self.file.is_due(text, clock::now()) {
            let (postgres, writes) = (postgres.clone(), text.to_owned());
            let writing = tokio::task::spawn_blocking(move || postgres.keep_dynamic(&writes));
            self.writing = Some((text.to_owned(), writing));
        }
    }
}
