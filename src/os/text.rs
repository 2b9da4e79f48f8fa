//! A path in preallocated memory, for code that must not allocate.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest possible path. PostgreSQL itself refuses longer ones (`MAXPGPATH`).
pub const PATH_BYTES_MAX: usize = 1024;

/// A path of at most [`PATH_BYTES_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PathText {
    length: usize,
    bytes: [u8; PATH_BYTES_MAX],
}

impl PathText {
    /// The empty path.
    pub const EMPTY: PathText = PathText { length: 0, bytes: [0; PATH_BYTES_MAX] };

    /// `None` when it is too long.
    pub fn new(path: &[u8]) -> Option<PathText> {
        let mut text = PathText { length: path.len(), ..PathText::EMPTY };
        text.bytes.get_mut(..path.len())?.copy_from_slice(path);
        Some(text)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }

    /// True for the empty path.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl TryFrom<PathBuf> for PathText {
    type Error = PathBuf;

    fn try_from(path: PathBuf) -> Result<PathText, PathBuf> {
        PathText::new(path.as_os_str().as_bytes()).ok_or(path)
    }
}

impl fmt::Debug for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().fmt(f)
    }
}
