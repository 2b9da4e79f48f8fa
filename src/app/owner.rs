//! A start as root: gives the directories that PostgreSQL needs to the unprivileged user, then becomes that user.
//!
//! The official image does the same before it starts PostgreSQL. One addition: the directory above the data directory
//! must be writable, because the lock, the password file and directories that were moved aside lie there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::error::{RunError, system};
use crate::config::Config;
use crate::os::user::User;

/// The user of PostgreSQL if its data has no other owner.
const USER: &str = "postgres";
/// The default directory of PostgreSQL's sockets.
const SOCKETS: &str = "/var/run/postgresql";
/// The widest mode that PostgreSQL accepts for its data directory.
const DATA_MODE_MOST: u32 = 0o750;

/// Gives up root: becomes the owner of the data directory, else the user `postgres`. For other users it does nothing.
///
/// # Errors
/// When there is no such user, or a directory cannot be given to it.
pub(super) fn leave_root(config: &Config) -> Result<(), RunError> {
    let data_dir = &config.postgresql.data_dir;
    if nix::unistd::geteuid().is_root() {
        let owner = fs::metadata(data_dir).ok().filter(|metadata| metadata.uid() != 0);
        let user = owner
            .map(|metadata| User::numbered(metadata.uid(), metadata.gid()))
            .or_else(|| User::named(USER))
            .ok_or_else(|| RunError::Root { user: USER, data_dir: data_dir.clone() })?;
        let give = give_data_dir(data_dir, &user);
        give.map_err(|source| system(&format!("give {} to its user", data_dir.display()), source))?;
        // If the socket directory is not available, PostgreSQL's start will show that.
        let _ = give_sockets(Path::new(SOCKETS), &user);
        user.assume().map_err(|source| system("stop being root", source))?;
    }
    // Kubernetes opens a volume with a group of its own to that group at every mount.
    let _ = tighten(data_dir);
    Ok(())
}

fn give_data_dir(data_dir: &Path, user: &User) -> io::Result<()> {
    let above = data_dir.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        if !above.exists() {
            fs::create_dir_all(above)?;
            chown(above, Some(user.uid), Some(user.gid))?;
        } else if fs::metadata(above)?.uid() == 0 && is_volume_of(above, data_dir)? {
            chown(above, Some(user.uid), None)?;
        }
    }
    if !data_dir.exists() {
        fs::create_dir(data_dir)?;
        fs::set_permissions(data_dir, Permissions::from_mode(0o700))?;
        chown(data_dir, Some(user.uid), Some(user.gid))?;
    }
    user.take_tree(data_dir)
}

/// Whether a directory contains nothing but the data directory and files beside it: the root of a volume.
fn is_volume_of(above: &Path, data_dir: &Path) -> io::Result<bool> {
    let Some(name) = data_dir.file_name() else { return Ok(false) };
    for entry in fs::read_dir(above)? {
        let entry = entry?.file_name();
        let ours = entry.as_encoded_bytes().starts_with(name.as_encoded_bytes());
        if !ours && entry != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn give_sockets(folder: &Path, user: &User) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if fs::metadata(folder)?.uid() == 0 {
        chown(folder, Some(user.uid), Some(user.gid))?;
        fs::set_permissions(folder, Permissions::from_mode(0o3775))?;
    }
    user.take_tree(folder)
}

/// Removes permissions with which PostgreSQL would refuse to start.
fn tighten(data_dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(data_dir)?.mode() & 0o777;
    if mode & !DATA_MODE_MOST != 0 {
        fs::set_permissions(data_dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
