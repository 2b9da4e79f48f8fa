//! Queries to other members. An answer of another process at a member's address is detected.

use std::time::Duration;

use super::cycle::Cycle;
use crate::core::member::MemberEvent;
use crate::model::{MemberName, PeerAnswer};

/// How long a member may take to answer. In a failover all members wait for the slowest.
const ASK_WITHIN: Duration = Duration::from_secs(1);

impl Cycle {
    pub(super) fn ask_peers(&self, who: Vec<(MemberName, String)>) {
        for (name, api_url) in who {
            let (peers, reports) = (self.peers.clone(), self.tools.reports.clone());
            tokio::spawn(async move {
                let answer = peers.ask(&api_url, ASK_WITHIN).await;
                let _ = reports.send(MemberEvent::PeerAnswered(name, answer).into());
            });
        }
    }

    /// `decide` ignores answers of other processes; this one logs them for operators.
    pub(super) fn peer_answered(&mut self, name: &MemberName, answer: &PeerAnswer) {
        let asked = self.view.borrow().as_ref().map(|view| view.cluster.identity_of(&self.scope, name));
        let misdirected = &mut self.state.misdirected;
        if answer.reachable
            && let Some(asked) = asked
        {
            match answer.misdirected(&asked) {
                Some(why) if misdirected.get(name) != Some(&why) => {
                    tracing::warn!(member = %name, why, "the answer of another process was ignored");
                    misdirected.insert(name.clone(), why);
                }
                Some(_) => {}
                None => drop(misdirected.remove(name)),
            }
        }
    }
}
