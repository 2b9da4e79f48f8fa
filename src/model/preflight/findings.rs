//! The findings from the facts.

use super::{
    ArchiverFacts, Finding, FindingKind, FindingUnit, FindingVerdict, FreeSpace, OpenTransaction, Preflight,
    PreflightCandidate, PreflightFacts, PreflightSlot, StandbyDelay,
};
use crate::model::{Ineligible, MemberName, size};

/// A transaction older than this is worth waiting for.
const TRANSACTION_MS: u64 = 10_000;
/// More files than these delay the stop: PostgreSQL archives all before it ends.
const ARCHIVE_FILES: u64 = 16;
/// So much WAL is received within a moment.
const RECEIVE_MS: u64 = 1000;
/// Clients wait while the candidate replays, and this is more than a moment's work.
const REPLAY_BYTES: u64 = 16 << 20;
const REPLAY_MS: u64 = 5000;
/// Less than this is on its way all the time, and tells nothing of the age of what is replayed.
const ON_ITS_WAY_BYTES: u64 = 64 << 10;
/// A slot that holds more has been forgotten, or its reader is far behind.
const HELD_BYTES: u64 = 1 << 30;
/// A primary needs at least this for its WAL.
const FREE_BYTES: u64 = 1 << 30;
/// From here on PostgreSQL synchronizes logical slots itself.
const SYNCHRONIZES_SLOTS: u32 = 170_000;

impl Finding {
    fn new(what: FindingKind, member: &MemberName, verdict: FindingVerdict, text: String) -> Finding {
        Finding { what, member: member.clone(), value: None, unit: None, limit: None, verdict, text }
    }

    fn with(self, value: u64, unit: FindingUnit) -> Finding {
        Finding { value: Some(value), unit: Some(unit), ..self }
    }

    fn limited(self, limit: u64) -> Finding {
        Finding { limit: Some(limit), ..self }
    }
}

fn warns_if(warns: bool) -> FindingVerdict {
    if warns { FindingVerdict::Warns } else { FindingVerdict::Fine }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

impl Preflight {
    /// All findings: the request, the leader, then each candidate.
    pub fn findings(&self) -> Vec<Finding> {
        let verdict = if self.refusal.is_some() { FindingVerdict::Refuses } else { FindingVerdict::Fine };
        let text = self.refusal.clone().unwrap_or_else(|| "a switchover can be requested".to_owned());
        let mut all = vec![Finding::new(FindingKind::Request, &self.leader, verdict, text)];
        match &self.facts {
            Ok(facts) => all.extend(self.of_leader(facts)),
            Err(why) => all.push(unknown(&self.leader, why)),
        }
        all.extend(self.candidates.iter().flat_map(|candidate| self.of_candidate(candidate)));
        all
    }

    fn of_leader(&self, facts: &PreflightFacts) -> Vec<Finding> {
        let mut all = vec![long_transaction(&self.leader, facts.transaction.as_ref())];
        let count = facts.prepared.as_ref().map_or(0, |prepared| prepared.count);
        let text = facts.prepared.as_ref().map_or("no transaction is prepared".to_owned(), |prepared| {
            format!(
                "{} prepared transactions keep their locks on the next leader, `{}` for {} now: end each with COMMIT \
                 PREPARED or ROLLBACK PREPARED",
                prepared.count,
                prepared.gid,
                seconds(prepared.age_ms)
            )
        });
        let verdict = warns_if(0 < count);
        let prepared = Finding::new(FindingKind::PreparedTransactions, &self.leader, verdict, text);
        all.push(prepared.with(count, FindingUnit::Transactions).limited(0));
        all.extend(facts.archiver.as_ref().map(|archiver| archive(&self.leader, archiver)));
        all.extend(held_wal(&self.leader, &facts.slots));
        all
    }

    fn of_candidate(&self, candidate: &PreflightCandidate) -> Vec<Finding> {
        let PreflightCandidate { name, answer, unfit, facts } = candidate;
        let text = match unfit {
            Some(why) => format!("{name} cannot take over: it {why}"),
            None => format!("{name} can take over"),
        };
        let mut all = vec![Finding::new(FindingKind::Candidate, name, self.verdict(unfit.as_ref()), text)];
        if !answer.reachable {
            return all;
        }
        let leaders = self.facts.as_ref();
        if let Ok(leader) = leaders {
            all.push(self.receive_lag(candidate, leader));
            all.extend(receive_delay(name, &leader.standbys));
        }
        all.push(self.timeline(candidate));
        match facts {
            Err(why) => all.push(unknown(name, why)),
            Ok(facts) => {
                let delay = leaders.ok().and_then(|leader| standby(name, &leader.standbys)?.replay_ms);
                all.extend(self.replay(candidate, facts, delay));
                let slots = leaders.map_or(&[][..], |leader| &leader.slots);
                let logical = slots.iter().filter(|slot| slot.logical && !slot.temporary && !slot.lost);
                all.extend(logical.map(|slot| logical_slot(name, slot, facts)));
                let held = slots.iter().filter_map(|slot| slot.held_bytes).max().unwrap_or_default();
                all.extend(facts.disks.iter().map(|disk| free_space(name, disk, held)));
            }
        }
        all
    }

    /// A candidate that is unfit refuses the switchover where no other can take over.
    fn verdict(&self, unfit: Option<&Ineligible>) -> FindingVerdict {
        let other = self.candidates.iter().any(|candidate| candidate.unfit.is_none());
        match unfit {
            None => FindingVerdict::Fine,
            Some(_) if other => FindingVerdict::Warns,
            Some(_) => FindingVerdict::Refuses,
        }
    }

    fn receive_lag(&self, candidate: &PreflightCandidate, leader: &PreflightFacts) -> Finding {
        let PreflightCandidate { name, answer, unfit, .. } = candidate;
        let judged = unfit.as_ref().filter(|why| matches!(why, Ineligible::TooFarBehind { .. }));
        let bytes = match judged {
            Some(Ineligible::TooFarBehind { bytes, .. }) => *bytes,
            _ => leader.lsn.bytes_since(answer.lsn),
        };
        let advice = match judged {
            Some(_) => ": wait until it is nearer, or look for what slows it down",
            None => "",
        };
        let text = format!("{name} has not received {} of the leader's WAL{advice}", size(bytes));
        let finding = Finding::new(FindingKind::ReceiveLag, name, self.verdict(judged), text);
        finding.with(bytes, FindingUnit::Bytes).limited(self.lag_bytes_max)
    }

    fn timeline(&self, candidate: &PreflightCandidate) -> Finding {
        let PreflightCandidate { name, answer, unfit, .. } = candidate;
        let judged = unfit.as_ref().filter(|why| matches!(why, Ineligible::OtherTimeline));
        let number = |timeline: Option<super::Timeline>| timeline.map(|timeline| u64::from(timeline.0));
        let text = match (number(answer.timeline), number(self.timeline)) {
            (Some(mine), Some(leaders)) if mine == leaders => format!("{name} is on the leader's timeline"),
            (mine, leaders) => {
                let text = |number: Option<u64>| number.map_or("no".to_owned(), |number| number.to_string());
                format!("{name} is on timeline {}, and the leader on {}", text(mine), text(leaders))
            }
        };
        let unit = answer.timeline.map(|_| FindingUnit::Timeline);
        let finding = Finding::new(FindingKind::Timeline, name, self.verdict(judged), text);
        Finding { value: number(answer.timeline), unit, limit: number(self.timeline), ..finding }
    }

    fn replay(
        &self,
        candidate: &PreflightCandidate,
        facts: &PreflightFacts,
        leaders_ms: Option<u64>,
    ) -> Vec<Finding> {
        let PreflightCandidate { name, answer, .. } = candidate;
        let bytes = answer.lsn.bytes_since(answer.replayed);
        let is_late = REPLAY_BYTES <= bytes;
        let advice = if is_late { ": clients wait until it has, so wait before you switch over" } else { "" };
        let text = format!("{name} has to replay {} that it has received{advice}", size(bytes));
        let lag = Finding::new(FindingKind::ReplayLag, name, warns_if(is_late), text);
        let mut all = vec![lag.with(bytes, FindingUnit::Bytes).limited(REPLAY_BYTES)];

        let own_ms = facts.replay_delay_ms.filter(|_| ON_ITS_WAY_BYTES <= bytes);
        let delay = own_ms.max(leaders_ms).unwrap_or_default();
        let text = format!("{name} replays what was committed {} ago", seconds(delay));
        let delayed = Finding::new(FindingKind::ReplayDelay, name, warns_if(REPLAY_MS <= delay), text);
        all.push(delayed.with(delay, FindingUnit::Milliseconds).limited(REPLAY_MS));

        let stop_within = seconds(u64::try_from(self.stop_within.as_millis()).unwrap_or(u64::MAX));
        let outcome = format!("a switchover would be given up {stop_within} after the primary has stopped");
        if facts.replay_paused {
            let text =
                format!("replay of {name} is paused, and {outcome}: SELECT pg_wal_replay_resume() on {name}");
            all.push(Finding::new(FindingKind::ReplayHeld, name, FindingVerdict::Warns, text));
        } else if 0 < facts.apply_delay_ms {
            let delay = seconds(facts.apply_delay_ms);
            let text = format!(
                "{name} replays {delay} late (recovery_min_apply_delay), and with a commit since then {outcome}: choose \
                 another candidate, or set it to 0"
            );
            let held = Finding::new(FindingKind::ReplayHeld, name, FindingVerdict::Warns, text);
            all.push(held.with(facts.apply_delay_ms, FindingUnit::Milliseconds).limited(0));
        }
        all
    }
}

fn unknown(member: &MemberName, why: &str) -> Finding {
    let text = format!("the facts of {member} are unknown, so this check is not complete: {why}");
    Finding::new(FindingKind::Facts, member, FindingVerdict::Warns, text)
}

fn long_transaction(leader: &MemberName, oldest: Option<&OpenTransaction>) -> Finding {
    let age_ms = oldest.map_or(0, |oldest| oldest.age_ms);
    let is_long = TRANSACTION_MS <= age_ms;
    let text = match oldest {
        None => "no transaction is open".to_owned(),
        Some(_) if !is_long => format!("the oldest transaction is {} old", seconds(age_ms)),
        Some(OpenTransaction { pid, user, database, .. }) => format!(
            "a transaction of {} in {} is {} old, and the stop rolls it back: wait for its end, or end it with SELECT \
             pg_terminate_backend({pid})",
            user.as_deref().unwrap_or("an unknown user"),
            database.as_deref().unwrap_or("no database"),
            seconds(age_ms)
        ),
    };
    let finding = Finding::new(FindingKind::LongTransaction, leader, warns_if(is_long), text);
    finding.with(age_ms, FindingUnit::Milliseconds).limited(TRANSACTION_MS)
}

fn archive(leader: &MemberName, archiver: &ArchiverFacts) -> Finding {
    let waiting = archiver.waiting;
    let warns = archiver.failed.is_some() || ARCHIVE_FILES <= waiting;
    let delay = "PostgreSQL tries to archive them before it ends, while clients wait";
    let text = match &archiver.failed {
        Some(file) => format!(
            "{waiting} files wait for the archive, and {file} could not be archived: {delay}. See the server's log for the \
             error of archive_command"
        ),
        None if warns => format!("{waiting} files wait for the archive: {delay}. Wait until there are fewer"),
        None => format!("{waiting} files wait for the archive"),
    };
    let finding = Finding::new(FindingKind::Archiver, leader, warns_if(warns), text);
    finding.with(waiting, FindingUnit::Files).limited(ARCHIVE_FILES)
}

/// Each slot that holds too much, or else the one that holds most.
fn held_wal(leader: &MemberName, slots: &[PreflightSlot]) -> Vec<Finding> {
    let holding = slots.iter().filter_map(|slot| Some((slot.held_bytes?, slot)));
    let found = |(bytes, slot): (u64, &PreflightSlot)| {
        let warns = HELD_BYTES <= bytes;
        let used = if slot.active { "" } else { ", which nobody uses now," };
        let advice = match (warns, slot.active) {
            (false, _) => "",
            (true, true) => ": look for what slows its reader down",
            (true, false) => ": if nobody needs it, SELECT pg_drop_replication_slot of it",
        };
        let text = format!("the slot {}{used} holds {} of WAL{advice}", slot.name, size(bytes));
        let finding = Finding::new(FindingKind::HeldWal, leader, warns_if(warns), text);
        finding.with(bytes, FindingUnit::Bytes).limited(HELD_BYTES)
    };
    let (many, few): (Vec<_>, Vec<_>) = holding.partition(|(bytes, _)| HELD_BYTES <= *bytes);
    match many.is_empty() {
        true => few.into_iter().max_by_key(|(bytes, _)| *bytes).map(found).into_iter().collect(),
        false => many.into_iter().map(found).collect(),
    }
}

fn standby<'a>(name: &MemberName, standbys: &'a [StandbyDelay]) -> Option<&'a StandbyDelay> {
    standbys.iter().find(|it| it.name.eq_ignore_ascii_case(name.as_str()))
}

/// A candidate that streams from another standby has no row at the leader.
fn receive_delay(name: &MemberName, standbys: &[StandbyDelay]) -> Option<Finding> {
    let delay = standby(name, standbys)?.flush_ms.unwrap_or_default();
    let text = format!("WAL is on the disk of {name} after {}", seconds(delay));
    let finding = Finding::new(FindingKind::ReceiveDelay, name, warns_if(RECEIVE_MS <= delay), text);
    Some(finding.with(delay, FindingUnit::Milliseconds).limited(RECEIVE_MS))
}

/// Whether the candidate has a logical slot of the leader.
fn logical_slot(name: &MemberName, slot: &PreflightSlot, facts: &PreflightFacts) -> Finding {
    let copy = facts.slots.iter().find(|copy| copy.name == slot.name && copy.logical);
    let slot_name = &slot.name;
    let by_postgres = slot.failover && SYNCHRONIZES_SLOTS <= facts.server_version;
    let missing = match copy {
        None if by_postgres => format!(
            "{name} has no copy of the logical slot {slot_name}, whose reader would have to start anew: set \
             sync_replication_slots, hot_standby_feedback and primary_slot_name there, and wait until it has"
        ),
        None => format!(
            "{name} has no copy of the logical slot {slot_name}, whose reader would have to start anew: name it in \
             `slots` of the dynamic configuration, and wait until it has"
        ),
        Some(copy) if copy.lost => {
            format!("the logical slot {slot_name} on {name} is invalid: see the log of its PostgreSQL")
        }
        Some(copy) if by_postgres && (copy.temporary || !copy.synced) => {
            format!("the logical slot {slot_name} on {name} is not synchronized yet: wait until it is")
        }
        Some(_) => {
            let text = format!("{name} has the logical slot {slot_name}");
            return Finding::new(FindingKind::LogicalSlot, name, FindingVerdict::Fine, text);
        }
    };
    Finding::new(FindingKind::LogicalSlot, name, FindingVerdict::Warns, missing)
}

/// The next leader holds WAL for the same readers.
fn free_space(name: &MemberName, disk: &FreeSpace, held_bytes: u64) -> Finding {
    let FreeSpace { directory, free_bytes, total_bytes } = disk;
    let limit = FREE_BYTES.max(held_bytes);
    let warns = *free_bytes < limit;
    let advice = match (warns, FREE_BYTES < held_bytes) {
        (false, _) => String::new(),
        (true, false) => ": make room there first".to_owned(),
        (true, true) => format!(", and a slot holds {} of WAL now: make room there first", size(held_bytes)),
    };
    let (free, total) = (size(*free_bytes), size(*total_bytes));
    let text = format!("{free} of {total} are free in {directory} on {name}{advice}");
    let finding = Finding::new(FindingKind::FreeSpace, name, warns_if(warns), text);
    finding.with(*free_bytes, FindingUnit::Bytes).limited(limit)
}

#[cfg(test)]
mod tests;
