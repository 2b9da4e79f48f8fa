//! Runs the scripts of an operator. Whatever they do, they end when they are cancelled, they cannot fill the memory or
//! the log, and a process that they leave behind writes no data directory.
//!
//! A script that makes a data directory has a variable in its environment, by which its processes are found: its
//! process group lacks those that began a session of their own, and outlives a supervisor that is killed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::program::{LAST_LINES, bare};
use super::{Error, Postgres, Setup};
use crate::os::child::{self, Child, OnOwnerExit};
use crate::os::pidfd::Pidfd;
use crate::os::{clock, process};

/// The most lines of one script in the log.
const LINES_MAX: usize = 1000;
/// The longest line; the rest of it is another line.
const LINE_BYTES_MAX: usize = 1000;
/// How long the output of a script that has ended is read: a process that it left may keep it open.
const READ_ON_WITHIN: Duration = Duration::from_millis(500);
/// How long processes may take to end that were killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// The interval between looks for them.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The variable by which the processes of a script that makes this data directory are found.
const MARK: &str = "MATRIARCH_SCRIPT_FOR";

/// A call of a script.
pub(super) struct ScriptCall<'a> {
    /// Its name in the log.
    pub(super) name: &'a str,
    /// Its command line.
    pub(super) words: &'a [String],
    /// Variables for it.
    pub(super) environment: &'a [(&'a str, &'a OsStr)],
    /// When it is killed; `None`: when it is cancelled.
    pub(super) within: Option<Duration>,
}

impl ScriptCall<'_> {
    /// Runs a script that makes a data directory. No process of it is left when it has ended.
    ///
    /// # Errors
    /// It could not be run, or its status is not zero.
    pub(super) async fn make_data(&self, setup: &Setup) -> Result<(), Error> {
        let mut command = self.command(setup)?;
        command.env(MARK, &setup.data_dir);
        let ended = self.run(command).await;
        end_leftovers(setup).await?;
        ended
    }

    /// Runs any other script. What it leaves behind goes on.
    ///
    /// # Errors
    /// It could not be run, its status is not zero, or it took too long.
    pub(super) async fn execute(&self, setup: &Setup) -> Result<(), Error> {
        let command = self.command(setup)?;
        self.run(command).await
    }

    /// A shell starts it, because a program is started under a lock: one on a file system that hangs would hang the
    /// supervisor.
    fn command(&self, setup: &Setup) -> Result<Command, Error> {
        if self.words.is_empty() {
            return Err(Error::Unfit(format!("{}: the command is empty", self.name)));
        }
        let mut command = bare(setup, "/bin/sh");
        command.args(["-c", "exec \"$0\" \"$@\""]).args(self.words);
        command.envs(self.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    async fn run(&self, mut command: Command) -> Result<(), Error> {
        let (script, program) = (self.name, &self.words[0]);
        tracing::info!(script, program, "calling a script");
        let spawn = |source| Error::Spawn { program: script.to_owned(), source };
        let mut child = child::spawn(&mut command, OnOwnerExit::DiesWithItsOwner).map_err(spawn)?;
        let output = ScriptOutput::of(script);
        let within = self.within.unwrap_or(Duration::MAX);
        let status = match tokio::time::timeout(within, output.read_to_end(&mut child)).await {
            Ok(status) => status.map_err(spawn)?,
            Err(_late) => return Err(output.failed(format!("no end within {within:?}"))),
        };
        match status.success() {
            true => Ok(()),
            false => Err(output.failed(status.to_string())),
        }
    }
}

impl Postgres {
    /// Runs a script of the operator that makes no data directory. If this is dropped, the script's process group is
    /// killed.
    ///
    /// # Errors
    /// It could not be run, its status is not zero, or it took longer than `within`.
    pub async fn run_script(&self, name: &str, words: &[String], within: Duration) -> Result<(), Error> {
        let call = ScriptCall { name, words, environment: &[], within: Some(within) };
        call.execute(self.setup()).await
    }
}

/// Kills what is left of a script that makes this data directory, also of an earlier supervisor.
///
/// # Errors
/// A process does not end.
pub(super) async fn end_leftovers(setup: &Setup) -> Result<(), Error> {
    let deadline = clock::now() + KILLED_WITHIN;
    loop {
        let data_dir = setup.data_dir.clone();
        // One look reads a file of each process of the machine.
        let look =
            tokio::task::spawn_blocking(move || process::kill_started_with(MARK, data_dir.as_os_str()));
        if !look.await.map_err(|error| Error::Unfit(format!("look for processes of a script: {error}")))? {
            return Ok(());
        }
        if deadline <= clock::now() {
            let what = "killing the processes that a script left";
            return Err(Error::Deadline { what, within: KILLED_WITHIN });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a script says: logged line by line, up to a limit. The last lines are kept for its error. Those of its standard
/// error come last there: it may have said much else, and which pipe is read first is chance.
struct ScriptOutput<'a> {
    script: &'a str,
    said: Mutex<ScriptLines>,
}

#[derive(Default)]
struct ScriptLines {
    number: usize,
    last: VecDeque<String>,
    last_complaints: VecDeque<String>,
}

#[derive(Clone, Copy)]
enum ScriptPipe {
    Output,
    Error,
}

impl ScriptOutput<'_> {
    fn of(script: &str) -> ScriptOutput<'_> {
        ScriptOutput { script, said: Mutex::default() }
    }

    /// Until the script has ended.
    async fn read_to_end(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
        let held = Pidfd::open(child.pid())?;
        let mut lines = std::pin::pin!(async {
            tokio::join!(self.read(stdout, ScriptPipe::Output), self.read(stderr, ScriptPipe::Error))
        });
        tokio::select! {
            exited = held.exited() => {
                exited?;
                // Whoever has the pipe may never close it.
                let _ = tokio::time::timeout(READ_ON_WITHIN, lines).await;
            }
            _all_read = &mut lines => held.exited().await?,
        }
        child.wait().await
    }

    async fn read(&self, from: Option<impl AsyncRead + Unpin>, which: ScriptPipe) {
        let Some(mut pipe) = from else { return };
        let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length) = pipe.read(&mut buffer).await
            && 0 < length
        {
            for byte in &buffer[..length] {
                if matches!(byte, b'\n' | b'\r') || LINE_BYTES_MAX <= line.len() {
                    self.say(&std::mem::take(&mut line), which);
                }
                if !matches!(byte, b'\n' | b'\r') {
                    line.push(*byte);
                }
            }
        }
        self.say(&line, which);
    }

    fn say(&self, line: &[u8], which: ScriptPipe) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        let script = self.script;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.number += 1;
        match said.number {
            ..=LINES_MAX => tracing::info!(script, "{line}"),
            number if number == LINES_MAX + 1 => {
                tracing::warn!(script, "it has said {LINES_MAX} lines: no more of them are logged");
            }
            _more => {}
        }
        let last = match which {
            ScriptPipe::Output => &mut said.last,
            ScriptPipe::Error => &mut said.last_complaints,
        };
        if LAST_LINES <= last.len() {
            last.pop_front();
        }
        last.push_back(line);
    }

    fn failed(&self, status: String) -> Error {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = said.last.iter().chain(&said.last_complaints).map(String::as_str).collect();
        let output = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
        Error::Program { program: self.script.to_owned(), status, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_not_lost_behind_other_output() {
        let output = ScriptOutput::of("copies");
        output.say(b"no tape", ScriptPipe::Error);
        (0..LAST_LINES).for_each(|_| output.say(b"y", ScriptPipe::Output));
        let error = output.failed("exit status: 3".to_owned()).to_string();
        assert!(error.ends_with("y; no tape"), "{error}");
    }
}
