//! `patroni.dynamic.json` in the data directory: the dynamic configuration that was last in force, under Patroni's name
//! and in its form, so Patroni and Matriarch can each read the other's file. A clone or a rewind brings the source's.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::handle::PostgresInner;
use super::{Error, files};

const FILE: &str = "patroni.dynamic.json";

/// Reads it; `None` if it does not exist.
///
/// # Errors
/// When it cannot be read as text.
pub fn kept_dynamic(data_dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn keep_dynamic(inner: &PostgresInner, text: &str) -> Result<(), Error> {
    files::write(&inner.setup, &inner.setup.data_dir.join(FILE), text)
}
