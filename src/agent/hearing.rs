//! The listener: it follows the leader of the newest view, and stays connected to it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::peer_channel::PeerChannel;
use crate::model::{Me, MemberRecord, Term, View};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::peer::{HeartbeatSource, PeerError, Peers};

/// The pause after a stream that broke, which doubles while there is none.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The longest such pause.
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(500);
/// The pause after a refusal: a later try has a better chance only when somebody has changed something.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The listener of one member.
pub(super) struct Listener {
    pub(super) me: Me,
    pub(super) peers: Peers,
    pub(super) channel: Arc<PeerChannel>,
    pub(super) view: watch::Receiver<Option<View>>,
}

/// Whom to listen to: the leader, if that is another member whose program sends heartbeats.
fn source(me: &Me, view: Option<&View>) -> Option<(Term, HeartbeatSource)> {
    let cluster = &view?.cluster;
    let leader = cluster.leader.as_ref().filter(|leader| leader.name != me.name)?;
    let record = &cluster.members.get(&leader.name)?.record;
    let api_url = record.api_url.clone().filter(|_| record.can(MemberRecord::HEARTBEATS))?;
    let (scope, from) = (me.scope.clone(), me.name.to_string());
    Some((leader.term, HeartbeatSource { scope, from, leader: leader.name.to_string(), api_url }))
}

impl Listener {
    /// Listens for as long as there are views.
    pub(super) async fn run(self) {
        let Listener { me, peers, channel, mut view } = self;
        loop {
            let (term, source) = source(&me, view.borrow_and_update().as_ref()).unzip();
            channel.listen(|watch, _| watch.listen_to(term));
            match source {
                Some(source) => follow(&me, &peers, &channel, &mut view, &source).await,
                None if view.changed().await.is_ok() => {}
                None => return,
            }
            if view.has_changed().is_err() {
                return;
            }
        }
    }
}

/// Listens to this leader until a view shows another.
async fn follow(
    me: &Me,
    peers: &Peers,
    channel: &PeerChannel,
    view: &mut watch::Receiver<Option<View>>,
    followed: &HeartbeatSource,
) {
    let mut hearing = pin!(hear_again_and_again(peers, channel, followed));
    loop {
        tokio::select! {
            never = &mut hearing => match never {},
            changed = view.changed() => {
                let newest = source(me, view.borrow_and_update().as_ref());
                match newest.filter(|(_, newest)| newest == followed) {
                    Some((term, _)) if changed.is_ok() => {
                        channel.listen(|watch, _| watch.listen_to(Some(term)));
                    }
                    Some(_) | None => return,
                }
            }
        }
    }
}

async fn hear_again_and_again(peers: &Peers, channel: &PeerChannel, source: &HeartbeatSource) -> Infallible {
    let (mut pause, mut said) = (AGAIN_AFTER, String::new());
    loop {
        let error = match hear(peers, channel, source, &mut pause).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let text = error.chain();
        tracing::debug!(leader = source.leader, error = text, "no more heartbeats");
        let refused = matches!(error, PeerError::Refused { .. });
        if refused {
            channel.listen(|watch, _| watch.refused());
        }
        if refused && text != said {
            tracing::info!(leader = source.leader, error = text, "the leader's heartbeats are not heard");
            said = text;
        }
        let for_now = if refused { REFUSED_AGAIN_AFTER } else { pause };
        pause = (pause * 2).min(AGAIN_AFTER_MAX);
        polling(channel, tokio::time::sleep(for_now)).await;
    }
}

/// Hears one stream to its end. With the first heartbeat the next pause is a short one again.
async fn hear(
    peers: &Peers,
    channel: &PeerChannel,
    source: &HeartbeatSource,
    pause: &mut Duration,
) -> Result<Infallible, PeerError> {
    let mut keys = channel.sessions().keys();
    while keys.keys.is_empty() {
        polling(channel, tokio::time::sleep(REFUSED_AGAIN_AFTER)).await;
        keys = channel.sessions().keys();
    }
    let mut heartbeats = polling(channel, peers.listen(source, &keys)).await?;
    channel.listen(|watch, _| watch.begin_stream());
    loop {
        let heartbeat = polling(channel, heartbeats.next()).await?;
        channel.listen(|watch, now| watch.heard(&heartbeat, now));
        *pause = AGAIN_AFTER;
    }
}

/// Does `work`, and polls meanwhile. While heartbeats arrive, no poll in between is due.
async fn polling<T>(channel: &PeerChannel, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        let poll_at = channel.listen(|_, _| ());
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = clock::sleep_until(poll_at) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn me(name: &str) -> Me {
        let me = json!({
            "scope": "herd", "name": name, "tags": {}, "conn_url": "", "api_url": "", "proxy_url": null,
            "may_bootstrap": false, "wait_for_members": { "secs": 0, "nanos": 0 },
        });
        serde_json::from_value(me).expect("a valid member")
    }

    fn view(leader: Value, record: Value) -> View {
        let cluster = json!({ "revision": 7, "leader": leader, "members": { "m1": { "record": record, "lease": null } } });
        serde_json::from_value(json!({ "cluster": cluster, "seen_at": 0 })).expect("a valid view")
    }

    #[test]
    fn a_member_listens_to_another_that_leads_and_can_be_heard() {
        let leader = json!({ "name": "m1", "lease": null, "term": 5 });
        let record = json!({ "api_url": "http://a:8008/patroni", "capabilities": ["x", "heartbeats"] });
        let found = |name: &str, view: View| {
            source(&me(name), Some(&view)).map(|(term, source)| (term, source.api_url))
        };
        let expected = Some((Term(5), "http://a:8008/patroni".to_owned()));
        assert_eq!(found("m2", view(leader.clone(), record.clone())), expected);
        assert_eq!(found("m1", view(leader.clone(), record.clone())), None, "it leads itself");
        assert_eq!(found("m2", view(Value::Null, record)), None, "nobody leads");
        for record in
            [json!({ "api_url": "http://a:8008/patroni" }), json!({ "capabilities": ["heartbeats"] })]
        {
            assert_eq!(found("m2", view(leader.clone(), record.clone())), None, "{record}");
        }
        assert_eq!(source(&me("m2"), None), None);
    }
}
