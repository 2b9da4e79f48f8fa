//! What a host gets beside the program: completions, manual pages, the unit of systemd, the Debian package.

mod commands;
mod debian;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_matriarch");

/// A file of this repository.
fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Standard output of a program that succeeds.
fn text_of(command: &mut Command) -> String {
    let output = output_of(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn output_of(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Whether this machine has the program.
fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
