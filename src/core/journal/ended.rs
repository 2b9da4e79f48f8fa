//! The end of a term, by the leader: its troubles since it last led without any.

use std::time::Duration;

use super::Note;
use crate::decide::Leadership;
use crate::model::{
    ChangeRequest, JournalFact, JournalStep, LeaseTiming, Lsn, Moment, Process, Sighting, TermEnd, TermEnded,
    short_sentence,
};

/// A tick that comes so much later than it was to come comes from a process that did not run.
const FROZEN_FROM: Duration = Duration::from_secs(1);
/// Troubles older than this have nothing to do with the end of the term.
const TROUBLE_KEPT: Duration = Duration::from_secs(120);

/// The troubles of a leader, each when it was last seen.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    frozen: Option<(Moment, Duration)>,
    renewal: Option<(Moment, String)>,
    death: Option<(Moment, String)>,
    /// The first, the last and the number of those that count.
    crashes: Option<(Moment, Moment, usize)>,
    /// Until when the lease was covered when this member last led.
    covered_until: Option<Moment>,
    renewed_at: Option<Moment>,
    end_asked: Option<Moment>,
    pod_end: Option<(Moment, String)>,
}

impl Trouble {
    pub(super) fn note(&mut self, note: &Note<'_>, leadership: &Leadership, wake_by: Moment) {
        let (seen, now) = (note.seen, note.now);
        let late = now.since(wake_by);
        if wake_by != Moment::default() && FROZEN_FROM <= late {
            self.frozen = Some((now, late));
        }
        if let Some(trouble) = &seen.lease.trouble {
            self.renewal = Some((now, trouble.clone()));
        }
        if let Some(death) = seen.postgres.liveness.death() {
            let since = self.death.as_ref().map_or(now, |(since, _)| *since);
            self.death = Some((since, death.to_string()));
        }
        let crashes = &note.decision.memory.failures.crashes;
        if let (Some(first), Some(last)) = (crashes.first(), crashes.last()) {
            self.crashes = Some((*first, *last, crashes.len()));
        }
        if matches!(leadership, Leadership::Mine(_) | Leadership::Expiring(_)) {
            self.covered_until = seen.lease.covered_until().max(self.covered_until);
            let timing = LeaseTiming { ttl: seen.lease.ttl };
            let sent_at = |deadline| deadline - seen.lease.ttl.saturating_sub(timing.drift_allowance());
            self.renewed_at = seen.lease.deadline.map(sent_at).max(self.renewed_at);
        }
        if seen.shutting_down {
            self.end_asked = self.end_asked.or(Some(now));
        }
        if let Some(end) = seen.pod_end {
            self.pod_end = Some((now, end.to_string()));
        }
        let is_old = |at: Moment| at + TROUBLE_KEPT < now;
        self.frozen.take_if(|(at, _)| is_old(*at));
        self.renewal.take_if(|(at, _)| is_old(*at));
        self.death.take_if(|(at, _)| is_old(*at));
    }

    /// Since when this member's decisions have to do with the end of its term, if it last served undisturbed then.
    pub(super) fn since(&self, served_at: Moment) -> Moment {
        self.crashes.map_or(served_at, |(first, ..)| first.min(served_at))
    }

    fn sightings(&self, note: &Note<'_>, how: &TermEnd) -> Vec<Sighting> {
        let at = |at: Moment, what: JournalFact| Sighting { at: note.wall(at), what };
        let mut all = Vec::new();
        all.extend(self.frozen.map(|(moment, span)| {
            at(moment - span, JournalFact::Frozen { millis: span.as_millis().try_into().unwrap_or(u64::MAX) })
        }));
        all.extend(
            self.death
                .as_ref()
                .map(|(moment, death)| at(*moment, JournalFact::Unhealthy { death: short_sentence(death) })),
        );
        all.extend(self.crashes.map(|(_, moment, times)| at(moment, JournalFact::Crashed { times })));
        if !matches!(how, TermEnd::HandedOver { .. }) {
            all.extend(down(note).map(|what| at(note.now, what)));
        }
        if *how == TermEnd::RanOut
            && let Some(renewed) = self.renewed_at
        {
            let until = self.covered_until.map_or(note.now, |until| until.min(note.now));
            all.push(at(renewed, JournalFact::NotRenewed { seconds: until.since(renewed).as_secs() }));
            all.extend(self.renewal.as_ref().map(|(moment, trouble)| {
                at(*moment, JournalFact::RenewalFailed { trouble: short_sentence(trouble) })
            }));
        }
        all.extend(self.end_asked.map(|moment| at(moment, JournalFact::EndAsked)));
        all.extend(
            self.pod_end.as_ref().map(|(moment, end)| at(*moment, JournalFact::PodEnds { end: end.clone() })),
        );
        if note.seen.watchdog_failed {
            all.push(at(note.now, JournalFact::WatchdogFailed));
        }
        all
    }
}

fn down(note: &Note<'_>) -> Option<JournalFact> {
    match &note.seen.postgres.process {
        Process::Down { exit: Some(exit) } => Some(JournalFact::PostgresDown { exit: exit.clone() }),
        Process::Down { exit: None } | Process::Up { .. } => None,
    }
}

/// The way, where this member did not give the key away itself.
pub(super) fn how(note: &Note<'_>, leadership: &Leadership, trouble: &Trouble) -> TermEnd {
    let ran_out = trouble.covered_until.is_none_or(|until| until <= note.now);
    match leadership {
        Leadership::Other(leader) if !ran_out => TermEnd::Replaced { by: leader.name.clone() },
        Leadership::Nobody if !ran_out => TermEnd::Deleted,
        Leadership::Mine(_)
        | Leadership::Expiring(_)
        | Leadership::Unconfirmed
        | Leadership::FormerSelf(_)
        | Leadership::Other(_)
        | Leadership::Nobody
        | Leadership::Unknown => TermEnd::RanOut,
    }
}

pub(super) fn term(
    how: TermEnd,
    note: &Note<'_>,
    trouble: &Trouble,
    (request, position): (Option<ChangeRequest>, Lsn),
    steps: Vec<JournalStep>,
) -> TermEnded {
    let seen = trouble.sightings(note, &how);
    TermEnded { how, request, seen, steps, position }
}
