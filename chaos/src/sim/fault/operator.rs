//! Operators, at the worst moment: switchover, failover, restart, reinitialize, pause.

use std::collections::BTreeSet;
use std::time::Duration;

use matriarch::core::store::{Evidence, KeyChange, Txn};
use matriarch::model::{Ask, MemberName, RestartFilter};
use serde_json::{Value, json};

use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;
use crate::sim::postgres::disk::{Data, Disk};
use crate::sim::signal::Reply;
use crate::sim::supervisor::Agent;
use crate::sim::supervisor::configured::{pauses, written};
use crate::sim::world::{Sim, index_of, name_of};

impl Sim {
    /// A bootstrap of which etcd never heard, or heard too late: its member says so and waits for an operator, who
    /// removes the data. Nobody was promised anything there. Where etcd was emptied the members say something else, and
    /// compete by what they hold.
    pub(super) fn remove_foreign_data(&self) {
        let (known, promised) = {
            let world = self.world();
            if world.etcd.store.keys.contains_key(&world.keys.path("generation")) {
                return;
            }
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

    /// A store that went back in time, and a copy that gets no further without somebody's stream: who may have
    /// confirmed commits is silent for ever. An operator makes the member lead that holds the most.
    pub(super) fn fail_over_past_a_copy(&self) {
        let most = {
            let world = self.world();
            let key = |name| world.etcd.store.keys.get(&world.keys.path(name));
            let servers =
                || world.machines.iter().enumerate().filter_map(|(i, it)| Some((i, it.server.as_ref()?)));
            let stuck = servers().any(|(_, server)| server.phase == Phase::Starting);
            let standbys = servers().filter(|(_, server)| server.phase == Phase::Standby);
            let most = standbys.max_by_key(|(index, _)| world.machines[*index].disk.wal.last_number());
            let waits = stuck && key("leader").is_none() && key("generation").is_some();
            let asked = key("failover").and_then(|key| serde_json::from_slice::<Value>(&key.value).ok());
            let asked = asked.map(|request| request["member"].clone());
            let new = |index: &usize| asked != Some(json!(name_of(*index)));
            most.map(|(index, _)| index).filter(|index| waits && new(index))
        };
        if let Some(member) = most {
            self.ask_failover(member, true);
        }
    }

    pub(super) fn operator_fault(&self) {
        let member = self.any_member();
        match self.exec.rng(|rng| rng.below(100)) {
            0..=32 => self.ask_switchover(member),
            33..=44 => self.change_config(),
            45..=54 => {
                let stops = self.exec.rng(|rng| rng.permille(500));
                self.ask_failover(member, stops);
            }
            55..=74 => {
                let ask = Ask::Restart { at: None, filter: RestartFilter::default() };
                self.ask(member, ask);
            }
            75..=84 => {
                let from_leader = self.exec.rng(|rng| rng.permille(500));
                self.ask(member, Ask::Reinitialize { force: true, from_leader });
            }
            _ => self.pause_for_a_while(),
        }
    }

    /// Mostly for something that is done to the leader: its supervisor ends meanwhile, for longer than its lease lasts.
    fn pause_for_a_while(&self) {
        self.set_pause(true);
        let (sim, lasts) = (self.clone(), self.lasts());
        let ends = self.exec.rng(|rng| rng.permille(600));
        self.spawn_environment(async move {
            sim.exec.sleep(lasts / 2).await;
            if let Some(leader) = sim.leader().filter(|_| ends) {
                let ttl = sim.world().options.settings.ttl;
                sim.end_supervisor(leader, ttl + sim.lasts());
            }
            sim.exec.sleep(lasts / 2).await;
            sim.set_pause(false);
        });
    }

    /// The healthy cluster is paused and asked for a switchover, after which it has to be as healthy.
    pub(crate) fn ask_in_pause(&self) {
        self.world().stays_paused = true;
        self.set_pause(true);
        let (sim, to) = (self.clone(), self.any_member());
        self.spawn_environment(async move {
            sim.exec.sleep(Duration::from_secs(2)).await;
            sim.ask_switchover(to);
        });
    }

    pub(super) fn put(&self, name: &str, value: String) {
        let mut world = self.world();
        let path = world.keys.path(name);
        let then = vec![KeyChange::Put(path.clone(), value, None)];
        let _ = world.etcd.store.txn(&Txn { when: Vec::new(), then, path, evidence: Evidence::None });
        world.etcd.changed.give(&self.exec);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let world = self.world();
        let key = world.etcd.store.keys.get(&world.keys.path("leader"))?;
        index_of(&String::from_utf8_lossy(&key.value))
    }

    pub(super) fn ask_switchover(&self, to: usize) {
        let Some(leader) = self.leader() else { return };
        let named = self.exec.rng(|rng| rng.permille(700));
        let text = match named && to != leader {
            true => json!({"leader": name_of(leader), "member": name_of(to)}),
            false => json!({"leader": name_of(leader)}),
        };
        self.note(|| format!("fault: switchover {text}"));
        self.put("failover", text.to_string());
    }

    /// Whoever asks for this takes the loss. Where etcd's store is not settled the operator may stop all others first.
    pub(super) fn ask_failover(&self, to: usize, stops: bool) {
        self.note(|| format!("fault: failover to {to}"));
        let now = self.now();
        self.world().ledger.memory.forced.insert(to, now);
        let mut down = self.stop_unfenced();
        let mutated = self.world().options.mutation == Some(Mutation::ConfirmRunning);
        if self.is_unsettled() && (stops || mutated) {
            let members = self.world().options.members;
            for other in (0..members).filter(|other| *other != to) {
                down.push(name_of(other));
                if !mutated {
                    self.stop_machine(other);
                }
            }
        }
        self.put("failover", json!({"member": name_of(to), "confirmed_down": down}).to_string());
    }

    fn is_unsettled(&self) -> bool {
        let world = self.world();
        let key = world.etcd.store.keys.get(&world.keys.path("generation"));
        let value = key.and_then(|key| serde_json::from_slice::<Value>(&key.value).ok());
        value.is_some_and(|value| value["settled"] == false)
    }

    fn stop_machine(&self, member: usize) {
        self.note(|| format!("{member}: an operator stops the machine"));
        self.supervisor_pid(member).into_iter().for_each(|pid| self.exec.kill(pid));
        self.kill_server(member);
        self.start_again(member, self.lasts());
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
        supervisor.shared.requests.borrow_mut().push((ask, Reply::new()));
        supervisor.shared.bell.give(&self.exec);
    }

    pub(super) fn is_paused(&self) -> bool {
        let world = self.world();
        let config = world.etcd.store.keys.get(&world.keys.path("config"));
        config.is_some_and(|key| pauses(&key.value))
    }

    /// `pause` in the dynamic configuration, once there is one.
    pub(super) fn set_pause(&self, pause: bool) {
        let known = {
            let world = self.world();
            world.etcd.store.keys.get(&world.keys.path("config")).map(|key| key.value.clone())
        };
        let wanted = written(&self.world().options.settings, pause).to_string();
        let gone = known.is_none();
        if known.is_some_and(|known| known != wanted.as_bytes()) {
            self.note(|| format!("fault: pause {pause}"));
            self.put("config", wanted);
        }
        if gone && !pause {
            self.resume_by_member();
        }
    }

    /// The key `config` is gone, and a member goes on with the pause that it asked for: one that has data writes what
    /// is in force there, without the pause.
    fn resume_by_member(&self) {
        let agents = self.agents();
        if agents.iter().any(|agent| agent.settings().pause)
            && let Some(agent) = agents.first()
        {
            let text = agent.restored_config(&agent.settings().sync);
            let mut config: Value = serde_json::from_str(&text).unwrap_or_default();
            config["pause"] = Value::Null;
            self.note(|| format!("fault: pause ends by what is in force: {config}"));
            self.put("config", config.to_string());
        }
    }

    /// The supervisors that run, beside data.
    fn agents(&self) -> Vec<Agent> {
        let world = self.world();
        let ready = world.machines.iter().filter(|machine| machine.disk.data == Data::Ready);
        let alive = ready.filter_map(|machine| machine.supervisor.as_ref());
        let alive = alive.filter(|it| self.exec.is_alive(it.pid) && !self.exec.is_frozen(it.pid));
        alive.map(|it| Agent { sim: self.clone(), shared: it.shared.clone() }).collect()
    }
}
