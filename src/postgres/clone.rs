//! A base backup: a copy of another member's data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::aside::{Links, MARK, SetAside};
use super::handle::CloneStatus;
use super::program::{last_lines, tool};
use super::{Error, Setup, conninfo, sql};
use crate::model::FollowTarget;
use crate::os::child::{self, OnOwnerExit};
use crate::os::error_chain::ErrorChain;
use crate::os::{clock, durable};

/// How much of pg_basebackup's output is kept for its error.
const TALK_MAX_BYTES: usize = 16 * 1024;

/// The source's tablespaces. None of them may be a directory that is moved away here: members on one machine share
/// tablespaces that were created without a mapping, and their removal here would remove the source's data.
pub(super) async fn source_tablespaces(
    setup: &Setup,
    target: &FollowTarget,
) -> Result<Vec<(u32, PathBuf)>, Error> {
    let mark = format!("{MARK}{}-{:x}", std::process::id(), clock::now().as_nanos());
    let own_spaces = Links::of(&setup.data_dir).tablespaces;
    let marks: Vec<PathBuf> = own_spaces.iter().map(|(_, directory)| directory.join(&mark)).collect();
    let marked = marks.iter().filter(|path| path.parent().is_some_and(Path::is_dir));
    let marked = marked.map(|path| fs::write(path, "").map_err(Error::file("write", path)));
    let answer = match marked.collect::<Result<Vec<()>, Error>>() {
        Ok(_) => Ok(sql::tablespaces(setup, target, &mark).await),
        Err(error) => Err(error),
    };
    for path in &marks {
        durable::remove(path).map_err(Error::file("remove", path))?;
    }
    let source_spaces = answer?.unwrap_or_else(|error| {
        tracing::warn!(
            error = error.chain(),
            "could not read the tablespaces of the source before the clone"
        );
        Vec::new()
    });
    match source_spaces.iter().find(|space| space.marked) {
        Some(shared) => Err(Error::Unfit(format!(
            "clone: the tablespace at {} is {}'s own as well: give this member another place (basebackup: \
             tablespace-mapping), and remove the link in pg_tblspc here",
            shared.location.display(),
            target.name
        ))),
        None => Ok(source_spaces.into_iter().map(|space| (space.number, space.location)).collect()),
    }
}

/// Takes a base backup into the empty directory.
pub(super) async fn copy(
    setup: &Setup,
    target: &FollowTarget,
    source_spaces: &[(u32, PathBuf)],
    aside: &mut SetAside,
    progress: &watch::Sender<CloneStatus>,
) -> Result<(), Error> {
    let layout = Layout::new(&setup.basebackup, &aside.links, source_spaces);
    aside.fill(setup, layout.outside)?;
    basebackup(setup, target, &layout.options, progress).await
}

/// The locations of a clone's parts outside the data directory.
#[derive(Debug, Default, PartialEq)]
struct Layout {
    /// Options besides the configured ones.
    options: Vec<String>,
    outside: Vec<PathBuf>,
}

impl Layout {
    /// As configured; else as in the former data directory; else as on the source.
    fn new(configured: &[String], former: &Links, source_spaces: &[(u32, PathBuf)]) -> Layout {
        let mut layout = Layout::default();
        let waldir = configured.iter().find_map(|option| option.strip_prefix("waldir=")).map(PathBuf::from);
        if let (None, Some(wal)) = (&waldir, &former.wal) {
            layout.options.push(format!("--waldir={}", wal.display()));
        }
        layout.outside.extend(waldir.or_else(|| former.wal.clone()));
        let mapped = |location: &Path| {
            let mappings = configured.iter().filter_map(|option| option.strip_prefix("tablespace-mapping="));
            mappings.filter_map(split_mapping).find(|(from, _)| from == location).map(|(_, to)| to)
        };
        for (number, location) in source_spaces {
            let had = former.tablespaces.iter().find(|(known, _)| known == number).map(|(_, target)| target);
            let place = match (mapped(location), had) {
                (Some(place), _) => place,
                (None, Some(place)) if place != location => {
                    let escaped = |path: &Path| path.display().to_string().replace('=', r"\=");
                    layout.options.push(format!(
                        "--tablespace-mapping={}={}",
                        escaped(location),
                        escaped(place)
                    ));
                    place.clone()
                }
                (None, _) => location.clone(),
            };
            layout.outside.push(place);
        }
        layout
    }
}

/// `OLDDIR=NEWDIR`, where a backslash escapes an equals sign.
fn split_mapping(text: &str) -> Option<(PathBuf, PathBuf)> {
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '=' => {
                let plain = |part: &str| PathBuf::from(part.replace(r"\=", "="));
                return Some((plain(&text[..at]), plain(&text[at + 1..])));
            }
            _plain => {}
        }
    }
    None
}

async fn basebackup(
    setup: &Setup,
    target: &FollowTarget,
    options: &[String],
    progress: &watch::Sender<CloneStatus>,
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
    command.args(setup.basebackup.iter().map(|option| format!("--{option}"))).args(options);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let spawn = |source| Error::Spawn { program: name.to_owned(), source };
    let mut child = child::spawn(&mut command, OnOwnerExit::DiesWithItsOwner).map_err(spawn)?;
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

/// Parses a line such as `  3072/23456 kB (13%), 0/1 tablespace`.
fn parse_progress(line: &str) -> Option<CloneStatus> {
    let (done, rest) = line.trim_start().split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    Some(CloneStatus { done: done.parse::<u64>().ok()? * 1024, total: total.parse::<u64>().ok()? * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_progress() {
        let line = "   3072/23456 kB (13%), 0/1 tablespace (/data/base)";
        assert_eq!(parse_progress(line), Some(CloneStatus { done: 3072 * 1024, total: 23456 * 1024 }));
        assert_eq!(parse_progress("pg_basebackup: error: no space left on a/b"), None);
    }

    #[test]
    fn a_clone_keeps_the_layout_that_was_there() {
        let path = PathBuf::from;
        let former = Links {
            wal: Some(path("/wal/a")),
            tablespaces: vec![(1, path("/ts/mine")), (2, path("/ts/same"))],
        };
        let source_spaces = [(1, path("/ts/a=b")), (2, path("/ts/same")), (3, path("/ts/new"))];
        let layout = Layout::new(&[], &former, &source_spaces);
        assert_eq!(layout.options, ["--waldir=/wal/a", r"--tablespace-mapping=/ts/a\=b=/ts/mine"]);
        assert_eq!(layout.outside, ["/wal/a", "/ts/mine", "/ts/same", "/ts/new"].map(PathBuf::from));
        let configured = ["waldir=/w".to_owned(), r"tablespace-mapping=/ts/a\=b=/ts/c".to_owned()];
        let layout = Layout::new(&configured, &former, &source_spaces);
        assert_eq!(layout.options, Vec::<String>::new());
        assert_eq!(layout.outside, ["/w", "/ts/c", "/ts/same", "/ts/new"].map(PathBuf::from));
    }
}
