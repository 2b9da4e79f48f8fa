//! Waiting for standbys: the names as sessions see them, and the checkpointer, which switches the waiting on and off.

use std::collections::BTreeSet;

use matriarch::model::{CommitWait, Lsn, SyncFacts, SyncNames, SyncState, Walsender};

use super::{Phase, Server};
use crate::sim::world::{Machine, Sim, index_of, name_of};

/// What a running server knows of `synchronous_standby_names`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    /// As sessions and walsenders see it.
    text: String,
    any: bool,
    count: usize,
    names: Vec<usize>,
    /// The checkpointer has seen that there are any: only then do commits wait.
    defined: bool,
    /// Reloads that it has not read.
    unread: u32,
    /// It is at work.
    pub(crate) checkpoints: u32,
    /// Sessions that wait.
    pub(crate) waiting: BTreeSet<i32>,
}

impl Sync {
    /// The checkpointer has not read the file yet.
    pub(crate) fn begin_unnamed(&mut self) {
        (self.defined, self.unread) = (false, self.unread + 1);
    }

    /// `synchronous_standby_names`.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Commits wait for those that are named.
    pub(crate) fn is_defined(&self) -> bool {
        self.defined
    }

    fn read(&mut self, text: &str) {
        let parsed = SyncNames::parse(text).0;
        self.text = text.to_owned();
        (self.any, self.count) = (parsed.any, parsed.count);
        self.names = parsed.names.iter().filter_map(|name| index_of(name.as_str())).collect();
    }
}

impl Sim {
    /// At the start everybody reads the file.
    pub(crate) fn begin_sync(&self, server: &mut Server, text: &str) {
        server.sync.read(text);
        server.sync.defined = 0 < server.sync.count;
    }

    /// The checkpointer of a primary that was started as one reads the file after the first connections.
    pub(crate) async fn name_at_last(&self, member: usize) {
        let takes = self.exec.rng(|rng| rng.micros(50, 40_000));
        self.exec.sleep(takes).await;
        if let Some(server) = self.world().machines[member].server.as_mut() {
            server.sync.defined = 0 < server.sync.count;
            server.sync.unread -= 1;
            server.changed.give(&self.exec);
        }
    }

    /// SIGHUP: sessions first, the checkpointer when it rests.
    pub(crate) fn reload(&self, member: usize) {
        let Some(pid) = self.server_pid(member) else { return };
        {
            let mut world = self.world();
            let Some(server) = world.machines[member].server.as_mut() else { return };
            server.sync.unread += 1;
        }
        let sim = self.clone();
        self.exec.spawn(pid, async move {
            let takes = sim.exec.rng(|rng| rng.micros(50, 12_000));
            sim.exec.sleep(takes).await;
            {
                let mut world = sim.world();
                let machine = &mut world.machines[member];
                let Some(server) = machine.server.as_mut() else { return };
                server.sync.read(&machine.disk.sync_names);
                server.changed.give(&sim.exec);
            }
            loop {
                let takes = sim.exec.rng(|rng| rng.micros(50, 9_000));
                sim.exec.sleep(takes).await;
                let mut world = sim.world();
                let Some(server) = world.machines[member].server.as_mut() else { return };
                if server.sync.checkpoints == 0 {
                    server.sync.defined = 0 < server.sync.count;
                    server.sync.unread -= 1;
                    server.changed.give(&sim.exec);
                    return;
                }
            }
        });
    }
}

impl Machine {
    /// As many of the named standbys as have to have flushed up to `lsn`.
    pub(crate) fn is_confirmed(&self, lsn: u64) -> bool {
        let Some(server) = self.server.as_ref() else { return false };
        let sync = &server.sync;
        if !sync.defined {
            return true;
        }
        let confirmed = |name: &usize| server.senders.get(name).is_some_and(|sender| lsn <= sender.flushed);
        0 < sync.count && sync.count <= counted(server).into_iter().filter(confirmed).count()
    }

    pub(crate) fn sync_facts(&self, server: &Server) -> SyncFacts {
        let synchronous = counted(server);
        let row = |(standby, sender): (&usize, &super::Walsender)| Walsender {
            name: name_of(*standby).to_string(),
            streams: true,
            sync: match (synchronous.contains(standby), server.sync.any) {
                (true, true) => SyncState::Quorum,
                (true, false) => SyncState::Sync,
                (false, _) if server.sync.names.contains(standby) => SyncState::Potential,
                (false, _) => SyncState::Async,
            },
            written: (0 < sender.flushed).then_some(Lsn(sender.flushed)),
            flushed: (0 < sender.flushed).then_some(Lsn(sender.flushed)),
            replayed: (0 < sender.replayed).then_some(Lsn(sender.replayed)),
        };
        SyncFacts {
            names: server.sync.text.clone(),
            wait: CommitWait::Flushed,
            walsenders: server.senders.iter().map(row).collect(),
            waiting: server.sync.waiting.clone(),
            checkpointer_rests: server.sync.checkpoints == 0 && server.sync.unread == 0,
            replay_rests: server.read_all
                && server.phase == Phase::Standby
                && self.disk.flushed <= server.replayed,
        }
    }
}

/// Whose word counts. With FIRST the synchronous ones are the first that are connected; any of the named will not do.
fn counted(server: &Server) -> Vec<usize> {
    let named = server.sync.names.iter().copied();
    match server.sync.any {
        true => named.collect(),
        false => named.filter(|name| server.senders.contains_key(name)).take(server.sync.count).collect(),
    }
}
