//! Failsafe mode: etcd is away from the leader, and something else happens to those that let it lead on.

use std::time::Duration;

use crate::sim::clock::At;
use crate::sim::network::{Host, Resident};
use crate::sim::world::Sim;

use super::network::Link;

impl Sim {
    /// From the leader alone, some members or all, for about as long as a lease lasts, while the members reach
    /// each other.
    pub(super) fn etcd_is_away(&self) {
        let members = self.world().options.members;
        let (mut group, alone, tenths) = self.exec.rng(|rng| {
            let mut group: Vec<usize> = (0..members).collect();
            rng.shuffle(&mut group);
            group.truncate(rng.between(1, members as u64) as usize);
            (group, rng.permille(500), rng.between(5, 30))
        });
        let leader = self.leader();
        group.extend(leader);
        let lasts = self.ttls(tenths);
        match leader.filter(|_| alone) {
            Some(leader) => self.leader_is_alone(leader, lasts),
            None => self.cut_for(self.links_to_etcd(&group), lasts),
        }
    }

    /// The same as among other faults, which seldom leave the leader and its rival the time that it takes.
    pub(super) async fn leader_is_alone_in_peace(&self, end: At) {
        if let Some(leader) = self.leader() {
            self.leader_is_alone(leader, self.ttls(20));
            self.exec.sleep_until((self.now() + self.ttls(40)).min(end)).await;
        }
    }

    /// One member may take its place: it hears of no promise but its own, and was restarted when the lease had ended in
    /// etcd, is mistaken for a stranger, or was away for so long that the leader no longer names it. Or etcd's store is
    /// lost, and with it who may take its place.
    fn leader_is_alone(&self, leader: usize, lasts: Duration) {
        let members = self.world().options.members;
        let others: Vec<usize> = (0..members).filter(|member| *member != leader).collect();
        let Some(rival) = self.exec.rng(|rng| rng.pick(&others)) else { return };
        let (kind, after, pause) =
            self.exec.rng(|rng| (rng.below(5), rng.between(11, 14), rng.millis(10, 300)));
        let both_ways = |a, b| [(Host::Member(a), Host::Member(b)), (Host::Member(b), Host::Member(a))];
        let mut links = self.links_to_etcd(&[leader]);
        let silent = others.iter().filter(|other| **other != rival);
        links.extend(silent.flat_map(|other| both_ways(rival, *other)));
        self.note(|| {
            format!("fault: {leader} leads alone, and {rival} hears of no other promise, kind {kind}")
        });
        let (sim, at_least) = (self.clone(), self.ttls(20));
        self.spawn_environment(async move {
            match kind {
                1 => {
                    sim.cut_for(sim.links_to_etcd(&[rival]), sim.ttls(13));
                    sim.exec.sleep(sim.ttls(12)).await;
                    sim.cut_for(links, lasts);
                }
                2 if sim.now() < sim.world().faults_end => {
                    links.extend(both_ways(leader, rival));
                    sim.cut_for(links, lasts.max(at_least));
                    sim.readdress(rival, Resident::Stranger, lasts.max(at_least));
                }
                3 => {
                    sim.cut_for(links, lasts.max(at_least));
                    sim.exec.sleep(sim.ttls(after)).await;
                    sim.cut_for(both_ways(leader, rival).to_vec(), sim.ttls(10));
                    if sim.now() < sim.world().faults_end {
                        sim.kill_supervisor_for(rival, pause);
                    }
                }
                4 => sim.store_is_lost_beside(links, rival, &others).await,
                _ => sim.cut_for(links, lasts),
            }
        });
    }

    /// The leader goes on without etcd and without the links to it, and the store is lost. Before that all others may
    /// have been away, so that the leader needs nobody's promise and has no member key any more. An operator may want
    /// the rival to lead.
    async fn store_is_lost_beside(&self, links: Vec<Link>, rival: usize, others: &[usize]) {
        let (needs_nobody, after, is_asked) =
            self.exec.rng(|rng| (rng.permille(400), rng.between(0, 14), rng.permille(400)));
        if needs_nobody {
            self.cut_for(self.links_to_etcd(others), self.ttls(13));
            self.exec.sleep(self.ttls(12)).await;
        }
        self.cut_for(links, self.ttls(50));
        self.exec.sleep(self.ttls(after)).await;
        self.store_fault();
        if is_asked {
            self.exec.sleep(self.ttls(5)).await;
            self.ask_failover(rival, false);
        }
    }

    /// So many tenths of the TTL.
    fn ttls(&self, tenths: u64) -> Duration {
        self.world().options.settings.ttl * tenths as u32 / 10
    }

    fn links_to_etcd(&self, members: &[usize]) -> Vec<Link> {
        let etcds = self.hosts().into_iter().filter(|host| matches!(host, Host::Etcd(_)));
        etcds.flat_map(|etcd| members.iter().map(move |member| (Host::Member(*member), etcd))).collect()
    }

    fn cut_for(&self, links: Vec<Link>, lasts: Duration) {
        if self.world().faults_end <= self.now() {
            return;
        }
        self.note(|| format!("fault: {links:?} are cut for {lasts:?}"));
        self.cut_links(&links);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(lasts).await;
            sim.join_links(&links);
        });
    }
}
