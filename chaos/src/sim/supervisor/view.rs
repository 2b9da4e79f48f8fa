//! Following the cluster: the driver of the product's own lists and watches, as `src/etcd/view.rs` is; and the watch
//! of a simulated server.

use std::time::Duration;

use matriarch::core::list_watch::{
    KeyCheck, KeyEvent, KeyList, ListWatch, ListWatchAnswer, ListWatchEffect, ListWatchNext,
    ListWatchQuestion,
};
use matriarch::model::{Moment, View};

use super::Agent;
use crate::sim::channel::Channel;
use crate::sim::etcd::{Answer, Body, Op, Refusal};
use crate::sim::mutation::Mutation;
use crate::sim::network::Host;
use crate::sim::signal::Signal;
use crate::sim::world::Sim;

const HEDGE_AFTER: Duration = Duration::from_millis(300);
const LIST_WITHIN: Duration = Duration::from_secs(3);

/// What a watch tells.
enum Told {
    Events(Vec<KeyEvent>),
    Cancelled,
}

impl Agent {
    pub(crate) async fn follow_for_ever(self) {
        let mut machine = ListWatch::new(self.keys());
        let mut opened: Option<Channel<Told>> = None;
        let mut answer = ListWatchAnswer::Paused;
        loop {
            let ListWatchNext { effects, ask } = machine.next(answer, self.settings().loop_wait, self.now());
            for effect in effects {
                match effect {
                    ListWatchEffect::Show(view) => self.show(*view),
                    ListWatchEffect::Say(_) => {}
                }
            }
            answer = match ask {
                ListWatchQuestion::Pause(span) => {
                    opened = None;
                    self.sleep(span).await;
                    ListWatchAnswer::Paused
                }
                ListWatchQuestion::List => match self.list().await {
                    Ok(list) => ListWatchAnswer::Listed(list),
                    Err(refusal) => ListWatchAnswer::Failed(format!("{refusal:?}")),
                },
                ListWatchQuestion::Check { after } => match self.list().await {
                    Ok(list) => ListWatchAnswer::Checked(check(&list, after)),
                    Err(refusal) => ListWatchAnswer::Failed(format!("{refusal:?}")),
                },
                ListWatchQuestion::Watch { after } => {
                    opened.take().into_iter().for_each(|watch| watch.close(&self.sim));
                    opened = Some(self.open_watch(after, &self.shared.view_bell));
                    ListWatchAnswer::Opened
                }
                ListWatchQuestion::Await { until } => match &opened {
                    Some(watch) => self.told(watch, until).await,
                    None => ListWatchAnswer::Ended,
                },
            };
        }
    }

    async fn list(&self) -> Result<KeyList, Refusal> {
        let asked_at = self.now();
        match self.shared.etcd.hedged(HEDGE_AFTER, LIST_WITHIN, Op::List).await? {
            Answer { revision, body: Body::Keys(keys), .. } => {
                Ok(KeyList { keys, revision, cluster_id: 0, asked_at })
            }
            _other => Err(Refusal::Unknown("not an answer to a list")),
        }
    }

    /// What the watch tells, or that a list is due.
    async fn told(&self, watch: &Channel<Told>, until: Moment) -> ListWatchAnswer {
        let relist = self.mutation() != Some(Mutation::NeverRelist);
        let until = self.sim.when(self.member(), until);
        match watch.take() {
            Some(Told::Events(events)) => return ListWatchAnswer::Told { cluster_id: None, events },
            Some(Told::Cancelled) => return ListWatchAnswer::Ended,
            None if watch.is_closed() => return ListWatchAnswer::Failed("the watch broke".to_owned()),
            None if relist && (until <= self.sim.now() || self.shared.look_again.get()) => {
                self.shared.look_again.set(false);
                return ListWatchAnswer::ListDue;
            }
            None => {}
        }
        let wait = self.shared.view_bell.wait(&self.sim.exec);
        match relist {
            true => drop(self.sim.exec.by(until, wait).await),
            false => wait.await,
        }
        // Whatever it was: by the settings of now.
        ListWatchAnswer::IntervalChanged
    }

    fn show(&self, view: View) {
        let mut shown = self.shared.view.borrow_mut();
        let news = shown.as_ref().is_none_or(|shown| shown.cluster != view.cluster);
        *shown = Some(view);
        drop(shown);
        if news {
            self.shared.view_version.set(self.shared.view_version.get() + 1);
        }
        self.shared.bell.give(&self.sim.exec);
    }

    fn open_watch(&self, after: i64, bell: &Signal) -> Channel<Told> {
        let server = self.shared.etcd.ranked()[0];
        let from = Host::Etcd(server);
        let channel = Channel::open(&self.sim, from, self.host(), bell.clone());
        let (sim, told, to) = (self.sim.clone(), channel.clone(), self.host());
        self.sim.spawn_environment(async move { sim.serve_watch(server, to, after, told).await });
        channel
    }
}

/// What etcd would leave of a list.
fn check(list: &KeyList, after: i64) -> KeyCheck {
    let revisions = list.keys.iter().map(|(path, key)| (path.clone(), key.mod_revision));
    KeyCheck {
        written: revisions.filter(|(_, revision)| after < *revision).collect(),
        count: list.keys.len(),
        revision: list.revision,
        cluster_id: list.cluster_id,
        asked_at: list.asked_at,
    }
}

impl Sim {
    /// A server tells what it hears of; one without a leader knows nothing new and after a while says so.
    async fn serve_watch(&self, server: usize, to: Host, after: i64, told: Channel<Told>) {
        let (deaf, broken) = {
            let world = self.world();
            (world.etcd.deaf_watches, world.etcd.broken_watches)
        };
        if !self.travel(to, Host::Etcd(server)).await {
            // It was never opened, and nobody knows: a relist finds out.
            return;
        }
        let pid = self.world().etcd.servers[server].pid;
        let mut at = after;
        let mut lost_for = 0;
        loop {
            if told.is_closed() {
                return;
            }
            if !self.exec.is_alive(pid) || broken != self.world().etcd.broken_watches {
                return told.close(self);
            }
            let (events, changed) = {
                let hears = self.hears_leader(server);
                lost_for = if hears { 0 } else { lost_for + 1 };
                let world = self.world();
                if after + 1 < world.etcd.store.compacted {
                    drop(world);
                    told.send(self, Told::Cancelled);
                    return;
                }
                let first = world.etcd.store.events.partition_point(|event| event.revision <= at);
                let events =
                    if hears && !deaf { world.etcd.store.events[first..].to_vec() } else { Vec::new() };
                (events, world.etcd.changed.clone())
            };
            if 5 < lost_for && !deaf {
                told.send(self, Told::Cancelled);
                return;
            }
            if let Some(last) = events.last() {
                at = last.revision;
                told.send(self, Told::Events(events));
            }
            self.exec.within(Duration::from_millis(600), changed.wait(&self.exec)).await;
        }
    }
}
