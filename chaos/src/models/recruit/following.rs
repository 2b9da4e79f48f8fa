//! Whether a standby that has left the leader can follow it again, all by itself: nobody else does anything, etcd and
//! the leader answer it, and time passes.

use super::standby::Hearing;
use super::state::{Laws, State};

/// More rounds than it needs.
const ROUNDS: usize = 12;

/// Whether it does. True as well where its own request to etcd that is under way replaces the leader.
pub(super) fn can_follow(state: &State, laws: &Laws, index: usize) -> bool {
    let mut state = state.clone();
    for _ in 0..ROUNDS {
        if !state.etcd.is_led_by(0) || state.standby(index).postgres.source {
            return true;
        }
        round(&mut state, laws, index);
    }
    false
}

fn round(state: &mut State, laws: &Laws, index: usize) {
    let standby = state.standby_mut(index);
    if let Some(source) = standby.ordered.take() {
        standby.postgres.source = source;
    }
    standby.postgres.receives &= standby.postgres.source;
    state.carry_out(laws, index);
    let standby = state.standby_mut(index);
    standby.finished = standby.writing.take().and_then(|write| write.outcome);
    let (mine, others) = std::mem::take(&mut state.sent).into_iter().partition(|sent| sent.by == index);
    state.sent = others;
    let mine: Vec<_> = mine;
    for sent in &mine {
        state.arrive(laws, sent);
    }
    state.see(laws, index);
    state.time += 1;
    let time = state.time;
    let standby = state.standby_mut(index);
    standby.hearing = Hearing::Heard;
    standby.told_at = standby.asks_history.then_some(time);
    if !standby.has_successor() {
        let _nobody_asked = state.tick(laws, index);
    }
}
