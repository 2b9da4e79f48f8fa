//! The loop's side of the pod: it passes on what a decision says about the pod, and reports changes of leadership as
//! events. Without the section `kubernetes` nothing here does anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::etcd::LeaseKeeper;
use crate::kube::{Kube, KubeSetup, LeadershipEvent};
use crate::model::{LeaseFacts, MemberRecord, PodFacts, PodRole, PrimaryRoute, Process, Reason, Term};
use crate::os::clock;
use crate::postgres::Postgres;

/// The longest delay of a promotion, or of a planned stop, by an API server that does not answer.
const API_WITHIN: Duration = Duration::from_secs(1);

/// The pod of this member, if it runs in one.
#[derive(Default)]
pub(super) struct Pods {
    kube: Option<(Kube, watch::Receiver<PodFacts>)>,
    role: Option<PodRole>,
    /// Why the leader key was requested.
    took: Option<String>,
    /// The term in which the pod's label showed this member as leader.
    led: Option<Term>,
    /// Why that label was removed.
    left: String,
}

impl Pods {
    /// The label of a pod whose Postgres does not run is removed at the start, however long etcd lets the loop wait.
    pub(super) fn start(setup: Option<KubeSetup>, postgres: &Postgres) -> Pods {
        let runs = matches!(&*postgres.process().borrow(), Process::Up { .. });
        let start = |setup| {
            let kube = Kube::start(setup, (!runs).then_some(PodRole::Nothing));
            let facts = kube.facts();
            (kube, facts)
        };
        Pods { kube: setup.map(start), ..Pods::default() }
    }

    pub(super) fn kube(&self) -> Option<Kube> {
        self.kube.as_ref().map(|(kube, _)| kube.clone())
    }

    /// The pod has the leader's label only while the lease agrees.
    pub(super) fn lead_by(&self, keeper: &Arc<LeaseKeeper>) {
        let Some((kube, _)) = &self.kube else { return };
        // The weak reference does not extend the life of the lease's keeper.
        let (facts, keeper) = (keeper.facts(), Arc::downgrade(keeper));
        kube.lead_by(Box::new(move |term, since| {
            let facts = facts.borrow().clone();
            let leads = facts.leading_at(clock::now()) == Some(term);
            let confirmed = since.is_none_or(|since| facts.leads_since(term, since));
            if let (true, false, Some(keeper)) = (leads, confirmed, keeper.upgrade()) {
                keeper.renew_now();
            }
            leads && confirmed
        }));
    }

    /// Passes on the change to the Service of the primary.
    pub(super) fn route(&self, route: PrimaryRoute) {
        if let Some((kube, _)) = &self.kube {
            kube.route(route);
        }
    }

    /// Passes on the role for the pod, before the other effects of the decision.
    pub(super) fn say(&mut self, role: Option<PodRole>, because: &Reason, lease: &LeaseFacts) {
        let (Some((kube, _)), Some(role)) = (&self.kube, role) else { return };
        kube.want(role);
        let before = self.role.replace(role);
        if let PodRole::Leader(term) = role {
            // Leadership from before the supervisor's start needs no event.
            if self.led.replace(term).is_none() && before.is_some() {
                let why =
                    self.took.take().unwrap_or_else(|| "the leader key was handed over to it".to_owned());
                kube.announce(LeadershipEvent::Leads, term, why);
            }
            return;
        }
        if let Some(PodRole::Leader(_)) = before {
            self.left = because.to_string();
        }
        let planned = matches!(because, Reason::HandingOver(_) | Reason::ShuttingDown | Reason::PodEnds(_));
        // A restart in place does not change the leader.
        let gone = lease.leading_at(clock::now()).is_none();
        if let Some(term) = self.led.take_if(|_| planned || gone) {
            let event = if planned { LeadershipEvent::HandsOver } else { LeadershipEvent::LostLeadership };
            kube.announce(event, term, std::mem::take(&mut self.left));
        }
    }

    /// The supervisor ends before the loop has begun.
    pub(super) async fn leave(&self) {
        if let Some((kube, _)) = &self.kube {
            kube.want(PodRole::Nothing);
            kube.route(PrimaryRoute::NotHere);
            kube.unlabelled(API_WITHIN).await;
        }
    }

    /// Records the reason for a request of the leader key.
    pub(super) fn takes(&mut self, because: Option<&Reason>) {
        self.took = because.map(ToString::to_string);
    }

    /// Passes on the member record as it goes to etcd.
    pub(super) fn publish(&self, record: &MemberRecord) {
        let Some((kube, _)) = &self.kube else { return };
        kube.publish(serde_json::to_string(record).expect("a record has text keys"));
    }

    /// The state of the pod, if there is one.
    pub(super) fn facts(&mut self) -> Option<PodFacts> {
        self.kube.as_mut().map(|(_, facts)| facts.borrow_and_update().clone())
    }

    /// Ends when that state has changed.
    pub(super) async fn changed(&mut self) {
        if let Some((_, facts)) = &mut self.kube
            && facts.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Before a promotion: removes the leader's label from other pods.
pub(super) async fn strip(kube: Option<&Kube>, term: Term) {
    if let Some(kube) = kube {
        kube.strip(term, API_WITHIN).await;
    }
}

/// Before a planned stop: clients are not routed here any more. An emergency stop does not wait for that.
pub(super) async fn unlabel(kube: Option<&Kube>) {
    if let Some(kube) = kube {
        kube.unlabelled(API_WITHIN).await;
    }
}

/// Before a start as a standby: clients of the primary are not routed here any more. This does not apply to the leader,
/// which starts its own PostgreSQL in place.
pub(super) async fn unroute(kube: Option<&Kube>, lease: Option<&LeaseKeeper>) {
    let Some(kube) = kube else { return };
    let facts = lease.map(LeaseKeeper::facts);
    let leads = || facts.as_ref().is_some_and(|facts| facts.borrow().leading_at(clock::now()).is_some());
    kube.unrouted(leads).await;
}
