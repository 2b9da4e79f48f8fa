//! Facts about etcd's store, kept beside the data directory: they reveal a restored store even after a restart of the
//! supervisor.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::decide::Memory;
use crate::etcd::Etcd;
use crate::model::StoreSeen;
use crate::os::durable;

/// The file.
#[derive(Default)]
pub(super) struct StoreFile {
    path: PathBuf,
    base: String,
    written: StoreSeen,
    /// The write under way.
    writing: Option<JoinHandle<std::io::Result<StoreSeen>>>,
    /// The last write failed, and that was logged.
    failed: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// The prefix of the cluster's keys: the state of another cluster's keys does not count.
    base: String,
    seen: StoreSeen,
}

impl StoreFile {
    /// Reads the file of a previous incarnation of this supervisor; empty if it cannot be read. The recorded etcd
    /// cluster remains the one to use.
    pub(super) fn recall(data_dir: &Path, etcd: &Etcd) -> StoreFile {
        let base = etcd.keys().base();
        let mut path = data_dir.as_os_str().to_owned();
        path.push(".matriarch-store");
        let path = PathBuf::from(path);
        let written = match std::fs::read(&path).map(|text| serde_json::from_slice::<Content>(&text)) {
            Ok(Ok(content)) if content.base == base => content.seen,
            Ok(Ok(_)) => StoreSeen::default(),
            Ok(Err(error)) => {
                tracing::warn!(file = %path.display(), %error, "the saved state of etcd is unreadable");
                StoreSeen::default()
            }
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(file = %path.display(), %error, "the saved state of etcd is unreadable");
                }
                StoreSeen::default()
            }
        };
        etcd.expect_cluster(written.keys.cluster_id);
        StoreFile { path, base: base.to_owned(), written, writing: None, failed: false }
    }

    /// The memory to begin with.
    pub(super) fn recalled(&self) -> Memory {
        Memory { store: self.written.clone(), ..Memory::default() }
    }

    /// Writes `seen` beside the loop, if a key on which leadership rests has changed; a new revision alone is not worth
    /// a write. Only one write runs at a time; a later tick writes later changes.
    pub(super) async fn keep(&mut self, seen: &StoreSeen) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            match writing.await.map_err(std::io::Error::other).flatten() {
                Ok(written) => (self.written, self.failed) = (written, false),
                Err(error) if !self.failed => {
                    self.failed = true;
                    tracing::warn!(file = %self.path.display(), %error, "cannot save the state of etcd");
                }
                Err(_said_before) => {}
            }
        }
        if !seen.adds_to(&self.written) || self.writing.is_some() {
            return;
        }
        let content = Content { base: self.base.clone(), seen: seen.clone() };
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&content).map_err(std::io::Error::other)?;
            durable::write(&path, &text, 0o600, None)?;
            Ok(content.seen)
        }));
    }
}
