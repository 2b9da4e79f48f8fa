//! A small disk for one test, in a separate mount namespace: it disappears with the test's last process.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::user;

/// A mounted file system, visible only to processes that this thread starts afterwards.
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A file system in memory, of this size, on that folder. `None` where this user may not mount.
    pub(crate) fn on(folder: &Path, megabytes: u32) -> Option<Disk> {
        prepare(folder)?;
        let size = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder));
        user::give(folder);
        Some(Disk { at: folder.to_owned() })
    }

    /// A file system on its own device, which can be frozen. `None` where this user may not mount, or has no loop
    /// device.
    pub(crate) fn on_device(folder: &Path, megabytes: u32) -> Option<Disk> {
        prepare(folder)?;
        let image = folder.with_extension("image");
        let file = std::fs::File::create(&image).expect("our own place is writable");
        file.set_len(u64::from(megabytes) << 20).expect("our own place has room");
        let mut make = Command::new("mkfs.ext4");
        let made = make.args(["-q", "-m", "0", "-E", "root_owner=0:0"]).arg(&image).status();
        // With `-o loop` the device is removed with the last mount.
        let mounted = Command::new("mount").args(["-o", "loop"]).args([&image, folder]).status();
        if !made.is_ok_and(|status| status.success()) || !mounted.is_ok_and(|status| status.success()) {
            eprintln!("not tested: there is no loop device, or no mkfs.ext4");
            return None;
        }
        let _ = std::fs::remove_dir(folder.join("lost+found"));
        user::give(folder);
        Some(Disk { at: folder.to_owned() })
    }

    /// Blocks writes: a process that writes waits until the returned value is dropped; for a minute at most, even if
    /// the test fails.
    pub(crate) fn freeze(&self) -> Hang {
        let mut thaw = Command::new("sh");
        thaw.args(["-c", "sleep 60; fsfreeze -u \"$0\""]).arg(&self.at).current_dir("/").process_group(0);
        thaw.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let thaw = thaw.spawn().expect("sh starts");
        run(Command::new("fsfreeze").arg("-f").arg(&self.at));
        Hang { at: self.at.clone(), thaw }
    }

    /// Fills the disk to the last byte.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.filler()).expect("there is room for an empty file");
        for size in [1 << 20, 4096, 1] {
            let part = vec![1; size];
            while filler.write_all(&part).is_ok() {}
        }
    }

    /// Frees the space again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

/// A frozen file system.
pub(crate) struct Hang {
    at: PathBuf,
    thaw: Child,
}

impl Drop for Hang {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).status();
        let _ = killpg(Pid::from_raw(self.thaw.id() as i32), Signal::SIGKILL);
        let _ = self.thaw.wait();
    }
}

/// Gives this thread its own view of the mounts, and makes the folder; `None` where this user may not.
fn prepare(folder: &Path) -> Option<()> {
    // SAFETY: the call takes a plain integer and does not access this process's memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        eprintln!("not tested: this user may not mount");
        return None;
    }
    run(Command::new("mount").args(["--make-rprivate", "/"]));
    std::fs::create_dir_all(folder).expect("our own place is writable");
    Some(())
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
