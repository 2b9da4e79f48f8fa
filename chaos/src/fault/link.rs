//! The network of one member: its cable, one direction, some packets, or some peers.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Outcome, Stage};
use crate::rig::wait_for;

const HAPPENS_WITHIN: Duration = Duration::from_secs(5);

/// What a packet filter keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Everything that comes in.
    Deaf,
    /// Everything that goes out.
    Mute,
    /// A third of both.
    Loss,
    /// Everything from and to etcd.
    Etcd,
    /// Everything from and to other members.
    Peers,
}

/// Pulls the cable until after a failover.
pub(super) async fn pull(stage: &mut Stage<'_>) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let was_primary = stage.is_primary(victim).await;
    stage.note_member(victim, "cable pulled");
    stage.rig.members[victim].namespace.link(false)?;
    let namespace = &stage.rig.members[victim].namespace;
    let no_carrier = || namespace.has_carrier().is_ok_and(|carrier| !carrier);
    wait_for("there is no carrier", HAPPENS_WITHIN, no_carrier).await?;
    stage.wait_for_failover(victim, was_primary).await;
    stage.note_member(victim, "cable plugged in");
    stage.rig.members[victim].namespace.link(true)?;
    Ok(Outcome::Done)
}

/// Filters packets until after a failover, or for a while where none is due.
pub(super) async fn filter(stage: &mut Stage<'_>, cut: Cut) -> Result<Outcome> {
    let victim = stage.victim().await?;
    let leads = stage.is_primary(victim).await;
    let (incoming, outgoing) = rules(stage, victim, cut);
    stage.note_member(victim, &format!("network cut: {cut:?}").to_lowercase());
    stage.rig.members[victim].namespace.filter(&incoming, &outgoing)?;
    match cut {
        Cut::Deaf | Cut::Mute | Cut::Etcd => stage.wait_for_failover(victim, leads).await,
        // Nobody has to succeed: the leader can reach etcd.
        Cut::Loss | Cut::Peers => stage.hold(stage.rig.ttl() * 3 / 2).await,
    }
    let dropped = stage.rig.members[victim].namespace.unfilter()?;
    stage.note_member(victim, &format!("network mended, {dropped} packets were dropped"));
    ensure!(dropped > 0, "the packet filter has dropped nothing");
    Ok(Outcome::Done)
}

/// The rules for what comes in and what goes out. Loopback is never cut.
fn rules(stage: &Stage<'_>, victim: usize, cut: Cut) -> (Vec<String>, Vec<String>) {
    let rig = &*stage.rig;
    let from_to = |addresses: &[&str]| {
        let set = addresses.join(", ");
        (
            vec![format!("ip saddr {{ {set} }} counter drop")],
            vec![format!("ip daddr {{ {set} }} counter drop")],
        )
    };
    let one = |device: &str, when: &str| vec![format!("{device} \"eth0\" {when}counter drop")];
    match cut {
        Cut::Deaf => (one("iifname", ""), Vec::new()),
        Cut::Mute => (Vec::new(), one("oifname", "")),
        Cut::Loss => {
            let third = "numgen random mod 100 < 33 ";
            (one("iifname", third), one("oifname", third))
        }
        Cut::Etcd => {
            let all: Vec<&str> = (0..rig.etcd.size()).map(|index| rig.etcd.address(index)).collect();
            from_to(&all)
        }
        Cut::Peers => {
            let others = rig.members.iter().enumerate().filter(|(index, _)| *index != victim);
            let all: Vec<&str> = others.map(|(_, member)| member.address()).collect();
            from_to(&all)
        }
    }
}
