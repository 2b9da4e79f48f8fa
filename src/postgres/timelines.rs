//! Timeline numbers that are already taken elsewhere.
//!
//! PostgreSQL takes the first number without a history file as the number of a new timeline. A member that promoted and
//! died before another member followed it used a number whose history file no other member has. The next promotion
//! would take that number again, and two different histories would have one name. To reserve a number, the supervisor
//! writes a history file that holds only a comment: PostgreSQL skips the number, and no history has it as an ancestor.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Setup, files};
use crate::model::Timeline;
use crate::os::durable;

/// The first line of the history file of a reserved number.
const RESERVED: &str = "# reserved by Matriarch: this timeline was begun elsewhere\n";
/// The most numbers to reserve at once: a record that claims more is broken.
const RESERVED_MAX: u32 = 1000;

/// Reserves every number above `mine` up to `above` that has no history file here. To be called right before a
/// promotion: a standby that starts while the newest number is a reserved one would take it for its target.
pub(super) fn reserve(setup: &Setup, mine: Timeline, above: Timeline) -> Result<(), Error> {
    let last = above.0.min(mine.0.saturating_add(RESERVED_MAX));
    let missing = |path: &PathBuf| !path.exists();
    let paths = (mine.0.saturating_add(1)..=last).map(|timeline| history_path(&setup.data_dir, timeline));
    let mut paths = paths.filter(missing);
    let Some(first) = paths.next() else { return Ok(()) };
    files::write(setup, &first, RESERVED)?;
    for path in paths {
        // One file with many names: flushing a thousand files takes longer than a promotion may.
        if fs::hard_link(&first, &path).is_err() {
            files::write(setup, &path, RESERVED)?;
        }
    }
    sync_wal_dir(setup)
}

/// Before a start: frees reserved numbers above the newest real history. A promotion that did not happen left them.
pub(super) fn free_unused(setup: &Setup) -> Result<(), Error> {
    let directory = setup.data_dir.join("pg_wal");
    let entries = fs::read_dir(&directory).map_err(Error::file("read", &directory))?;
    let mut histories: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "history"))
        .collect();
    histories.sort();
    for path in histories.iter().rev() {
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        if text != RESERVED {
            break;
        }
        fs::remove_file(path).map_err(Error::file("remove", path))?;
    }
    sync_wal_dir(setup)
}

fn sync_wal_dir(setup: &Setup) -> Result<(), Error> {
    let directory = setup.data_dir.join("pg_wal");
    durable::sync_dir(&directory).map_err(Error::file("flush", &directory))
}

fn history_path(data_dir: &Path, timeline: u32) -> PathBuf {
    data_dir.join(format!("pg_wal/{timeline:08X}.history"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn reserved_numbers_are_freed_unless_a_real_one_follows() {
        let data_dir = std::env::temp_dir().join(format!("matriarch-timelines-{}", std::process::id()));
        fs::create_dir_all(data_dir.join("pg_wal")).expect("a temporary directory");
        let setup = Setup { data_dir: data_dir.clone(), ..Setup::default() };
        let there = |timeline| history_path(&data_dir, timeline).exists();
        fs::write(history_path(&data_dir, 2), "1\t0/3000000\tpromoted\n").expect("room");
        reserve(&setup, Timeline(2), Timeline(4)).expect("reserved");
        assert!(there(3) && there(4) && !there(5));
        fs::write(history_path(&data_dir, 5), "2\t0/4000000\tpromoted\n").expect("room");
        free_unused(&setup).expect("nothing to free");
        assert!(there(3) && there(4) && there(5));
        fs::remove_file(history_path(&data_dir, 5)).expect("it is there");
        free_unused(&setup).expect("freed");
        assert!(there(2) && !there(3) && !there(4));
        reserve(&setup, Timeline(2), Timeline(1002)).expect("reserved");
        let file = |timeline| fs::metadata(history_path(&data_dir, timeline)).expect("it is there").ino();
        assert_eq!(file(3), file(1002), "one file that is flushed once");
        fs::remove_dir_all(&data_dir).expect("it is ours");
    }
}
