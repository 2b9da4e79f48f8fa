//! A file that is renamed when it has grown, so that a log cannot fill the disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file, with `.1` the newest of the older ones.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    file: File,
    /// A new file begins at this many bytes; 0: never.
    size_max: u64,
    /// The number of older files that are kept; 0: no new file ever begins.
    older: u32,
    mode: Option<u32>,
    /// The last write ended with a whole line.
    at_line: bool,
}

impl RotatedFile {
    /// Opens the file to append to it. `mode`: its permissions, also if it exists.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: PathBuf, size_max: u64, older: u32, mode: Option<u32>) -> io::Result<RotatedFile> {
        let file = append(&path, mode)?;
        Ok(RotatedFile { path, file, size_max, older, mode, at_line: true })
    }

    /// Begins a new file. Where that is not possible the old one goes on.
    fn rotate(&mut self) -> io::Result<()> {
        if self.path.try_exists()? {
            self.make_room()?;
        }
        self.file = append(&self.path, self.mode)?;
        Ok(())
    }

    fn make_room(&self) -> io::Result<()> {
        for number in (1..self.older).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Write for RotatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size_max > 0 && self.older > 0 && self.at_line {
            // Another program may have cut the file, so its size is asked for.
            let size = self.file.metadata().map_or(0, |metadata| metadata.len());
            if size > 0 && self.size_max < size + bytes.len() as u64 {
                let _goes_on = self.rotate();
            }
        }
        let written = self.file.write(bytes)?;
        self.at_line = bytes[..written].last().is_none_or(|byte| *byte == b'\n');
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if let Some(mode) = mode {
        options.mode(mode);
    }
    let file = options.open(path)?;
    if let Some(mode) = mode {
        // Also for a file that was there, and whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_directory(name: &str, test: impl FnOnce(&Path)) {
        let dir = std::env::temp_dir().join(format!("matriarch-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("it can be made");
        test(&dir);
        fs::remove_dir_all(&dir).expect("it can be removed");
    }

    #[test]
    fn a_file_that_has_grown_is_renamed_and_the_oldest_is_gone() {
        with_directory("grown", |dir| {
            let path = dir.join("log");
            let mut file = RotatedFile::open(path.clone(), 10, 2, Some(0o600)).expect("it can be made");
            for line in ["one\n", "two\n", "three\n", "four is long\n", "5\n"] {
                file.write_all(line.as_bytes()).expect("there is space");
            }
            let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
            let expected = ["5\n", "four is long\n", "three\n"].map(|text| Some(text.to_owned()));
            assert_eq!([text("log"), text("log.1"), text("log.2")], expected);
            assert_eq!(text("log.3"), None);
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        });
    }

    #[test]
    fn a_file_that_was_renamed_by_another_is_made_again() {
        with_directory("renamed", |dir| {
            let path = dir.join("log");
            let mut file = RotatedFile::open(path.clone(), 10, 2, None).expect("it can be made");
            file.write_all(b"one is long\n").expect("there is space");
            fs::rename(&path, dir.join("log.1")).expect("it can be renamed");
            file.write_all(b"two\n").expect("there is space");
            let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
            let expected = ["two\n", "one is long\n"].map(|text| Some(text.to_owned()));
            assert_eq!(([text("log"), text("log.1")], text("log.2")), (expected, None));
        });
    }

    #[test]
    fn a_file_that_cannot_be_renamed_goes_on() {
        with_directory("unnamed", |dir| {
            let path = dir.join("log");
            fs::create_dir_all(dir.join("log.1/file")).expect("it can be made");
            let mut file = RotatedFile::open(path.clone(), 1, 1, None).expect("it can be made");
            for _ in 0..2 {
                file.write_all(b"line\n").expect("there is space");
            }
            assert_eq!(fs::read_to_string(path).expect("it is there"), "line\nline\n");
        });
    }
}
