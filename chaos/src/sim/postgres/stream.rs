//! Streaming: a WAL receiver in the standby, a walsender for it in its source, and a connection between them.

use std::time::Duration;

use matriarch::model::DataDirectory;

use super::disk::{Record, SEGMENT_BYTES};
use super::{Phase, Walsender};
use crate::sim::channel::Channel;
use crate::sim::network::Host;
use crate::sim::signal::Signal;
use crate::sim::world::Sim;

/// `wal_retrieve_retry_interval`.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Without a word for this long a connection is given up.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// An idle walsender says that it lives.
const KEEPALIVE: Duration = Duration::from_millis(1200);

/// What a walsender sends.
struct Batch {
    /// The record before the first: what follows continues it.
    after: u64,
    records: Vec<Record>,
    switches: Vec<(u32, u64)>,
    timeline: u32,
}

/// What a receiver reports.
struct Feedback {
    flushed: u64,
    replayed: u64,
}

impl Sim {
    /// The WAL receiver's life: connects to whom the standby follows, again and again.
    pub(crate) async fn receive_for_ever(&self, member: usize, number: i32) {
        loop {
            let (follow, changed) = {
                let world = self.world();
                let Some(server) = world.machines[member].server.as_ref() else { return };
                if server.phase == Phase::Primary || server.promote_signalled {
                    return;
                }
                (server.follow.clone(), server.changed.clone())
            };
            match follow {
                None => changed.wait(&self.exec).await,
                Some((source, slot)) if source != member => {
                    self.receive_from(member, number, source, slot).await;
                    if let Some(server) = self.world().machines[member].server.as_mut() {
                        server.streams_from = None;
                    }
                    self.exec.within(RETRY_AFTER, changed.wait(&self.exec)).await;
                }
                Some(_) => self.exec.sleep(RETRY_AFTER).await,
            }
        }
    }

    async fn receive_from(&self, member: usize, number: i32, source: usize, slot: Option<String>) {
        let (here, there) = (Host::Member(member), Host::Member(source));
        if !self.travel(here, there).await || !self.travel(there, here).await {
            return;
        }
        let Some(source_pid) = self.server_pid(source) else { return };
        let Some(changed) = self.world().machines[member].server.as_ref().map(|s| s.changed.clone()) else {
            return;
        };
        let source_changed =
            self.world().machines[source].server.as_ref().map(|server| server.changed.clone());
        let Some(source_changed) = source_changed else { return };
        let (timeline, from) = {
            let world = self.world();
            let disk = &world.machines[member].disk;
            // A receiver asks for the system identifier first.
            if disk.system_id != world.machines[source].disk.system_id {
                return;
            }
            // And for WAL from the beginning of a segment on, also where it has some of it.
            (disk.wal.timeline_at(disk.flushed), disk.flushed - disk.flushed % SEGMENT_BYTES)
        };
        if self.log_in(member, source).is_err() {
            return;
        }
        let data: Channel<Batch> = Channel::open(self, there, here, changed.clone());
        let feedback: Channel<Feedback> = Channel::open(self, here, there, source_changed);
        let (sim, to, back) = (self.clone(), data.clone(), feedback.clone());
        self.exec.spawn(source_pid, async move {
            sim.send_to(source, member, (timeline, from, slot), &to, &back).await;
            to.close(&sim);
            back.close(&sim);
        });
        self.receive(member, number, source, &data, &feedback, &changed).await;
        data.close(self);
        feedback.close(self);
    }

    async fn receive(
        &self,
        member: usize,
        number: i32,
        source: usize,
        data: &Channel<Batch>,
        feedback: &Channel<Feedback>,
        changed: &Signal,
    ) {
        let mut heard_at = self.now();
        let mut told = 0;
        loop {
            let follows = {
                let world = self.world();
                let machine = &world.machines[member];
                let server = machine.server.as_ref().filter(|server| server.number == number);
                server.is_some_and(|server| {
                    let aims = server.follow.as_ref().is_some_and(|(of, _)| *of == source);
                    // PostgreSQL ends a receiver when it has replayed all and wants more.
                    let goes_on = aims || server.replayed < machine.disk.flushed;
                    goes_on && !server.promote_signalled && server.phase != Phase::Primary
                })
            };
            if !follows {
                return;
            }
            if let Some(batch) = data.take() {
                heard_at = self.now();
                if !self.write_received(member, source, batch).await {
                    return;
                }
            } else if data.is_closed() || heard_at + SILENT_FOR <= self.now() {
                return;
            } else {
                self.exec.within(Duration::from_millis(900), changed.wait(&self.exec)).await;
            }
            let (flushed, replayed) = {
                let world = self.world();
                let Some(server) = world.machines[member].server.as_ref() else { return };
                (world.machines[member].disk.flushed, server.replayed)
            };
            if told != flushed + replayed || heard_at == self.now() {
                told = flushed + replayed;
                feedback.send(self, Feedback { flushed, replayed });
            }
        }
    }

    /// Writes and flushes what came; false when it cannot be written.
    async fn write_received(&self, member: usize, source: usize, mut batch: Batch) -> bool {
        let slow_ms = {
            let mut world = self.world();
            let world = &mut *world;
            let machine = &mut world.machines[member];
            let Some(server) = machine.server.as_mut() else { return false };
            server.streams_from = Some(source);
            let disk = &mut machine.disk;
            if disk.full && !batch.records.is_empty() {
                return false;
            }
            let mine = disk.wal.last_number();
            let known = batch.records.iter().take_while(|record| disk.wal.holds(record.number)).count();
            let after = known.checked_sub(1).map_or(batch.after, |last| batch.records[last].number);
            batch.records.drain(..known);
            if !batch.records.is_empty() && mine != after {
                // None decides before it has seen etcd (seed 22957) and its disk (16092), nor while frozen (100536).
                let supervised = machine.supervisor.as_ref().is_some_and(|it| {
                    let has_read = matches!(it.shared.status.borrow().postgres.data, DataDirectory::Ready(_));
                    let acts = self.exec.is_alive(it.pid) && !self.exec.is_frozen(it.pid);
                    acts && it.shared.view.borrow().is_some() && has_read
                });
                if !supervised || server.stopping || 0 < machine.untold {
                    // Nobody chose that source since it has another history. PostgreSQL itself stops at the fork.
                    return false;
                }
                let text = format!(
                    "{member} continues a history that is not its own from {source}: its last record is {mine}, the \
                     first that it is sent comes after {after}"
                );
                world.ledger.break_promise("timelines", text);
                return false;
            }
            if let Some(first) = batch.records.first()
                && self.exec.rng(|rng| rng.permille(8))
            {
                // The connection breaks in the middle of a record.
                server.received = (disk.wal.end() + first.end) / 2;
                server.changed.give(&self.exec);
                return false;
            }
            disk.wal.records.extend(&batch.records);
            disk.histories.extend(batch.switches.iter().map(|(timeline, _)| *timeline));
            disk.histories.insert(batch.timeline);
            if let Some(last) = batch.records.last() {
                disk.wal.timeline = last.timeline;
                let before = batch.switches.iter().filter(|(timeline, _)| *timeline < last.timeline);
                disk.wal.switches = before.copied().collect();
            }
            disk.slow_ms
        };
        if batch.records.is_empty() {
            let mut world = self.world();
            let machine = &mut world.machines[member];
            if let Some(server) = machine.server.as_mut() {
                server.received = machine.disk.flushed;
            }
            return true;
        }
        let takes = self.exec.rng(|rng| rng.micros(100, 1200 + slow_ms * 1000));
        self.exec.sleep(takes).await;
        self.until_disk_answers(member).await;
        let mut world = self.world();
        let machine = &mut world.machines[member];
        machine.disk.flushed = machine.disk.wal.end();
        let Some(server) = machine.server.as_mut() else { return false };
        server.received = machine.disk.flushed;
        server.changed.give(&self.exec);
        true
    }

    /// A walsender. Runs in the source.
    async fn send_to(
        &self,
        source: usize,
        to: usize,
        (timeline, from, slot): (u32, u64, Option<String>),
        data: &Channel<Batch>,
        feedback: &Channel<Feedback>,
    ) {
        let connection = {
            let mut world = self.world();
            let world = &mut *world;
            world.next_record += 1;
            let connection = world.next_record;
            let machine = &mut world.machines[source];
            let Some(server) = machine.server.as_mut() else { return };
            let disk = &machine.disk;
            let slot_there = slot.is_none_or(|slot| disk.slots.contains(&slot));
            let fits = disk.wal.continues(timeline, from, disk.flushed);
            if server.phase == Phase::Starting || !slot_there || !fits {
                return;
            }
            server.senders.insert(to, Walsender { connection, flushed: 0, replayed: 0 });
            server.changed.give(&self.exec);
            connection
        };
        self.send_all(source, to, connection, from, data, feedback).await;
        if let Some(server) = self.world().machines[source].server.as_mut() {
            if server.senders.get(&to).is_some_and(|sender| sender.connection == connection) {
                server.senders.remove(&to);
            }
            server.changed.give(&self.exec);
        }
    }

    async fn send_all(
        &self,
        source: usize,
        to: usize,
        connection: u64,
        from: u64,
        data: &Channel<Batch>,
        feedback: &Channel<Feedback>,
    ) {
        let (mut sent, mut sent_at, mut heard_at) = (from, None, self.now());
        loop {
            if data.is_closed() || feedback.is_closed() || heard_at + SILENT_FOR <= self.now() {
                return;
            }
            let batch = {
                let mut world = self.world();
                let machine = &mut world.machines[source];
                let Some(server) = machine.server.as_mut() else { return };
                let Some(row) = server.senders.get_mut(&to) else { return };
                if row.connection != connection {
                    return;
                }
                let mut news = false;
                while let Some(Feedback { flushed, replayed }) = feedback.take() {
                    (row.flushed, row.replayed) = (flushed, replayed);
                    (heard_at, news) = (self.now(), true);
                }
                if news {
                    server.changed.give(&self.exec);
                }
                let (wal, end) = (&machine.disk.wal, machine.disk.flushed);
                let records = wal.between(sent, end).to_vec();
                let idle = sent_at.is_none_or(|at| at + KEEPALIVE <= self.now());
                let after = wal.between(0, sent).last().map_or(0, |record| record.number);
                sent = end.max(sent);
                (idle || !records.is_empty()).then(|| Batch {
                    after,
                    records,
                    switches: wal.switches.clone(),
                    timeline: wal.timeline,
                })
            };
            if let Some(batch) = batch {
                sent_at = Some(self.now());
                data.send(self, batch);
            }
            let Some(changed) =
                self.world().machines[source].server.as_ref().map(|server| server.changed.clone())
            else {
                return;
            };
            self.exec.within(KEEPALIVE, changed.wait(&self.exec)).await;
        }
    }
}
