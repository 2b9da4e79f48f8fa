//! Real Patroni, for members of it beside ours. It runs as the user of Postgres, who cannot read the environment that
//! `make setup` made for root.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{command_as, python_program};

/// The command that runs Patroni with this configuration, in the folder of a member.
pub(crate) fn patroni(folder: &Path, config: &Path) -> Command {
    let program = python_program("patroni");
    let environment = program.ancestors().nth(2).expect("it lies in the folder `bin` of its environment");
    let mut command = command_as("/usr/bin/python3", folder);
    command.env("PYTHONPATH", libraries(folder, environment)).args(["-m", "patroni"]).arg(config);
    command
}

/// The environment's libraries, linked to a place that this user can read.
fn libraries(folder: &Path, environment: &Path) -> PathBuf {
    let copy = folder.parent().expect("a member's folder lies in a place").join("patroni");
    if !copy.exists() {
        let versions = std::fs::read_dir(environment.join("lib")).expect("an environment has libraries");
        let packages = versions.flatten().map(|version| version.path().join("site-packages"));
        let packages = packages.into_iter().find(|packages| packages.join("patroni").exists());
        let packages = packages.expect("Patroni is in the environment: run `make setup`");
        let copied = |how: &str| Command::new("cp").arg(how).arg(&packages).arg(&copy).output();
        // Links are possible within one file system only.
        let linked = copied("-al").is_ok_and(|output| output.status.success());
        assert!(linked || copied("-a").is_ok_and(|output| output.status.success()), "cannot copy Patroni");
    }
    copy
}
