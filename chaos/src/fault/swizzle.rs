//! Swizzle-clogging, after FoundationDB: pull cables one by one, and plug them in one by one in another order.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Outcome, Stage};
use crate::rig::{Namespace, Rig};

/// Strikes some of the cables of members and etcd.
pub(super) async fn clog(stage: &mut Stage<'_>) -> Result<Outcome> {
    let count = stage.rig.members.len() + stage.rig.etcd.size();
    let mut struck: Vec<usize> = (0..count).collect();
    stage.rng.shuffle(&mut struck);
    struck.truncate(2 + stage.rng.below(count as u64 - 2) as usize);
    let names: Vec<&str> = struck.iter().map(|end| namespace(stage.rig, *end).name.as_str()).collect();
    stage.note(&format!("cables of {} pulled", names.join(", ")));
    for end in &struck {
        namespace(stage.rig, *end).link(false)?;
        ensure!(!namespace(stage.rig, *end).has_carrier()?, "there is a carrier without a cable");
        pause(stage).await;
    }
    stage.hold(stage.rig.ttl()).await;
    stage.rng.shuffle(&mut struck);
    for end in &struck {
        namespace(stage.rig, *end).link(true)?;
        pause(stage).await;
    }
    stage.note("cables plugged in");
    Ok(Outcome::Done)
}

async fn pause(stage: &mut Stage<'_>) {
    let span = Duration::from_millis(stage.rng.below(1500));
    stage.hold(span).await;
}

/// Members come first, then etcd.
fn namespace(rig: &Rig, end: usize) -> &Namespace {
    match rig.members.get(end) {
        Some(member) => &member.namespace,
        None => rig.etcd.namespace(end - rig.members.len()),
    }
}
