//! Started as root: the directories that PostgreSQL needs, given to the user who may own them, and being that user.
//!
//! What the official image does before it starts PostgreSQL, with one addition: the directory above the data
//! directory has to be writable, too, because the lock, the password file and what is moved aside lie there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::error::{RunError, system};
use crate::config::Config;
use crate::os::user::User;

/// Who runs PostgreSQL where nobody else owns its data.
const USER: &str = "postgres";
/// Where PostgreSQL's sockets lie unless configured otherwise.
const SOCKETS: &str = "/var/run/postgresql";
/// What PostgreSQL demands of its data directory at most.
const DATA_MODE_MOST: u32 = 0o750;

/// Stops being root: as the owner of the data directory, else as the user `postgres`. Nothing happens for others.
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
        // A socket directory that is not to be had says so when PostgreSQL starts.
        let _ = give_sockets(Path::new(SOCKETS), &user);
        user.assume().map_err(|source| system("stop being root", source))?;
    }
    // A volume mounted for a group of its own is opened to that group at every mount.
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

/// Whether a directory holds nothing but the data directory and what lies beside it: a volume's root.
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

/// Takes away what PostgreSQL would refuse to start with.
fn tighten(data_dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(data_dir)?.mode() & 0o777;
    if mode & !DATA_MODE_MOST != 0 {
        fs::set_permissions(data_dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
