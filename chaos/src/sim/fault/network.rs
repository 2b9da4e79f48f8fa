//! Links: slow, lossy, cut in one direction or both, between any two groups, one by one and in another order back; and
//! addresses that another member has by now.

use std::time::Duration;

use crate::sim::network::{Host, NetworkConditions, Resident};
use crate::sim::world::Sim;

pub(super) type Link = (Host, Host);

impl Sim {
    pub(super) fn network_fault(&self) {
        match self.exec.rng(|rng| rng.below(100)) {
            0..=7 => self.bad_weather(),
            8..=11 => self.readdress_any(),
            12..=22 => self.readdress_and_fail_over(),
            23..=36 => {
                let member = Host::Member(self.any_member());
                self.cut_off(&[member], |_| true);
            }
            37..=46 if self.world().options.settings.failsafe_mode => self.etcd_is_away(),
            37..=54 => {
                let member = Host::Member(self.any_member());
                self.cut_off(&[member], |host| matches!(host, Host::Etcd(_)));
            }
            55..=64 => {
                let member = Host::Member(self.any_member());
                self.cut_off(&[member], |host| matches!(host, Host::Member(_)));
            }
            65..=84 => {
                let mut hosts = self.hosts();
                let cut = self.exec.rng(|rng| {
                    rng.shuffle(&mut hosts);
                    rng.between(1, hosts.len() as u64 - 1)
                });
                let group = hosts[..cut as usize].to_vec();
                self.cut_off(&group, |_| true);
            }
            _ => self.swizzle(),
        }
    }

    fn bad_weather(&self) {
        let conditions = self.exec.rng(|rng| NetworkConditions {
            fastest_us: rng.between(50, 5_000),
            slowest_us: rng.between(5_000, 150_000),
            lost_permille: rng.between(0, 150),
            late_permille: rng.between(0, 80),
            straggler_ms: rng.between(50, 6_000),
        });
        self.note(|| format!("fault: {conditions:?}"));
        self.world().network.conditions = conditions;
        let (sim, lasts) = (self.clone(), self.lasts());
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.world().network.conditions = NetworkConditions::FAIR;
        });
    }

    /// Somebody answers where another one registered: over REST only, for etcd knows nobody by an address.
    fn readdress_any(&self) {
        let other = match self.exec.rng(|rng| rng.permille(500)) {
            true => Resident::Stranger,
            false => Resident::Member(self.any_member()),
        };
        self.readdress(self.any_member(), other, self.lasts());
    }

    /// The leader is lost while only one standby hears it, and somebody else answers at the address of that one.
    fn readdress_and_fail_over(&self) {
        let Some(leader) = self.leader() else { return };
        let mut standbys = {
            let world = self.world();
            let hears = |member: &usize| {
                let server = world.machines[*member].server.as_ref();
                server.is_some_and(|server| server.streams_from == Some(leader))
            };
            (0..world.machines.len()).filter(hears).collect::<Vec<usize>>()
        };
        self.exec.rng(|rng| rng.shuffle(&mut standbys));
        let [hears, behind @ ..] = &standbys[..] else { return };
        let Some(behind_first) = behind.first() else { return };
        let residents = [Resident::Stranger, Resident::Member(*behind_first)];
        let resident = self.exec.rng(|rng| rng.pick(&residents)).unwrap_or(Resident::Stranger);
        self.readdress(*hears, resident, self.lasts() + Duration::from_secs(5));
        let links: Vec<Link> =
            behind.iter().map(|member| (Host::Member(leader), Host::Member(*member))).collect();
        self.cut_links(&links);
        let (sim, after) = (self.clone(), self.exec.rng(|rng| rng.millis(200, 2_000)));
        self.spawn_environment(async move {
            sim.exec.sleep(after).await;
            sim.crash_machine(leader);
            sim.join_links(&links);
        });
    }

    pub(super) fn readdress(&self, member: usize, other: Resident, lasts: Duration) {
        self.note(|| format!("fault: {other:?} answers at the address of {member}, for {lasts:?}"));
        self.world().network.readdress(member, Some(other));
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.world().network.readdress(member, None);
        });
    }

    /// Cuts a group off from all others that `from` names, in one direction or both.
    fn cut_off(&self, group: &[Host], from: impl Fn(&Host) -> bool) {
        let outside: Vec<Host> =
            self.hosts().into_iter().filter(|host| !group.contains(host) && from(host)).collect();
        let direction = self.exec.rng(|rng| rng.below(4));
        let mut links: Vec<Link> = Vec::new();
        for inner in group {
            for outer in &outside {
                if direction != 0 {
                    links.push((*inner, *outer));
                }
                if direction != 1 {
                    links.push((*outer, *inner));
                }
            }
        }
        let lasts = self.lasts();
        self.note(|| {
            format!("fault: {group:?} is cut off from {outside:?}, direction {direction}, for {lasts:?}")
        });
        self.cut_links(&links);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.join_links(&links);
        });
    }

    pub(super) fn cut_links(&self, links: &[Link]) {
        let mut world = self.world();
        links.iter().for_each(|(from, to)| world.network.cut(*from, *to));
    }

    pub(super) fn join_links(&self, links: &[Link]) {
        let mut world = self.world();
        links.iter().for_each(|(from, to)| world.network.join(*from, *to));
    }

    /// Link after link, and back in another order.
    fn swizzle(&self) {
        let hosts = self.hosts();
        let mut links: Vec<Link> = self.exec.rng(|rng| {
            let count = rng.between(2, 10);
            let mut link = || Some((rng.pick(&hosts)?, rng.pick(&hosts)?));
            (0..count).filter_map(|_| link()).filter(|(from, to)| from != to).collect()
        });
        self.note(|| format!("fault: swizzle {links:?}"));
        let sim = self.clone();
        self.spawn_environment(async move {
            for link in &links {
                sim.cut_links(&[*link]);
                let pause = sim.exec.rng(|rng| rng.millis(10, 2_000));
                sim.exec.sleep(pause).await;
            }
            sim.exec.rng(|rng| rng.shuffle(&mut links));
            for link in &links {
                sim.exec.sleep(Duration::from_millis(1)).await;
                let pause = sim.exec.rng(|rng| rng.millis(10, 3_000));
                sim.exec.sleep(pause).await;
                sim.join_links(&[*link]);
            }
        });
    }
}
