//! A connection's one direction: in order, sent again when lost, closed when nothing gets through for long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::executor::NATURE;
use super::network::Host;
use super::signal::Signal;
use super::world::Sim;

/// TCP sends again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// `tcp_user_timeout`, or the timeouts of walsender and walreceiver.
const PATIENCE: Duration = Duration::from_secs(5);

struct State<T> {
    out: VecDeque<T>,
    arrived: VecDeque<T>,
    closed: bool,
}

/// See above; clones share it.
pub(crate) struct Channel<T> {
    state: Rc<RefCell<State<T>>>,
    /// Given when something arrives, or it is closed.
    pub(crate) bell: Signal,
    to_send: Signal,
}

impl<T> Clone for Channel<T> {
    fn clone(&self) -> Channel<T> {
        Channel { state: self.state.clone(), bell: self.bell.clone(), to_send: self.to_send.clone() }
    }
}

impl<T: 'static> Channel<T> {
    /// Opens one; `bell` is given to whoever waits at the other end.
    pub(crate) fn open(sim: &Sim, from: Host, to: Host, bell: Signal) -> Channel<T> {
        let state = State { out: VecDeque::new(), arrived: VecDeque::new(), closed: false };
        let channel = Channel { state: Rc::new(RefCell::new(state)), bell, to_send: Signal::default() };
        let (pump, sim) = (channel.clone(), sim.clone());
        sim.exec.clone().spawn(NATURE, async move { pump.pump(&sim, from, to).await });
        channel
    }

    async fn pump(&self, sim: &Sim, from: Host, to: Host) {
        loop {
            if self.is_closed() {
                return;
            }
            let next = self.state.borrow_mut().out.pop_front();
            let Some(item) = next else {
                self.to_send.wait(&sim.exec).await;
                continue;
            };
            let give_up_at = sim.now() + PATIENCE;
            while !sim.travel(from, to).await {
                if give_up_at <= sim.now() || self.is_closed() {
                    return self.close(sim);
                }
                sim.exec.sleep(AGAIN_AFTER).await;
            }
            self.state.borrow_mut().arrived.push_back(item);
            self.bell.give(&sim.exec);
        }
    }

    pub(crate) fn send(&self, sim: &Sim, item: T) {
        self.state.borrow_mut().out.push_back(item);
        self.to_send.give(&sim.exec);
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.state.borrow_mut().arrived.pop_front()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    pub(crate) fn close(&self, sim: &Sim) {
        self.state.borrow_mut().closed = true;
        self.bell.give(&sim.exec);
        self.to_send.give(&sim.exec);
    }
}
