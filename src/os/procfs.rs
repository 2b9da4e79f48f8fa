//! Process facts from `/proc` (proc(5)), read without memory allocation.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::file_id::FileId;
use super::text::PATH_BYTES_MAX;

/// `PID` and `suffix` as a path below `/proc`.
fn below<'a>(pid: i32, suffix: &[u8], space: &'a mut [u8; 32]) -> Option<&'a [u8]> {
    let mut digits = [0; 10];
    let mut length = 0;
    let mut rest = u32::try_from(pid).ok()?;
    loop {
        digits[length] = b'0' + (rest % 10) as u8;
        length += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let end = length + suffix.len();
    for (place, digit) in space.iter_mut().zip(digits[..length].iter().rev()) {
        *place = *digit;
    }
    space.get_mut(length..end)?.copy_from_slice(suffix);
    Some(&space[..end])
}

/// The target of a process's link; `None` also when it is too long.
pub(super) fn link<'a>(
    proc: &OwnedFd,
    pid: i32,
    suffix: &[u8],
    buffer: &'a mut [u8; PATH_BYTES_MAX],
) -> Option<&'a [u8]> {
    let mut space = [0; 32];
    let path = below(pid, suffix, &mut space)?;
    let length = rustix::fs::readlinkat_raw(proc, path, &mut buffer[..]).ok()?;
    (length < PATH_BYTES_MAX).then(|| &buffer[..length])
}

/// The directory or file behind a process's link, whatever its present name.
pub(super) fn target(proc: &OwnedFd, pid: i32, suffix: &[u8]) -> Option<FileId> {
    let mut space = [0; 32];
    FileId::at_bytes(proc.as_fd(), below(pid, suffix, &mut space)?).ok()
}

/// A line of `/proc/PID/stat`, as far as it identifies processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessStat {
    /// Whether it is dead and not reaped yet.
    pub(super) is_zombie: bool,
    /// Its parent, or the process that adopted it.
    pub(super) parent: i32,
    /// The leader of its session.
    pub(super) session: i32,
    /// Clock ticks from boot to its start: with the pid it identifies a process for ever.
    pub(super) started_ticks: u64,
}

/// The kernel's facts about a process; `None` when there is none.
pub(super) fn life(proc: &OwnedFd, pid: i32) -> Option<ProcessStat> {
    let mut space = [0; 32];
    let path = below(pid, b"/stat", &mut space)?;
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; 1024];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    let text = &buffer[..length];
    // The command may contain any character; the last parenthesis ends it, and a blank comes before the first column.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut columns = text.get(end + 2..)?.split(|byte| *byte == b' ');
    let state = columns.next()?;
    let mut column = |skipped: usize| std::str::from_utf8(columns.nth(skipped)?).ok();
    Some(ProcessStat {
        is_zombie: matches!(state, b"Z" | b"X" | b"x"),
        parent: column(0)?.parse().ok()?,
        session: column(1)?.parse().ok()?,
        started_ticks: column(15)?.parse().ok()?,
    })
}

/// The process ids of the children of its main thread, separated by blanks and padded with blanks. Like
/// `process::children_at_a_glance`, but without allocation. When it cannot be read, the result is false and the list
/// unchanged.
pub(super) fn read_children(proc: &OwnedFd, pid: i32, list: &mut [u8]) -> bool {
    let mut path = [0_u8; 48];
    if write!(&mut path[..], "{pid}/task/{pid}/children\0").is_err() {
        return false;
    }
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return false };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(proc, path, flags, Mode::empty()) else { return false };
    list.fill(b' ');
    // A child that ended meanwhile may hide another; the next read shows that one.
    rustix::io::read(&file, list).is_ok()
}
