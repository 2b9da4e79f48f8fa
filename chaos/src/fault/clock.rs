//! A member's monotonic clocks differ from everybody else's: a time namespace. Nobody may compare them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Outcome, Stage, member};
use crate::rig::wait_for;

/// Seconds ahead; never behind, as a machine that has just started has nothing to go back to.
const AHEAD: [i64; 4] = [0, 45, 3600, 100_000];
const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// The member dies and comes back with other clocks, which it keeps.
pub(super) async fn shift(stage: &mut Stage<'_>) -> Result<Outcome> {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        return Ok(Outcome::NotAvailable("this kernel has no time namespaces".to_owned()));
    }
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    let now = stage.rig.members[victim].clock_ahead;
    let others: Vec<i64> = AHEAD.into_iter().filter(|ahead| *ahead != now).collect();
    let ahead = stage.rng.pick(&others).unwrap_or_default();
    member::die(stage, victim).await?;
    stage.wait_for_failover(victim, was_primary).await;
    stage.rig.members[victim].clock_ahead = ahead;
    stage.note_member(victim, &format!("clocks are {ahead} s ahead"));
    let outcome = member::come_back(stage, victim)?;
    let pid = stage.rig.members[victim].supervisor().context("the victim has a supervisor")?;
    let offsets = || fs::read_to_string(format!("/proc/{pid}/timens_offsets")).unwrap_or_default();
    let shifted = || offsets().split_whitespace().filter(|word| **word == ahead.to_string()).count() >= 2;
    if ahead != 0 {
        wait_for("its clocks differ", HAPPENS_WITHIN, shifted).await?;
    }
    ensure!(stage.rig.members[victim].supervisor().is_some(), "the member does not start with other clocks");
    Ok(outcome)
}
