//! A test's own folder. Processes that work in it end with the test, even when the test is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

use super::{processes, user};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The sweeper's command: waits until the test has ended (its end of the pipe closes), then does the same as drop.
const SWEEP: &str = r#"
cat >/dev/null
for round in 1 2 3; do
    for process in /proc/[0-9]*; do
        case "$(readlink "$process/cwd")" in "$1" | "$1"/*) kill -9 "${process#/proc/}" 2>/dev/null ;; esac
    done
done
# The key of a PostgreSQL's shared memory segment is the inode of its data directory.
inodes=" $(find "$1" -type d -printf '%i ')"
while read -r key id mode size creator last attached rest; do
    case "$inodes" in *" $key "*) [ "$attached" != 0 ] || ipcrm -m "$id" ;; esac
done </proc/sysvipc/shm
[ -n "$MATRIARCH_TEST_KEEP" ] || rm -rf "$1"
"#;

/// A folder below the temporary folder, owned by the unprivileged user.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    sweeper: Option<Child>,
}

impl Place {
    /// A new, empty place.
    pub(crate) fn new() -> Place {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because Unix socket paths are limited to 107 characters.
        let folder = std::env::temp_dir().join(format!("mt-{}-{number}", std::process::id()));
        // Left by an earlier process with the same id.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        user::give(&folder);
        // Started before the new namespace exists, so it sees the shared memory of servers that older threads start.
        let sweeper = sweeper(&folder);
        own_shared_memory();
        Place { folder, sweeper }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Creates a folder in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).expect("our own place is writable");
        user::give(&folder);
        folder
    }
}

/// Gives this thread, and all that it starts from now on, an IPC namespace of its own. It goes with its last process.
///
/// A PostgreSQL that is killed leaves a System V segment behind, and a machine takes 4,096 of them (`kernel.shmmni`):
/// then no PostgreSQL starts any more (PostgreSQL manual, "Managing Kernel Resources"). Without root this is not done.
fn own_shared_memory() {
    // SAFETY: the call takes a plain integer and does not access this process's memory.
    unsafe { libc::unshare(libc::CLONE_NEWIPC) };
}

/// A shell in a separate process group, so that a signal that ends the test does not end it too.
fn sweeper(folder: &Path) -> Option<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SWEEP, "sweeper"]).arg(folder).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        processes::kill_all_in(&self.folder);
        if let Some(mut sweeper) = self.sweeper.take() {
            drop(sweeper.stdin.take());
            let _ = sweeper.wait();
        }
    }
}

#[test]
fn a_place_takes_its_processes_with_it() {
    let place = Place::new();
    let folder = place.path().to_owned();
    let mut child = Command::new("sleep").arg("60").current_dir(&folder).spawn().expect("sleep starts");
    assert_eq!(processes::living_in(&folder).len(), 1);
    let waiter = std::thread::spawn(move || child.wait());
    drop(place);
    assert!(!folder.exists());
    assert!(processes::living_in(&folder).is_empty());
    let status = waiter.join().expect("the waiter ends").expect("sleep is waited for");
    assert!(!status.success());
}

/// The shared memory of a killed PostgreSQL, started by a thread that is older than the place.
#[test]
fn a_place_takes_shared_memory_with_it() {
    use std::os::unix::fs::MetadataExt;
    use std::sync::mpsc::channel;
    // SAFETY: the call takes plain integers and does not access this process's memory.
    let get = |key: i32, flags| unsafe { libc::shmget(key, 56, flags) };
    let ((say, hear), (made, wait)) = (channel::<i32>(), channel());
    let older = std::thread::spawn(move || {
        let key = hear.recv().expect("the place is there");
        made.send(get(key, libc::IPC_CREAT | libc::IPC_EXCL | 0o600)).expect("the test waits");
        get(hear.recv().expect("the place is gone"), 0)
    });
    let place = Place::new();
    let key = std::fs::metadata(place.folder("data")).expect("it was just made").ino() as i32;
    say.send(key).expect("it listens");
    assert!(0 <= wait.recv().expect("it answers"), "a segment can be made");
    drop(place);
    say.send(key).expect("it listens");
    assert_eq!(older.join().expect("it ends"), -1, "the segment is gone");
}
