//! The programs that can be a guard: a small one, `matriarch-guard`, and `matriarch` itself with the command `guard`.
//!
//! A guard locks its whole program into memory, so the small one is used where it can be: it lies beside `matriarch`,
//! starts, and is of the same release. In every other case `matriarch` guards itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};

use super::watchdog::DeviceDriver;
use super::{FenceError, GuardSetup, LinkSetup, WatchdogSetup, guard};
use crate::os::{child, output};

/// The small program, beside `matriarch`.
const SEPARATE: &str = "matriarch-guard";
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The path of the small program, whether there is one or not.
pub(super) fn beside(program: &Path) -> Option<PathBuf> {
    Some(std::fs::read_link(program).ok()?.with_file_name(SEPARATE))
}

/// The programs of one supervisor.
#[derive(Debug)]
pub(super) struct GuardPrograms {
    /// The small one as it was at the start, even if its file is replaced.
    separate: Option<OwnedFd>,
    program: PathBuf,
    watchdog: Option<WatchdogSetup>,
}

/// Which of them a guard was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuardProgram {
    Separate,
    Whole,
}

impl GuardPrograms {
    pub(super) fn open(setup: &LinkSetup) -> GuardPrograms {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let open = |path: &PathBuf| rustix::fs::openat(CWD, path, flags, Mode::empty()).ok();
        GuardPrograms {
            separate: setup.separate.as_ref().and_then(open),
            program: setup.program.clone(),
            watchdog: setup.watchdog.clone(),
        }
    }

    /// Starts a guard with these sockets.
    pub(super) fn start(
        &self,
        link: OwnedFd,
        listener: OwnedFd,
    ) -> Result<(Child, GuardProgram), FenceError> {
        if let Some(separate) = &self.separate {
            let path = format!("/proc/self/fd/{}", separate.as_raw_fd());
            let mut command = self.command(OsStr::new(&path));
            command.args(["--release", RELEASE]);
            let sockets = link.try_clone().and_then(|link| Ok((link, listener.try_clone()?)));
            // It may not be executable, for example.
            if let Ok(child) = sockets.and_then(|(link, listener)| spawn(command, link, listener)) {
                return Ok((child, GuardProgram::Separate));
            }
        }
        let child = spawn(self.command(self.program.as_os_str()), link, listener);
        child
            .map(|child| (child, GuardProgram::Whole))
            .map_err(|source| FenceError::System { what: "start a guard", source })
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.arg0("matriarch").arg("guard").env_clear();
        if let Some(watchdog) = &self.watchdog {
            command.arg("--watchdog").arg(&watchdog.device);
            if watchdog.driver == DeviceDriver::Testing {
                command.arg("--testing");
            }
        }
        command
    }

    /// A guard from `program` ended without an answer; true when that program is not used any more.
    pub(super) fn give_up(&mut self, program: GuardProgram) -> bool {
        program == GuardProgram::Separate && self.separate.take().is_some()
    }
}

fn spawn(mut command: Command, link: OwnedFd, listener: OwnedFd) -> io::Result<Child> {
    command.stdin(Stdio::from(link)).stdout(Stdio::from(listener)).stderr(output::child_stderr());
    child::spawn_std(&mut command)
}

/// [`super::run`] for the small program, with the arguments that a supervisor gives to it.
///
/// # Errors
/// As for [`super::run`], and for the arguments of another release.
pub fn run_separate(arguments: impl Iterator<Item = OsString>) -> Result<(), FenceError> {
    guard::run(&parse(arguments)?)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<GuardSetup, FenceError> {
    if arguments.next().is_none_or(|first| first != "guard") {
        return Err(FenceError::ByHand);
    }
    let (mut release, mut device, mut driver) = (None, None, DeviceDriver::Linux);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--release") => release = arguments.next(),
            Some("--watchdog") => device = arguments.next().map(PathBuf::from),
            Some("--testing") => driver = DeviceDriver::Testing,
            Some(_) | None => return Err(FenceError::OtherRelease),
        }
    }
    if release.is_none_or(|release| release != RELEASE) {
        return Err(FenceError::OtherRelease);
    }
    Ok(GuardSetup { watchdog: device.map(|device| (device, driver)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<GuardSetup, FenceError> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn the_small_program_understands_the_arguments_that_it_is_given() {
        let watchdog = WatchdogSetup { device: "/dev/watchdog".into(), driver: DeviceDriver::Testing };
        let programs = GuardPrograms { separate: None, program: "x".into(), watchdog: Some(watchdog) };
        let command = programs.command(OsStr::new("x"));
        let given = command.get_args().map(OsStr::to_owned).chain(["--release", RELEASE].map(OsString::from));
        let setup = parse(given).expect("its own release");
        assert_eq!(setup.watchdog, Some(("/dev/watchdog".into(), DeviceDriver::Testing)));
        assert_eq!(parsed(&["guard", "--release", RELEASE]).expect("its own release").watchdog, None);
    }

    #[test]
    fn the_small_program_refuses_another_release_and_a_start_by_hand() {
        assert!(matches!(parsed(&[]), Err(FenceError::ByHand)));
        assert!(matches!(parsed(&["--help"]), Err(FenceError::ByHand)));
        for words in
            [&["guard"][..], &["guard", "--release", "0"], &["guard", "--release", RELEASE, "--later"]]
        {
            assert!(matches!(parsed(words), Err(FenceError::OtherRelease)), "{words:?}");
        }
    }
}
