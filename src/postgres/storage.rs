//! The disk under the data directory and the WAL: takes a small write, flushes it, and has free space.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use crate::model::FreeSpace;

/// PostgreSQL's own prefix for files that base backups and pg_rewind leave out.
const FILE: &str = "pgsql_tmp.matriarch";
/// One sector, written in place, so that the probe does not wear out the disk.
const BYTES: [u8; 512] = [0; 512];
/// With less free space PostgreSQL cannot continue: it extends a table by up to 512 kB at once.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// The free space of the data directory and, if it has a disk of its own, of the WAL. Blocks while the disk does.
pub(super) fn free_space(data_dir: &Path) -> Vec<FreeSpace> {
    let wal = data_dir.join("pg_wal");
    let directories = if device(&wal) == device(data_dir) { vec![data_dir] } else { vec![data_dir, &wal] };
    let space = |directory: &Path| {
        let disk = statvfs(directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let (free_bytes, total_bytes) = (bytes(disk.blocks_available()), bytes(disk.blocks()));
        Some(FreeSpace { directory: directory.display().to_string(), free_bytes, total_bytes })
    };
    directories.into_iter().filter_map(space).collect()
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).map(|metadata| metadata.dev()).ok()
}

/// Writes and flushes below the data directory and on the WAL's disk. `Err` has the disk's error. A file that cannot be
/// opened for another reason says nothing about the disk.
pub(super) fn flush(data_dir: &Path) -> Result<(), String> {
    let wal = data_dir.join("pg_wal");
    flush_in(&wal)?;
    if device(&wal) == device(data_dir) { Ok(()) } else { flush_in(data_dir) }
}

fn flush_in(directory: &Path) -> Result<(), String> {
    let at = |what: String| format!("{}: {what}", directory.display());
    if let Ok(disk) = statvfs(directory)
        && 0 < disk.blocks()
    {
        let free_bytes = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free_bytes < FREE_BYTES_MIN {
            return Err(at(format!("{}, {free_bytes} bytes are left", Errno::ENOSPC.desc())));
        }
    }
    // The mode of its directory: the group may read the file if it may read the directory.
    let mode = fs::metadata(directory).map_or(0o600, |metadata| metadata.mode() & 0o640);
    match write(&directory.join(FILE), mode) {
        Ok(()) => Ok(()),
        Err(error) if is_of_the_disk(&error) => Err(at(error.to_string())),
        Err(error) => {
            tracing::debug!(directory = %directory.display(), %error, "could not probe the disk");
            Ok(())
        }
    }
}

fn write(path: &Path, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(mode).open(path)?;
    file.write_all_at(&BYTES, 0)?;
    file.sync_data()
}

fn is_of_the_disk(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_disk_passes_and_a_missing_directory_is_no_fault() {
        let folder = std::env::temp_dir().join(format!("matriarch-storage-{}", std::process::id()));
        fs::create_dir_all(folder.join("pg_wal")).expect("the temporary folder is writable");
        assert_eq!(flush(&folder), Ok(()));
        assert_eq!(fs::metadata(folder.join("pg_wal").join(FILE)).map(|file| file.len()).ok(), Some(512));
        fs::remove_dir_all(&folder).expect("ours");
        assert_eq!(flush(&folder), Ok(()));
    }

    #[test]
    fn a_full_disk_is_a_fault_of_the_disk() {
        assert!(is_of_the_disk(&io::Error::from_raw_os_error(Errno::ENOSPC as i32)));
        assert!(!is_of_the_disk(&io::Error::from_raw_os_error(Errno::EACCES as i32)));
    }
}
