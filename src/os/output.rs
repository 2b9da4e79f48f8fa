//! Output that no caller waits for: lines are passed to a separate thread. Lines that it cannot write are dropped and
//! counted.
//!
//! Standard error may be a pipe whose reader has stopped, and a log file may lie on a disk that is full or hangs. A
//! thread that writes there itself would be blocked until the pipe is read or the disk answers.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// The most lines that wait: more than a busy second produces.
const LINES_MAX: usize = 4096;
/// The most bytes that wait.
const BYTES_MAX: usize = 4 << 20;
/// The pause before a retry on a non-blocking descriptor.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// The interval between reports of dropped lines.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Writes whole lines to a file or a standard stream, without ever waiting for it. Clones share one thread.
#[derive(Clone, Debug)]
pub struct LossyWriter {
    shared: Arc<OutputShared>,
}

#[derive(Debug, Default)]
struct OutputShared {
    queue: Mutex<OutputQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputQueue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread is writing a line.
    writing: bool,
    dropped: u64,
}

impl OutputShared {
    fn queue(&self) -> MutexGuard<'_, OutputQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LossyWriter {
    /// Starts the thread that writes to `to`. After dropped lines, once `to` accepts lines again, `say_dropped` is
    /// called with their number; it may write a line itself.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(to: impl Write + Send + 'static, say_dropped: fn(u64)) -> io::Result<LossyWriter> {
        let writer = LossyWriter { shared: Arc::default() };
        let shared = Arc::clone(&writer.shared);
        thread::Builder::new().name("output".to_owned()).spawn(move || run(&shared, to, say_dropped))?;
        Ok(writer)
    }

    /// The number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.queue().dropped
    }

    /// Waits until everything is written, but not longer than `within`; true when it is.
    pub fn flush(&self, within: Duration) -> bool {
        let busy = |queue: &mut OutputQueue| queue.writing || !queue.lines.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.queue(), within, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Write for LossyWriter {
    /// Accepts all of `line`, or drops all of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.shared.queue();
        if LINES_MAX <= queue.lines.len() || BYTES_MAX < queue.bytes + line.len() {
            queue.dropped += 1;
        } else {
            queue.bytes += line.len();
            queue.lines.push_back(line.to_vec());
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    /// Does not wait.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(shared: &OutputShared, mut to: impl Write, say_dropped: fn(u64)) {
    let (mut said, mut dropped, mut say_at, mut torn) = (0, 0, Instant::now(), false);
    loop {
        let unsaid_until = (said < dropped && !torn).then_some(say_at);
        if let Some(line) = next_line(shared, unsaid_until) {
            let written = match torn {
                // A failed write may have left half a line.
                true => write_whole(&mut to, b"\n").and_then(|()| write_whole(&mut to, &line)),
                false => write_whole(&mut to, &line),
            };
            torn = written.is_err();
            let mut queue = shared.queue();
            queue.writing = false;
            queue.dropped += u64::from(torn);
            shared.changed.notify_all();
            dropped = queue.dropped;
        }
        if !torn && said < dropped && say_at <= Instant::now() {
            say_dropped(dropped - said);
            (said, say_at) = (dropped, Instant::now() + SAY_EVERY);
        }
    }
}

/// The next line; `None` when there is none until then.
fn next_line(shared: &OutputShared, until: Option<Instant>) -> Option<Vec<u8>> {
    let mut queue = shared.queue();
    loop {
        if let Some(line) = queue.lines.pop_front() {
            queue.bytes -= line.len();
            queue.writing = true;
            return Some(line);
        }
        let Some(until) = until else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        queue = shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn write_whole(to: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Standard error as a separate file, so that writing to it takes no lock for which others wait. If it is closed,
/// nothing is written.
///
/// # Errors
/// When there is no free descriptor.
pub fn stderr() -> io::Result<File> {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(stderr) => Ok(File::from(stderr)),
        Err(_closed) => File::options().write(true).open("/dev/null"),
    }
}

/// Writes to standard error, and waits no longer than `within`: for the last message of a process.
pub fn say_to_stderr(text: &str, within: Duration) {
    let Ok(mut to) = stderr() else { return };
    let text = text.to_owned();
    let (done, written) = mpsc::channel();
    let spawned = thread::Builder::new().spawn(move || {
        // There is no receiver for a failure.
        let _ = write_whole(&mut to, text.as_bytes());
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = written.recv_timeout(within);
    }
}

/// Standard output and standard error for children that may outlive this process, opened while it has the permission.
static FOR_CHILDREN: OnceLock<[Option<OwnedFd>; 2]> = OnceLock::new();

/// Opens the standard streams for children. To be called before the process changes its user, because a pipe belongs to
/// the user that created it.
pub fn prepare_for_children() {
    let _ = for_children();
}

fn for_children() -> &'static [Option<OwnedFd>; 2] {
    FOR_CHILDREN.get_or_init(|| [reopened(io::stdout().as_fd(), 1), reopened(io::stderr().as_fd(), 2)])
}

/// A pipe that is written to without waiting. It is a new file description, because the flags of the inherited one are
/// shared with the parent process. Other streams stay unchanged: a file must be appended to, and a socket cannot be
/// opened twice.
fn reopened(stream: BorrowedFd<'_>, number: u32) -> Option<OwnedFd> {
    let stat = rustix::fs::fstat(stream).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, format!("/proc/self/fd/{number}"), flags, Mode::empty()).ok()
}

fn stream_for_child(stream: &Option<OwnedFd>) -> Stdio {
    let copy = stream.as_ref().and_then(|stream| stream.try_clone().ok());
    copy.map_or_else(Stdio::inherit, Stdio::from)
}

/// Standard output for a child that must not block without a reader: if it is a pipe, output that does not fit is lost.
pub fn child_stdout() -> Stdio {
    stream_for_child(&for_children()[0])
}

/// Standard error, as [`child_stdout`].
pub fn child_stderr() -> Stdio {
    stream_for_child(&for_children()[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn pipe() -> (File, File) {
        let (read, write) = io::pipe().expect("two descriptors");
        (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)))
    }

    #[test]
    fn a_stopped_reader_delays_nothing_and_learns_of_dropped_lines() {
        static SAID: AtomicU64 = AtomicU64::new(0);
        let (mut reader, to) = pipe();
        let mut writer = LossyWriter::start(to, |lines| {
            SAID.fetch_add(lines, Ordering::Relaxed);
        })
        .expect("a thread");
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // A pipe has 64 kB; the rest waits, and lines beyond that are dropped.
        for _ in 0..2 * LINES_MAX {
            writer.write_all(&line).expect("it never fails");
        }
        let dropped = writer.dropped();
        assert!((LINES_MAX as u64 - 100..=LINES_MAX as u64).contains(&dropped), "{dropped}");
        assert!(!writer.flush(Duration::from_millis(20)));
        let mut read = 0;
        let mut buffer = vec![0; 1 << 16];
        while read < (2 * LINES_MAX - dropped as usize) * line.len() {
            read += reader.read(&mut buffer).expect("it writes on");
        }
        assert!(writer.flush(Duration::from_secs(10)));
        // Lines dropped after a report are reported even without another line.
        let by = Instant::now() + SAY_EVERY * 3;
        while SAID.load(Ordering::Relaxed) < dropped && Instant::now() < by {
            thread::sleep(RETRY_AFTER);
        }
        assert_eq!((SAID.load(Ordering::Relaxed), writer.dropped()), (dropped, dropped));
    }

    #[test]
    fn a_full_disk_only_drops_lines() {
        let to = File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut writer = LossyWriter::start(to, drop).expect("a thread");
        writer.write_all(b"one\n").expect("it never fails");
        writer.write_all(b"two\n").expect("it never fails");
        assert!(writer.flush(Duration::from_secs(10)));
        assert_eq!(writer.dropped(), 2);
    }
}
