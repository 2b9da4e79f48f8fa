//! A new cluster from a backup: a script of the operator makes the data directory, and PostgreSQL recovers it.

use std::path::PathBuf;

use super::handle::PostgresInner;
use super::script::ScriptCall;
use super::{Error, Setup, access_rules, control, files, replica};
use crate::model::{BootstrapRecovery, CustomBootstrap};

/// Has the script make the data directory, and prepares the recovery. Returns the postmaster's command line.
pub(super) async fn restore(inner: &PostgresInner, custom: &CustomBootstrap) -> Result<Vec<String>, Error> {
    let setup = &inner.setup;
    replica::create_if_missing(setup)?;
    let call =
        ScriptCall { name: &custom.name, words: &words(setup, custom), environment: &[], within: None };
    call.make_data(setup).await?;
    let control = control::read(setup).await?;
    replica::keep_private(&setup.data_dir)?;
    access_rules::write(inner, &inner.parameters())?;
    if inner.parameters().pg_hba.is_none() {
        access_rules::append(inner, &setup.bootstrap_pg_hba)?;
    }
    files::write_main_without_recovery(inner)?;
    // No process of PostgreSQL runs here: a lock file is that of the copied server.
    for left in ["promote", "postmaster.pid"] {
        files::remove(&setup.data_dir.join(left))?;
    }
    prepare(inner, &custom.recovery)?;
    let mut line = files::command_line(&inner.parameters(), &control.standby_minimums);
    line.extend(overrides(inner, &custom.recovery));
    Ok(line)
}

fn words(setup: &Setup, custom: &CustomBootstrap) -> Vec<String> {
    let CustomBootstrap { command, .. } = custom;
    let data_dir = setup.data_dir.display();
    let told = [format!("--scope={}", setup.scope), format!("--datadir={data_dir}")];
    let told = told.into_iter().filter(|_| command.is_told);
    let arguments = command.arguments.iter().map(|(key, value)| format!("--{key}={value}"));
    command.words.iter().cloned().chain(told).chain(arguments).collect()
}

/// The signal file, which says what kind of recovery it is.
fn prepare(inner: &PostgresInner, recovery: &BootstrapRecovery) -> Result<(), Error> {
    let setup = &inner.setup;
    let signal = match recovery {
        BootstrapRecovery::AsMade => return Ok(()),
        BootstrapRecovery::Crash => None,
        BootstrapRecovery::Archive { standby: true, .. } => Some("standby.signal"),
        BootstrapRecovery::Archive { standby: false, .. } => Some("recovery.signal"),
    };
    files::remove_signals(setup)?;
    files::strip_auto_conf(inner)?;
    signal.map_or(Ok(()), |signal| {
        let path: PathBuf = setup.data_dir.join(signal);
        files::write(setup, &path, "")
    })
}

/// Recovery ends with a promotion. Without hot standby PostgreSQL accepts connections only then, and its parameters may
/// be lower than those of the backup. Nothing is archived before the cluster is known to be this one: WAL waits in the
/// data directory.
fn overrides(inner: &PostgresInner, recovery: &BootstrapRecovery) -> Vec<String> {
    let mut line = vec!["--hot_standby=off".to_owned(), "--archive_command=".to_owned()];
    if inner.parameters().parameters.contains_key("archive_library") {
        line.push("--archive_library=".to_owned());
    }
    line.push("--recovery_target_action=promote".to_owned());
    if let BootstrapRecovery::Archive { parameters, .. } = recovery {
        line.extend(parameters.iter().map(|(name, value)| format!("--{name}={value}")));
    }
    line
}
