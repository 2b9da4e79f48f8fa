//! A new replica: the configured methods in order, up to the first that succeeds.
//!
//! ```text
//!  keep_data   marked `restore`   works on what is in the data directory; after a failure that stays
//!  others      marked `clone`     the former data is set aside (`aside`), and put back when all methods have failed
//! ```

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::aside::{RESTORE, SetAside};
use super::handle::{CloneStatus, Postgres, PostgresInner};
use super::script::{self, ScriptCall};
use super::{Error, Setup, archive, clone, conninfo, control, files, rotation};
use crate::model::{DataDirectory, FollowTarget, ReplicaMethod, ReplicaScript};
use crate::os::error_chain::ErrorChain;

/// What to make a replica from.
#[derive(Clone, Debug)]
pub struct ReplicaOrder {
    /// The member to copy from; `None`: only methods that need none are tried.
    pub from: Option<FollowTarget>,
    /// The methods, in order.
    pub methods: Vec<ReplicaMethod>,
    /// The system identifier that the data must have; `None`: any.
    pub system_id: Option<u64>,
}

impl Postgres {
    /// Makes a replica. An existing directory is moved aside first and deleted after success, unless a method starts
    /// from what is there.
    ///
    /// # Errors
    /// No method succeeded; the error has what each of them said.
    pub async fn make_replica(
        &self,
        order: ReplicaOrder,
        told: watch::Sender<CloneStatus>,
    ) -> Result<(), Error> {
        make(&self.inner, &order, &told).await
    }

    /// Restores the data that an interrupted clone had set aside. If there is none, the directory is empty afterwards.
    ///
    /// # Errors
    /// A process runs in the directory, no clone was interrupted, or a directory cannot be moved (the error names it).
    pub async fn undo_clone(&self) -> Result<(), Error> {
        self.inner.postmaster.must_be_down("undo a clone")?;
        let setup = &self.inner.setup;
        script::end_leftovers(setup).await?;
        match control::marked_by(setup)?.as_deref() {
            // What the clone has copied may be much to remove. A caller that gives up stops before this, or after it.
            Some("clone") => tokio::task::block_in_place(|| SetAside::undo(setup)),
            _other => Err(Error::Unfit("undo a clone: none was interrupted".to_owned())),
        }
    }
}

async fn make(
    inner: &PostgresInner,
    order: &ReplicaOrder,
    progress: &watch::Sender<CloneStatus>,
) -> Result<(), Error> {
    inner.postmaster.must_be_down("clone")?;
    let setup = &inner.setup;
    // An interrupted script may still write here.
    script::end_leftovers(setup).await?;
    let half_made = match control::look(setup).await.0 {
        DataDirectory::HalfMade { by } => Some(by),
        _other => None,
    };
    let mut source_spaces = Vec::new();
    if let Some(from) = &order.from {
        source_spaces = clone::source_tablespaces(setup, from).await?;
        rotation::write_pgpass(setup, from)?;
        if half_made.is_none() {
            archive::save_before_clone(inner, from).await;
        }
    }
    let attempt = ReplicaAttempt { setup, order, source_spaces, progress };
    let usable = |method: &&ReplicaMethod| order.from.is_some() || method.needs_no_source();
    let mut place = ReplicaPlace::Untouched { half_made };
    let mut failures = Vec::new();
    for method in order.methods.iter().filter(usable) {
        place.prepare(setup, method)?;
        progress.send_replace(CloneStatus::default());
        match attempt.run(method, &mut place).await {
            Ok(()) => return place.complete(setup),
            Err(error) => failures.push((method.name(), error)),
        }
        place.clear(setup)?;
    }
    Err(place.give_up(setup, told(failures)))
}

/// The errors of all methods as one.
fn told(mut failures: Vec<(&str, Error)>) -> Error {
    match failures.len() {
        0 => Error::Unfit("clone: no configured method works without a leader".to_owned()),
        1 => failures.remove(0).1,
        _ => {
            let each = failures.iter().map(|(method, error)| format!("{method}: {}", error.chain()));
            Error::Unfit(format!("clone: every method failed: {}", each.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The state of the data directory between two methods.
enum ReplicaPlace {
    /// Nothing was done yet.
    Untouched { half_made: Option<String> },
    /// A method works on what is there. It stays after a failure, and is never started.
    Kept,
    /// The former data is set aside, and the directory is empty.
    Empty(SetAside),
}

impl ReplicaPlace {
    /// Makes the directory what the method expects. An incomplete result of a method that does not start from what is
    /// there is no beginning for one that does.
    fn prepare(&mut self, setup: &Setup, method: &ReplicaMethod) -> Result<(), Error> {
        let (keeps, half_made) = match self {
            ReplicaPlace::Empty(_) => return Ok(()),
            ReplicaPlace::Kept => (true, Some(RESTORE.to_owned())),
            ReplicaPlace::Untouched { half_made } => {
                let foreign = matches!(half_made.as_deref(), Some("clone" | "bootstrap"));
                (!foreign, half_made.take())
            }
        };
        *self = match keeps && method.keeps_data() {
            true => {
                control::mark(setup, RESTORE)?;
                ReplicaPlace::Kept
            }
            false => ReplicaPlace::Empty(SetAside::begin(setup, half_made)?),
        };
        Ok(())
    }

    /// Removes what a method that failed has made, unless that is to stay.
    fn clear(&self, setup: &Setup) -> Result<(), Error> {
        match self {
            ReplicaPlace::Untouched { .. } | ReplicaPlace::Kept => Ok(()),
            ReplicaPlace::Empty(aside) => tokio::task::block_in_place(|| aside.clear(setup)),
        }
    }

    fn give_up(self, setup: &Setup, error: Error) -> Error {
        match self {
            ReplicaPlace::Untouched { .. } | ReplicaPlace::Kept => error,
            ReplicaPlace::Empty(aside) => aside.put_back_because(setup, error),
        }
    }

    fn complete(self, setup: &Setup) -> Result<(), Error> {
        keep_private(&setup.data_dir)?;
        files::remove_signals(setup)?;
        control::unmark(setup)?;
        if let ReplicaPlace::Empty(aside) = self
            && let Err(error) = aside.forget(setup)
        {
            // The clone is complete; the operator can delete the rest.
            tracing::warn!(error = error.chain(), "could not remove a directory that was moved aside");
        }
        Ok(())
    }
}

/// Some programs fill only a directory that is there. pg_basebackup gives a new one the mode of its source's.
pub(super) fn create_if_missing(setup: &Setup) -> Result<(), Error> {
    let data_dir = &setup.data_dir;
    if data_dir.exists() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(Error::file("create", data_dir))?;
    match setup.uid_gid {
        Some((user, group)) => {
            chown(data_dir, Some(user), Some(group)).map_err(Error::file("chown", data_dir))
        }
        None => Ok(()),
    }
}

/// A copy may keep the permissions of an existing directory, and PostgreSQL refuses one that is open to others.
pub(super) fn keep_private(data_dir: &Path) -> Result<(), Error> {
    let mode = fs::metadata(data_dir).map_err(Error::file("look at", data_dir))?.permissions().mode();
    match mode & 0o777 {
        0o700 | 0o750 => Ok(()),
        _open => fs::set_permissions(data_dir, Permissions::from_mode(0o700))
            .map_err(Error::file("chmod", data_dir)),
    }
}

/// What every method needs.
struct ReplicaAttempt<'a> {
    setup: &'a Setup,
    order: &'a ReplicaOrder,
    source_spaces: Vec<(u32, PathBuf)>,
    progress: &'a watch::Sender<CloneStatus>,
}

impl ReplicaAttempt<'_> {
    async fn run(&self, method: &ReplicaMethod, place: &mut ReplicaPlace) -> Result<(), Error> {
        let made = match (method, &self.order.from, place) {
            (ReplicaMethod::Basebackup, Some(from), ReplicaPlace::Empty(aside)) => {
                match clone::copy(self.setup, from, &self.source_spaces, aside, self.progress).await {
                    Ok(()) => self.check_identity("pg_basebackup").await,
                    failed => failed,
                }
            }
            (ReplicaMethod::Basebackup, _, _) => {
                Err(Error::Unfit("clone: basebackup needs a member to copy from".to_owned()))
            }
            (ReplicaMethod::Script(script), _, _) => self.call(script).await,
        };
        let name = method.name();
        match &made {
            Ok(()) => tracing::info!(method = name, "the replica was made"),
            Err(error) => {
                tracing::warn!(method = name, error = error.chain(), "could not make a replica this way")
            }
        }
        made
    }

    async fn call(&self, script: &ReplicaScript) -> Result<(), Error> {
        let setup = self.setup;
        create_if_missing(setup)?;
        let environment = [("PGPASSFILE", setup.pgpass.as_os_str())];
        let call = ScriptCall {
            name: &script.name,
            words: &self.words(script),
            environment: &environment as &[(&str, &OsStr)],
            within: None,
        };
        call.make_data(setup).await?;
        self.check_identity(&script.name).await
    }

    /// A source may be another cluster's: the remote primary of a standby cluster is whatever the operator has written.
    async fn check_identity(&self, method: &str) -> Result<(), Error> {
        let made = control::read(self.setup).await?;
        match self.order.system_id.filter(|wanted| *wanted != made.system_id) {
            Some(wanted) => Err(Error::Unfit(format!(
                "{method}: what it made belongs to the cluster with system identifier {}, and this one's is {wanted}",
                made.system_id
            ))),
            None => Ok(()),
        }
    }

    /// The script's command line. Passwords are in the file that `PGPASSFILE` names.
    fn words(&self, script: &ReplicaScript) -> Vec<String> {
        let (setup, command) = (self.setup, &script.command);
        let mut told = Vec::new();
        if command.is_told {
            let source = self.order.from.as_ref();
            let source = source
                .and_then(|from| conninfo::to_member(setup, from, &setup.replication, "matriarch clone"));
            told = vec![
                ("scope", setup.scope.clone()),
                ("role", "replica".to_owned()),
                ("datadir", setup.data_dir.display().to_string()),
                ("connstring", source.unwrap_or_default()),
            ];
        }
        let own = command.arguments.iter().map(|(key, value)| (key.as_str(), value));
        let own = own.filter(|(key, _)| told.iter().all(|(name, _)| name != key));
        let arguments = own.chain(told.iter().map(|(key, value)| (*key, value)));
        let arguments = arguments.map(|(key, value)| format!("--{key}={value}"));
        command.words.iter().cloned().chain(arguments).collect()
    }
}
