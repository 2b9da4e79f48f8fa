//! Messages between machines: delay, loss, and links that are cut in one direction or both.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rng::Rng;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// A member's.
    Member(usize),
    /// An etcd server's.
    Etcd(usize),
    /// A client's.
    Client(usize),
}

/// How well messages travel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkConditions {
    /// A message takes at least this long, in microseconds.
    pub(crate) fastest_us: u64,
    /// And mostly at most that long.
    pub(crate) slowest_us: u64,
    /// Out of a thousand messages, so many are lost.
    pub(crate) lost_permille: u64,
    /// So many take up to [`NetworkConditions::straggler_ms`].
    pub(crate) late_permille: u64,
    /// How late a straggler may be.
    pub(crate) straggler_ms: u64,
}

impl NetworkConditions {
    /// A data centre on a good day.
    pub(crate) const FAIR: NetworkConditions = NetworkConditions {
        fastest_us: 100,
        slowest_us: 900,
        lost_permille: 0,
        late_permille: 0,
        straggler_ms: 0,
    };
}

/// Who answers over REST at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resident {
    /// This member.
    Member(usize),
    /// A member of another cluster that has the same name, and says what whoever asks likes best to hear.
    Stranger,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    members: usize,
    etcds: usize,
    hosts: usize,
    /// How many faults cut this direction, by `from * hosts + to`.
    cuts: Vec<u8>,
    pub(crate) conditions: NetworkConditions,
    /// Who answers where a member is asked over REST: somebody has its address by now.
    readdressed: BTreeMap<usize, Resident>,
}

impl Network {
    pub(crate) fn new(members: usize, etcds: usize, clients: usize) -> Network {
        let hosts = members + etcds + clients;
        Network {
            members,
            etcds,
            hosts,
            cuts: vec![0; hosts * hosts],
            conditions: NetworkConditions::FAIR,
            readdressed: BTreeMap::new(),
        }
    }

    /// Every machine.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        let (members, etcds, clients) = (self.members, self.etcds, self.hosts - self.members - self.etcds);
        let first = (0..members).map(Host::Member).chain((0..etcds).map(Host::Etcd));
        first.chain((0..clients).map(Host::Client))
    }

    pub(crate) fn index(&self, host: Host) -> usize {
        match host {
            Host::Member(index) => index,
            Host::Etcd(index) => self.members + index,
            Host::Client(index) => self.members + self.etcds + index,
        }
    }

    fn link(&self, from: Host, to: Host) -> usize {
        self.index(from) * self.hosts + self.index(to)
    }

    /// One more fault cuts this direction.
    pub(crate) fn cut(&mut self, from: Host, to: Host) {
        let link = self.link(from, to);
        self.cuts[link] += 1;
    }

    /// One fault less.
    pub(crate) fn join(&mut self, from: Host, to: Host) {
        let link = self.link(from, to);
        self.cuts[link] = self.cuts[link].saturating_sub(1);
    }

    /// Every link is whole again, and the weather is fair.
    pub(crate) fn heal(&mut self) {
        self.cuts.fill(0);
        self.conditions = NetworkConditions::FAIR;
        self.readdressed.clear();
    }

    /// From now on, who asks `member` over REST asks `other`; `None`: itself again.
    pub(crate) fn readdress(&mut self, member: usize, other: Option<Resident>) {
        match other {
            Some(other) => drop(self.readdressed.insert(member, other)),
            None => drop(self.readdressed.remove(&member)),
        }
    }

    /// Who answers where this member is asked.
    pub(crate) fn at_address_of(&self, member: usize) -> Resident {
        self.readdressed.get(&member).copied().unwrap_or(Resident::Member(member))
    }

    /// True when messages get from here to there.
    pub(crate) fn passes(&self, from: Host, to: Host) -> bool {
        from == to || self.cuts[self.link(from, to)] == 0
    }

    /// True when they get there and back.
    pub(crate) fn connects(&self, one: Host, other: Host) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// How long a message takes; `None` when it never arrives.
    pub(crate) fn travel(&self, rng: &mut Rng, from: Host, to: Host) -> Option<Duration> {
        if from == to {
            return Some(rng.micros(20, 80));
        }
        if !self.passes(from, to) || rng.permille(self.conditions.lost_permille) {
            return None;
        }
        if rng.permille(self.conditions.late_permille) {
            return Some(rng.millis(1, self.conditions.straggler_ms.max(1)));
        }
        Some(rng.micros(self.conditions.fastest_us, self.conditions.slowest_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_cut_as_often_as_it_is_joined_again() {
        let mut network = Network::new(2, 1, 1);
        let (a, b) = (Host::Member(0), Host::Etcd(0));
        network.cut(a, b);
        network.cut(a, b);
        network.join(a, b);
        assert!(!network.passes(a, b) && network.passes(b, a) && !network.connects(a, b));
        network.join(a, b);
        assert!(network.connects(a, b));
        assert_eq!(network.hosts().count(), 4);
    }
}
