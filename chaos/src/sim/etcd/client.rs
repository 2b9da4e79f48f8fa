//! A supervisor's way to etcd: the best server first, the next as well when the answer is late.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use matriarch::model::{Moment, WriteFacts};

use super::{Answer, Op, Refusal, SERVERS};
use crate::sim::executor::NATURE;
use crate::sim::network::Host;
use crate::sim::signal::Signal;
use crate::sim::world::Sim;

type Inbox = Rc<RefCell<VecDeque<(usize, Result<Answer, Refusal>)>>>;

/// One set of connections; each part of a supervisor has its own.
#[derive(Clone)]
pub(crate) struct Client {
    sim: Sim,
    from: Host,
    failures: Rc<RefCell<[u32; SERVERS]>>,
    highest_term: Rc<RefCell<u64>>,
    writes: Rc<RefCell<WriteFacts>>,
}

impl Client {
    pub(crate) fn new(sim: &Sim, from: Host) -> Client {
        Client {
            sim: sim.clone(),
            from,
            failures: Rc::default(),
            highest_term: Rc::default(),
            writes: Rc::default(),
        }
    }

    /// What etcd does with writes.
    pub(crate) fn writes(&self) -> WriteFacts {
        self.writes.borrow().clone()
    }

    /// Takes note of a write that was done or refused.
    pub(crate) fn note_write(&self, done_at: Option<Moment>) {
        let mut writes = self.writes.borrow_mut();
        writes.refused = done_at.is_none().then(|| "database space exceeded".to_owned());
        writes.done_at = done_at.or(writes.done_at);
    }

    /// The servers, healthiest first.
    pub(crate) fn ranked(&self) -> Vec<usize> {
        let failures = *self.failures.borrow();
        let mut ranked: Vec<usize> = (0..SERVERS).collect();
        ranked.sort_by_key(|server| failures[*server]);
        ranked
    }

    fn failed(&self, server: usize) {
        let mut failures = self.failures.borrow_mut();
        failures[server] = (failures[server] + 1).min(8);
    }

    /// As `Etcd::hedged` of the product.
    pub(crate) async fn hedged(
        &self,
        hedge_after: Duration,
        within: Duration,
        op: Op,
    ) -> Result<Answer, Refusal> {
        let exec = &self.sim.exec;
        let give_up_at = exec.now() + within;
        let (inbox, rings) = (Inbox::default(), Signal::default());
        let mut waiting = self.ranked().into_iter();
        let mut asked: Vec<usize> = Vec::new();
        let mut trouble: Option<Refusal> = None;
        loop {
            if let Some(server) = waiting.next() {
                asked.push(server);
                self.send(server, op.clone(), inbox.clone(), rings.clone());
            } else if asked.is_empty() {
                return Err(trouble.unwrap_or(Refusal::Unknown("no endpoint")));
            }
            let pause = if waiting.len() > 0 { hedge_after } else { within };
            let next_at = (exec.now() + pause).min(give_up_at);
            let told = exec.by(next_at, self.first(&inbox, &rings)).await;
            match told {
                Some((server, Ok(answer))) => match self.fresh(&answer) {
                    true => {
                        let before = asked.iter().take_while(|other| **other != server);
                        before.for_each(|late| self.failed(*late));
                        self.failures.borrow_mut()[server] = 0;
                        return Ok(answer);
                    }
                    false => {
                        self.failed(server);
                        asked.retain(|other| *other != server);
                        trouble = Some(Refusal::Unknown("a stale answer"));
                    }
                },
                Some((_, Err(Refusal::LeaseNotFound))) => return Err(Refusal::LeaseNotFound),
                Some((server, Err(refusal))) => {
                    asked.retain(|other| *other != server);
                    match &refusal {
                        Refusal::NoSpace => waiting = Vec::new().into_iter(),
                        _other => self.failed(server),
                    }
                    // What one server refuses another may have done.
                    trouble = Some(match trouble.take() {
                        Some(before) if before != refusal => Refusal::Unknown("one refuses"),
                        _same => refusal,
                    });
                }
                None if give_up_at <= exec.now() => {
                    asked.iter().for_each(|server| self.failed(*server));
                    return Err(Refusal::Unknown("no answer in time"));
                }
                None => {}
            }
        }
    }

    fn fresh(&self, answer: &Answer) -> bool {
        let mut highest = self.highest_term.borrow_mut();
        let fresh = *highest <= answer.raft_term;
        *highest = (*highest).max(answer.raft_term);
        fresh
    }

    async fn first(&self, inbox: &Inbox, rings: &Signal) -> (usize, Result<Answer, Refusal>) {
        loop {
            let first = inbox.borrow_mut().pop_front();
            match first {
                Some(first) => return first,
                None => rings.wait(&self.sim.exec).await,
            }
        }
    }

    /// There and back; what the server did stays done if the answer is lost.
    fn send(&self, server: usize, op: Op, inbox: Inbox, rings: Signal) {
        let (sim, from, to) = (self.sim.clone(), self.from, Host::Etcd(server));
        let sent_at = match from {
            Host::Member(member) => sim.read_clock(member),
            Host::Etcd(_) | Host::Client(_) => Moment::default(),
        };
        self.sim.exec.spawn(NATURE, async move {
            if !sim.travel(from, to).await {
                return;
            }
            let pid = sim.world().etcd.servers[server].pid;
            let back = {
                let sim = sim.clone();
                move |answer: Result<Answer, Refusal>| async move {
                    let answer = answer.map(|answer| Answer { sent_at, ..answer });
                    if sim.travel(to, from).await {
                        inbox.borrow_mut().push_back((server, answer));
                        rings.give(&sim.exec);
                    }
                }
            };
            if !sim.exec.is_alive(pid) {
                return back(Err(Refusal::Unknown("connection refused"))).await;
            }
            let serving = sim.clone();
            sim.exec.spawn(pid, async move {
                let answer = serving.serve_etcd(server, &op).await;
                serving.exec.spawn(NATURE, back(answer));
            });
        });
    }
}
