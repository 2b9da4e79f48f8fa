//! A small disk of a test's own, in a mount namespace of its own: it goes when the test's last process goes.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;

use super::user;

/// A mounted file system. Everything started by this thread afterwards sees it, and nobody else does.
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A file system in memory, of this size, on that folder. `None` where this user may not mount.
    pub(crate) fn on(folder: &Path, megabytes: u32) -> Option<Disk> {
        // SAFETY: the call takes a plain integer; this thread has a view of the mounts of its own afterwards.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            eprintln!("not tested: this user may not mount");
            return None;
        }
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        std::fs::create_dir_all(folder).expect("our own place is writable");
        let size = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder));
        user::give(folder);
        Some(Disk { at: folder.to_owned() })
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.filler()).expect("there is room for an empty file");
        for size in [1 << 20, 4096, 1] {
            let part = vec![1; size];
            while filler.write_all(&part).is_ok() {}
        }
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
