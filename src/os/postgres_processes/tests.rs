//! Finding and killing processes, tried on processes that sleep.

use std::process::{Child, Command};
use std::time::Duration;

use super::*;

fn sleeper(place: &std::path::Path) -> (Child, PostgresProcesses) {
    let child = Command::new("sleep").arg("60").current_dir(place).spawn().expect("sleep starts");
    let text = |path: std::path::PathBuf| PathText::try_from(path).expect("a short path");
    // Before the exec it runs this test's own program.
    while process::exe(child.id() as i32) == process::exe(std::process::id() as i32) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let processes = PostgresProcesses {
        pid: 0,
        started_ticks: 0,
        program: text(process::exe(child.id() as i32).expect("its program")),
        directory: text(place.canonicalize().expect("a place")),
        place: FileId::of(place).expect("a place"),
    };
    (child, processes)
}

fn place(name: &str) -> std::path::PathBuf {
    let place = std::env::temp_dir().join(format!("processes-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a place");
    place
}

#[test]
fn processes_of_the_program_in_the_directory_are_killed_until_none_is_left() {
    let (here, there) = (place("here"), place("there"));
    let (mut first, processes) = sleeper(&here);
    let (mut second, _) = sleeper(&here);
    let (mut other, _) = sleeper(&there);
    let stop = Pid::from_raw(second.id() as i32).expect("a process");
    rustix::process::kill_process(stop, Signal::STOP).expect("stopped");
    let mut all = processes.all();
    all.sort_unstable();
    let mut expected = [first.id() as i32, second.id() as i32];
    expected.sort_unstable();
    assert_eq!(all, expected);
    while processes.kill_all() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(first.try_wait().expect("waited").is_some() && second.try_wait().expect("waited").is_some());
    assert!(other.try_wait().expect("waited").is_none());
    other.kill().expect("killed");
    other.wait().expect("waited");
    for place in [here, there] {
        std::fs::remove_dir_all(place).expect("removed");
    }
}

#[test]
fn processes_in_a_renamed_directory_are_killed() {
    let (old, new) = (place("old"), place("new"));
    let (mut postmaster, processes) = sleeper(&old);
    let (mut backend, _) = sleeper(&old);
    let processes = processes.with_postmaster(postmaster.id() as i32);
    std::fs::rename(&old, &new).expect("renamed");
    while processes.kill_all() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(postmaster.wait().is_ok() && backend.wait().is_ok());
    std::fs::remove_dir_all(new).expect("removed");
}

#[test]
fn a_server_process_in_another_directory_is_killed_with_its_postmaster() {
    let here = place("away");
    let script = "(cd / && exec sleep 60) & (cd / && exec sleep 60) & wait";
    let shell = Command::new("sh").args(["-c", script]).current_dir(&here).spawn();
    let mut postmaster = shell.expect("a shell starts");
    let pid = postmaster.id() as i32;
    let away =
        |pid: &&i32| process::cwd(**pid).is_some_and(|place| place.as_path() == std::path::Path::new("/"));
    while process::children(pid).iter().filter(away).count() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let children = process::children(pid);
    let (mut sleeper, processes) = sleeper(&here);
    sleeper.kill().expect("killed");
    sleeper.wait().expect("waited");
    let processes = processes.with_postmaster(pid);
    let mut killer = ProcessKiller::open().expect("/proc");
    killer.set_target(&processes);
    // The postmaster is killed first; its children are remembered.
    postmaster.kill().expect("killed");
    postmaster.wait().expect("waited");
    assert_eq!(killer.kill(), 2);
    while !killer.is_over() {
        std::thread::sleep(Duration::from_millis(1));
        killer.kill();
    }
    assert!(children.iter().all(|pid| process::stat(*pid).is_none_or(|stat| stat.is_zombie())));
    std::fs::remove_dir_all(here).expect("removed");
}

#[test]
fn another_process_with_the_postmasters_pid_is_not_killed() {
    let here = place("number");
    let (mut child, processes) = sleeper(&here);
    let nowhere = PostgresProcesses { directory: PathText::EMPTY, place: FileId::default(), ..processes };
    let processes = PostgresProcesses { started_ticks: 1, ..nowhere.with_postmaster(child.id() as i32) };
    assert!(!processes.kill_all() && !processes.signal(nix::sys::signal::Signal::SIGTERM));
    assert!(child.try_wait().expect("waited").is_none());
    child.kill().expect("killed");
    child.wait().expect("waited");
    std::fs::remove_dir_all(here).expect("removed");
}

#[test]
fn the_start_time_matches_the_stat_line() {
    let me = std::process::id() as i32;
    let killer = ProcessKiller::open().expect("/proc");
    let life = killer.life(me).expect("I live");
    let stat = process::stat(me).expect("I live");
    assert_eq!((life.started_ticks, life.parent), (stat.started_ticks, stat.parent));
    assert_eq!(Some(life.session), nix::unistd::getsid(None).ok().map(nix::unistd::Pid::as_raw));
}
