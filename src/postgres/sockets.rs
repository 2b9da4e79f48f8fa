//! The supervisor's private socket directory: PostgreSQL always listens there, in addition to every other address.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::control::beside;
use super::handle::PostgresInner;
use super::program::configured_value;
use super::{Error, Parameters, Setup, files, running};
use crate::os::error_chain::ErrorChain;

/// The parameter with the directories.
pub(super) const PARAMETER: &str = "unix_socket_directories";
/// `sun_path` has 108 bytes, including the final zero (unix(7)).
const PATH_BYTES_MAX: usize = 107;
/// The suffix beside the data directory.
const SUFFIX: &str = ".matriarch-sockets";
/// The prefix in a shared directory.
const PREFIX: &str = "matriarch-sockets-";

/// PostgreSQL's directories for local connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sockets {
    /// The private directory.
    pub(super) private: PathBuf,
    /// The operator's, in the syntax of `unix_socket_directories`.
    pub(super) others: String,
}

impl Sockets {
    /// Prepares the private directory for a start, and determines the operator's.
    pub(super) async fn prepare(inner: &PostgresInner) -> Result<Sockets, String> {
        let setup = &inner.setup;
        let others = match configured(setup, &inner.parameters()) {
            Some(others) => others,
            None => ask(setup).await.map_err(|error| error.chain())?,
        };
        create_missing(setup, &directories_in(&others), 0o755);
        let mut refusals = Vec::new();
        for private in private_directories(setup) {
            match claim(&private, setup) {
                Ok(()) => return Ok(Sockets { private, others }),
                Err(error) => refusals.push(format!("{}: {error}", private.display())),
            }
        }
        Err(refusals.join("; "))
    }

    /// The directories of the running postmaster; `None` if it was started without a private one.
    pub(super) fn of_running(inner: &PostgresInner) -> Option<Sockets> {
        let line = running::running_command_line(inner);
        let (others, last) = match line.get(PARAMETER)?.rsplit_once(", \"") {
            Some((others, last)) => (others, last),
            None => ("", line.get(PARAMETER)?.strip_prefix('"')?),
        };
        let private = PathBuf::from(last.strip_suffix('"')?.replace("\"\"", "\""));
        let name = private.file_name()?.to_str()?;
        let ours = name.ends_with(SUFFIX) || name.starts_with(PREFIX);
        ours.then(|| Sockets { private: private.clone(), others: others.to_owned() })
    }

    /// The value of `unix_socket_directories`, with the operator's present directories.
    pub(super) fn value(&self, others: Option<&str>) -> String {
        let private = format!("\"{}\"", self.private.display().to_string().replace('"', "\"\""));
        match others.unwrap_or(&self.others).trim() {
            "" => private,
            others => format!("{others}, {private}"),
        }
    }
}

/// The operator's value; `None` leaves it to `postgresql.base.conf` or PostgreSQL's default.
pub(super) fn configured(setup: &Setup, parameters: &Parameters) -> Option<String> {
    let altered = fs::read_to_string(setup.data_dir.join("postgresql.auto.conf")).unwrap_or_default();
    files::value_in(&altered, PARAMETER).or_else(|| parameters.parameters.get(PARAMETER).cloned())
}

/// Creates the directories that are missing, as on a file system that is empty after a start of the machine: PostgreSQL
/// does not start without them.
pub(super) fn create_missing(setup: &Setup, directories: &[PathBuf], mode: u32) {
    for directory in directories.iter().filter(|directory| !directory.exists()) {
        let created = fs::DirBuilder::new().recursive(true).mode(mode).create(directory);
        let created = created.and_then(|()| match setup.uid_gid {
            Some((user, group)) => chown(directory, Some(user), Some(group)),
            None => Ok(()),
        });
        let directory = directory.display();
        match created {
            Ok(()) => {
                tracing::info!(%directory, "a directory that PostgreSQL needs was missing, and was created")
            }
            Err(error) => {
                tracing::warn!(%directory, %error, "could not create a directory that PostgreSQL needs")
            }
        }
    }
}

/// The paths in a value of `unix_socket_directories`; an entry with `@` is no path.
fn directories_in(value: &str) -> Vec<PathBuf> {
    let (mut directories, mut quoted) = (vec![String::new()], false);
    for letter in value.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => directories.push(String::new()),
            letter => directories.last_mut().into_iter().for_each(|directory| directory.push(letter)),
        }
    }
    directories
        .iter()
        .map(|directory| PathBuf::from(directory.trim()))
        .filter(|path| path.is_absolute())
        .collect()
}

/// Asks PostgreSQL, whose default depends on its build.
async fn ask(setup: &Setup) -> Result<String, Error> {
    files::keep_base(setup)?;
    let base = setup.custom_conf.clone().unwrap_or_else(|| files::base_file(setup));
    let base = files::config_dir(setup).join(base);
    configured_value(setup, &base, PARAMETER).await
}

/// The possible directories, the best first.
fn private_directories(setup: &Setup) -> Vec<PathBuf> {
    // A trailing slash would put the directory inside the data directory; PostgreSQL resolves a relative path from
    // elsewhere.
    let data_dir: PathBuf = setup.data_dir.components().collect();
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    let name = format!("{PREFIX}{:016x}", fnv1a(data_dir.as_os_str().as_bytes()));
    let shared = [PathBuf::from("/run"), std::env::temp_dir(), PathBuf::from("/tmp")];
    let mut directories = vec![beside(&data_dir, SUFFIX)];
    directories.extend(shared.into_iter().map(|directory| directory.join(&name)));
    directories.dedup();
    directories
}

/// 64-bit FNV-1a: equal in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Creates the directory, or takes an existing one if only this user owns it, and proves that a socket can be created
/// in it. No postmaster runs, so its content is left over, and a process id in it may belong to another process.
fn claim(directory: &Path, setup: &Setup) -> io::Result<()> {
    let longest = directory.join(".s.PGSQL.65535");
    if longest.as_os_str().len() > PATH_BYTES_MAX {
        return Err(io::Error::other(format!("a socket's path may have {PATH_BYTES_MAX} bytes")));
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {
            if let Some((user, group)) = setup.uid_gid {
                chown(directory, Some(user), Some(group))?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(directory)?;
    let user = setup.uid_gid.map_or_else(|| nix::unistd::geteuid().as_raw(), |(user, _)| user);
    if !metadata.is_dir() || metadata.uid() != user {
        return Err(io::Error::other("it is another user's, or no directory"));
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    let trial = directory.join(".s.PGSQL.trial");
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_name().as_bytes().starts_with(b".s.PGSQL.") {
            if UnixStream::connect(entry.path()).is_ok() {
                // Of a container with the same paths that shares this directory: it must never be mistaken for this
                // one.
                return Err(io::Error::other("another server listens there"));
            }
            fs::remove_file(entry.path())?;
        }
    }
    drop(UnixListener::bind(&trial)?);
    fs::remove_file(&trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_directory_comes_last_and_is_quoted() {
        let sockets = Sockets { private: PathBuf::from("/a, b/x"), others: "/tmp".to_owned() };
        assert_eq!(sockets.value(None), "/tmp, \"/a, b/x\"");
        assert_eq!(sockets.value(Some(" ")), "\"/a, b/x\"");
    }

    #[test]
    fn missing_directories_are_created() {
        let place = std::env::temp_dir().join(format!("socket-directories-{}", std::process::id()));
        let value = format!("{0}/a, \"{0}/b, c\", @abstract", place.display());
        let directories = directories_in(&value);
        assert_eq!(directories, [place.join("a"), place.join("b, c")]);
        create_missing(&Setup::default(), &directories, 0o755);
        assert!(directories.iter().all(|directory| directory.is_dir()));
        fs::remove_dir_all(&place).expect("removed");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let setup = Setup { data_dir: PathBuf::from("/tmp").join("x".repeat(90)), ..Setup::default() };
        let directories = private_directories(&setup);
        assert!(claim(&directories[0], &setup).is_err());
        assert!(directories[1..].iter().all(|path| path.as_os_str().len() < 60), "{directories:?}");
    }

    #[test]
    fn a_directory_in_which_another_server_listens_is_refused() {
        let place = std::env::temp_dir().join(format!("sockets-{}", std::process::id()));
        let setup = Setup::default();
        claim(&place, &setup).expect("ours");
        let listener = UnixListener::bind(place.join(".s.PGSQL.5432")).expect("it listens");
        assert!(claim(&place, &setup).is_err() && place.join(".s.PGSQL.5432").exists());
        drop(listener);
        claim(&place, &setup).expect("what is left over is removed");
        assert!(!place.join(".s.PGSQL.5432").exists());
        fs::remove_dir_all(&place).expect("removed");
    }

    #[test]
    fn a_trailing_slash_gives_the_same_directories() {
        let setup = |path: &str| Setup { data_dir: PathBuf::from(path), ..Setup::default() };
        assert_eq!(private_directories(&setup("/x/m1/")), private_directories(&setup("/x/m1")));
    }
}
