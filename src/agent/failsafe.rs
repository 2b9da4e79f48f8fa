//! The members' promises of failsafe mode, asked over REST: for the lease's thread, which waits for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::etcd::PromisingMembers;
use crate::model::{FailsafeMembers, FailsafePlan, Lsn, Me, MemberName};
use crate::os::error_chain::ErrorChain;
use crate::peer::{Call, Peers, endpoint_url};

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
        *self.planned() = plan;
    }

    fn planned(&self) -> MutexGuard<'_, FailsafePlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first four keys are Patroni's. The others tell who is meant, since another process may have the address by
    /// now, and for how long.
    fn body(&self, asked: &MemberName, slots: &BTreeMap<String, Lsn>, ttl: Duration) -> Value {
        let Me { name, scope, conn_url, api_url, .. } = &self.me;
        json!({
            "name": name, "conn_url": conn_url, "api_url": api_url, "slots": slots,
            "scope": scope, "member": asked, "ttl_ms": ttl.as_millis() as u64,
        })
    }

    /// Those of them that promise.
    async fn ask_all(&self, questions: Vec<(MemberName, Call)>) -> BTreeSet<MemberName> {
        let answers = questions.into_iter().map(async |(name, call)| {
            match self.peers.call(call).await {
                Ok((200, _)) => return Some(name),
                Ok((status, text)) => {
                    tracing::warn!(member = %name, status, text, "does not let this primary lead on without etcd");
                }
                Err(error) => {
                    let error = error.chain();
                    tracing::warn!(member = %name, error, "cannot be asked to let this primary lead on without etcd");
                }
            }
            None
        });
        join_all(answers).await.into_iter().flatten().collect()
    }
}

impl PromisingMembers for Failsafe {
    fn needed(&self, then: &mut dyn FnMut(&Option<FailsafeMembers>)) {
        then(&self.planned().members);
    }

    fn ask(
        &self,
        members: &FailsafeMembers,
        first: &BTreeSet<MemberName>,
        ttl: Duration,
        within: Duration,
    ) -> BoxFuture<'static, BTreeSet<MemberName>> {
        let (own, slots) = (self.clone(), self.planned().slots.clone());
        let login = self.local.borrow().member_login().cloned();
        let credentials = login.map(|login| (login.username, login.password));
        let question = |(name, api_url): (&MemberName, &String)| {
            let call = Call {
                method: "POST".to_owned(),
                url: endpoint_url(api_url, "/failsafe"),
                body: Some(self.body(name, &slots, ttl)),
                credentials: credentials.clone(),
                within,
            };
            (name.clone(), call)
        };
        let (first, others): (Vec<_>, Vec<_>) =
            members.iter().map(question).partition(|(name, _)| first.contains(name));
        async move {
            let asked = first.len();
            let mut promised = own.ask_all(first).await;
            if promised.len() == asked {
                promised.extend(own.ask_all(others).await);
            }
            promised
        }
        .boxed()
    }
}
