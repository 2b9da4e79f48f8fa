//! A copy of another member's data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::bootstrap::rename_aside;
use super::handle::{Inner, Progress};
use super::program::{last_lines, tool};
use super::{Error, Setup, conninfo, control, files, rotation};
use crate::model::{DataDirectory, FollowTarget};
use crate::os::child::{self, Fate};

const ASIDE: &str = ".aside";
/// How much of pg_basebackup's talk is kept for its error.
const TALK_MAX_BYTES: usize = 16 * 1024;

/// Takes a base backup; whatever was in the directory is kept aside until it has succeeded.
pub(super) async fn clone_from(
    inner: &Inner,
    target: &FollowTarget,
    progress: watch::Sender<Progress>,
) -> Result<(), Error> {
    inner.must_be_down("clone")?;
    let setup = &inner.setup;
    let partial = matches!(control::look(setup).await.0,
        DataDirectory::HalfMade { by } if by == "clone" || by == "bootstrap");
    if partial {
        remove_tree(&setup.data_dir).await?;
    } else if !control::is_empty(&setup.data_dir)? {
        rename_aside(&setup.data_dir, ASIDE)?;
    }
    control::mark(setup, "clone")?;
    rotation::write_pgpass(setup, target)?;
    let copied = basebackup(setup, target, &progress).await;
    if let Err(error) = copied {
        remove_tree(&setup.data_dir).await?;
        control::unmark(setup)?;
        return Err(error);
    }
    files::remove_signals(setup)?;
    control::unmark(setup)?;
    for aside in asides(&setup.data_dir) {
        if let Err(error) = remove_tree(&aside).await {
            // The clone is whole; what is left over is the operator's to delete.
            tracing::warn!(error = error.chain(), "a directory that was moved aside is left");
        }
    }
    Ok(())
}

async fn basebackup(
    setup: &Setup,
    target: &FollowTarget,
    progress: &watch::Sender<Progress>,
) -> Result<(), Error> {
    let name = "pg_basebackup";
    // Under the member's own name it would confirm commits.
    let source = conninfo::to_member(setup, target, &setup.replication, "matriarch clone")
        .ok_or_else(|| Error::Unfit(format!("clone: `{}` is no address", target.conn_url)))?;
    let mut command = tool(setup, name);
    command.arg("--pgdata").arg(&setup.data_dir).args(["-X", "stream"]).arg(format!("--dbname={source}"));
    command.args(["--progress", "--label=matriarch clone"]);
    if !setup.basebackup.iter().any(|option| option.starts_with("checkpoint")) {
        command.arg("--checkpoint=fast");
    }
    command.args(setup.basebackup.iter().map(|option| format!("--{option}")));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let spawn = |source| Error::Spawn { program: name.to_owned(), source };
    let mut child = child::spawn(&mut command, Fate::DiesWithItsOwner).map_err(spawn)?;
    let mut talk = String::new();
    if let Some(mut pipe) = child.take_stderr() {
        let mut buffer = [0; 4096];
        loop {
            let length = pipe.read(&mut buffer).await.map_err(spawn)?;
            if length == 0 {
                break;
            }
            talk.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if let Some(now) = talk.rsplit(['\r', '\n']).find_map(parse_progress) {
                progress.send_replace(now);
            }
            if talk.len() > TALK_MAX_BYTES {
                let cut = talk.ceil_char_boundary(talk.len() - TALK_MAX_BYTES / 2);
                talk.drain(..cut);
            }
        }
    }
    let status = child.wait().await.map_err(spawn)?;
    if status.success() {
        return Ok(());
    }
    let words: Vec<&str> = talk.split(['\r', '\n']).filter(|line| parse_progress(line).is_none()).collect();
    Err(Error::Program {
        program: name.to_owned(),
        status: status.to_string(),
        output: last_lines(&words.join("\n")),
    })
}

/// A line as in `  3072/23456 kB (13%), 0/1 tablespace`.
fn parse_progress(line: &str) -> Option<Progress> {
    let (done, rest) = line.trim_start().split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    Some(Progress { done: done.parse::<u64>().ok()? * 1024, total: total.parse::<u64>().ok()? * 1024 })
}

/// The directories that earlier attempts moved aside.
fn asides(data_dir: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (data_dir.parent(), data_dir.file_name()) else { return Vec::new() };
    let prefix = format!("{}{ASIDE}", name.to_string_lossy());
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let number =
        |rest: &str| rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok());
    let ours =
        entries.filter(|entry| entry.file_name().to_string_lossy().strip_prefix(&prefix).is_some_and(number));
    ours.map(|entry| entry.path()).collect()
}

async fn remove_tree(path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    tokio::fs::remove_dir_all(path).await.map_err(Error::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_progress() {
        let line = "   3072/23456 kB (13%), 0/1 tablespace (/data/base)";
        assert_eq!(parse_progress(line), Some(Progress { done: 3072 * 1024, total: 23456 * 1024 }));
        assert_eq!(parse_progress("pg_basebackup: error: no space left on a/b"), None);
    }
}
