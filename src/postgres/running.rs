//! Changes to a running Postgres: parameters, access rules, the source of replication.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::control::PidFile;
use super::handle::PostgresInner;
use super::postmaster::LOOK_EVERY;
use super::sql::LOOK_WITHIN;
use super::{Error, Parameters, access_rules, control, files, session, sockets};
use crate::model::{FollowTarget, ListenAddress, SettingsRole};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// A reload is a signal to the postmaster; this is how long its effect is awaited.
const RELOADED_WITHIN: Duration = Duration::from_secs(2);
const FIRST_WITH_RELOADABLE_SOURCE: i32 = 130_000;

async fn client(inner: &PostgresInner) -> Result<Client, Error> {
    session::open(inner, "Matriarch", "-c statement_timeout=5000").await
}

/// Sends the postmaster SIGHUP.
pub(super) fn reload(inner: &PostgresInner) -> Result<(), Error> {
    match inner.postmaster.signal(Signal::SIGHUP) {
        true => Ok(()),
        false => Err(Error::Unfit("reload: postgres is down".to_owned())),
    }
}

/// Replaces the parameters; broken access rules are rolled back.
pub(super) async fn apply(inner: &PostgresInner, parameters: Parameters) -> Result<(), Error> {
    let parameters = inner.judged(parameters).await;
    files::write_main_again(inner, &parameters.clone().in_force())?;
    let former = inner.configuration.replace_parameters(parameters.clone());
    if !inner.postmaster.is_up() {
        return access_rules::write(inner, &parameters.in_force());
    }
    // The rules are read from the files, so they can be checked before they are in force.
    let errors = match client(inner).await {
        Ok(client) => write_unbroken_rules(inner, parameters, &former, &client).await?,
        // Without an answer (not consistent yet, or too many connections) the postmaster itself keeps the former rules
        // if these are broken.
        Err(error) => {
            tracing::warn!(error = error.chain(), "could not check the access rules");
            access_rules::write(inner, &parameters.in_force())?;
            Vec::new()
        }
    };
    reload(inner)?;
    if errors.is_empty() { Ok(()) } else { Err(Error::BrokenAccessRules { errors }) }
}

/// Writes the access rules of the present role. Those of each role are checked: after a change of the role it is too
/// late. Broken ones are replaced by what the role has in `former`.
async fn write_unbroken_rules(
    inner: &PostgresInner,
    mut parameters: Parameters,
    former: &Parameters,
    client: &Client,
) -> Result<Vec<String>, Error> {
    let paths = [files::hba_file(&inner.setup), files::ident_file(&inner.setup)];
    let texts = paths.clone().map(|path| fs::read_to_string(path).ok());
    let role = parameters.role;
    let mut roles: Vec<SettingsRole> =
        parameters.by_role.keys().copied().filter(|other| *other != role).collect();
    roles.push(role);
    let mut errors = Vec::new();
    for checked in roles {
        parameters.role = checked;
        access_rules::write(inner, &parameters.clone().in_force())?;
        let broken = broken_rules(client).await.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "could not check the access rules");
            Vec::new()
        });
        if !broken.is_empty() {
            parameters.keep_access_rules(former);
        }
        if !broken.is_empty() || checked != role {
            for (path, text) in paths.iter().zip(&texts) {
                if let Some(text) = text {
                    files::write(&inner.setup, path, text)?;
                }
            }
        }
        errors.extend(broken);
    }
    inner.configuration.replace_parameters(parameters);
    Ok(errors)
}

async fn broken_rules(client: &Client) -> Result<Vec<String>, Error> {
    let what = "check access rules";
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int4", &[])
        .await
        .map_err(Error::sql(what))?
        .get(0);
    let mut query =
        "SELECT 'pg_hba.conf:' || coalesce(line_number, 0) || ': ' || error FROM pg_hba_file_rules
                     WHERE error IS NOT NULL"
            .to_owned();
    if version >= 150_000 {
        query.push_str(
            " UNION ALL SELECT 'pg_ident.conf:' || coalesce(line_number, 0) || ': ' || error
              FROM pg_ident_file_mappings WHERE error IS NOT NULL",
        );
    }
    let rows = client.query(&query, &[]).await.map_err(Error::sql(what))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Right before a promotion: puts the settings of a primary in force, so that no client of the new primary meets those
/// of a standby. If that fails, the promotion goes on, and the settings are written after it.
pub(super) async fn take_primary_settings(inner: &PostgresInner, client: &Client) {
    let configured = inner.configuration.all_parameters();
    let role = SettingsRole::Primary;
    if configured.role == role || configured.by_role.is_empty() {
        return inner.configuration.set_role(role);
    }
    let read = tokio::time::timeout(RELOADED_WITHIN, write_role_settings(inner, configured, role, client));
    let within = RELOADED_WITHIN;
    let read =
        read.await.unwrap_or(Err(Error::Deadline { what: "reading the settings of a primary", within }));
    if let Err(error) = read {
        tracing::warn!(error = error.chain(), "PostgreSQL may be promoted with the settings of a standby");
    }
}

/// Returns when a session has read them.
async fn write_role_settings(
    inner: &PostgresInner,
    configured: Parameters,
    role: SettingsRole,
    client: &Client,
) -> Result<(), Error> {
    let loaded_at = async || {
        let row = client.query_one("SELECT pg_conf_load_time()::text", &[]).await;
        row.map(|row| row.get::<_, String>(0)).map_err(Error::sql("ask when postgres has read its files"))
    };
    let before = loaded_at().await?;
    let parameters = Parameters { role, ..configured }.in_force();
    files::write_main_again(inner, &parameters)?;
    access_rules::write(inner, &parameters)?;
    reload(inner)?;
    inner.configuration.set_role(role);
    while loaded_at().await? == before {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Writes `synchronous_standby_names` and reloads a running server. Sessions see it a moment later.
pub(super) fn write_sync_names(inner: &PostgresInner) -> Result<(), Error> {
    files::strip_auto_conf(inner)?;
    files::write_main_again(inner, &inner.parameters())?;
    if inner.postmaster.is_up() { reload(inner) } else { Ok(()) }
}

/// Writes the access rules with or without the client lockout, and reloads a running server.
pub(super) fn write_client_lockout(inner: &PostgresInner) -> Result<(), Error> {
    access_rules::write(inner, &inner.parameters())?;
    if inner.postmaster.is_up() { reload(inner) } else { Ok(()) }
}

/// Points a running standby at another source and waits until that is in force.
pub(super) async fn follow(inner: &PostgresInner, target: Option<&FollowTarget>) -> Result<bool, Error> {
    let setup = &inner.setup;
    files::write_main(inner, target)?;
    reload(inner)?;
    let what = "check whom postgres follows";
    let client = client(inner).await?;
    let wanted = files::ReplicationSource::of(setup, target);
    let deadline = clock::now() + RELOADED_WITHIN;
    loop {
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, current_setting('primary_conninfo'),
                        current_setting('primary_slot_name')",
                &[],
            )
            .await
            .map_err(Error::sql(what))?;
        if row.get::<_, &str>(1) == wanted.conninfo && row.get::<_, &str>(2) == wanted.slot {
            return Ok(true);
        }
        if row.get::<_, i32>(0) < FIRST_WITH_RELOADABLE_SOURCE {
            return Ok(false);
        }
        if clock::now() >= deadline {
            return Err(Error::Deadline {
                what: "pointing postgres to another member",
                within: RELOADED_WITHIN,
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The parameters that a restart would change.
pub(super) async fn pending_restart(
    inner: &PostgresInner,
) -> Result<BTreeMap<String, (String, String)>, Error> {
    let work = async {
        let client = client(inner).await?;
        let rows = client
            .query("SELECT name, current_setting(name) FROM pg_settings WHERE pending_restart", &[])
            .await
            .map_err(Error::sql("ask what waits for a restart"))?;
        let pending: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let recovers = client
            .query_one("SELECT pg_is_in_recovery()", &[])
            .await
            .map_err(Error::sql("ask whether postgres is a standby"))?;
        Ok((pending, recovers.get::<_, bool>(0)))
    };
    let within = LOOK_WITHIN;
    let what = "asking what waits for a restart";
    let (mut pending, recovers) =
        tokio::time::timeout(within, work).await.map_err(|_| Error::Deadline { what, within })??;
    let parameters = inner.parameters();
    // The server never reports parameters of the command line as pending.
    let running = running_command_line(inner);
    let differs =
        |(name, value): &&(String, String)| running.get(name.as_str()).is_some_and(|now| now != value);
    for (name, _) in parameters.command_line.iter().filter(differs) {
        pending.insert(name.clone(), running[name].clone());
    }
    let wanted = |name: &str| {
        let line = parameters.command_line.iter().find(|(given, _)| given == name).map(|(_, value)| value);
        line.or_else(|| parameters.parameters.get(name)).cloned().unwrap_or_default()
    };
    if recovers && !pending.is_empty() {
        // A standby that restarts before its leader lowers them starts with the present values.
        let minimums = control::read(&inner.setup).await?.standby_minimums;
        pending.retain(|name, now| {
            let numbers = (minimums.get(name), wanted(name).parse::<u64>(), now.parse::<u64>());
            let (Some(minimum), Ok(wanted), Ok(now)) = numbers else { return true };
            wanted.max(*minimum) != now
        });
    }
    let ours = |name: &str| name == sockets::PARAMETER && !inner.access.are_directories_pending(inner);
    let named = pending
        .into_iter()
        .filter(|(name, _)| (name == "restore_command" || !files::is_recovery(name)) && !ours(name));
    Ok(named.map(|(name, old)| (name.clone(), (old, wanted(&name)))).collect())
}

/// Roles and databases whose commits wait for no standby, whatever the names say; or all, by default.
pub(super) async fn unsynchronous(inner: &PostgresInner) -> Result<Vec<String>, Error> {
    let what = "asking whose commits do not wait";
    let within = LOOK_WITHIN;
    let work = async {
        let client = client(inner).await?;
        let rows = client.query(UNSYNCHRONOUS, &[]).await.map_err(Error::sql(what))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    tokio::time::timeout(within, work).await.map_err(|_| Error::Deadline { what, within })?
}

/// `synchronous_commit` values that wait for no standby: PostgreSQL manual, "Write Ahead Log".
const UNSYNCHRONOUS: &str = "
    SELECT concat_ws(' in ', 'role ' || quote_ident(rolname), 'database ' || quote_ident(datname))
      FROM pg_db_role_setting LEFT JOIN pg_roles ON pg_roles.oid = setrole
           LEFT JOIN pg_database ON pg_database.oid = setdatabase, unnest(setconfig) AS setting
     WHERE split_part(setting, '=', 1) = 'synchronous_commit'
       AND lower(split_part(setting, '=', 2)) IN ('off', 'false', 'no', '0', 'local')
    UNION ALL
    SELECT 'everybody' FROM pg_settings WHERE name = 'synchronous_commit' AND reset_val IN ('off', 'local')
     ORDER BY 1";

/// Where the running postmaster listens, as it says itself.
pub(super) fn listen(inner: &PostgresInner) -> ListenAddress {
    let setup = &inner.setup;
    let of_setup = setup.listen();
    let file = PidFile::find(&setup.data_dir).ok().flatten();
    ListenAddress {
        addresses: running_command_line(inner).remove("listen_addresses").unwrap_or(of_setup.addresses),
        port: file.and_then(|file| file.port).unwrap_or(of_setup.port),
    }
}

/// The parameters on the running postmaster's command line.
pub(super) fn running_command_line(inner: &PostgresInner) -> BTreeMap<String, String> {
    let Some(processes) = inner.postmaster.processes() else { return BTreeMap::new() };
    let line = fs::read(format!("/proc/{}/cmdline", processes.pid)).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .filter_map(|word| std::str::from_utf8(word).ok()?.strip_prefix("--")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
