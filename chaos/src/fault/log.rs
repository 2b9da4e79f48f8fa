//! Nobody reads a member's log any more, and the pipe is full.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{Outcome, Stage};
use crate::rig::{fill, is_alive, signal_all, wait_for};

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Stops reading the log, and kills the postmaster: the supervisor has to act and has more to say than the pipe holds.
/// The log is read again once somebody is primary.
pub(super) async fn block(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    stage.note_member(victim, "log not read, pipe full, postmaster killed");
    let member = &mut stage.rig.members[victim];
    let supervisor = member.supervisor().context("the victim has a supervisor")?;
    let postmaster = member.postmaster().context("the victim has a postmaster")?;
    member.reader.stop(true);
    fill(supervisor)?;
    signal_all(&[postmaster], Signal::SIGKILL);
    wait_for("the postmaster is dead", HAPPENS_WITHIN, || !is_alive(postmaster)).await?;
    let ttl = stage.rig.ttl();
    let by = Instant::now() + ttl * 3;
    loop {
        let primary = stage.rig.primary().await;
        let anew = stage.rig.members[victim].postmaster().is_some_and(|running| running != postmaster);
        if let Some(primary) = primary.filter(|primary| *primary != victim || anew) {
            stage.note_member(primary, "is primary");
            break;
        }
        ensure!(Instant::now() < by, "nobody is primary while the log of the member is not read");
        stage.hold(LOOK_EVERY).await;
    }
    stage.hold(ttl / 2).await;
    stage.note_member(victim, "log read again");
    stage.rig.members[victim].reader.stop(false);
    Ok(Outcome::Done)
}
