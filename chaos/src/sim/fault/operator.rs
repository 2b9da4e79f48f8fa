//! Operators, at the worst moment: switchover, failover, restart, reinitialize, pause.

use std::collections::BTreeSet;

use matriarch::model::{Ask, MemberName, Request, RequestId, RestartFilter};
use serde_json::json;

use crate::sim::etcd::store::{Change, Txn};
use crate::sim::postgres::disk::{Data, Disk};
use crate::sim::supervisor::configured::{pauses, written};
use crate::sim::world::{Sim, index_of, name_of};

impl Sim {
    /// A bootstrap of which etcd never heard, or heard too late: its member says so and waits for an operator, who
    /// removes the data. Nobody was promised anything there.
    pub(super) fn remove_foreign_data(&self) {
        let (known, promised) = {
            let world = self.world();
            let known = world.etcd.store.keys.get(&world.keys.path("initialize"));
            let known = known.map(|key| String::from_utf8_lossy(&key.value).into_owned());
            let numbers: BTreeSet<u64> = world.ledger.promises.iter().map(|promise| promise.number).collect();
            (known, numbers)
        };
        let members = self.world().options.members;
        for member in 0..members {
            let in_vain = {
                let world = self.world();
                let (disk, server) = (&world.machines[member].disk, &world.machines[member].server);
                let foreign = disk.data == Data::Ready && known.as_ref() != Some(&disk.system_id.to_string());
                let idle = server.as_ref().is_none_or(|server| !server.is_writable());
                foreign && idle && disk.wal.records.iter().all(|record| !promised.contains(&record.number))
            };
            if in_vain {
                self.note(|| format!("{member}: an operator removes the data"));
                let supervisor = self.world().machines[member].supervisor.as_ref().map(|it| it.pid);
                supervisor.into_iter().for_each(|pid| self.exec.kill(pid));
                self.kill_server(member);
                let mut world = self.world();
                world.machines[member].disk = Disk::default();
                world.machines[member].store_seen = matriarch::model::StoreSeen::default();
            }
        }
    }

    pub(super) fn operator_fault(&self) {
        let member = self.any_member();
        match self.exec.chance(|chance| chance.below(100)) {
            0..=32 => self.ask_switchover(member),
            33..=44 => self.change_config(),
            45..=54 => self.ask_failover(member),
            55..=74 => {
                let ask = Ask::Restart { at: None, filter: RestartFilter::default() };
                self.ask(member, ask);
            }
            75..=84 => {
                let from_leader = self.exec.chance(|chance| chance.permille(500));
                self.ask(member, Ask::Reinitialize { force: true, from_leader });
            }
            _ => self.pause_for_a_while(),
        }
    }

    /// Mostly for something that is done to the leader: its supervisor ends meanwhile, for longer than its lease lasts.
    fn pause_for_a_while(&self) {
        self.set_pause(true);
        let (sim, lasts) = (self.clone(), self.lasts());
        let ends = self.exec.chance(|chance| chance.permille(600));
        self.nature(async move {
            sim.exec.sleep(lasts / 2).await;
            if let Some(leader) = sim.leader().filter(|_| ends) {
                let ttl = sim.world().options.settings.ttl;
                sim.end_supervisor(leader, ttl + sim.lasts());
            }
            sim.exec.sleep(lasts / 2).await;
            sim.set_pause(false);
        });
    }

    pub(super) fn put(&self, name: &str, value: String) {
        let mut world = self.world();
        let path = world.keys.path(name);
        let change = Change::Put(path.clone(), value.into_bytes(), 0);
        let _ = world.etcd.store.txn(&Txn { when: Vec::new(), then: vec![change], read: path });
        world.etcd.changed.give(&self.exec);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let world = self.world();
        let key = world.etcd.store.keys.get(&world.keys.path("leader"))?;
        index_of(&String::from_utf8_lossy(&key.value))
    }

    fn ask_switchover(&self, to: usize) {
        let Some(leader) = self.leader() else { return };
        let named = self.exec.chance(|chance| chance.permille(700));
        let text = match named && to != leader {
            true => json!({"leader": name_of(leader), "member": name_of(to)}),
            false => json!({"leader": name_of(leader)}),
        };
        self.note(|| format!("fault: switchover {text}"));
        self.put("failover", text.to_string());
    }

    /// Whoever asks for this takes the loss.
    fn ask_failover(&self, to: usize) {
        self.note(|| format!("fault: failover to {to}"));
        let now = self.now();
        self.world().ledger.memory.forced.insert(to, now);
        self.put(
            "failover",
            json!({"member": name_of(to), "confirmed_down": self.stop_unfenced()}).to_string(),
        );
    }

    /// Whom etcd shows to run without a fence: the operator stops it before saying that it is down.
    fn stop_unfenced(&self) -> Vec<MemberName> {
        let left: Vec<MemberName> = self.world().unfenced();
        for member in left.iter().filter_map(|name| index_of(name.as_str())) {
            self.kill_server(member);
        }
        left
    }

    fn ask(&self, member: usize, ask: Ask) {
        let supervisor = self.world().machines[member].supervisor.clone();
        let Some(supervisor) = supervisor.filter(|it| self.exec.is_alive(it.pid)) else { return };
        self.note(|| format!("fault: {member} is asked for {ask:?}"));
        supervisor.shared.requests.borrow_mut().push(Request { id: RequestId(0), ask });
        supervisor.shared.bell.give(&self.exec);
    }

    pub(super) fn is_paused(&self) -> bool {
        let world = self.world();
        let config = world.etcd.store.keys.get(&world.keys.path("config"));
        config.is_some_and(|key| pauses(&key.value))
    }

    /// Where nobody leads, and members hold on to a pause that was asked for in a key that is gone, an operator writes
    /// that key anew.
    pub(super) fn write_lost_config(&self) {
        let lost = {
            let world = self.world();
            let (keys, path) = (&world.etcd.store.keys, |name| world.keys.path(name));
            let made = keys.get(&path("initialize")).is_some_and(|key| key.lease == 0);
            made && !keys.contains_key(&path("config"))
        };
        if lost {
            let config = written(&self.world().options.settings, false);
            self.note(|| format!("an operator writes the dynamic configuration: {config}"));
            self.put("config", config.to_string());
        }
    }

    /// `pause` in the dynamic configuration, once there is one.
    pub(super) fn set_pause(&self, pause: bool) {
        let known = {
            let world = self.world();
            world.etcd.store.keys.get(&world.keys.path("config")).map(|key| key.value.clone())
        };
        let wanted = written(&self.world().options.settings, pause).to_string();
        if known.is_some_and(|known| known != wanted.as_bytes()) {
            self.note(|| format!("fault: pause {pause}"));
            self.put("config", wanted);
        }
    }
}
