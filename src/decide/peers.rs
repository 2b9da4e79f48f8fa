//! The other members: whose answers count, and when they are queried again.

use std::time::Duration;

use super::ledgers::FailedRaceRounds;
use super::tick::Tick;
use crate::model::{Action, MemberName, PeerIdentity, WaitingOn};

/// How long an answer may take; longer than the deadline of the request itself, so that "no answer" counts.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// The pause between questions while too few answers allow me to lead: standbys have to disconnect from the former
/// leader first.
const ASK_SOON: Duration = Duration::from_millis(50);
/// The number of those short pauses; after them each pause is twice as long as the one before.
const ASK_SOON_TIMES: u32 = 10;
/// The longest pause between two questions without success.
const ASK_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Whether every member of `who` has answered, or failed to, recently and since answers count. Asks them otherwise.
pub(super) fn ask(tick: &mut Tick<'_>, who: &[(MemberName, String)]) -> bool {
    let answered = |(name, _): &(MemberName, String)| {
        tick.peers.get(name).is_some_and(|answer| tick.is_answer_of_now(answer))
    };
    if who.iter().all(answered) {
        return true;
    }
    let since = tick.answers_since();
    match tick.memory.asked_at.filter(|at| tick.now < *at + ANSWER_WITHIN && since <= *at) {
        Some(asked_at) => tick.wake_at(asked_at + ANSWER_WITHIN, WaitingOn::Members),
        None => {
            tick.memory.asked_at = Some(tick.now);
            tick.act(Action::AskPeers { who: who.to_vec() });
            tick.wake_in(ANSWER_WITHIN, WaitingOn::Members);
        }
    }
    false
}

/// Asks `who` again, because their answers did not allow me to lead: soon at first, later less and less often.
pub(super) fn ask_again(tick: &mut Tick<'_>, who: Vec<(MemberName, String)>, receives: bool) {
    let registered: Vec<PeerIdentity> =
        who.iter().filter_map(|(name, _)| tick.seen.identity_of(name)).collect();
    let same = |before: &FailedRaceRounds| before.registered == registered && before.receives == receives;
    let before =
        tick.memory.leader_key.vacant().and_then(|leaderless| leaderless.failed_race_rounds.as_ref());
    let mut times = before.filter(|before| same(before)).map_or(0, |before| before.times);
    let me = &tick.seen.me.name;
    if tick.memory.asked_at.is_none_or(|at| at + pause(me, times) <= tick.now) {
        times += 1;
        tick.memory.asked_at = Some(tick.now);
        tick.act(Action::AskPeers { who });
    }
    if let Some(leaderless) = tick.memory.leader_key.vacant_mut() {
        leaderless.failed_race_rounds = Some(FailedRaceRounds { times, registered, receives });
    }
    let asked_at = tick.memory.asked_at.unwrap_or(tick.now);
    tick.wake_at(asked_at + pause(me, times), WaitingOn::Members);
}

/// Asks `who`, if the last question is older than `pause`.
pub(super) fn ask_every(tick: &mut Tick<'_>, who: Vec<(MemberName, String)>, pause: Duration) {
    let due = tick.memory.asked_at.is_none_or(|at| at + pause <= tick.now);
    if due {
        tick.memory.asked_at = Some(tick.now);
        tick.act(Action::AskPeers { who });
    }
    tick.wake_at(tick.memory.asked_at.unwrap_or(tick.now) + pause, WaitingOn::Members);
}

/// The pause after question number `times`. Longer pauses vary by a quarter between members and questions, so that
/// members that began together do not stay in step.
fn pause(me: &MemberName, times: u32) -> Duration {
    let doublings = times.saturating_sub(ASK_SOON_TIMES).min(8);
    if doublings == 0 {
        return ASK_SOON;
    }
    varied((ASK_SOON * 2u32.pow(doublings)).min(ASK_AT_LEAST_EVERY), me, times)
}

/// Up to a quarter less than `longest`, another part of it for each member and time.
pub(super) fn varied(longest: Duration, me: &MemberName, times: u32) -> Duration {
    // FNV-1a: any hash that is equal on every machine will do.
    let bytes = me.as_str().bytes().chain(times.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    longest - longest.mul_f64((hash >> 32) as f64 / f64::from(u32::MAX) / 4.0)
}
