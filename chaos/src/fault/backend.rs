//! One process of PostgreSQL is killed or stands still.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{Outcome, Stage};
use crate::rig::{is_alive, is_stopped, signal_all, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// Kills a client's server process, which makes the postmaster end all others.
pub(super) async fn kill(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let backend = one(stage, victim, "app")?;
    stage.note_member(victim, "server process killed");
    signal_all(&[backend], Signal::SIGKILL);
    wait_for("it is dead", HAPPENS_WITHIN, || !is_alive(backend)).await?;
    Ok(Outcome::Done)
}

/// Stops one process with such a title for a lease and a half, and lets it go on.
pub(super) async fn freeze(stage: &mut Stage<'_>, title: &str) -> Result<Outcome> {
    let primary = stage.rig.wait_for_leader(stage.rig.ttl()).await?;
    let process = one(stage, primary, title)?;
    stage.note_member(primary, &format!("{title} process stopped"));
    signal_all(&[process], Signal::SIGSTOP);
    wait_for("it stands still", HAPPENS_WITHIN, || is_stopped(process)).await?;
    stage.hold(stage.rig.ttl() * 3 / 2).await;
    stage.note_member(primary, &format!("{title} process goes on"));
    signal_all(&[process], Signal::SIGCONT);
    Ok(Outcome::Done)
}

fn one(stage: &mut Stage<'_>, member: usize, title: &str) -> Result<i32> {
    let all = stage.rig.members[member].children(title);
    stage.rng.pick(&all).with_context(|| format!("there is no `{title}` process"))
}
