//! The data that a clone replaces: the data directory, and the targets of its links (a linked `pg_wal`, tablespaces).
//! It is moved aside until the clone has succeeded, and moved back when the clone fails.
//!
//! A journal beside the data directory names every move before it is made. Together with the half-made marker it shows,
//! after a crash at any step, which data belongs to which: if the second name of a move exists, the first holds half a
//! clone; otherwise the first still holds the previous data.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::control::{self, beside};
use super::{Error, Setup};
use crate::os::durable;
use crate::os::error_chain::ErrorChain;

const SUFFIX: &str = ".aside";
/// The mark of a directory in which a method works that starts from what is there.
pub(super) const RESTORE: &str = "restore";
/// The prefix of files that show whether a tablespace is shared. A killed supervisor may have left one.
pub(super) const MARK: &str = ".matriarch-clone-";
/// The highest number of a directory that is set aside; after that the operator has to remove some.
const NUMBER_MAX: u32 = 100;

/// A directory that is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Move {
    from: PathBuf,
    to: PathBuf,
}

impl Move {
    /// A disk that gives no answer is an error: the move must count neither as done nor as not done.
    fn is_made(&self) -> Result<bool, Error> {
        self.to.try_exists().map_err(Error::file("look for", &self.to))
    }
}

/// The directories that a clone has set aside, and those that it fills.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SetAside {
    /// What had left the directory incomplete before, if anything had.
    was: Option<String>,
    /// The moves; the data directory comes last.
    moves: Vec<Move>,
    /// The targets of the links in the former data directory.
    pub(super) links: Links,
    /// Directories outside that were empty, and that the clone fills.
    fills: Vec<PathBuf>,
    /// A directory could not be moved and was emptied: the directories set aside are no complete copy.
    incomplete: bool,
}

/// The links that lead out of a data directory: `pg_wal`, and tablespaces by their OID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Links {
    pub(super) wal: Option<PathBuf>,
    pub(super) tablespaces: Vec<(u32, PathBuf)>,
}

impl Links {
    pub(super) fn of(data_dir: &Path) -> Links {
        let tablespaces = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
        let tablespace = |entry: fs::DirEntry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        };
        // A link made by hand may be relative; pg_basebackup needs an absolute path.
        let absolute = |target: PathBuf| match target.is_absolute() {
            true => Some(target),
            false => data_dir.join(target).canonicalize().ok(),
        };
        Links {
            wal: fs::read_link(data_dir.join("pg_wal")).ok().and_then(absolute),
            tablespaces: tablespaces.filter_map(tablespace).collect(),
        }
    }

    fn targets(&self) -> impl Iterator<Item = &PathBuf> {
        self.wal.iter().chain(self.tablespaces.iter().map(|(_, target)| target))
    }
}

impl SetAside {
    fn path(setup: &Setup) -> PathBuf {
        beside(&setup.data_dir, ".matriarch-aside")
    }

    fn read(setup: &Setup) -> Result<Option<SetAside>, Error> {
        let path = SetAside::path(setup);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::Unfit(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    fn write(&self, setup: &Setup) -> Result<(), Error> {
        let (path, text) = (SetAside::path(setup), serde_json::to_vec_pretty(self));
        let text = text.map_err(|error| Error::Unfit(error.to_string()))?;
        durable::write(&path, &text, 0o600, setup.uid_gid).map_err(Error::file("write", &path))
    }

    /// The data that an interrupted clone has set aside. An older version wrote no journal and set nothing aside: it
    /// filled the targets of the data directory's links.
    fn of_interrupted(setup: &Setup) -> Result<SetAside, Error> {
        Ok(SetAside::read(setup)?.unwrap_or_else(|| {
            let links = Links::of(&setup.data_dir);
            let fills = links.targets().map(|path| real_path(path)).collect();
            SetAside { fills, links, ..SetAside::default() }
        }))
    }

    /// What a method has left that worked on the data directory as it was. The targets of its links stay untouched: the
    /// method may have restored links of a backup, which lead to the data of another cluster.
    fn of_restored(setup: &Setup) -> Result<SetAside, Error> {
        let mut aside = SetAside { was: Some(RESTORE.to_owned()), ..SetAside::default() };
        if !control::is_empty(&setup.data_dir)? {
            let from = setup.data_dir.canonicalize().map_err(Error::file("find", &setup.data_dir))?;
            aside.moves.push(Move { to: free_name(&from, SUFFIX)?, from });
        }
        Ok(aside)
    }

    /// Restores the data that an interrupted clone has set aside. If there is none, the directory is empty afterwards.
    pub(super) fn undo(setup: &Setup) -> Result<(), Error> {
        SetAside::of_interrupted(setup)?.put_back(setup)
    }

    /// Marks the directory as an incomplete clone, and moves its content away. `half_made`: what had left it incomplete
    /// before.
    pub(super) fn begin(setup: &Setup, half_made: Option<String>) -> Result<SetAside, Error> {
        let interrupted = half_made.as_deref() == Some("clone");
        let mut aside = if interrupted {
            SetAside::of_interrupted(setup)?
        } else if half_made.as_deref() == Some(RESTORE) {
            SetAside::of_restored(setup)?
        } else {
            // There is no mark, so that clone succeeded, or none began.
            if let Some(over) = SetAside::read(setup)?.filter(|_| half_made.is_none())
                && let Err(error) = over.forget(setup)
            {
                tracing::warn!(error = error.chain(), "could not remove a directory that was moved aside");
            }
            let mut aside = SetAside { was: half_made, ..SetAside::default() };
            aside.plan(&setup.data_dir)?;
            aside
        };
        aside.write(setup)?;
        control::mark(setup, "clone")?;
        match aside.make_way(setup) {
            Ok(()) => Ok(aside),
            Err(error) => Err(aside.put_back_because(setup, error)),
        }
    }

    fn make_way(&mut self, setup: &Setup) -> Result<(), Error> {
        self.clear(setup)?;
        for a_move in self.moves.clone() {
            if make_way(&a_move)? {
                continue;
            }
            // The journal is written before anything is removed.
            let before = std::mem::replace(&mut self.incomplete, true);
            if let Err(error) = self.write(setup) {
                self.incomplete = before;
                return Err(error);
            }
            empty(&a_move.from)?;
        }
        Ok(())
    }

    fn plan(&mut self, data_dir: &Path) -> Result<(), Error> {
        if control::is_empty(data_dir)? {
            return Ok(());
        }
        // A link stays a link: its target is moved.
        let real = data_dir.canonicalize().map_err(Error::file("find", data_dir))?;
        self.links = Links::of(&real);
        let outside = self.links.targets().filter(|path| path.is_dir()).map(|path| real_path(path));
        let mut directories: Vec<PathBuf> = outside.filter(|path| !path.starts_with(&real)).collect();
        directories.sort();
        directories.dedup();
        for (_, tablespace) in &self.links.tablespaces {
            holds_only_ours(&real, tablespace)?;
        }
        directories.push(real);
        for outer in &directories {
            if let Some(inner) = directories.iter().find(|path| *path != outer && path.starts_with(outer)) {
                let (inner, outer) = (inner.display(), outer.display());
                return Err(Error::Unfit(format!("clone: {inner} lies in {outer}: move it out of there")));
            }
        }
        for from in directories {
            self.moves.push(Move { to: free_name(&from, SUFFIX)?, from });
        }
        Ok(())
    }

    /// Records directories that the clone will fill, if they are empty: their later content belongs to the clone.
    pub(super) fn fill(&mut self, setup: &Setup, directories: Vec<PathBuf>) -> Result<(), Error> {
        for directory in directories.iter().map(|path| real_path(path)) {
            let known =
                self.fills.contains(&directory) || self.moves.iter().any(|known| known.from == directory);
            if !known && control::is_empty(&directory)? {
                self.fills.push(directory);
            }
        }
        self.write(setup)
    }

    /// Removes an incomplete clone.
    pub(super) fn clear(&self, setup: &Setup) -> Result<(), Error> {
        for known in &self.moves {
            if known.is_made()? {
                empty(&known.from)?;
            }
        }
        for directory in &self.fills {
            empty(directory)?;
        }
        if self.moves.is_empty() { empty(&setup.data_dir) } else { Ok(()) }
    }

    /// Restores everything after a failed clone. If that fails, the next clone begins with it.
    pub(super) fn put_back_because(self, setup: &Setup, error: Error) -> Error {
        if let Err(error) = self.put_back(setup) {
            tracing::warn!(error = error.chain(), "cannot restore the data from before the clone yet");
        }
        error
    }

    fn put_back(self, setup: &Setup) -> Result<(), Error> {
        self.clear(setup)?;
        for known @ Move { from, to } in &self.moves {
            match (self.incomplete, known.is_made()?) {
                (true, false) => empty(from)?,
                (true, true) | (false, false) => {}
                (false, true) => {
                    match fs::remove_dir(from) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(Error::file("remove", from)(error));
                        }
                        Ok(()) | Err(_) => {}
                    }
                    fs::rename(to, from).map_err(Error::file("put back", to))?;
                    sync_parent(from)?;
                }
            }
        }
        match &self.was {
            Some(by) if !self.incomplete => control::mark(setup, by)?,
            Some(_) | None => control::unmark(setup)?,
        }
        if !self.incomplete {
            let path = SetAside::path(setup);
            durable::remove(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(())
    }

    /// Removes the former directories: the clone is complete, and no longer marked.
    pub(super) fn forget(self, setup: &Setup) -> Result<(), Error> {
        for known @ Move { to, .. } in &self.moves {
            if known.is_made()? {
                fs::remove_dir_all(to).map_err(Error::file("remove", to))?;
            }
        }
        let path = SetAside::path(setup);
        durable::remove(&path).map_err(Error::file("remove", &path))
    }
}

/// Moves a directory away and leaves an empty one with the same mode and owner; an earlier move stays. False if it
/// cannot be moved: it is the root of a volume, or its parent belongs to another user.
fn make_way(a_move: &Move) -> Result<bool, Error> {
    let Move { from, to } = a_move;
    if !a_move.is_made()? {
        match fs::rename(from, to) {
            Ok(()) => sync_parent(to)?,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ResourceBusy
                        | ErrorKind::PermissionDenied
                        | ErrorKind::CrossesDevices
                        | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                let directory = from.display();
                tracing::warn!(%directory, %error, "could not move a directory aside: emptying it for the clone");
                return Ok(false);
            }
            Err(error) => return Err(Error::file("move aside", from)(error)),
        }
    }
    if !from.exists() {
        fs::create_dir(from).map_err(Error::file("create", from))?;
    }
    // Always: an earlier attempt may have ended before this.
    let like = fs::metadata(to).map_err(Error::file("look at", to))?;
    fs::set_permissions(from, like.permissions()).map_err(Error::file("chmod", from))?;
    chown(from, Some(like.uid()), Some(like.gid())).map_err(Error::file("chown", from))?;
    Ok(true)
}

/// The canonical path of a directory: the journal compares paths.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_missing| path.to_owned())
}

/// The prefix of directories of this cluster's version in a tablespace.
fn prefix(data_dir: &Path) -> Result<String, Error> {
    let path = data_dir.join("PG_VERSION");
    let version = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    Ok(format!("PG_{}_", version.trim()))
}

/// The directories of this cluster's version in the location of a tablespace.
pub(super) fn of_this_version(data_dir: &Path, location: &Path) -> Result<Vec<PathBuf>, Error> {
    let ours = prefix(data_dir)?;
    let number = |name: &str| name.strip_prefix(&ours).is_some_and(|rest| rest.parse::<u64>().is_ok());
    let entries = fs::read_dir(location).into_iter().flatten().flatten();
    Ok(entries
        .filter(|entry| entry.file_name().to_str().is_some_and(number))
        .map(|entry| entry.path())
        .collect())
}

/// Moves a directory away for good, or empties it if it cannot be moved; an empty one stays in its place.
pub(super) fn clear_away(directory: &Path, suffix: &str) -> Result<(), Error> {
    if control::is_empty(directory)? {
        return Ok(());
    }
    let from = real_path(directory);
    let to = free_name(&from, suffix)?;
    if make_way(&Move { from: from.clone(), to })? { Ok(()) } else { empty(&from) }
}

/// Fails if a tablespace's location has content of other clusters. Several versions may share one, as `pg_upgrade`
/// leaves it, each with its own `PG_<version>_<catalog>`. Content of another cluster is neither moved nor removed.
fn holds_only_ours(data_dir: &Path, tablespace: &Path) -> Result<(), Error> {
    let ours = prefix(data_dir)?;
    let entries = match fs::read_dir(tablespace) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::file("read", tablespace))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("read", tablespace))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(&ours) && !name.starts_with(MARK) && name != "lost+found" {
            let place = tablespace.display();
            return Err(Error::Unfit(format!(
                "clone: {place} holds {name}, which is not this cluster's: move it away, or give the clone another \
                 place (basebackup: tablespace-mapping)"
            )));
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), |parent| durable::sync_dir(parent).map_err(Error::file("sync", parent)))
}

/// `<directory><suffix>`, with a number if that name is taken.
pub(super) fn free_name(directory: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let numbered = (1..NUMBER_MAX).map(|number| beside(directory, &format!("{suffix}-{number}")));
    let mut names = std::iter::once(beside(directory, suffix)).chain(numbered);
    names
        .find(|path| !path.exists())
        .ok_or_else(|| Error::Unfit(format!("too many {}{suffix}-…: remove them", directory.display())))
}

/// Removes the content of a directory, but not the directory. An empty `lost+found` of a volume is removed as well:
/// PostgreSQL's programs refuse to fill a directory that contains one, and fsck creates it anew.
pub(super) fn empty(directory: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("read", directory))?;
        let path = entry.path();
        let is_dir = entry.file_type().map_err(Error::file("look at", &path))?.is_dir();
        let removed = match is_dir {
            true if entry.file_name() == "lost+found" => fs::remove_dir(&path),
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.map_err(Error::file("remove", &path))?;
    }
    Ok(())
}
