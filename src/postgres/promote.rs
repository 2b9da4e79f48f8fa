//! From standby to primary.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::handle::Inner;
use super::process::wait_until_ready;
use super::{Error, Started, files, sql};
use crate::model::Process;
use crate::os::clock;

/// How often Postgres is asked whether it is a primary yet.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// What `pg_ctl promote` does, and no process of its own for it.
pub(super) async fn promote(
    inner: &Inner,
    still_allowed: impl Fn() -> bool,
    within: Duration,
) -> Result<(), Error> {
    let what = "promoting";
    let deadline = clock::now() + within;
    let late = || Error::Deadline { what, within };
    let Some(prey) = inner.prey() else { return Err(Error::Unfit("promote: postgres is down".to_owned())) };
    // A promotion before consistency would end the recovery with an error.
    if wait_until_ready(inner, prey.pid, within).await? == Started::StillRecovering {
        return Err(late());
    }
    let setup = &inner.setup;
    let client = client(inner).await?;
    let ask = "SELECT pg_is_in_recovery()";
    let is_standby = async || -> Result<bool, Error> {
        let row = tokio::time::timeout(clock::now().until(deadline), client.query_one(ask, &[])).await;
        Ok(row.map_err(|_| late())?.map_err(Error::sql("ask whether postgres is promoted"))?.get(0))
    };
    if !is_standby().await? {
        return Ok(());
    }
    let resume = "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()";
    client.batch_execute(resume).await.map_err(Error::sql("resume replay"))?;
    // The postmaster looks for the file at any signal, also at one of its own children's: from the moment it exists
    // this may be a primary, so the permission (and with it the fence) comes first, and is asked once more after.
    if !still_allowed() {
        return Err(Error::NotAllowedAnyMore);
    }
    inner.may_be_primary();
    let trigger = setup.data_dir.join("promote");
    files::write_promote(setup, &trigger)?;
    if !still_allowed() {
        files::remove(&trigger)?;
        return Err(Error::NotAllowedAnyMore);
    }
    if !prey.signal(Signal::SIGUSR1) {
        return Err(Error::Unfit("promote: postgres has ended".to_owned()));
    }
    while is_standby().await? {
        if matches!(*inner.process.borrow(), Process::Down { .. }) || clock::now() >= deadline {
            return Err(late());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    if let Ok(mut kept) = inner.heartbeat.try_lock() {
        kept.get_or_insert(client);
    }
    Ok(())
}

/// The heartbeat's connection if nobody uses it now: authentication takes longer than a promotion.
async fn client(inner: &Inner) -> Result<Client, Error> {
    let kept = inner.heartbeat.try_lock().ok().and_then(|mut kept| kept.take());
    if let Some(client) = kept.filter(|client| !client.is_closed()) {
        return Ok(client);
    }
    sql::heartbeat(inner).await
}
