//! The identity of a file or directory, independent of its name, links, renames and mounts.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

/// Device and inode. The default stands for no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId {
    /// Major and minor number in one.
    pub device: u64,
    /// The inode's number; never zero for a file.
    pub inode: u64,
}

impl FileId {
    /// The file at `path`; links are followed.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn of(path: &Path) -> io::Result<FileId> {
        FileId::at(CWD, path.as_os_str()).map_err(io::Error::from)
    }

    /// False for the default.
    pub fn is_known(self) -> bool {
        self.inode != 0
    }

    /// Does not allocate for a path shorter than 256 bytes, and does not ask the server of a network file system.
    pub(super) fn at_bytes(directory: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<FileId> {
        FileId::at(directory, OsStr::from_bytes(path))
    }

    fn at(directory: BorrowedFd<'_>, path: &OsStr) -> rustix::io::Result<FileId> {
        match rustix::fs::statx(directory, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO) {
            Ok(found) => {
                let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
                Ok(FileId { device, inode: found.stx_ino })
            }
            // Old kernels, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let found = rustix::fs::statat(directory, path, AtFlags::empty())?;
                let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
                Ok(FileId { device: u64::from(major) << 32 | u64::from(minor), inode: found.st_ino })
            }
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_the_same_under_every_name() {
        let place = std::env::temp_dir().join(format!("file-id-{}", std::process::id()));
        std::fs::create_dir_all(place.join("data")).expect("a place");
        std::os::unix::fs::symlink("data", place.join("link")).expect("a link");
        let data = FileId::of(&place.join("data")).expect("it is there");
        assert_eq!(FileId::of(&place.join("link")).expect("it leads there"), data);
        std::fs::rename(place.join("data"), place.join("moved")).expect("renamed");
        assert_eq!(FileId::of(&place.join("moved")).expect("it is there"), data);
        assert_ne!(FileId::of(&place).expect("it is there"), data);
        assert!(data.is_known() && FileId::of(&place.join("data")).is_err());
        std::fs::remove_dir_all(place).expect("removed");
    }
}
