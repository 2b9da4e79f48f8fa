//! The journal's records on their way to etcd and to a file beside the data directory. Nothing waits for them: neither
//! for etcd, nor for a disk that hangs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::etcd::{Etcd, EtcdError};
use crate::model::JournalRecord;
use crate::os::durable;

/// So many records are kept in the file, the newest.
const RECORDS_MAX: usize = 200;
/// The pause after a failed write to etcd; each further one is twice as long, up to the second value.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The pause after a failed write to the disk.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A supervisor that ends waits this long for records that are not written.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// The loop's end: it hands records over, and waits for nothing.
pub(super) struct JournalKeeper {
    records: mpsc::UnboundedSender<JournalRecord>,
    /// How many records have been written, or given up.
    kept: watch::Receiver<usize>,
    handed_over: usize,
}

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
struct JournalFile {
    /// The prefix of the cluster's keys: the records of another cluster stay out of this one.
    base: String,
    records: Vec<SavedRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedRecord {
    record: JournalRecord,
    in_etcd: bool,
}

impl JournalKeeper {
    /// Begins, with the records that a previous incarnation could not write to etcd.
    pub(super) fn start(data_dir: &Path, etcd: &Etcd) -> JournalKeeper {
        let mut path = data_dir.as_os_str().to_owned();
        path.push(".matriarch-journal");
        let path = PathBuf::from(path);
        let (records, arriving) = mpsc::unbounded_channel();
        let (done, kept) = watch::channel(0);
        let file = recall(&path, etcd.keys().base());
        // They are written first, and counted like those of this incarnation.
        let handed_over = file.records.iter().filter(|saved| !saved.in_etcd).count();
        let writer = JournalWriter {
            etcd: etcd.clone(),
            path,
            file,
            arriving,
            done,
            saving: None,
            dirty: false,
            is_refused: false,
        };
        tokio::spawn(writer.run());
        JournalKeeper { records, kept, handed_over }
    }

    /// Takes a record.
    pub(super) fn keep(&mut self, record: JournalRecord) {
        tracing::debug!(key = record.key(), "journal");
        self.handed_over += usize::from(self.records.send(record).is_ok());
    }

    /// Waits for the records that are on their way, for a limited time.
    pub(super) async fn settle(&mut self) {
        let all = self.handed_over;
        let settled = self.kept.wait_for(|kept| all <= *kept);
        // What is not in etcd by then is in the file, and is written by the next incarnation.
        let _ = tokio::time::timeout(SETTLE_WITHIN, settled).await;
    }
}

fn recall(path: &Path, base: &str) -> JournalFile {
    let empty = || JournalFile { base: base.to_owned(), records: Vec::new() };
    let file = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice::<JournalFile>(&text).map_err(std::io::Error::other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return empty(),
        Err(error) => Err(error),
    };
    match file {
        Ok(file) if file.base == base => file,
        Ok(_) => empty(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the journal beside the data directory is unreadable");
            empty()
        }
    }
}

/// The task that writes.
struct JournalWriter {
    etcd: Etcd,
    path: PathBuf,
    file: JournalFile,
    arriving: mpsc::UnboundedReceiver<JournalRecord>,
    done: watch::Sender<usize>,
    saving: Option<JoinHandle<std::io::Result<()>>>,
    /// The file lacks something.
    dirty: bool,
    /// Etcd does not allow it, as the log says once.
    is_refused: bool,
}

impl JournalWriter {
    async fn run(mut self) {
        let mut pause = AGAIN_AFTER.0;
        loop {
            self.save().await;
            let unsent = self.file.records.iter().position(|saved| !saved.in_etcd);
            let wait = match unsent {
                None if self.dirty || self.saving.is_some() => SAVE_AGAIN_AFTER,
                None => Duration::MAX,
                Some(index) => match self.etcd.keep_record(&self.file.records[index].record).await {
                    Ok(()) => {
                        (self.file.records[index].in_etcd, self.dirty) = (true, true);
                        self.done.send_modify(|kept| *kept += 1);
                        pause = AGAIN_AFTER.0;
                        continue;
                    }
                    Err(error) => {
                        if let EtcdError::Authentication(_) = error
                            && !std::mem::replace(&mut self.is_refused, true)
                        {
                            tracing::warn!(%error, "etcd lets me write no journal: its role needs write access to the keys below journal/");
                        }
                        tracing::debug!(%error, "a record of the journal was not written to etcd");
                        let now = pause;
                        pause = (pause * 2).min(AGAIN_AFTER.1);
                        now
                    }
                },
            };
            tokio::select! {
                arrived = self.arriving.recv() => match arrived {
                    Some(record) => self.take(record),
                    None => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn take(&mut self, record: JournalRecord) {
        self.file.records.push(SavedRecord { record, in_etcd: false });
        let surplus = self.file.records.len().saturating_sub(RECORDS_MAX);
        let given_up = self.file.records.drain(..surplus).filter(|saved| !saved.in_etcd).count();
        self.done.send_modify(|kept| *kept += given_up);
        self.dirty = true;
    }

    /// Begins to write the file, if it lacks something and no write runs. A disk that hangs delays nothing else.
    async fn save(&mut self) {
        if let Some(saving) = self.saving.take_if(|saving| saving.is_finished())
            && let Err(error) = saving.await.map_err(std::io::Error::other).flatten()
        {
            tracing::warn!(file = %self.path.display(), %error, "cannot save the journal");
            self.dirty = true;
            return;
        }
        if !self.dirty || self.saving.is_some() {
            return;
        }
        let text = match serde_json::to_vec(&self.file) {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, "cannot save the journal"),
        };
        let path = self.path.clone();
        self.dirty = false;
        self.saving = Some(tokio::task::spawn_blocking(move || durable::write(&path, &text, 0o600, None)));
    }
}
