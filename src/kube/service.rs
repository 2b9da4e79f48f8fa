//! Keeps the Service of the primary pointing at the leader: while this member leads, the slices hold only its address.
//!
//! There is one write for each hand-over, with the version from which it was made: a proxy applies one change at once,
//! and the next one only after a second. The same write removes the former leader's address and adds the new leader's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::api::Selector;
use super::backoff::Backoff;
use super::failure::KubeFailure;
use super::follow::{Seen, follow};
use super::handle::{KubeShared, Own};
use super::labels::{LEASE_SOON, mine, settle};
use super::objects::{PodObject, ServiceObject};
use super::pod::{is_newer, term_of};
use super::slice::{self, Family, SliceWrite};
use crate::model::{Moment, PodFailure, PodTask, PrimaryRoute, Term};
use crate::os::clock;

/// The interval between reads of its ports, which may change without urgency.
const SERVICE_READ_EVERY: Duration = Duration::from_secs(60);

/// The slices of the Service, mine and others', as last read.
#[derive(Clone, Debug)]
pub(super) struct Slices {
    by_name: BTreeMap<String, EndpointSlice>,
    /// When the newest of them was read.
    at: Moment,
}

impl Slices {
    /// Whether one of my slices routes to this pod.
    pub(super) fn lead_to(&self, pod: &PodObject, service: &str) -> bool {
        let mut mine = self.by_name.values().filter(|slice| slice::is_mine(slice, service));
        mine.any(|slice| slice::leads_to(slice, pod))
    }
}

/// Reports the changes of the slices. Runs as long as the supervisor.
pub(super) async fn watch(shared: Arc<KubeShared>, service: String) {
    let selector = Selector::Labelled(format!("{}={service}", slice::SERVICE));
    let mut warned = BTreeSet::new();
    let announce = |seen: Seen<EndpointSlice>| match seen {
        Seen::All(slices, _) => {
            shared.note_led();
            shared.slices.send_replace(Some(Slices { by_name: BTreeMap::new(), at: clock::now() }));
            for slice in slices {
                warn_of_other(&slice, &service, &mut warned);
                read(&shared, slice);
            }
        }
        Seen::Changed(slice) => {
            warn_of_other(&slice, &service, &mut warned);
            read(&shared, slice);
        }
        Seen::Gone(slice) => forget(&shared, &slice.metadata.name.unwrap_or_default()),
    };
    follow((&shared.api, &shared.facts, PodTask::ServiceWatch), &selector, announce).await;
}

/// A slice may remain from when the Service had a selector, for example; clients are routed there as well.
fn warn_of_other(slice: &EndpointSlice, service: &str, warned: &mut BTreeSet<String>) {
    let name = slice.metadata.name.clone().unwrap_or_default();
    let leads = slice.endpoints.iter().flatten().next().is_some();
    if leads && !slice::is_mine(slice, service) && warned.insert(name.clone()) {
        tracing::warn!(slice = name, service, "a foreign EndpointSlice also routes clients of the Service");
    }
}

fn read(shared: &KubeShared, slice: EndpointSlice) {
    shared.note_led();
    shared.slices.send_modify(|slices| {
        let slices = slices.get_or_insert_with(|| Slices { by_name: BTreeMap::new(), at: clock::now() });
        let name = slice.metadata.name.clone().unwrap_or_default();
        let known = slices.by_name.get(&name);
        if known.is_none_or(|known| is_newer(&slice.metadata, &known.metadata)) {
            slices.by_name.insert(name, slice);
            slices.at = clock::now();
        }
    });
}

fn forget(shared: &KubeShared, name: &str) {
    shared.note_led();
    shared.slices.send_modify(|slices| {
        if let Some(slices) = slices {
            slices.by_name.remove(name);
        }
    });
}

/// Maintains the slices. Runs as long as the supervisor.
pub(super) async fn keep(shared: Arc<KubeShared>, name: String) {
    let mut keeping = ServiceTask {
        name,
        service: None,
        route: PrimaryRoute::Unchanged,
        listed: 0,
        backoff: Backoff::default(),
    };
    let (mut route, mut own) = (shared.route.subscribe(), shared.own.subscribe());
    let (mut slices, mut listed) = (shared.slices.subscribe(), shared.listed.subscribe());
    loop {
        let now_wanted = *route.borrow_and_update();
        let now_seen = (own.borrow_and_update().clone(), slices.borrow_and_update().clone());
        let now_listed = *listed.borrow_and_update();
        if (now_wanted, now_listed) != (keeping.route, keeping.listed) {
            (keeping.route, keeping.listed) = (now_wanted, now_listed);
            keeping.backoff.hurry();
        }
        // A step for an outdated route is abandoned: its request fails by the object's version.
        let step = tokio::select! {
            step = keeping.step(&shared, &now_seen) => step,
            _ = route.wait_for(|route| *route != now_wanted) => continue,
        };
        tokio::select! {
            _ = route.changed() => {}
            _ = own.changed() => {}
            _ = slices.changed() => {}
            _ = listed.changed() => {}
            () = clock::sleep_until_some(step) => {}
        }
    }
}

struct ServiceTask {
    /// The name of the Service.
    name: String,
    service: Option<(Moment, ServiceObject)>,
    route: PrimaryRoute,
    /// The count of lists at the last step.
    listed: u64,
    backoff: Backoff,
}

impl ServiceTask {
    /// One check, and at most one write for each address family. Returns the time of the next check; `None`: at the
    /// next change.
    async fn step(&mut self, shared: &KubeShared, (own, slices): &(Own, Option<Slices>)) -> Option<Moment> {
        // The task of the pod's labels reports a problem of the pod.
        let (Ok(Some((pod, _))), Some(slices)) = (mine(shared, own), slices) else { return None };
        if let Some(at) = self.backoff.not_before().filter(|at| clock::now() < *at) {
            return Some(at);
        }
        let written = match self.route {
            PrimaryRoute::Unchanged => return None,
            // The loop will change the route soon, too.
            PrimaryRoute::Here(term) if !shared.leads(term) => return Some(clock::now() + LEASE_SOON),
            PrimaryRoute::Here(term) => self.lead(shared, pod, slices, term).await,
            PrimaryRoute::NotHere => self.leave(shared, pod, slices).await,
        };
        if written.is_err() {
            self.service = None;
        }
        let read_again_at = self.service.as_ref().map(|(at, _)| *at + SERVICE_READ_EVERY);
        settle(shared, PodTask::Service, &mut self.backoff, written).or(read_again_at)
    }

    async fn lead(
        &mut self,
        shared: &KubeShared,
        pod: &PodObject,
        slices: &Slices,
        term: Term,
    ) -> Result<(), KubeFailure> {
        let service = self.service(shared).await?;
        for family in Family::BOTH {
            let name = family.slice(&self.name);
            let slice = slices.by_name.get(&name);
            let found = slice.and_then(|slice| term_of(&slice.metadata)).filter(|found| term < *found);
            let change = slice::lead(slice, (&service, pod, family), term)
                .map_err(|why| KubeFailure::new(PodFailure::Other, why))?;
            let Some(change) = change else { continue };
            if slice.is_some_and(|slice| !slice::is_mine(slice, &self.name)) {
                // The watch may not select it, and would not report its deletion: the next attempt reads again.
                forget(shared, &name);
                return Err(not_mine(&name));
            }
            // A later leader has written it. The write waits until etcd confirms, after the read, that I lead.
            if let Some(found) = found
                && !shared.is_confirmed(term, slices.at).await
            {
                return Err(KubeFailure::newer_term(&format!("EndpointSlice {name}"), found, term));
            }
            write(shared, &name, change).await?;
        }
        Ok(())
    }

    async fn leave(&self, shared: &KubeShared, pod: &PodObject, slices: &Slices) -> Result<(), KubeFailure> {
        for (name, slice) in &slices.by_name {
            if let (true, Some(patch)) = (slice::is_mine(slice, &self.name), slice::leave(slice, pod)) {
                write(shared, name, SliceWrite::Patch(patch)).await?;
            }
        }
        Ok(())
    }

    async fn service(&mut self, shared: &KubeShared) -> Result<ServiceObject, KubeFailure> {
        let now = clock::now();
        match &self.service {
            Some((at, service)) if now < *at + SERVICE_READ_EVERY => Ok(service.clone()),
            Some(_) | None => {
                let service: ServiceObject = shared.api.get(&self.name).await?;
                self.service = Some((now, service.clone()));
                Ok(service)
            }
        }
    }
}

fn not_mine(name: &str) -> KubeFailure {
    let text = format!("EndpointSlice {name} was made by somebody else: delete it, or name another Service");
    KubeFailure::new(PodFailure::Other, text)
}

/// Records the present state of the slice, whether the write succeeded or not.
async fn write(shared: &KubeShared, name: &str, change: SliceWrite) -> Result<(), KubeFailure> {
    let written = match change {
        SliceWrite::Create(slice) => shared.api.create(&*slice).await,
        SliceWrite::Patch(patch) => shared.api.patch(name, &patch).await,
    };
    match written {
        Ok(slice) => {
            read(shared, slice);
            Ok(())
        }
        Err(failure) if failure.kind == PodFailure::Conflict => {
            read(shared, shared.api.get(name).await?);
            Err(failure)
        }
        Err(failure) => Err(failure),
    }
}
