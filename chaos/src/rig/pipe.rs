//! A member's output goes through a small pipe, as under a container runtime or an init system, and the reader of that
//! pipe can stop reading.

use std::fs::File;
use std::io::{ErrorKind, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Linux gives no pipe less than a page.
const PIPE_BYTES: i32 = 4096;
const FILLING: &[u8] = b"filling of a pipe that nobody reads\n";

/// The reader of every pipe that one member was given: a member that was started again leaves processes that hold the
/// pipe of its previous start.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogReader {
    stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl LogReader {
    /// A pipe for one start, copied into `log` until its last writer has closed it.
    pub(crate) fn pipe_into(&self, mut log: File) -> Result<PipeWriter> {
        let (mut reader, writer) = pipe().context("make a pipe")?;
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).context("shrink a pipe")?;
        let this = self.clone();
        let copy = move || {
            let mut bytes = [0; PIPE_BYTES as usize];
            loop {
                this.wait_until_reading();
                match reader.read(&mut bytes) {
                    Ok(0) | Err(_) => return,
                    // A log that cannot be written must not stop the member.
                    Ok(count) => drop(log.write_all(&bytes[..count])),
                }
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(copy).context("start a reader")?;
        Ok(writer)
    }

    /// Stops reading, or goes on.
    pub(crate) fn stop(&self, stopped: bool) {
        let (flag, changed) = &*self.stopped;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
        changed.notify_all();
    }

    fn wait_until_reading(&self) {
        let (flag, changed) = &*self.stopped;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(guard, |stopped| *stopped).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Fills the pipe that a process has as standard error, until the next byte would wait. The pipe is opened anew,
/// because O_NONBLOCK belongs to an open file that its writers share.
pub(crate) fn fill(process: i32) -> Result<()> {
    let path = format!("/proc/{process}/fd/2");
    let flags = OFlag::O_NONBLOCK.bits();
    let mut pipe = File::options().write(true).custom_flags(flags).open(&path).context("open the pipe")?;
    for chunk in [FILLING, b"\n"] {
        loop {
            match pipe.write(chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("fill the pipe"),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pipe_without_a_reader_is_full_and_loses_nothing_afterwards() {
        let path = std::env::temp_dir().join(format!("chaos-pipe-{}", std::process::id()));
        let reader = LogReader::default();
        reader.stop(true);
        let mut writer = reader.pipe_into(File::create(&path).expect("writable")).expect("a pipe");
        let write = move || (0..1000).for_each(|_| writer.write_all(FILLING).expect("a reader"));
        let writing = thread::spawn(write);
        thread::sleep(Duration::from_millis(50));
        assert!(!writing.is_finished());
        reader.stop(false);
        writing.join().expect("it ends");
        let all = FILLING.len() as u64 * 1000;
        let by = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&path).expect("a log").len() < all {
            assert!(std::time::Instant::now() < by, "the log lacks lines");
            thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(&path).expect("ours");
    }
}
