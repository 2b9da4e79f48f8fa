//! The environment of a run: its folder, the programs, the unprivileged user, and small file systems for the data.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::User;

use super::cgroup::Cgroup;
use super::namespaces::tool;

/// The folder of a run and what it was started with.
#[derive(Debug)]
pub(crate) struct Place {
    /// Everything is below it.
    pub(crate) folder: PathBuf,
    /// PostgreSQL's programs.
    pub(crate) postgres_bin: PathBuf,
    /// Our binary, where everybody can execute it.
    pub(crate) program: PathBuf,
    user: (u32, u32),
    /// Data is on small file systems in memory, which can be filled.
    pub(crate) in_memory: bool,
}

/// How a process is started besides what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Housing<'a> {
    /// Its cgroup, where there are any.
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// Its working directory.
    pub(crate) folder: &'a Path,
    /// The name of its log.
    pub(crate) log: &'a str,
    /// How far its monotonic clocks are ahead of everybody else's, in seconds.
    pub(crate) clock_ahead: i64,
}

impl Place {
    /// Furnishes a run's folder. `program` is the binary under test; without it, the one beside this program.
    pub(crate) fn new(folder: &Path, program: Option<&Path>, in_memory: bool) -> Result<Place> {
        let built = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?.with_file_name("matriarch"),
        };
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.context("there is no user `postgres` or `nobody` to run PostgreSQL as")?;
        let place = Place {
            folder: folder.to_owned(),
            postgres_bin: postgres_bin()?,
            program: folder.join("bin/matriarch"),
            user: (user.uid.as_raw(), user.gid.as_raw()),
            in_memory,
        };
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        place.folder("bin")?;
        place.folder("log")?;
        copy(&built, &place.program)?;
        // A build from before there was a separate guard has none.
        let guard = built.with_file_name("matriarch-guard");
        if guard.exists() {
            copy(&guard, &place.program.with_file_name("matriarch-guard"))?;
        }
        Ok(place)
    }

    /// The run's name.
    pub(crate) fn run(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Makes a folder that belongs to the unprivileged user.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        chown(&folder, Some(self.user.0), Some(self.user.1))?;
        Ok(folder)
    }

    /// Makes a folder for data: a file system in memory of that size, unless the run is on disk.
    pub(crate) fn data_folder(&self, name: &str, megabytes: u32) -> Result<PathBuf> {
        let folder = self.folder(name)?;
        if self.in_memory {
            let (uid, gid) = self.user;
            let options = format!("size={megabytes}m,mode=0700,uid={uid},gid={gid}");
            tool("mount", &["-t", "tmpfs", "-o", &options, "chaos", &folder.to_string_lossy()])?;
        }
        Ok(folder)
    }

    /// Writes a file that only the unprivileged user can read.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(chown(path, Some(self.user.0), Some(self.user.1))?)
    }

    /// Where a process's log is.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("log").join(format!("{name}.log"))
    }

    /// Opens a process's log, to be appended to.
    pub(crate) fn open_log(&self, name: &str) -> Result<fs::File> {
        let path = self.log(name);
        let opened = fs::File::options().create(true).append(true).open(&path);
        opened.with_context(|| format!("open {}", path.display()))
    }

    /// A command that runs as the unprivileged user, housed as told, with its output in its log. It executes through
    /// a shell and setpriv, which keep the process id.
    pub(crate) fn command(&self, housing: Housing<'_>, program: &Path) -> Result<Command> {
        let log = self.open_log(housing.log)?;
        let cgroup = housing.cgroup.map(|cgroup| cgroup.folder.join("cgroup.procs"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"[ -z "$0" ] || echo 0 >"$0"; exec "$@""#]);
        command.arg(cgroup.unwrap_or_default());
        if housing.clock_ahead != 0 {
            let ahead = housing.clock_ahead.to_string();
            command.args(["unshare", "--time", "--boottime", &ahead, "--monotonic", &ahead, "--"]);
        }
        let (uid, gid) = self.user;
        command.args([
            "setpriv",
            "--clear-groups",
            &format!("--reuid={uid}"),
            &format!("--regid={gid}"),
            "--",
        ]);
        command.arg(program).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("LANG", "C.UTF-8"), ("PYTHONUNBUFFERED", "1")]);
        command.env("HOME", housing.folder).env("TMPDIR", housing.folder).current_dir(housing.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

fn copy(built: &Path, to: &Path) -> Result<()> {
    fs::copy(built, to).with_context(|| format!("copy {}: build it first", built.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}

/// PostgreSQL's programs: the newest installed, or `MATRIARCH_TEST_PG_BIN`.
pub(crate) fn postgres_bin() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MATRIARCH_TEST_PG_BIN") {
        return Ok(folder.into());
    }
    let mut packaged = (13..=18).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    match packaged.find(|folder| folder.join("postgres").exists()) {
        Some(folder) => Ok(folder),
        None => bail!("PostgreSQL 13 to 18 is not installed: see `make setup`"),
    }
}
