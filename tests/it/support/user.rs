//! The user of Postgres, etcd and the supervisors in tests. PostgreSQL refuses to run as root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown};

/// The unprivileged user if the test runs as root; otherwise `None`.
fn unprivileged() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .expect("root's machine has the user postgres or nobody");
    Some((user.uid, user.gid))
}

/// A command that runs as the unprivileged user, with `home` as its home, working directory and folder for temporary
/// files.
pub(crate) fn command_as(program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env("HOME", home).env("TMPDIR", home);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["PATRONI", "PG", "KUBE", "RUST_LOG", "NOTIFY_SOCKET"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

/// Makes that user the owner of a file or folder.
pub(crate) fn give(path: &Path) {
    if let Some((uid, gid)) = unprivileged() {
        chown(path, Some(uid), Some(gid)).expect("root can give a file away");
    }
}
