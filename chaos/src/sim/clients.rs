//! Clients: they write, and remember what they were promised.

use std::time::Duration;

use super::clock::At;
use super::network::Host;
use super::postgres::commit::Committed;
use super::signal::Reply;
use super::world::Sim;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A commit that was acknowledged, from the moment on at which the server answers: the answer may be slower than what
/// becomes of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    pub(crate) number: u64,
    pub(crate) lsn: u64,
    /// The timeline that had ended when its own began.
    pub(crate) parent: Option<u32>,
    /// It was made under the key `sync`.
    pub(crate) bound: bool,
    /// An operator had switched synchronous replication off, or has since.
    pub(crate) released: bool,
    /// It was lost, within what asynchronous replication allows.
    pub(crate) written_off: bool,
}

/// What was promised, and whether a promise was broken.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) promises: Vec<Promise>,
    pub(crate) promised_at: At,
    /// The longest time that a server took for a commit, while nothing was wrong.
    pub(crate) longest_wait: Duration,
    pub(crate) broken: Option<(&'static str, String)>,
    /// No other promise counts.
    pub(crate) only: Option<String>,
    /// Promotions so far.
    pub(crate) promotions: u64,
    /// What the invariants remember.
    pub(crate) memory: crate::invariant::Memory,
}

impl Ledger {
    /// Only the first counts: what follows may follow from it.
    pub(crate) fn break_promise(&mut self, invariant: &'static str, text: String) {
        if self.only.as_ref().is_none_or(|only| only == invariant) {
            self.broken.get_or_insert((invariant, text));
        }
    }
}

impl Sim {
    pub(crate) fn start_client(&self, index: usize) {
        let sim = self.clone();
        self.spawn_environment(async move {
            let mut at = index % sim.world().options.members;
            loop {
                let pause = sim.exec.rng(|rng| rng.millis(20, 250));
                sim.exec.sleep(pause).await;
                let told = sim.write_to(index, at).await;
                match told {
                    Some(Committed::Yes) => {
                        let now = sim.now();
                        sim.world().ledger.promised_at = now;
                    }
                    Some(Committed::Refused) | None => {
                        at = (at + 1) % sim.world().options.members;
                    }
                }
            }
        });
    }

    async fn write_to(&self, client: usize, member: usize) -> Option<Committed> {
        let (reply, sim) = (Reply::new(), self.clone());
        let (from, to, filled) = (Host::Client(client), Host::Member(member), reply.clone());
        self.spawn_environment(async move {
            if !sim.travel(from, to).await {
                return;
            }
            let target = {
                let world = sim.world();
                world.machines[member].server.as_ref().map(|server| (server.pid, server.number))
            };
            let back = {
                let sim = sim.clone();
                move |told| async move {
                    if sim.travel(to, from).await {
                        filled.fill(&sim.exec, told);
                    }
                }
            };
            let Some((pid, number)) = target else { return back(Committed::Refused).await };
            let serving = sim.clone();
            sim.exec.spawn(pid, async move {
                let told = serving.commit(member, number).await;
                serving.spawn_environment(back(told));
            });
        });
        self.exec.within(PATIENCE, reply.wait(&self.exec)).await
    }
}
