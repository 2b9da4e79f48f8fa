//! The guard's sockets: a pair between it and its supervisor, and one with a name for the next supervisor.
//!
//! The name of a Unix socket may have 107 bytes, and a data directory may have more. So every name here goes through a
//! descriptor below `/proc/self/fd`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::FenceError;

/// Supervisors that connect at the same time: the lock allows only one.
const BACKLOG: i32 = 8;

/// The path of the socket of an armed guard.
pub(super) fn armed_name(data_dir: &Path) -> PathBuf {
    beside(data_dir, ".matriarch-guard")
}

/// The path of the socket of a guard that is not armed.
pub(super) fn idle_name(data_dir: &Path) -> PathBuf {
    beside(data_dir, ".matriarch-guard-idle")
}

fn beside(data_dir: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = data_dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A connected pair of sockets; both ends are closed on exec.
pub(super) fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// A socket that listens under the idle name of `data_dir`.
pub(super) fn listen(data_dir: &Path) -> Result<OwnedFd, FenceError> {
    let path = idle_name(data_dir);
    let failed = |what| {
        let path = path.clone();
        move |source: Errno| FenceError::Socket { what, path, source: source.into() }
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or(OsStr::new("guard"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty()).map_err(failed("reach"))?;
    // A short name first: the path of the data directory may be too long for an address.
    let short = format!(".mg-{}", std::process::id());
    let address = format!("/proc/self/fd/{}/{short}", directory.as_raw_fd());
    let address = SocketAddrUnix::new(address.as_str()).map_err(failed("name"))?;
    let socket = new_socket().map_err(failed("make"))?;
    // Left over by an earlier process with this process id.
    let _ = rustix::fs::unlinkat(&directory, short.as_str(), AtFlags::empty());
    rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
    let permissions = Mode::RUSR | Mode::WUSR;
    rustix::fs::chmodat(&directory, short.as_str(), permissions, AtFlags::empty())
        .map_err(failed("protect"))?;
    rustix::fs::renameat(&directory, short.as_str(), &directory, name).map_err(failed("name"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen on"))?;
    Ok(socket)
}

/// Makes this process the peer that a connecting supervisor sees.
pub(super) fn listen_as_me(listener: &OwnedFd) -> rustix::io::Result<()> {
    rustix::net::listen(listener, BACKLOG)
}

/// Connects to the socket.
pub(super) fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let place = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let socket = new_socket()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The peer's process id, if its user is allowed: this user, or root.
pub(super) fn trusted_peer(socket: &OwnedFd) -> Option<i32> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    let mine = rustix::process::geteuid();
    (peer.uid == mine || peer.uid.is_root()).then(|| peer.pid.as_raw_nonzero().get())
}

/// Sends without waiting.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, flags)).map(drop)
}

/// One message, if there is one; an empty one when the other end is closed.
pub(super) fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> rustix::io::Result<&'a [u8]> {
    let mut length = 0;
    let received = rustix::io::retry_on_intr(|| {
        let (_, whole) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
        length = whole;
        Ok(())
    });
    received?;
    // A message longer than any of the protocol's is invalid; it must not look like the end either.
    Ok(if length <= buffer.len() { &buffer[..length] } else { &buffer[..1] })
}

/// Waits until one of them is readable, or for `within`. An interrupted wait is just short.
pub(super) fn wait<const N: usize>(sockets: [Option<&OwnedFd>; N], within: Option<Duration>) {
    let timeout = within.and_then(|within| Timespec::try_from(within).ok());
    let mut all = [const { None }; N];
    let mut count = 0;
    for socket in sockets.into_iter().flatten() {
        all[count] = Some(socket);
        count += 1;
    }
    let result = match (all.first().copied().flatten(), count) {
        (Some(first), 1..) => {
            let mut polled: [PollFd<'_>; N] =
                std::array::from_fn(|place| PollFd::new(all[place].unwrap_or(first), PollFlags::IN));
            rustix::event::poll(&mut polled[..count], timeout.as_ref())
        }
        (_none, _) => rustix::event::poll(&mut [], timeout.as_ref()),
    };
    // The caller checks everything afterwards, whatever ended the wait.
    let _ = result;
}
