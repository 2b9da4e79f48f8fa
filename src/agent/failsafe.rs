//! The members' promises of failsafe mode, asked over REST: for the lease's thread, which waits for nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::etcd::PromisingMembers;
use crate::model::{FailsafeMembers, FailsafePlan, Me, MemberName};
use crate::os::error_chain::ErrorChain;
use crate::peer::{Call, Peers};

/// The question, as the loop last planned it, and the line to the members. Cheap to clone.
#[derive(Clone)]
pub(super) struct Failsafe {
    plan: Arc<Mutex<FailsafePlan>>,
    me: Me,
    peers: Peers,
    local: watch::Receiver<Arc<Config>>,
}

impl Failsafe {
    pub(super) fn new(me: &Me, peers: &Peers, local: watch::Receiver<Arc<Config>>) -> Failsafe {
        Failsafe { plan: Arc::default(), me: me.clone(), peers: peers.clone(), local }
    }

    /// From now on this is asked.
    pub(super) fn plan(&self, plan: FailsafePlan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    fn planned(&self) -> FailsafePlan {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first four keys are Patroni's. The others tell who is meant, since another process may have the address by
    /// now, and for how long.
    fn body(&self, asked: &MemberName, ttl: Duration) -> Value {
        let Me { name, scope, conn_url, api_url, .. } = &self.me;
        let (slots, ttl_ms) = (self.planned().slots, ttl.as_millis() as u64);
        json!({
            "name": name, "conn_url": conn_url, "api_url": api_url, "slots": slots,
            "scope": scope, "member": asked, "ttl_ms": ttl_ms,
        })
    }
}

impl PromisingMembers for Failsafe {
    fn needed(&self) -> Option<FailsafeMembers> {
        self.planned().members
    }

    fn ask(
        &self,
        members: &FailsafeMembers,
        ttl: Duration,
        within: Duration,
    ) -> BoxFuture<'static, BTreeSet<MemberName>> {
        let login = self.local.borrow().restapi.authentication.clone();
        let credentials = login.map(|login| (login.username, login.password));
        let questions = members.clone().into_iter().map(|(name, api_url)| {
            let url = failsafe_url(&api_url);
            let call = Call {
                method: "POST".to_owned(),
                body: Some(self.body(&name, ttl)),
                url,
                credentials: credentials.clone(),
                within,
            };
            let peers = self.peers.clone();
            async move {
                match peers.call(call).await {
                    Ok((200, _)) => return Some(name),
                    Ok((status, text)) => {
                        tracing::warn!(member = %name, status, text, "refuses to let this primary lead on without etcd");
                    }
                    Err(error) => {
                        let error = error.chain();
                        tracing::warn!(member = %name, error, "cannot be asked to let this primary lead on without etcd");
                    }
                }
                None
            }
        });
        join_all(questions).map(|promised| promised.into_iter().flatten().collect()).boxed()
    }
}

/// The path `/failsafe` at the address of an `api_url`.
fn failsafe_url(api_url: &str) -> String {
    let address = api_url.split_once("://").map_or(0, |(scheme, _)| scheme.len() + 3);
    let end = api_url[address..].find('/').map_or(api_url.len(), |at| address + at);
    format!("{}/failsafe", &api_url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_goes_to_the_address_of_the_member() {
        assert_eq!(failsafe_url("https://a:8008/patroni"), "https://a:8008/failsafe");
        assert_eq!(failsafe_url("http://[::1]:8008"), "http://[::1]:8008/failsafe");
    }
}
