//! The operator's scripts for a new cluster, as the official image runs them: in the order of their names, once, over
//! the private socket.
//!
//! ```text
//!  *.sh                        executed, or read by a shell where it is not executable
//!  *.sql *.sql.gz .xz .zst     psql, which stops at the first error
//!  anything else               skipped
//! ```

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::program::{Ended, bare, run_to_end};
use super::{Error, Setup};
use crate::os::child::{self, OnOwnerExit};

/// Shells; the first is the one that most scripts were written for.
const SHELLS: [(&str, &str); 2] = [
    (
        "bash",
        "set -Eeo pipefail; docker_process_sql() { psql -v ON_ERROR_STOP=1 -wX \"$@\"; }; \
              psql=(docker_process_sql); . \"$1\"",
    ),
    ("sh", "set -e; docker_process_sql() { psql -v ON_ERROR_STOP=1 -wX \"$@\"; }; . \"$1\""),
];

/// The kind of a script.
#[derive(Debug, PartialEq, Eq)]
enum ScriptKind {
    Shell,
    Sql,
    /// Compressed SQL, with the program that unpacks it.
    PackedSql(&'static str),
    Unknown,
}

impl ScriptKind {
    fn of(path: &Path) -> ScriptKind {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kinds = [
            (".sh", ScriptKind::Shell),
            (".sql", ScriptKind::Sql),
            (".sql.gz", ScriptKind::PackedSql("gzip")),
            (".sql.xz", ScriptKind::PackedSql("xz")),
            (".sql.zst", ScriptKind::PackedSql("zstd")),
        ];
        kinds
            .into_iter()
            .find(|(ending, _)| name.ends_with(ending))
            .map_or(ScriptKind::Unknown, |(_, kind)| kind)
    }
}

/// Runs all scripts, up to the first that fails. `host` is the private socket's directory.
pub(super) async fn run_all(setup: &Setup, host: &str) -> Result<(), Error> {
    for path in scripts(&setup.init_scripts)? {
        let script = path.display().to_string();
        let ended = match ScriptKind::of(&path) {
            ScriptKind::Shell => run_to_end(&script, shell(setup, host, &path)?, None).await,
            ScriptKind::Sql => {
                let mut psql = psql(setup, host);
                psql.arg("--file").arg(&path);
                run_to_end(&script, psql, None).await
            }
            ScriptKind::PackedSql(unpacker) => run_packed(setup, host, &path, unpacker).await,
            ScriptKind::Unknown => {
                tracing::info!(
                    script,
                    "not a script: the name must end in .sh, .sql, .sql.gz, .sql.xz or .sql.zst"
                );
                continue;
            }
        }?;
        report(&script, &ended)?;
    }
    Ok(())
}

/// The files of a directory in the order of their names; none if there is no directory.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", folder)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(Error::file("read", folder))?;
    // Hidden files do not match a shell's `*`; the kubelet keeps the real files of a volume in a hidden directory.
    paths.retain(|path| !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| !path.is_dir());
    paths.sort();
    Ok(paths)
}

/// Logs a script's output and its result.
fn report(script: &str, ended: &Ended) -> Result<(), Error> {
    for line in ended.output.lines().chain(ended.complaint.lines()).filter(|line| !line.trim().is_empty()) {
        tracing::info!(script, "{line}");
    }
    if ended.status.success() {
        tracing::info!(script, "done");
        return Ok(());
    }
    Err(ended.failed(script))
}

/// Sets the environment of every script: the image's own variables, and the connection to the server without a prompt.
fn with_environment(mut command: Command, setup: &Setup, host: &str) -> Command {
    let who = &setup.superuser;
    command.env("PGHOST", host).env("PGPORT", setup.port.to_string());
    // The database in which scripts work by default.
    let database = setup.new_database.as_deref().unwrap_or("postgres");
    command.env("PGUSER", &who.username).env("PGDATABASE", database);
    command.env("POSTGRES_USER", &who.username).env("POSTGRES_DB", database).env("PGDATA", &setup.data_dir);
    if let Some(password) = who.password.newest() {
        command.env("POSTGRES_PASSWORD", password);
    }
    if let Some(bin_dir) = &setup.bin_dir {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = [bin_dir.clone()].into_iter().chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(dirs) {
            command.env("PATH", path);
        }
    }
    command.env_remove("PGHOSTADDR").env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
    command
}

fn psql(setup: &Setup, host: &str) -> Command {
    let mut command = with_environment(bare(setup, setup.program("psql")), setup, host);
    command.args(["-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"]);
    command
}

fn shell(setup: &Setup, host: &str, script: &Path) -> Result<Command, Error> {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    let shell = SHELLS.iter().find_map(|(name, prelude)| Some((found(name)?, prelude)));
    let Some((shell, prelude)) = shell else {
        let script = script.display();
        return Err(Error::Unfit(format!(
            "{script} needs a shell, and there is none here: neither bash nor sh is in PATH; write it as .sql"
        )));
    };
    if rustix::fs::access(script, rustix::fs::Access::EXEC_OK).is_ok() {
        return Ok(with_environment(bare(setup, script), setup, host));
    }
    let mut command = with_environment(bare(setup, shell), setup, host);
    command.arg("-c").arg(prelude).arg("init").arg(script);
    Ok(command)
}

/// Unpacks into psql. A broken archive fails as a broken statement does.
async fn run_packed(setup: &Setup, host: &str, path: &Path, unpacker: &str) -> Result<Ended, Error> {
    let spawn = |source| Error::Spawn { program: unpacker.to_owned(), source };
    let mut unpack = bare(setup, unpacker);
    unpack.args(["-d", "-c"]).arg(path).stdout(Stdio::piped());
    let mut unpacking = child::spawn(&mut unpack, OnOwnerExit::DiesWithItsOwner).map_err(spawn)?;
    let pipe = unpacking.take_stdout().ok_or_else(|| spawn(std::io::Error::other("has no output")))?;
    let mut psql = psql(setup, host);
    psql.stdin(pipe.into_owned_fd().map_err(spawn)?);
    let ended = run_to_end("psql", psql, None).await?;
    let unpacked = unpacking.wait().await.map_err(spawn)?;
    if ended.status.success() && !unpacked.success() {
        return Err(Error::Program {
            program: format!("{unpacker} of {}", path.display()),
            status: unpacked.to_string(),
            output: String::new(),
        });
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_decides_the_kind_of_script() {
        let kinds = [
            ("a.sh", ScriptKind::Shell),
            ("b.sql", ScriptKind::Sql),
            ("c.sql.gz", ScriptKind::PackedSql("gzip")),
            ("d.sql.zst", ScriptKind::PackedSql("zstd")),
            ("README", ScriptKind::Unknown),
            ("e.sql.bak", ScriptKind::Unknown),
        ];
        for (name, kind) in kinds {
            assert_eq!(ScriptKind::of(Path::new(name)), kind, "{name}");
        }
    }

    #[test]
    fn scripts_run_in_order_without_hidden_files() {
        let folder = std::env::temp_dir().join(format!("matriarch-scripts-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("..data")).expect("a temporary folder");
        for name in ["2.sql", "10.sh", ".hidden.sql"] {
            std::fs::write(folder.join(name), "").expect("writable");
        }
        let found = scripts(&folder).expect("readable");
        std::fs::remove_dir_all(&folder).expect("it was just made");
        assert_eq!(found, [folder.join("10.sh"), folder.join("2.sql")]);
        assert!(scripts(&folder).expect("none is none").is_empty());
    }
}
