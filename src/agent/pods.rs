//! The loop's side of the pod: what a decision says of it goes on, and why leadership changed is told. Without the
//! section `kubernetes` nothing here does anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::etcd::LeaseKeeper;
use crate::kube::{Kube, KubeSetup, LeadershipEvent};
use crate::model::{LeaseFacts, MemberRecord, PodFacts, PodRole, PrimaryRoute, Process, Reason, Term};
use crate::os::clock;
use crate::postgres::Postgres;

/// An API server that does not answer holds up a promotion, or a planned stop, this long at most.
const API_WITHIN: Duration = Duration::from_secs(1);

/// The pod of this member, if it runs in one.
#[derive(Default)]
pub(super) struct Pods {
    kube: Option<(Kube, watch::Receiver<PodFacts>)>,
    role: Option<PodRole>,
    /// Why the leader key was asked for.
    took: Option<String>,
    /// The term in which this member was said to lead.
    led: Option<Term>,
    /// Why the pod ceased to say so.
    left: String,
}

impl Pods {
    /// A pod whose Postgres does not run says so from the beginning, however long etcd lets the loop wait.
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

    /// The pod says that it leads only while the lease says so too.
    pub(super) fn lead_by(&self, keeper: &Arc<LeaseKeeper>) {
        let Some((kube, _)) = &self.kube else { return };
        // The lease is not kept alive by who asks for it.
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

    /// Passes on where the Service of the primary shall lead.
    pub(super) fn route(&self, route: PrimaryRoute) {
        if let Some((kube, _)) = &self.kube {
            kube.route(route);
        }
    }

    /// Passes on what the pod shall say, before anything else of the decision is done.
    pub(super) fn say(&mut self, role: Option<PodRole>, because: &Reason, lease: &LeaseFacts) {
        let (Some((kube, _)), Some(role)) = (&self.kube, role) else { return };
        kube.want(role);
        let before = self.role.replace(role);
        if let PodRole::Leader(term) = role {
            // What was led already when the supervisor began is no news.
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
        // A restart in place is no change of leadership.
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

    /// The leader key is asked for, because of that.
    pub(super) fn takes(&mut self, because: Option<&Reason>) {
        self.took = because.map(ToString::to_string);
    }

    /// The member record, as it goes to etcd.
    pub(super) fn publish(&self, record: &MemberRecord) {
        let Some((kube, _)) = &self.kube else { return };
        kube.publish(serde_json::to_string(record).expect("a record has text keys"));
    }

    /// What is known, if there is a pod at all.
    pub(super) fn facts(&mut self) -> Option<PodFacts> {
        self.kube.as_mut().map(|(_, facts)| facts.borrow_and_update().clone())
    }

    /// Ends when there is something new to show.
    pub(super) async fn changed(&mut self) {
        if let Some((_, facts)) = &mut self.kube
            && facts.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Before a promotion: other pods do not say any more that they lead.
pub(super) async fn strip(kube: Option<&Kube>, term: Term) {
    if let Some(kube) = kube {
        kube.strip(term, API_WITHIN).await;
    }
}

/// Before a planned stop: nobody is sent here any more. An emergency waits for nothing.
pub(super) async fn unlabel(kube: Option<&Kube>) {
    if let Some(kube) = kube {
        kube.unlabelled(API_WITHIN).await;
    }
}

/// Before a start as a standby: clients of the primary come here no more. The leader, which starts its own in place, is
/// who they come to.
pub(super) async fn unroute(kube: Option<&Kube>, lease: Option<&LeaseKeeper>) {
    let Some(kube) = kube else { return };
    let facts = lease.map(LeaseKeeper::facts);
    let leads = || facts.as_ref().is_some_and(|facts| facts.borrow().leading_at(clock::now()).is_some());
    kube.unrouted(leads).await;
}
