//! The search for a postmaster that runs on this data directory, and its adoption.
//!
//! **Invariants.** Absence of evidence is no evidence of absence: if something cannot be looked at, the result is
//! [`Adoption::Unknown`], and then nothing is killed, removed or started. A `postmaster.pid` that names a living
//! process that works in this directory is never removed. It may be stale and name anything, even a thread of this
//! program: only a separate process that works in the data directory counts, whatever the name of its program, because
//! a link to the programs may have been moved and a package replaced.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::control::PidFile;
use super::handle::PostgresInner;
use super::postmaster::LOOK_EVERY;
use super::process::resolve;
use super::start_primary::WAIT_TO_START;
use super::{Error, Setup, files};
use crate::os::error_chain::ErrorChain;
use crate::os::file_id::FileId;
use crate::os::pidfd::Pidfd;
use crate::os::postgres_processes::PostgresProcesses;
use crate::os::process::{self, ProcessId};

/// The most programs between the started one and the postmaster.
const WRAPPERS_MAX: usize = 4;

/// The PostgreSQL that runs on the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Certainly none.
    Nothing,
    /// A postmaster, which was adopted.
    Running,
    /// Unknown, for this reason. To be asked again.
    Unknown(String),
}

/// Adopts a postmaster that runs on this data directory. `guarded` is the target of a former supervisor's guard: it is
/// a postmaster whatever the files say. Processes without a postmaster are killed.
pub(super) fn adopt(inner: &Arc<PostgresInner>, guarded: Option<ProcessId>) -> Adoption {
    if inner.postmaster.must_be_down("adopt").is_err() {
        return Adoption::Running;
    }
    let found = find(&inner.setup, guarded).and_then(|found| match found {
        None => Ok(None),
        Some(processes) => hold(&processes).map(|held| held.map(|held| (processes, held))),
    });
    match found {
        Ok(None) => Adoption::Nothing,
        Ok(Some((processes, held))) => {
            // If the file cannot be seen, the server may have been promoted: the safe side.
            let standby_start = inner.setup.data_dir.join("standby.signal").exists();
            inner.watch_adopted(processes, held, standby_start);
            Adoption::Running
        }
        Err(error) => Adoption::Unknown(error.chain()),
    }
}

fn find(setup: &Setup, guarded: Option<ProcessId>) -> Result<Option<PostgresProcesses>, Error> {
    let guarded = guarded.filter(|postmaster| postmaster.may_live());
    if setup.data_dir.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return match guarded {
            None => Ok(None),
            Some(ProcessId { pid, .. }) => Err(Error::Unfit(format!(
                "the guard is armed for process {pid}, and there is no data directory {}",
                setup.data_dir.display()
            ))),
        };
    }
    let processes = resolve(setup)?;
    if let Some(ProcessId { pid, started_ticks }) = guarded {
        return match works_in(&processes, pid)? {
            true => Ok(Some(PostgresProcesses { pid, started_ticks, ..processes })),
            false => Err(Error::Unfit(format!(
                "the guard is armed for process {pid}, which does not work in {}",
                setup.data_dir.display()
            ))),
        };
    }
    let file = PidFile::find(&setup.data_dir)?;
    if let Some(pid) = file.map(|file| file.pid)
        && names_postgres(&processes, pid)?
        && process::stat(pid).is_some_and(|stat| !processes.includes(stat.parent))
    {
        return Ok(Some(processes.with_postmaster(pid)));
    }
    end_orphans(&processes);
    Ok(None)
}

/// `None` when it has ended meanwhile.
fn hold(processes: &PostgresProcesses) -> Result<Option<Pidfd>, Error> {
    match Pidfd::open(processes.pid) {
        Ok(held) if processes.postmaster().is_some_and(ProcessId::may_live) => Ok(Some(held)),
        Ok(_another) => Err(Error::Unfit(format!("process {} has just ended", processes.pid))),
        Err(source) => Err(Error::Spawn { program: format!("watch over process {}", processes.pid), source }),
    }
}

/// Whether a process id in a `postmaster.pid` belongs to a live process of this Postgres. An error for another process
/// that works in the data directory: it is in the way, and unknown.
fn names_postgres(processes: &PostgresProcesses, pid: i32) -> Result<bool, Error> {
    let lives = process::stat(pid).is_some_and(|stat| !stat.is_zombie());
    if !lives || !process::is_thread_group_leader(pid) || is_mine(pid) || !works_in(processes, pid)? {
        return Ok(false);
    }
    if processes.includes(pid) {
        return Ok(true);
    }
    let program = process::exe(pid).unwrap_or_default();
    Err(Error::Unfit(format!(
        "postmaster.pid names process {pid}, which works in {} and runs {}: if it is no PostgreSQL, end it or let it \
         work elsewhere",
        processes.directory.as_path().display(),
        program.display()
    )))
}

/// A supervisor or a guard: its process id may be that of a postmaster in a former container.
fn is_mine(pid: i32) -> bool {
    pid == std::process::id() as i32 || process::exe(pid) == process::exe(std::process::id() as i32)
}

/// Another user's process cannot be examined, and does not count: PostgreSQL ignores it, too.
fn works_in(processes: &PostgresProcesses, pid: i32) -> Result<bool, Error> {
    let place = PathBuf::from(format!("/proc/{pid}/cwd"));
    match FileId::of(&place) {
        Ok(found) => Ok(found == processes.place),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(false),
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(false),
        Err(error) => Err(Error::file("look at", &place)(error)),
    }
}

/// Server processes without a postmaster may still finish a commit, so all processes of a previous incarnation are
/// killed. Also one that waits to become the postmaster: it ends by itself unless it was released, and becomes it at
/// any moment if it was. So those that wait are looked for first.
fn end_orphans(processes: &PostgresProcesses) {
    while kill_waiting(processes) | processes.kill_all() {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// True if there was one.
fn kill_waiting(processes: &PostgresProcesses) -> bool {
    let mut found = false;
    for pid in process::all().filter(|pid| waits_to_start(processes, *pid)) {
        found = true;
        if let Ok(held) = Pidfd::open(pid)
            && waits_to_start(processes, pid)
        {
            held.kill();
        }
    }
    found
}

fn waits_to_start(processes: &PostgresProcesses, pid: i32) -> bool {
    let works_here = matches!(works_in(processes, pid), Ok(true));
    works_here && process::title(pid).is_some_and(|title| title.contains(WAIT_TO_START))
}

/// Before a start: removes a `postmaster.pid`, and a socket's lock file, that names a live process of another program;
/// Postgres would take it for a server. Postgres itself removes a file that names a dead process.
pub(super) fn clear_stale_locks(setup: &Setup, processes: &PostgresProcesses) -> Result<(), Error> {
    if let Some(pid) = processes.all().first() {
        return Err(Error::Unfit(format!("start: process {pid} of this Postgres is left")));
    }
    let Some(file) = PidFile::find(&setup.data_dir)? else { return Ok(()) };
    clear(processes, &setup.data_dir.join("postmaster.pid"), file.pid)?;
    if let (Some(directory), Some(port)) = (&file.socket_dir, file.port) {
        let lock = PathBuf::from(directory).join(format!(".s.PGSQL.{port}.lock"));
        let text = std::fs::read_to_string(&lock).unwrap_or_default();
        let ours = text.lines().nth(1).is_some_and(|path| setup.data_dir.as_path() == Path::new(path));
        if let Some(file) = PidFile::parse(&text).filter(|_| ours) {
            clear(processes, &lock, file.pid)?;
        }
    }
    Ok(())
}

fn clear(processes: &PostgresProcesses, lock: &Path, pid: i32) -> Result<(), Error> {
    if names_postgres(processes, pid)? {
        return Err(Error::Unfit(format!("start: {} names process {pid}, which runs", lock.display())));
    }
    if process::exe(pid).is_some() { files::remove(lock) } else { Ok(()) }
}

/// The program started as `postgres` may start PostgreSQL in turn and wait for it. Then `postmaster.pid` names a
/// descendant of that program, which is the postmaster.
pub(super) fn started_by(processes: &PostgresProcesses, pid: i32) -> Option<PostgresProcesses> {
    let mut parent = process::stat(pid)?.parent;
    for _ in 0..WRAPPERS_MAX {
        if parent == processes.pid {
            return processes.includes(pid).then(|| processes.with_postmaster(pid));
        }
        parent = process::stat(parent)?.parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let place = std::env::temp_dir().join(format!("adoption-{name}-{}", std::process::id()));
            fs::create_dir_all(place.join("data")).expect("a place");
            fs::create_dir_all(place.join("bin")).expect("a place");
            Place(place)
        }

        fn setup(&self) -> Setup {
            Setup { data_dir: self.0.join("data"), bin_dir: Some(self.0.join("bin")), ..Setup::default() }
        }

        /// A process that works in the data directory under this name.
        fn runs(&self, name: &str) -> Child {
            let program = self.0.join(name);
            fs::copy("/bin/sleep", &program).expect("a program");
            let child = Command::new(&program).arg("60").current_dir(self.0.join("data")).spawn();
            let child = child.expect("it starts");
            fs::write(self.0.join("data/postmaster.pid"), format!("{}\n", child.id())).expect("written");
            child
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn end(mut child: Child) {
        child.kill().expect("killed");
        child.wait().expect("waited");
    }

    #[test]
    fn a_postmaster_is_found_even_if_its_program_was_moved_or_removed() {
        let place = Place::new("moved");
        let child = place.runs("postgres");
        let pid = child.id() as i32;
        for became in ["postgres.old", "elsewhere-postgres"] {
            fs::rename(place.0.join("postgres"), place.0.join(became)).expect("renamed");
            let found = find(&place.setup(), None).expect("it can be told").expect("it runs");
            assert_eq!(found.postmaster(), processes_id(pid));
            fs::rename(place.0.join(became), place.0.join("postgres")).expect("renamed");
        }
        fs::remove_file(place.0.join("postgres")).expect("removed");
        let found = find(&place.setup(), None).expect("it can be told").expect("it runs");
        assert_eq!(found.postmaster(), processes_id(pid));
        end(child);
        assert_eq!(find(&place.setup(), None).expect("it can be told"), None);
    }

    fn processes_id(pid: i32) -> Option<ProcessId> {
        process::stat(pid).map(|stat| ProcessId { pid, started_ticks: stat.started_ticks })
    }

    #[test]
    fn a_guarded_server_counts_as_running_despite_its_files() {
        let place = Place::new("guarded");
        let child = place.runs("server");
        let id = processes_id(child.id() as i32);
        fs::remove_file(place.0.join("data/postmaster.pid")).expect("removed");
        assert_eq!(
            find(&place.setup(), id).expect("it can be told").and_then(|processes| processes.postmaster()),
            id
        );
        let elsewhere = Setup { data_dir: place.0.join("bin"), ..place.setup() };
        assert!(find(&elsewhere, id).is_err(), "it works elsewhere, and it lives");
        let gone = Setup { data_dir: place.0.join("gone"), ..place.setup() };
        assert!(find(&gone, id).is_err(), "no directory proves nothing");
        end(child);
        assert_eq!(find(&elsewhere, id).expect("it can be told"), None);
    }

    /// Its supervisor and guard are dead, and its line may be on the way: it would become a primary without a guard.
    #[tokio::test]
    async fn a_process_that_waits_to_become_the_postmaster_is_killed_and_others_are_not() {
        let place = Place::new("waits");
        let waits = |directory: &str| {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(WAIT_TO_START).args(["sh", "sleep", "60"]).stdin(Stdio::piped());
            command.current_dir(place.0.join(directory)).spawn().expect("it starts")
        };
        let (mut here, mut elsewhere) = (waits("data"), waits("bin"));
        let another = Command::new("sleep").arg("60").current_dir(place.0.join("data")).spawn();
        let mut another = another.expect("it starts");
        assert_eq!(find(&place.setup(), None).expect("it can be told"), None);
        assert_eq!(here.wait().expect("waited").signal(), Some(9));
        for child in [&mut elsewhere, &mut another] {
            assert!(child.try_wait().expect("waited").is_none());
        }
        end(elsewhere);
        end(another);
    }

    #[test]
    fn a_pid_file_of_a_foreign_process_in_the_data_directory_is_kept() {
        let place = Place::new("stranger");
        let child = place.runs("something");
        let (setup, file) = (place.setup(), place.0.join("data/postmaster.pid"));
        let processes = resolve(&setup).expect("it is there");
        assert!(
            find(&setup, None).is_err() && clear_stale_locks(&setup, &processes).is_err() && file.exists()
        );
        end(child);
        assert_eq!(find(&setup, None).expect("it can be told"), None);
        let mut elsewhere = Command::new("sleep").arg("60").current_dir("/").spawn().expect("it starts");
        fs::write(&file, format!("{}\n", elsewhere.id())).expect("written");
        clear_stale_locks(&setup, &processes).expect("it is stale");
        assert!(!file.exists());
        elsewhere.kill().expect("killed");
        elsewhere.wait().expect("waited");
    }

    #[test]
    fn unreadable_files_leave_the_state_unknown() {
        let place = Place::new("unreadable");
        let file = place.0.join("data/postmaster.pid");
        // A directory in the file's place: even root gets an error.
        fs::create_dir(&file).expect("made");
        assert!(find(&place.setup(), None).is_err() && file.exists());
        let over_a_file = Setup { data_dir: place.0.join("bin/nothing"), ..place.setup() };
        fs::write(place.0.join("bin/nothing"), "").expect("written");
        assert!(find(&over_a_file, None).is_err());
    }
}
