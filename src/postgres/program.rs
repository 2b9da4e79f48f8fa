//! Runs the programs of PostgreSQL.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{Error, Setup};
use crate::os::child::{self, OnOwnerExit};
use crate::os::{notify, output};

/// How many lines of a program's complaint are kept.
pub(super) const LAST_LINES: usize = 20;
/// A question for a parameter only reads the configuration.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// A program with a restricted environment: no variables of the supervisor, messages in English, the password file.
pub(super) fn tool(setup: &Setup, name: &str) -> Command {
    let mut command = bare(setup, setup.program(name));
    command.env("LANG", "C").env("LC_ALL", "C").env("PGPASSFILE", &setup.pgpass);
    command
}

/// A program without the supervisor's variables.
pub(super) fn bare(setup: &Setup, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    restrict(&mut command, std::env::vars_os());
    if let Some(service) = &setup.krbsrvname {
        command.env("PGKRBSRVNAME", service);
    }
    if let Some((user, group)) = setup.uid_gid {
        command.uid(user).gid(group).current_dir("/");
    }
    // A server must not block because its output is not read.
    command.stdin(Stdio::null()).stdout(output::child_stdout()).stderr(output::child_stderr());
    command
}

/// Takes the supervisor's own variables of `environment` from the program.
fn restrict(command: &mut Command, environment: impl Iterator<Item = (OsString, OsString)>) {
    let ours = ["PATRONI_", "MATRIARCH_", "KUBERNETES_"];
    for (key, value) in environment {
        let name = key.to_string_lossy();
        let secret = name == "POSTGRES_PASSWORD" || notify::VARIABLES.contains(&&*name);
        if secret || ours.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&key);
        }
        if name == "PG_MALLOC_ARENA_MAX" {
            command.env("MALLOC_ARENA_MAX", value);
        }
    }
}

/// Runs a program to its end and returns its standard output.
pub(super) async fn run(name: &str, command: Command, within: Option<Duration>) -> Result<String, Error> {
    let ended = run_to_end(name, command, within).await?;
    if ended.status.success() {
        return Ok(ended.output);
    }
    Err(ended.failed(name))
}

/// The value of a parameter as PostgreSQL reads it from this configuration file and from `ALTER SYSTEM`.
pub(super) async fn configured_value(setup: &Setup, file: &Path, name: &str) -> Result<String, Error> {
    let mut command = tool(setup, "postgres");
    command.arg("-D").arg(&setup.data_dir).arg(format!("--config-file={}", file.display()));
    command.args(["-C", name]);
    let value = run("postgres -C", command, Some(ASK_WITHIN)).await?;
    Ok(value.trim().to_owned())
}

/// The result of a program, with its output.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: String,
    pub(super) complaint: String,
}

impl Ended {
    /// The error of the program, with the end of its output. What it complained of comes last: it may have said much
    /// else.
    pub(super) fn failed(&self, name: &str) -> Error {
        let output = last_lines(&format!("{}\n{}", self.output, self.complaint));
        Error::Program { program: name.to_owned(), status: self.status.to_string(), output }
    }
}

/// Runs a program to its end, successful or not. If it is dropped or late, it is killed with its whole group.
pub(super) async fn run_to_end(
    name: &str,
    mut command: Command,
    within: Option<Duration>,
) -> Result<Ended, Error> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawn = |source| Error::Spawn { program: name.to_owned(), source };
    let mut child = child::spawn(&mut command, OnOwnerExit::DiesWithItsOwner).map_err(spawn)?;
    let (mut stdout, mut stderr) = (child.take_stdout(), child.take_stderr());
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let work = async {
        let (output_read, complaint_read) = tokio::join!(
            async { if let Some(pipe) = &mut stdout { pipe.read_to_end(&mut output).await } else { Ok(0) } },
            async {
                if let Some(pipe) = &mut stderr { pipe.read_to_end(&mut complaint).await } else { Ok(0) }
            },
        );
        output_read.and(complaint_read)?;
        child.wait().await
    };
    let limit = within.unwrap_or(Duration::MAX);
    let status = tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Error::Program {
            program: name.to_owned(),
            status: format!("no end within {limit:?}"),
            output: String::new(),
        })?
        .map_err(spawn)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { status, output: text(&output), complaint: text(&complaint) })
}

/// The last lines of a program's output.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_no_variable_of_the_supervisor_and_their_own_number_of_arenas() {
        let mut command = Command::new("postgres");
        let given = [
            ("PATRONI_SCOPE", "x"),
            ("MATRIARCH_NAME", "x"),
            ("KUBERNETES_SERVICE_HOST", "x"),
            ("POSTGRES_PASSWORD", "x"),
            ("NOTIFY_SOCKET", "x"),
            ("PG_MALLOC_ARENA_MAX", "2"),
            ("TZ", "UTC"),
        ];
        restrict(&mut command, given.map(|(name, value)| (name.into(), value.into())).into_iter());
        let changed = command.as_std().get_envs();
        let mut changed: Vec<String> =
            changed.map(|(name, value)| format!("{}={value:?}", name.display())).collect();
        changed.sort();
        let gone = ["KUBERNETES_SERVICE_HOST", "MATRIARCH_NAME", "NOTIFY_SOCKET", "PATRONI_SCOPE"];
        let mut expected: Vec<String> = gone.iter().map(|name| format!("{name}=None")).collect();
        expected.extend(["MALLOC_ARENA_MAX=Some(\"2\")", "POSTGRES_PASSWORD=None"].map(str::to_owned));
        expected.sort();
        assert_eq!(changed, expected);
    }
}
