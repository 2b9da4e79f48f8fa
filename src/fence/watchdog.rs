//! The machine's watchdog: it resets the machine when it is not pinged. So a primary ends even if supervisor and guard
//! are both frozen.
//!
//! The guard owns it. Only an order to arm with a deadline in the future pings it. It is closed (with the magic byte
//! that disarms it) when it is proved that Postgres is no primary. A guard that is killed leaves it running: the next
//! guard opens it again, or the machine is reset.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::WatchdogFacts;
use crate::model::Moment;

/// The longest timeout that every driver accepts.
const SECONDS_MAX: u32 = 65_534;
/// `WDIOF_SETTIMEOUT` and `WDIOF_MAGICCLOSE`.
const SETS_TIMEOUT: u32 = 0x0080;
const CLOSES_BY_MAGIC: u32 = 0x0100;

/// The driver of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceDriver {
    /// Linux's watchdog interface.
    Linux,
    /// `driver: testing`: a fifo that receives all commands as text.
    Testing,
}

/// Why the watchdog cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogTrouble {
    /// It cannot be opened (an errno).
    Open(i32),
    /// It supports no timeout, or cannot be disarmed.
    Incapable,
    /// It set another timeout (seconds), longer than requested.
    Timeout(u32),
    /// It did not accept a ping (an errno).
    Write(i32),
}

impl WatchdogTrouble {
    pub(super) fn to_code(self) -> (u8, u32) {
        match self {
            WatchdogTrouble::Open(errno) => (1, errno as u32),
            WatchdogTrouble::Incapable => (2, 0),
            WatchdogTrouble::Timeout(seconds) => (3, seconds),
            WatchdogTrouble::Write(errno) => (4, errno as u32),
        }
    }

    pub(super) fn from_code(code: u8, number: u32) -> WatchdogTrouble {
        match code {
            1 => WatchdogTrouble::Open(number as i32),
            3 => WatchdogTrouble::Timeout(number),
            4 => WatchdogTrouble::Write(number as i32),
            _ => WatchdogTrouble::Incapable,
        }
    }
}

impl fmt::Display for WatchdogTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |errno: &i32| std::io::Error::from_raw_os_error(*errno);
        match self {
            WatchdogTrouble::Open(errno) => write!(f, "it cannot be opened: {}", why(errno)),
            WatchdogTrouble::Incapable => f.write_str("its timeout cannot be set"),
            WatchdogTrouble::Timeout(seconds) => write!(f, "it resets after {seconds} s, which is too late"),
            WatchdogTrouble::Write(errno) => write!(f, "it takes no ping: {}", why(errno)),
        }
    }
}

/// The device, open while the guard is armed.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: Option<(CString, DeviceDriver)>,
    open: Option<(OwnedFd, u32)>,
    trouble: Option<WatchdogTrouble>,
}

impl Watchdog {
    /// The device is not opened yet.
    pub(super) fn new(device: Option<(&Path, DeviceDriver)>) -> Watchdog {
        let device =
            device.and_then(|(path, driver)| Some((CString::new(path.as_os_str().as_bytes()).ok()?, driver)));
        Watchdog { device, open: None, trouble: None }
    }

    pub(super) fn facts(&self) -> WatchdogFacts {
        match (&self.open, self.trouble) {
            (_, Some(trouble)) => WatchdogFacts::Failed(trouble),
            (Some((_, seconds)), None) => WatchdogFacts::Active(Duration::from_secs((*seconds).into())),
            (None, None) => WatchdogFacts::Off,
        }
    }

    /// A ping: the machine is reset at `at`, in whole seconds from `now`; `None`: no watchdog is needed. Less than a
    /// second cannot be set: the last timeout stays in force then, which is earlier.
    pub(super) fn feed(&mut self, at: Option<Moment>, now: Moment) {
        let Some((path, driver)) = &self.device else { return };
        let Some(at) = at else { return self.close() };
        let seconds = now.until(at).as_secs().min(SECONDS_MAX.into()) as u32;
        if seconds == 0 {
            return;
        }
        if self.open.is_none() {
            match open(path, *driver) {
                Ok(device) => self.open = Some((device, 0)),
                Err(trouble) => return self.trouble = Some(trouble),
            }
        }
        let driver = *driver;
        let Some((device, set)) = &mut self.open else { return };
        if *set != seconds {
            match set_timeout(device, driver, seconds) {
                Ok(()) => *set = seconds,
                Err(trouble) => {
                    self.trouble = Some(trouble);
                    return self.give_up();
                }
            }
        }
        self.trouble = match rustix::io::write(&*device, b"1") {
            // A fifo without a reader is as good as one with a reader.
            Ok(_) | Err(Errno::AGAIN) => None,
            Err(errno) => Some(WatchdogTrouble::Write(errno.raw_os_error())),
        };
        if self.trouble.is_some() {
            self.give_up();
        }
    }

    /// Disarms it.
    pub(super) fn close(&mut self) {
        self.trouble = None;
        self.give_up();
    }

    fn give_up(&mut self) {
        if let Some((device, _)) = self.open.take() {
            // Without the magic byte it stays active and resets the machine: the safe side.
            let _ = rustix::io::write(&device, b"V");
        }
    }
}

fn open(path: &CString, driver: DeviceDriver) -> Result<OwnedFd, WatchdogTrouble> {
    // A fifo without a reader must not block the guard.
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::empty())
        .map_err(|errno| WatchdogTrouble::Open(errno.raw_os_error()))?;
    if driver == DeviceDriver::Linux && !is_capable(&device) {
        let _ = rustix::io::write(&device, b"V");
        return Err(WatchdogTrouble::Incapable);
    }
    Ok(device)
}

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// `WDIOC_GETSUPPORT`: `_IOR('W', 0, struct watchdog_info)`.
const GET_SUPPORT: libc::c_ulong =
    (2 << 30) | ((size_of::<WatchdogInfo>() as libc::c_ulong) << 16) | (0x57 << 8);
/// `WDIOC_SETTIMEOUT`: `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::c_ulong = (3 << 30) | (4 << 16) | (0x57 << 8) | 6;

fn is_capable(device: &OwnedFd) -> bool {
    let mut info = WatchdogInfo { options: 0, firmware_version: 0, identity: [0; 32] };
    // SAFETY: the number says that the kernel writes one `watchdog_info`, and `info` is one and lives on.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), GET_SUPPORT as _, &raw mut info) };
    answer == 0 && has_needed_options(info.options)
}

fn has_needed_options(options: u32) -> bool {
    let needed = SETS_TIMEOUT | CLOSES_BY_MAGIC;
    options & needed == needed
}

fn set_timeout(device: &OwnedFd, driver: DeviceDriver, seconds: u32) -> Result<(), WatchdogTrouble> {
    match driver {
        DeviceDriver::Testing => {
            let mut text = [0_u8; 32];
            let length = timeout_text(&mut text, seconds);
            rustix::io::write(device, &text[..length])
                .map(drop)
                .map_err(|errno| WatchdogTrouble::Write(errno.raw_os_error()))
        }
        DeviceDriver::Linux => {
            let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
            // SAFETY: the number says that the kernel reads and writes one int, and `value` is one and lives on.
            let answer = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT as _, &raw mut value) };
            judge_timeout(answer, value, seconds)
        }
    }
}

/// The driver returns the timeout that it set.
fn judge_timeout(answer: libc::c_int, taken: libc::c_int, wanted: u32) -> Result<(), WatchdogTrouble> {
    match (answer, u32::try_from(taken)) {
        (0, Ok(taken)) if taken <= wanted => Ok(()),
        (0, Ok(taken)) => Err(WatchdogTrouble::Timeout(taken)),
        (_, _) => Err(WatchdogTrouble::Incapable),
    }
}

/// `Ctimeout=SECONDS\n` without any allocation.
fn timeout_text(space: &mut [u8; 32], seconds: u32) -> usize {
    use std::io::Write;
    let mut rest = &mut space[..];
    let written = writeln!(rest, "Ctimeout={seconds}");
    let left = rest.len();
    if written.is_ok() { space.len() - left } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        assert_eq!((GET_SUPPORT, SET_TIMEOUT), (0x8028_5700, 0xC004_5706));
    }

    /// `WDIOF_SETTIMEOUT` and `WDIOF_MAGICCLOSE` of the kernel, and what softdog and a device without them report.
    #[test]
    fn only_a_watchdog_that_can_be_timed_and_disarmed_is_used() {
        for (options, is_usable) in
            [(0x8180, true), (0x0180, true), (0x0080, false), (0x0100, false), (0, false)]
        {
            assert_eq!(has_needed_options(options), is_usable, "{options:#x}");
        }
    }

    /// A driver may round. A reset before the deadline is safe; a later one is not.
    #[test]
    fn a_timeout_that_the_driver_made_longer_is_refused() {
        assert_eq!(judge_timeout(0, 15, 15), Ok(()));
        assert_eq!(judge_timeout(0, 10, 15), Ok(()));
        assert_eq!(judge_timeout(0, 16, 15), Err(WatchdogTrouble::Timeout(16)));
        assert_eq!(judge_timeout(-1, 15, 15), Err(WatchdogTrouble::Incapable));
        assert_eq!(judge_timeout(0, -1, 15), Err(WatchdogTrouble::Incapable));
    }

    #[test]
    fn the_testing_driver_writes_timeout_pings_and_the_magic_byte() {
        let path = std::env::temp_dir().join(format!("watchdog-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let mut watchdog = Watchdog::new(Some((&path, DeviceDriver::Testing)));
        let at = Moment::from_millis(20_200);
        watchdog.feed(Some(at), Moment::from_millis(5_000));
        assert_eq!(
            watchdog.facts(),
            WatchdogFacts::Failed(WatchdogTrouble::Open(libc::ENXIO)),
            "nobody reads"
        );
        let mut reader = std::fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .expect("the fifo opens");
        // The third feed is late; the last is so late that no second is left.
        for now in [5_000, 5_100, 12_500, 19_500] {
            watchdog.feed(Some(at), Moment::from_millis(now));
        }
        assert_eq!(watchdog.facts(), WatchdogFacts::Active(Duration::from_secs(7)));
        watchdog.close();
        assert_eq!(watchdog.facts(), WatchdogFacts::Off);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "Ctimeout=15\n11Ctimeout=7\n1V");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_device_that_is_not_a_watchdog_is_not_used() {
        let mut watchdog = Watchdog::new(Some((Path::new("/dev/null"), DeviceDriver::Linux)));
        let (at, now) = (Some(Moment::from_millis(20_000)), Moment::from_millis(5_000));
        watchdog.feed(at, now);
        assert_eq!(watchdog.facts(), WatchdogFacts::Failed(WatchdogTrouble::Incapable));
        let mut none = Watchdog::new(None);
        none.feed(at, now);
        assert_eq!(none.facts(), WatchdogFacts::Off);
    }
}
