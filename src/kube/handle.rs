//! What the agent holds: say what the pod shall say, wait for two things within bounds, and read the facts.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::api::{Api, KubeSetup};
use super::event::{self, LeadershipEvent};
use super::facts::Facts;
use super::life::PodLife;
use super::pod::{self, Wanted, is_newer};
use super::service::{self, Slices};
use super::{labels, rivals, strip};
use crate::model::{Moment, PodFacts, PodFailure, PodRole, PrimaryRoute, Term};
use crate::os::clock;

/// Whether I certainly lead in that term now; with a moment: by a renewal that was sent after it. Asks for one where
/// there was none yet. Must be quick.
pub type LeadershipCheck = Box<dyn Fn(Term, Option<Moment>) -> bool + Send + Sync>;

/// A renewal that was asked for takes no longer, where etcd is well.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// How soon it is looked for again.
const CONFIRMED_SOON: Duration = Duration::from_millis(10);

/// How soon it is looked for again whether clients are led here.
const ROUTES_SOON: Duration = Duration::from_millis(20);

/// The pod's labels, events and gate. Cheap to clone.
#[derive(Clone)]
pub struct Kube(Arc<KubeShared>);

/// What is known of the own pod.
#[derive(Clone, Debug, Default)]
pub(super) enum Own {
    /// The API has not been asked yet, or has not answered.
    #[default]
    Unknown,
    /// There is none of my name.
    Gone,
    /// It is there.
    Read {
        pod: Box<Pod>,
        /// When it was read.
        at: Moment,
    },
}

impl Own {
    pub(super) fn pod(&self) -> Option<&Pod> {
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
    /// Where the Service of the primary shall lead.
    pub(super) route: watch::Sender<PrimaryRoute>,
    /// Where it leads; `None` before that was read, and where there is no such Service.
    pub(super) slices: watch::Sender<Option<Slices>>,
    /// Until when clients of the primary were led here; `None`: never, as far as this supervisor saw.
    led_until: Mutex<Option<Moment>>,
    /// The own pod as last read.
    pub(super) own: watch::Sender<Own>,
    /// How often the own pod was listed: the API server answers, and what failed before is tried at once.
    pub(super) listed: watch::Sender<u64>,
    /// The term in which no other pod was found to say that it leads.
    pub(super) stripped: watch::Sender<Option<Term>>,
    own_uid: OnceLock<String>,
    life: Mutex<PodLife>,
    grounds: OnceLock<LeadershipCheck>,
}

impl Kube {
    /// Begins to watch the pod, and to keep on it what `first` says; `None` leaves it as it is until the first wish.
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
            grounds: OnceLock::new(),
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

    /// From now on leadership is known; before, no pod says that it leads.
    pub fn lead_by(&self, grounds: LeadershipCheck) {
        // A second call would come from a second loop, and there is none.
        let _ = self.0.grounds.set(grounds);
    }

    /// What the pod shall say from now on.
    pub fn want(&self, role: PodRole) {
        self.0.wanted.send_if_modified(|wanted| wanted.role.replace(role) != Some(role));
    }

    /// Where the Service of the primary shall lead from now on.
    pub fn route(&self, route: PrimaryRoute) {
        self.0.route.send_if_modified(|wanted| std::mem::replace(wanted, route) != route);
    }

    /// The member's record, to be read on the pod.
    pub fn publish(&self, status: String) {
        self.0.wanted.send_if_modified(|wanted| {
            let changed = wanted.status.as_ref() != Some(&status);
            wanted.status = Some(status);
            changed
        });
    }

    /// Takes the leader's label off all other pods in the name of `term`; gives up after `within`, and the label of
    /// the own pod then waits for it.
    pub async fn strip(&self, term: Term, within: Duration) {
        // What a Role does not grant now it does not grant in a second.
        let is_permanent = |kind| matches!(kind, PodFailure::Forbidden | PodFailure::Unconfigured);
        let tries = strip::until_done(&self.0, term, is_permanent);
        if tokio::time::timeout(within, tries).await != Ok(true) {
            tracing::warn!(term = term.0, "other pods may still have the leader label: continuing");
        }
    }

    /// Waits until the own pod has no role any more and, where the Service of the primary shall not lead here, until it
    /// does not; at most `within`.
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

    /// Before a former primary runs as a standby: waits until nothing leads clients of the primary here, and then until
    /// those who route have taken note of that. When the lead is mine they may come. An API server that does not answer
    /// holds it up for no longer than the grace.
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

    /// Records why leadership changed, beside everything else.
    pub fn announce(&self, told: LeadershipEvent, term: Term, why: String) {
        let shared = self.0.clone();
        tokio::spawn(async move { event::announce(&shared, told, term, &why).await });
    }

    /// The facts; changes when an operator would want to know.
    pub fn facts(&self) -> watch::Receiver<PodFacts> {
        self.0.facts.subscribe()
    }
}

impl KubeShared {
    /// Takes note of the own pod, unless something newer is known. The first that is seen is the own one, where its uid
    /// was not told.
    pub(super) fn read(&self, pod: Pod) {
        self.note_led();
        if let Some(uid) = pod.metadata.uid.clone() {
            // Kept from the first time on.
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

    /// The own pod is not there; `note` says what that proves.
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

    pub(super) fn own_pod(&self) -> Option<Pod> {
        self.own.borrow().pod().cloned()
    }

    fn has_no_label(&self, own: &Own) -> bool {
        match own {
            Own::Unknown => false,
            Own::Gone => true,
            Own::Read { pod, at: _ } => pod::label(pod, &self.api.setup().names.role_label).is_none(),
        }
    }

    /// Whether clients of the primary are led here, by the label or the Service; taken note of before either changes.
    pub(super) fn note_led(&self) -> bool {
        let labelled = self.own.borrow().pod().is_some_and(|pod| self.api.setup().names.says_leader(pod));
        let is_led = labelled || self.is_led_here(self.slices.borrow().as_ref());
        if is_led {
            *self.led_until.lock().expect("nobody panics with it") = Some(clock::now());
        }
        is_led
    }

    /// Whether the Service of the primary leads to my pod.
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

    /// Whether I lead in `term` now, as far as the last renewal says.
    pub(super) fn leads(&self, term: Term) -> bool {
        self.grounds.get().is_some_and(|grounds| grounds(term, None))
    }

    /// Whether I lead in `term` by a renewal that was sent after `since`, which is waited for.
    pub(super) async fn is_confirmed(&self, term: Term, since: Moment) -> bool {
        let give_up_at = clock::now() + CONFIRMED_WITHIN;
        while self.leads(term) && clock::now() < give_up_at {
            if self.grounds.get().is_some_and(|grounds| grounds(term, Some(since))) {
                return true;
            }
            tokio::time::sleep(CONFIRMED_SOON).await;
        }
        false
    }
}
