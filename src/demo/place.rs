//! The environment of a demo: its directory, programs, user and free ports.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;

/// PostgreSQL's versions, newest first.
const POSTGRES_VERSIONS: [u32; 6] = [18, 17, 16, 15, 14, 13];

/// A socket's path has at most 107 bytes, and PostgreSQL appends up to 15.
const DIR_LENGTH_MAX: usize = 90;

/// A demo's surroundings. Dropping it removes the directory, unless it is kept.
#[derive(Debug)]
pub struct DemoDirectory {
    /// The directory of all files.
    pub dir: PathBuf,
    /// etcd's program.
    pub etcd: PathBuf,
    /// PostgreSQL's programs.
    pub bin_dir: PathBuf,
    /// This program, at a path that the members' user can read.
    pub program: PathBuf,
    /// The user for the processes, when started as root: PostgreSQL refuses to run as root.
    pub user: Option<(u32, u32)>,
    keep: bool,
}

impl DemoDirectory {
    /// Finds the programs and creates the directory.
    pub fn make(dir: Option<&Path>, keep: bool) -> Result<DemoDirectory, CliError> {
        let etcd = etcd_program()?;
        let bin_dir = postgres_programs()?;
        let user = user()?;
        let dir = match dir {
            Some(dir) => std::path::absolute(dir)?,
            None => PathBuf::from(format!("/tmp/matriarch-demo-{}", secret(4)?)),
        };
        if dir.as_os_str().len() > DIR_LENGTH_MAX {
            return Err(CliError::usage(format!(
                "{} is too long a path for PostgreSQL's socket",
                dir.display()
            ))
            .hint(format!("--dir takes at most {DIR_LENGTH_MAX} characters")));
        }
        DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
            CliError::failed(format!("failed to make {}", dir.display()))
                .because(&error)
                .hint("--dir names a directory that does not exist yet")
        })?;
        let mut place = DemoDirectory { dir, etcd, bin_dir, program: PathBuf::new(), user, keep };
        place.own(&place.dir)?;
        place.program = place.own_program()?;
        Ok(place)
    }

    /// This program: a copy that the other user can execute, when there is one.
    fn own_program(&self) -> Result<PathBuf, CliError> {
        let program = std::env::current_exe()?;
        if self.user.is_none() {
            return Ok(program);
        }
        let copy = self.dir.join("matriarch");
        fs::copy(&program, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        self.own(&copy)?;
        Ok(copy)
    }

    /// Gives `path` to the user of the processes.
    fn own(&self, path: &Path) -> Result<(), CliError> {
        match self.user {
            Some((uid, gid)) => Ok(chown(path, Some(uid), Some(gid))?),
            None => Ok(()),
        }
    }

    /// Writes a file that only the processes' user can read.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, CliError> {
        let path = self.dir.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        self.own(&path)?;
        Ok(path)
    }

    /// Whether the directory stays.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Keeps only the logs at the end: after a failure they are needed.
    pub fn keep_logs(&mut self) {
        if self.keep {
            return;
        }
        self.keep = true;
        let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if !is_log(&path) {
                // As in `drop`: a file that cannot be removed is ignored.
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            }
        }
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        if !self.keep {
            // A file that cannot be removed is ignored.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file())
}

fn etcd_program() -> Result<PathBuf, CliError> {
    on_path("etcd").ok_or_else(|| {
        CliError::failed("there is no etcd on this machine")
            .hint("install it (Debian: `apt install etcd-server`) or put it on the PATH")
            .exit(Exit::MissingProgram)
    })
}

fn postgres_programs() -> Result<PathBuf, CliError> {
    let packaged =
        POSTGRES_VERSIONS.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let from_path = on_path("postgres").and_then(|program| Some(program.parent()?.to_owned()));
    // A directory of links to a few of the programs is no installation.
    let complete = |dir: &PathBuf| PROGRAMS.iter().all(|program| dir.join(program).is_file());
    from_path.into_iter().chain(packaged).find(complete).ok_or_else(
        || {
            CliError::failed("there is no PostgreSQL server on this machine")
                .hint("install one of version 13 to 18 (Debian: `apt install postgresql`) or put `postgres` on the PATH")
                .exit(Exit::MissingProgram)
        },
    )
}

/// The programs of PostgreSQL that a member needs.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"];

/// The user for the processes when started as root.
fn user() -> Result<Option<(u32, u32)>, CliError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let known = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = known.ok_or_else(|| {
        CliError::failed("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")
            .exit(Exit::Root)
    })?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}

/// Free ports on loopback, all different: each is held until all are found.
pub fn free_ports(count: usize) -> Result<Vec<u16>, CliError> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<Result<_, std::io::Error>>()?)
}

/// A random text of `bytes` bytes in hexadecimal.
pub fn secret(bytes: usize) -> Result<String, CliError> {
    let mut buffer = vec![0_u8; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_and_secrets_differ() {
        let ports: BTreeSet<u16> = free_ports(8).expect("free ports").into_iter().collect();
        assert_eq!(ports.len(), 8);
        assert_eq!(secret(12).expect("random").len(), 24);
        assert_ne!(secret(12).expect("random"), secret(12).expect("random"));
    }
}
