//! What `/proc` says of a process (proc(5)), read without asking for memory.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

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

/// Where a link of a process points to; `None` also when that does not fit.
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

/// When a process started, in clock ticks since boot; `None` when there is none.
pub(super) fn started_ticks(proc: &OwnedFd, pid: i32) -> Option<u64> {
    let mut space = [0; 32];
    let path = below(pid, b"/stat", &mut space)?;
    let file = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; 1024];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    let text = &buffer[..length];
    // The command may hold anything; the last parenthesis ends it. The start is the twentieth column after it.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let column = text[end + 1..].split(|byte| *byte == b' ').nth(20)?;
    std::str::from_utf8(column).ok()?.parse().ok()
}

/// The process ids of the children of its main thread, separated and filled up by blanks: what
/// `process::children_at_a_glance` is for whoever may ask for memory. Left as it is when there is no such process.
pub(super) fn read_children(proc: &OwnedFd, pid: i32, list: &mut [u8]) {
    let mut path = [0_u8; 48];
    if write!(&mut path[..], "{pid}/task/{pid}/children\0").is_err() {
        return;
    }
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
    if let Ok(file) = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        list.fill(b' ');
        // One that ended meanwhile may hide another; what is asked often shows it the next time.
        let _ = rustix::io::read(&file, list);
    }
}
