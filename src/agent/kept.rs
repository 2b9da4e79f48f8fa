//! A copy of the dynamic configuration beside the data. A start begins with it, and an emptied etcd is filled from it.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::model::Moment;
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{Error, Postgres};

/// The pause after a failed write.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The content of the file, as far as it is known.
#[derive(Default)]
pub(super) struct Kept {
    text: Option<String>,
    writing: Option<(String, JoinHandle<Result<(), Error>>)>,
    failed_at: Option<Moment>,
}

impl Kept {
    /// The file belongs to another member, or is gone: it is written again.
    pub(super) fn forget(&mut self) {
        self.text = None;
    }

    /// Begins to write `text`, unless the file has it. A disk that does not answer delays nothing else.
    pub(super) async fn keep(&mut self, postgres: &Postgres, text: &str) {
        if self.writing.as_ref().is_some_and(|(_, writing)| !writing.is_finished()) {
            return;
        }
        if let Some((written, writing)) = self.writing.take() {
            match writing.await {
                Ok(Ok(())) => (self.text, self.failed_at) = (Some(written), None),
                Ok(Err(error)) => {
                    tracing::warn!(error = error.chain(), "could not save the dynamic configuration to disk");
                    self.failed_at = Some(clock::now());
                }
                Err(_) => self.failed_at = Some(clock::now()),
            }
        }
        let pauses = self.failed_at.is_some_and(|at| clock::now() < at + AGAIN_AFTER);
        if self.text.as_deref() != Some(text) && !pauses {
            let (postgres, writes) = (postgres.clone(), text.to_owned());
            let writing = tokio::task::spawn_blocking(move || postgres.keep_dynamic(&writes));
            self.writing = Some((text.to_owned(), writing));
        }
    }
}
