//! Atomic file replacement: after a power failure a file has either its old or its new content.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The owner of a file; `None`: this process's user.
pub type Owner = Option<(u32, u32)>;

/// Replaces a file: temporary file, fsync, rename, fsync of the directory. Its mode does not depend on the umask.
pub fn write(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file in no directory"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a file without a name"))?;
    let mut temporary = name.to_os_string();
    temporary.push(".matriarch-tmp");
    let temporary = directory.join(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(directory)
}

/// Removes a file durably, if it exists.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
