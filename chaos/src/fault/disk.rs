//! The primary's disk is full: its small file system shrinks to what it holds.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;
use tokio::time::timeout;

use super::{Outcome, Stage};
use crate::rig::{Member, connect, tool};

/// What is left free: less than one WAL segment.
const LEFT_MEGABYTES: u64 = 1;
/// Within this the log speaks of it.
const HAPPENS_WITHIN: Duration = Duration::from_secs(20);
/// Takes up recycled WAL segments and pages that are free within tables.
const FILL: &str = "CREATE TABLE IF NOT EXISTS ballast (t text); SELECT pg_switch_wal(); \
                    INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 15000)";
const EMPTY: &str = "DROP TABLE IF EXISTS ballast";

/// Fills it for a lease and a half.
pub(super) async fn fill(stage: &mut Stage<'_>) -> Result<Outcome> {
    if !stage.rig.place.in_memory {
        return Ok(Outcome::NotAvailable("the data is not on a file system of its own".to_owned()));
    }
    let primary = stage.rig.wait_for_leader(stage.rig.ttl()).await?;
    let member = &stage.rig.members[primary];
    let stat = statvfs(&member.folder).context("look at the file system")?;
    let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size() / (1 << 20);
    stage.note_member(primary, &format!("disk full at {used} MB"));
    resize(member, used + LEFT_MEGABYTES)?;
    let complaints = complaints(stage, primary);
    let by = tokio::time::Instant::now() + HAPPENS_WITHIN;
    while self::complaints(stage, primary) == complaints {
        anyhow::ensure!(tokio::time::Instant::now() < by, "nobody complains about a full disk");
        use_space(&stage.rig.members[primary]).await;
    }
    stage.hold(stage.rig.ttl() * 3 / 2).await;
    stage.note_member(primary, "disk has room");
    resize(&stage.rig.members[primary], u64::from(crate::rig::DISK_MEGABYTES))?;
    // Only the primary takes it; if there is none yet the table stays.
    if let Ok(session) = stage.rig.session().await {
        let _ = timeout(Duration::from_secs(5), session.client.batch_execute(EMPTY)).await;
    }
    Ok(Outcome::Done)
}

/// Writes until it fails, as it is meant to.
async fn use_space(member: &Member) {
    if let Ok(session) = connect(member.address(), "postgres").await {
        let _ = timeout(Duration::from_secs(3), session.client.batch_execute(FILL)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn complaints(stage: &Stage<'_>, member: usize) -> usize {
    let log = stage.rig.place.log(&stage.rig.members[member].name);
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text).matches("No space left on device").count()
}

fn resize(member: &Member, megabytes: u64) -> Result<()> {
    let options = format!("remount,size={megabytes}m");
    tool("mount", &["-o", &options, &member.folder.to_string_lossy()])
}
