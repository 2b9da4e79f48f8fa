//! The agent's access to Kubernetes: set the wanted labels, wait for two things within bounds, and read the facts.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use super::api::{Api, KubeSetup};
use super::event::{self, LeadershipEvent};
use super::facts::Facts;
use super::life::PodLife;
use super::objects::PodObject;
use super::pod::{self, Wanted, is_newer};
use super::service::{self, Slices};
use super::{labels, rivals, strip};
use crate::model::{Moment, PodFacts, PodFailure, PodRole, PrimaryRoute, Term};
use crate::os::clock;

/// Whether I certainly lead in that term now; with a moment: by a renewal sent after it. Requests such a renewal if
/// there is none. Must be quick.
pub type LeadershipCheck = Box<dyn Fn(Term, Option<Moment>) -> bool + Send + Sync>;

/// The longest time of a requested renewal, where etcd is well.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// The interval between checks for it.
const CONFIRMED_SOON: Duration = Duration::from_millis(10);

/// The interval between checks whether clients are routed here.
const ROUTES_SOON: Duration = Duration::from_millis(20);

/// The pod's labels, events and gate. Cheap to clone.
#[derive(Clone)]
pub struct Kube(Arc<KubeShared>);

/// The own pod, as known.
#[derive(Clone, Debug, Default)]
pub(super) enum Own {
    /// The API has not been asked yet, or has not answered.
    #[default]
    Unknown,
    /// There is no pod with my name.
    Gone,
    /// It exists.
    Read {
        pod: Box<PodObject>,
        /// The time of the read.
        at: Moment,
    },
}

impl Own {
    pub(super) fn pod(&self) -> Option<&PodObject> {
        match self {
            Own::Read { pod, at: _ } => Some(pod),
            Own::Unknown | Own::Gone => None,
        }
    }
}

pub(super) struct KubeShared {
    pub(super) api: Api,
    pub(super) facts: Facts,
    pub(super) wanted: watch::Sender<Wanted>,
    /// The wanted state of the Service of the primary.
    pub(super) route: watch::Sender<PrimaryRoute>,
    /// Its slices; `None` before they were read, and if there is no such Service.
    pub(super) slices: watch::Sender<Option<Slices>>,
    /// The last time at which clients of the primary were routed here; `None`: never, as far as this supervisor saw.
    led_until: Mutex<Option<Moment>>,
    /// The own pod as last read.
    pub(super) own: watch::Sender<Own>,
    /// How often the own pod was listed. A list proves that the API server answers, so failed tasks are retried at
    /// once.
    pub(super) listed: watch::Sender<u64>,
    /// The term in which no other pod was found with the leader's label.
    pub(super) stripped: watch::Sender<Option<Term>>,
    own_uid: OnceLock<String>,
    life: Mutex<PodLife>,
    leadership_check: OnceLock<LeadershipCheck>,
}

impl Kube {
    /// Begins to watch the pod, and to maintain the labels of `first`; `None`: no change before the first call of
    /// [`Kube::want`].
    pub fn start(setup: KubeSetup, first: Option<PodRole>) -> Kube {
        let own_uid = setup.pod_uid.clone().map(OnceLock::from).unwrap_or_default();
        let shared = Arc::new(KubeShared {
            api: Api::new(setup),
            facts: Facts::new(),
            wanted: watch::Sender::new(Wanted { role: first, status: None }),
            route: watch::Sender::default(),
            slices: watch::Sender::default(),
            led_until: Mutex::default(),
            own: watch::Sender::default(),
            listed: watch::Sender::default(),
            stripped: watch::Sender::default(),
            own_uid,
            life: Mutex::default(),
            leadership_check: OnceLock::new(),
        });
        tokio::spawn(labels::watch_own(shared.clone()));
        tokio::spawn(labels::keep(shared.clone()));
        tokio::spawn(rivals::keep_off(shared.clone()));
        if let Some(name) = shared.api.setup().primary_service.clone() {
            tokio::spawn(service::watch(shared.clone(), name.clone()));
            tokio::spawn(service::keep(shared.clone(), name));
        }
        Kube(shared)
    }

    /// Provides the check of leadership; before, no pod gets the leader's label.
    pub fn lead_by(&self, leadership_check: LeadershipCheck) {
        // A second call would come from a second loop, which does not exist.
        let _ = self.0.leadership_check.set(leadership_check);
    }

    /// Sets the role that the pod is to show.
    pub fn want(&self, role: PodRole) {
        self.0.wanted.send_if_modified(|wanted| wanted.role.replace(role) != Some(role));
    }

    /// Sets the wanted state of the Service of the primary.
    pub fn route(&self, route: PrimaryRoute) {
        self.0.route.send_if_modified(|wanted| std::mem::replace(wanted, route) != route);
    }

    /// Sets the member record for the pod's annotation.
    pub fn publish(&self, status: String) {
        self.0.wanted.send_if_modified(|wanted| {
            let changed = wanted.status.as_ref() != Some(&status);
            wanted.status = Some(status);
            changed
        });
    }

    /// Removes the leader's label from all other pods in the name of `term`; gives up after `within`. The label of the
    /// own pod waits for that in any case.
    pub async fn strip(&self, term: Term, within: Duration) {
        // A permission that is missing now will be missing in a second.
        let is_permanent = |kind| matches!(kind, PodFailure::Forbidden | PodFailure::Unconfigured);
        let tries = strip::until_done(&self.0, term, is_permanent);
        if tokio::time::timeout(within, tries).await != Ok(true) {
            tracing::warn!(term = term.0, "other pods may still have the leader label: continuing");
        }
    }

    /// Waits until the own pod has no role any more and, if the Service of the primary is to leave it, until that has
    /// happened; at most `within`.
    pub async fn unlabelled(&self, within: Duration) {
        let (mut own, mut slices) = (self.0.own.subscribe(), self.0.slices.subscribe());
        let unlabelled = |own: &Own| self.0.has_no_label(own);
        let leaves = *self.0.route.borrow() == PrimaryRoute::NotHere;
        let both = async {
            // The channels live as long as their senders, which are here.
            let _ = own.wait_for(unlabelled).await;
            if leaves {
                let _ = slices.wait_for(|slices| !self.0.is_led_here(slices.as_ref())).await;
            }
        };
        if tokio::time::timeout(within, both).await.is_err() {
            tracing::warn!("Services may still route to this pod: stopping PostgreSQL anyway");
        }
    }

    /// To be called before a former primary runs as a standby: waits until no route for clients of the primary leads
    /// here, and then until proxies have noticed that. A leader need not wait. An API server that does not answer
    /// delays it by the grace period at most.
    pub async fn unrouted(&self, leads: impl Fn() -> bool) {
        let grace = self.0.api.setup().routing_grace;
        let give_up_at = clock::now() + grace;
        loop {
            let is_led = self.0.note_led();
            let now = clock::now();
            let over = match *self.0.led_until.lock().expect("nobody panics with it") {
                None => true,
                Some(_) if is_led => give_up_at <= now,
                Some(until) => until + grace <= now,
            };
            if over || leads() {
                return;
            }
            tokio::time::sleep(ROUTES_SOON).await;
        }
    }

    /// Records the reason for a change of leadership, in the background.
    pub fn announce(&self, told: LeadershipEvent, term: Term, why: String) {
        let shared = self.0.clone();
        tokio::spawn(async move { event::announce(&shared, told, term, &why).await });
    }

    /// The facts; they change when it matters to an operator.
    pub fn facts(&self) -> watch::Receiver<PodFacts> {
        self.0.facts.subscribe()
    }
}

impl KubeShared {
    /// Records the own pod, unless a newer state is known. If its uid is not configured, the first pod that is seen is
    /// the own one.
    pub(super) fn read(&self, pod: PodObject) {
        self.note_led();
        if let Some(uid) = pod.metadata.uid.clone() {
            // The first uid stays.
            let _ = self.own_uid.set(uid);
        }
        self.note_life(|life, uid| life.read(&pod.metadata, uid));
        self.own.send_if_modified(|own| {
            let newer = own.pod().is_none_or(|known| is_newer(&pod.metadata, &known.metadata));
            if newer {
                *own = Own::Read { pod: Box::new(pod), at: clock::now() };
            }
            newer
        });
    }

    /// The own pod does not exist; `note` records what that proves.
    pub(super) fn lost(&self, note: impl FnOnce(&mut PodLife, Option<&String>)) {
        self.note_led();
        self.note_life(note);
        self.own.send_replace(Own::Gone);
    }

    fn note_life(&self, note: impl FnOnce(&mut PodLife, Option<&String>)) {
        let mut life = self.life.lock().expect("nobody panics with it");
        note(&mut life, self.own_uid());
        self.facts.ends(life.end());
    }

    pub(super) fn own_pod(&self) -> Option<PodObject> {
        self.own.borrow().pod().cloned()
    }

    fn has_no_label(&self, own: &Own) -> bool {
        match own {
            Own::Unknown => false,
            Own::Gone => true,
            Own::Read { pod, at: _ } => pod::label(pod, &self.api.setup().names.role_label).is_none(),
        }
    }

    /// Whether clients of the primary are routed here, by the label or the Service. To be called before either changes.
    pub(super) fn note_led(&self) -> bool {
        let labelled = self.own.borrow().pod().is_some_and(|pod| self.api.setup().names.says_leader(pod));
        let is_led = labelled || self.is_led_here(self.slices.borrow().as_ref());
        if is_led {
            *self.led_until.lock().expect("nobody panics with it") = Some(clock::now());
        }
        is_led
    }

    /// Whether the Service of the primary routes to my pod.
    fn is_led_here(&self, slices: Option<&Slices>) -> bool {
        let (own, service) = (self.own.borrow(), &self.api.setup().primary_service);
        match (slices, own.pod(), service) {
            (Some(slices), Some(pod), Some(service)) => slices.lead_to(pod, service),
            (_, _, _) => false,
        }
    }

    pub(super) fn own_uid(&self) -> Option<&String> {
        self.own_uid.get()
    }

    /// Whether I lead in `term` now, by the last renewal.
    pub(super) fn leads(&self, term: Term) -> bool {
        self.leadership_check.get().is_some_and(|leadership_check| leadership_check(term, None))
    }

    /// Whether I lead in `term` by a renewal sent after `since`, which is waited for.
    pub(super) async fn is_confirmed(&self, term: Term, since: Moment) -> bool {
        let give_up_at = clock::now() + CONFIRMED_WITHIN;
        while self.leads(term) && clock::now() < give_up_at {
            if self.leadership_check.get().is_some_and(|leadership_check| leadership_check(term, Some(since)))
            {
                return true;
            }
            tokio::time::sleep(CONFIRMED_SOON).await;
        }
        false
    }
}
