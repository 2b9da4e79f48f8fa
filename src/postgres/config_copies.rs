//! Copies of the operator's configuration files in the data directory, where the files themselves are elsewhere
//! (`config_dir`). A clone or a restored backup brings them along, as in Patroni.

use std::fs;
use std::path::PathBuf;

use super::{Error, Setup, files};
use crate::os::error_chain::ErrorChain;

/// The suffix of a copy.
const SUFFIX: &str = ".backup";

/// The files and their copies; none where the files are in the data directory.
fn copies(setup: &Setup) -> Vec<(PathBuf, PathBuf)> {
    if files::config_dir(setup) == setup.data_dir {
        return Vec::new();
    }
    let base = setup.custom_conf.is_none().then(|| files::base_file(setup));
    let copied = base.into_iter().chain([files::hba_file(setup), files::ident_file(setup)]);
    let copy = |file: PathBuf| {
        let mut name = file.file_name()?.to_owned();
        name.push(SUFFIX);
        Some((file, setup.data_dir.join(name)))
    };
    copied.filter_map(copy).collect()
}

/// After a start, with which the files have proved good.
pub(super) fn save(setup: &Setup) {
    for (file, copy) in copies(setup) {
        let saved = fs::read_to_string(&file).map_err(Error::file("read", &file)).and_then(|text| {
            let is_saved = fs::read_to_string(&copy).is_ok_and(|saved| saved == text);
            if is_saved { Ok(()) } else { files::write(setup, &copy, &text) }
        });
        if let Err(error) = saved {
            tracing::warn!(
                error = error.chain(),
                "could not copy a configuration file to the data directory"
            );
        }
    }
}

/// Writes the files that are missing and have a copy.
pub(super) fn restore_missing(setup: &Setup) -> Result<(), Error> {
    for (file, copy) in copies(setup).iter().filter(|(file, copy)| !file.exists() && copy.exists()) {
        let text = fs::read_to_string(copy).map_err(Error::file("read", copy))?;
        files::write(setup, file, &text)?;
        tracing::info!(file = %file.display(), "a missing configuration file was restored from its copy");
    }
    Ok(())
}
