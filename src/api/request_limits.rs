//! Limits of the server: how many connections may wait at once, and how many requests of each class are answered at
//! once.
//!
//! A connection waits from its first byte to the end of its first head, and from the end of an answer to the end of the
//! next head: during the TLS handshake, while idle, while it sends slowly or does not read. When too many wait, the one
//! that has waited longest is closed. So a new connection is always accepted, and a health check that sends its request
//! at once gets its answer. The members have limits of their own, which other connections cannot use up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::dispatch::Caller;

/// How long a connection may wait without a break.
const WAITS_WITHIN: Duration = Duration::from_secs(10);
/// The most waiting connections, except members': as many as a fleet of load balancers keeps open.
const WAITING_MAX: usize = 256;
/// The most waiting connections of members: each member has a connection to each other one.
const WAITING_MEMBERS_MAX: usize = 64;

/// The class of a request, for limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// A member asks for this one's state, by which leaders are chosen.
    Peer,
    /// A read of cluster, configuration or state.
    Read,
    /// A change from elsewhere whose caller is looked up.
    Access,
    /// An admitted change. It can take minutes.
    Change,
    /// An admitted question of a leader that etcd does not answer.
    Promise,
    /// A gRPC stream that lasts for as long as its caller likes.
    Stream,
    /// A web page that follows the state.
    Page,
    /// The heartbeats of a leader, for one member.
    Heartbeats,
}

impl RequestClass {
    /// The class of a GET. `None`: it is answered at once.
    pub(super) fn of_read(path: &str, caller: Caller) -> Option<RequestClass> {
        if path == "/switchover/check" {
            return Some(RequestClass::Read);
        }
        match path.trim_start_matches('/').split('/').next() {
            Some("patroni") if caller.is_member => Some(RequestClass::Peer),
            Some("patroni" | "cluster" | "config" | "history" | "operations" | "preflight") => {
                Some(RequestClass::Read)
            }
            _ => None,
        }
    }

    /// The most at once. The sum stays below the usual limit of 1024 open files.
    fn limit(self) -> usize {
        match self {
            RequestClass::Peer => 64,
            RequestClass::Read => 64,
            RequestClass::Heartbeats => 64,
            RequestClass::Page => 16,
            RequestClass::Access | RequestClass::Change | RequestClass::Promise | RequestClass::Stream => 32,
        }
    }

    /// The name for callers.
    pub(super) fn words(self) -> &'static str {
        match self {
            RequestClass::Peer => "questions of members",
            RequestClass::Read => "requests that read",
            RequestClass::Access => "requests from elsewhere that change something",
            RequestClass::Change => "requests that change something",
            RequestClass::Promise => "questions of leaders in failsafe mode",
            RequestClass::Stream => "streams",
            RequestClass::Page => "web pages that follow the state",
            RequestClass::Heartbeats => "streams of heartbeats",
        }
    }
}

/// Requests under way, by class.
pub(super) struct RequestLimits {
    peers: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    accesses: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    promises: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    heartbeats: Arc<Semaphore>,
}

impl RequestLimits {
    pub(super) fn new() -> RequestLimits {
        let semaphore = |class: RequestClass| Arc::new(Semaphore::new(class.limit()));
        RequestLimits {
            peers: semaphore(RequestClass::Peer),
            reads: semaphore(RequestClass::Read),
            accesses: semaphore(RequestClass::Access),
            changes: semaphore(RequestClass::Change),
            promises: semaphore(RequestClass::Promise),
            streams: semaphore(RequestClass::Stream),
            pages: semaphore(RequestClass::Page),
            heartbeats: semaphore(RequestClass::Heartbeats),
        }
    }

    /// A place for one request; `None`: its class is full.
    pub(super) fn take(&self, class: RequestClass) -> Option<OwnedSemaphorePermit> {
        let semaphore = match class {
            RequestClass::Peer => &self.peers,
            RequestClass::Read => &self.reads,
            RequestClass::Access => &self.accesses,
            RequestClass::Change => &self.changes,
            RequestClass::Promise => &self.promises,
            RequestClass::Stream => &self.streams,
            RequestClass::Page => &self.pages,
            RequestClass::Heartbeats => &self.heartbeats,
        };
        semaphore.clone().try_acquire_owned().ok()
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// It waits, until this time at most.
    Waiting(Instant),
    /// A request is under way.
    Answering,
    /// Another connection needed its place.
    Cut,
}

/// All waiting connections.
#[derive(Clone, Default)]
pub(super) struct WaitingConnections(Arc<Mutex<Queues>>);

#[derive(Default)]
struct Queues {
    next: u64,
    members: WaitQueue,
    others: WaitQueue,
}

/// Connections in the order in which they began to wait.
type WaitQueue = BTreeMap<u64, watch::Sender<ConnectionPhase>>;

impl WaitingConnections {
    /// A new connection, which waits.
    pub(super) fn enter(&self, is_member: bool) -> Connection {
        let connection = Connection {
            waiting: self.clone(),
            is_member,
            phase: watch::Sender::new(ConnectionPhase::Answering),
            number: Mutex::default(),
        };
        connection.wait();
        connection
    }

    /// Closes the connection that has waited longest and is not a member's.
    pub(super) fn cut_one(&self) {
        let mut queues = self.lock();
        cut_first(&mut queues.others);
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn of(&mut self, is_member: bool) -> (&mut WaitQueue, usize) {
        if is_member { (&mut self.members, WAITING_MEMBERS_MAX) } else { (&mut self.others, WAITING_MAX) }
    }
}

fn cut_first(queue: &mut WaitQueue) {
    if let Some((_, phase)) = queue.pop_first() {
        phase.send_replace(ConnectionPhase::Cut);
    }
}

/// One connection, from its accept to its end.
pub(super) struct Connection {
    waiting: WaitingConnections,
    is_member: bool,
    phase: watch::Sender<ConnectionPhase>,
    /// Its number in the queue, while it waits.
    number: Mutex<Option<u64>>,
}

impl Connection {
    /// A request has arrived. Without effect on a connection that was just closed.
    pub(super) fn answer(&self) {
        self.leave();
        self.phase.send_if_modified(|phase| {
            let goes_on = *phase != ConnectionPhase::Cut;
            if goes_on {
                *phase = ConnectionPhase::Answering;
            }
            goes_on
        });
    }

    /// The answer is complete, or the connection is new.
    pub(super) fn wait(&self) {
        let mut queues = self.waiting.lock();
        let until = Instant::now() + WAITS_WITHIN;
        let goes_on = self.phase.send_if_modified(|phase| {
            let goes_on = *phase != ConnectionPhase::Cut;
            if goes_on {
                *phase = ConnectionPhase::Waiting(until);
            }
            goes_on
        });
        if !goes_on {
            return;
        }
        let number = queues.next;
        queues.next += 1;
        let (queue, most) = queues.of(self.is_member);
        queue.insert(number, self.phase.clone());
        if queue.len() > most {
            cut_first(queue);
        }
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
    }

    /// A request has arrived; it is answered until the result is dropped.
    pub(super) fn answering(self: Arc<Connection>) -> Answering {
        self.answer();
        Answering(self)
    }

    /// Resolves when the connection has waited too long, or its place was needed.
    pub(super) async fn idle_too_long(&self) {
        let mut phase = self.phase.subscribe();
        loop {
            let until = match *phase.borrow_and_update() {
                ConnectionPhase::Cut => return,
                ConnectionPhase::Answering => None,
                ConnectionPhase::Waiting(until) => Some(until),
            };
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                // The sender is part of this connection.
                _ = phase.changed() => {}
            }
        }
    }

    fn leave(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(number) = number {
            self.waiting.lock().of(self.is_member).0.remove(&number);
        }
    }
}

/// A request under way, of a connection that has one at a time.
pub(super) struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(connection: &Connection) -> bool {
        *connection.phase.borrow() == ConnectionPhase::Cut
    }

    #[test]
    fn the_longest_waiting_connection_is_closed_first() {
        let waiting = WaitingConnections::default();
        let member = waiting.enter(true);
        let connections: Vec<Connection> = (0..WAITING_MAX).map(|_| waiting.enter(false)).collect();
        assert!(!connections.iter().any(is_cut));
        connections[0].answer();
        let late = [waiting.enter(false), waiting.enter(false)];
        assert!(
            !is_cut(&connections[0]) && is_cut(&connections[1]) && !is_cut(&connections[2]),
            "the oldest of those that wait"
        );
        // After an answer its wait begins anew.
        connections[0].wait();
        assert!(is_cut(&connections[2]) && !is_cut(&connections[0]) && !late.iter().any(is_cut));
        connections[1].wait();
        assert!(is_cut(&connections[1]), "once cut, always cut");
        waiting.cut_one();
        assert!(is_cut(&connections[3]) && !is_cut(&member));
    }

    #[test]
    fn a_closed_connection_leaves_the_queue() {
        let waiting = WaitingConnections::default();
        for is_member in [true, false] {
            let connections: Vec<Connection> = (0..10).map(|_| waiting.enter(is_member)).collect();
            connections[3].answer();
            drop(connections);
            assert!(waiting.lock().of(is_member).0.is_empty());
        }
    }

    #[test]
    fn a_full_class_does_not_affect_the_others() {
        let limits = RequestLimits::new();
        let reads: Vec<_> = std::iter::from_fn(|| limits.take(RequestClass::Read)).collect();
        assert_eq!(reads.len(), RequestClass::Read.limit());
        for class in [
            RequestClass::Peer,
            RequestClass::Access,
            RequestClass::Change,
            RequestClass::Stream,
            RequestClass::Page,
            RequestClass::Heartbeats,
        ] {
            assert!(limits.take(class).is_some(), "{class:?}");
        }
    }
}
