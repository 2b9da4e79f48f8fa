//! Users of this machine: owners of files, and the change to an unprivileged user.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// Opens a directory, but never through a link.
const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// The user of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its name and home directory, if this machine knows them.
    pub known: Option<(String, PathBuf)>,
}

impl User {
    /// The user with this name.
    pub fn named(name: &str) -> Option<User> {
        nix::unistd::User::from_name(name).ok().flatten().map(User::from)
    }

    /// The user with this uid; without an entry it gets `group`.
    pub fn numbered(uid: u32, group: u32) -> User {
        let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
        known.map_or(User { uid, gid: group, known: None }, User::from)
    }

    /// The user of this process.
    pub fn of_this_process() -> User {
        User::numbered(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    }

    /// Switches this process to that user, permanently. To be called before there is a second thread.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn assume(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match &self.known {
            Some((name, _)) => nix::unistd::initgroups(&CString::new(name.as_str())?, gid)?,
            None => setgroups(&[gid])?,
        }
        setgid(gid)?;
        setuid(uid)?;
        if setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("root's rights came back"));
        }
        // The kernel hides the /proc entries of a process that changed its user, even from other processes of that
        // user.
        nix::sys::prctl::set_dumpable(true)?;
        if let Some((name, home)) = &self.known {
            // SAFETY: there is one thread, as the caller guarantees. libpq looks for certificates below HOME, and an
            // inaccessible directory there is an error.
            unsafe {
                std::env::set_var("HOME", home);
                std::env::set_var("USER", name);
                std::env::set_var("LOGNAME", name);
            }
        }
        if nix::unistd::access(".", nix::unistd::AccessFlags::X_OK).is_err() {
            std::env::set_current_dir("/")?;
        }
        Ok(())
    }

    /// Gives `folder` and everything below it to this user, without following links.
    /// Files that it owns already are skipped.
    ///
    /// # Errors
    /// The first failure.
    pub fn take_tree(&self, folder: &Path) -> io::Result<()> {
        let folder = rustix::fs::open(folder, DIRECTORY, Mode::empty())?;
        if rustix::fs::fstat(&folder)?.st_uid != self.uid {
            rustix::fs::fchown(&folder, self.rustix_uid(), None)?;
        }
        self.take_entries(&folder)
    }

    fn take_entries(&self, folder: &OwnedFd) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_uid != self.uid {
                rustix::fs::chownat(folder, name, self.rustix_uid(), None, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.take_entries(&rustix::fs::openat(folder, name, DIRECTORY, Mode::empty())?)?;
            }
        }
        Ok(())
    }

    fn rustix_uid(&self) -> Option<rustix::fs::Uid> {
        Some(rustix::fs::Uid::from_raw(self.uid))
    }
}

impl From<nix::unistd::User> for User {
    fn from(user: nix::unistd::User) -> User {
        User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), known: Some((user.name, user.dir)) }
    }
}
