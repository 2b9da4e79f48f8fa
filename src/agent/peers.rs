//! Asking other members, and noticing when somebody else answers at a member's address.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cycle::Cycle;
use super::events::Event;
use crate::model::{MemberName, PeerAnswer};

/// How long a member may take to answer. In a failover everybody waits for the slowest.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// The newest answer of each member that was asked, as it came: `decide` throws away what somebody else answered.
#[derive(Default)]
pub(super) struct PeerAnswers {
    newest: BTreeMap<MemberName, PeerAnswer>,
    /// Why the answers at these members' addresses do not count, as last said.
    misdirected: BTreeMap<MemberName, String>,
}

impl PeerAnswers {
    pub(super) fn newest(&self) -> &BTreeMap<MemberName, PeerAnswer> {
        &self.newest
    }
}

impl Cycle {
    pub(super) fn ask_peers(&self, who: Vec<(MemberName, String)>) {
        for (name, api_url) in who {
            let (peers, events) = (self.peers.clone(), self.tools.events.clone());
            tokio::spawn(async move {
                let answer = peers.ask(&api_url, ASK_WITHIN).await;
                let _ = events.send(Event::PeerAnswered(name, answer));
            });
        }
    }

    pub(super) fn peer_answered(&mut self, name: MemberName, answer: PeerAnswer) {
        let asked = self.view.borrow().as_ref().map(|view| view.cluster.identity_of(&self.scope, &name));
        let answers = &mut self.state.peers;
        if answer.reachable
            && let Some(asked) = asked
        {
            match answer.misdirected(&asked) {
                Some(why) if answers.misdirected.get(&name) != Some(&why) => {
                    tracing::warn!(member = %name, why, "an answer does not count");
                    answers.misdirected.insert(name.clone(), why);
                }
                Some(_) => {}
                None => drop(answers.misdirected.remove(&name)),
            }
        }
        answers.newest.insert(name, answer);
    }
}
