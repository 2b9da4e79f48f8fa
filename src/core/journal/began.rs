//! The beginning of a term: what was known when this member decided to lead.

use std::collections::BTreeMap;

use super::Note;
use super::watch::WatchedLeader;
use crate::model::{
    CandidateVerdict, ChangeKind, ChangeRequest, ClusterView, Considered, Deposal, FailoverKey, FormerLeader,
    Ineligible, JournalFact, JournalStep, LossBound, Lsn, MemberKey, MemberName, Moment, PeerAnswer, Reason,
    Sighting, Suspicion, SyncMode, SyncRecord, Term, TermBegan, WallTime, short_sentence,
};

/// A request is the cause of a change that comes within this time.
const REQUEST_COUNTS_MS: i64 = 60_000;

/// No member leads, as far as this member sees.
#[derive(Debug)]
pub(super) struct Vacancy {
    at: Moment,
    /// How the leader key went.
    what: Option<JournalFact>,
}

impl Vacancy {
    pub(super) fn of(note: &Note<'_>, watched: Option<&WatchedLeader>) -> Vacancy {
        let cluster = note.seen.view.as_ref().map(|view| &view.cluster);
        let what = watched.filter(|watched| watched.name != note.seen.me.name).map(|watched| {
            let leader = watched.name.clone();
            let key = cluster.and_then(|cluster| cluster.members.get(&leader));
            match key.filter(|key| key.lease == watched.lease) {
                Some(key) => JournalFact::KeyReleased { leader, state: state(key) },
                None => JournalFact::LeaseEnded { leader },
            }
        });
        Vacancy { at: note.now, what }
    }
}

/// What the member record says of its PostgreSQL.
fn state(key: &MemberKey) -> String {
    let state = format!("its PostgreSQL: {}", key.record.state);
    match &key.record.refusal {
        Some(refusal) => short_sentence(&format!("{state}; {refusal}")),
        None => state,
    }
}

/// I decide to take the leader key.
#[derive(Debug)]
pub(super) struct Taking {
    because: Reason,
    deposes: bool,
    considered: Vec<Considered>,
    elsewhere: Vec<JournalFact>,
    position: Lsn,
    /// Every acknowledged commit is here.
    is_vouched_for: bool,
    /// An operator has accepted what is lost.
    is_forced: bool,
    is_primary: bool,
    known_end: Option<Lsn>,
    request: Option<FailoverKey>,
    /// The term of the leader that is replaced; `None`: the key is vacant.
    pub(super) of_term: Option<Term>,
}

impl Taking {
    pub(super) fn of(note: &Note<'_>, deposes: Option<Deposal>) -> Taking {
        let seen = note.seen;
        let cluster = seen.view.as_ref().map(|view| &view.cluster);
        let sql = seen.postgres.answering();
        let mine = sql.map(|sql| sql.lsn()).unwrap_or_default();
        let record = cluster.and_then(ClusterView::sync_record);
        let record = record.filter(|_| seen.settings.sync.mode != SyncMode::Off);
        let request = cluster.and_then(|cluster| cluster.failover.clone());
        let is_forced = note.decision.because == Reason::AskedToLead
            && request.as_ref().is_some_and(|key| key.request.is_failover());
        let votes = |record: &&SyncRecord| record.is_voter(&seen.me.name) || record.is_leader(&seen.me.name);
        let proved = |record: &&SyncRecord| votes(record) && (!is_forced || record.quorum == 0);
        let others = cluster.into_iter().flat_map(|cluster| &cluster.members);
        let others = others.filter(|(name, _)| **name != seen.me.name);
        let judge = |(name, key): (&MemberName, &MemberKey)| {
            considered(name, key, seen.peers.get(name), cluster, mine)
        };
        let elsewhere = seen.peers.iter().filter_map(|(name, answer)| heard(name, answer, cluster));
        Taking {
            because: note.decision.because.clone(),
            deposes: deposes.is_some(),
            considered: others.map(judge).collect(),
            elsewhere: elsewhere.collect(),
            position: mine,
            is_vouched_for: record.filter(proved).is_some(),
            is_forced,
            is_primary: sql.is_some_and(|sql| sql.is_primary()),
            known_end: cluster.and_then(ClusterView::known_end),
            request,
            of_term: deposes.map(|deposal| deposal.term),
        }
    }
}

/// What another member says of the leader's heartbeats.
fn heard(member: &MemberName, answer: &PeerAnswer, cluster: Option<&ClusterView>) -> Option<JournalFact> {
    let leader = cluster?.leader.as_ref()?;
    let (name, member) = (leader.name.clone(), member.clone());
    match answer.suspicion {
        Suspicion::Suspects(term) if term == leader.term => {
            Some(JournalFact::SilentElsewhere { leader: name, member })
        }
        Suspicion::Hears(term) if term == leader.term => {
            Some(JournalFact::HeardElsewhere { leader: name, member })
        }
        Suspicion::Suspects(_) | Suspicion::Hears(_) | Suspicion::Unknown => None,
    }
}

fn considered(
    name: &MemberName,
    key: &MemberKey,
    answer: Option<&PeerAnswer>,
    cluster: Option<&ClusterView>,
    mine: Lsn,
) -> Considered {
    let record = cluster.and_then(ClusterView::sync_record);
    let barred = key.record.tags.nofailover().then_some(Ineligible::NoFailoverTag);
    let unvouched = record.is_some_and(|record| !record.is_voter(name) && !record.is_leader(name));
    let unfit = barred
        .or_else(|| answer?.eligible().err())
        .or_else(|| answer.filter(|answer| answer.yields).map(|_| Ineligible::Yields))
        .or_else(|| unvouched.then_some(Ineligible::NotVouchedFor));
    let verdict = match (unfit, answer) {
        (Some(Ineligible::Silent { trouble }), _) => {
            let trouble = trouble.map(|trouble| short_sentence(&trouble));
            CandidateVerdict::Unfit(Ineligible::Silent { trouble })
        }
        (Some(unfit), _) => CandidateVerdict::Unfit(unfit),
        (None, None) => CandidateVerdict::NotAsked,
        (None, Some(answer)) if answer.lsn < mine => CandidateVerdict::Behind(mine.bytes_since(answer.lsn)),
        (None, Some(answer)) if mine < answer.lsn => CandidateVerdict::Ahead(answer.lsn.bytes_since(mine)),
        (None, Some(_)) => CandidateVerdict::Equal,
    };
    let answered = answer.filter(|answer| answer.reachable);
    Considered {
        name: name.clone(),
        timeline: answered.and_then(|answer| answer.timeline),
        position: answered.map(|answer| answer.lsn).filter(|lsn| lsn.is_known()),
        verdict,
    }
}

type ChangeFacts = (Option<WatchedLeader>, Option<Vacancy>, Option<Taking>);

/// From when on the decisions belong to the change.
pub(super) fn since(note: &Note<'_>, (watched, vacancy, _): &ChangeFacts) -> Moment {
    let silent = watched.as_ref().filter(|watched| watched.is_silent).and_then(|watched| watched.heard_at);
    silent.or(vacancy.as_ref().map(|vacancy| vacancy.at)).unwrap_or(note.now)
}

/// The record of a term that begins, as far as it is known before PostgreSQL serves.
pub(super) fn term(
    note: &Note<'_>,
    (watched, vacancy, taking): ChangeFacts,
    steps: Vec<JournalStep>,
) -> TermBegan {
    let from = watched.as_ref().map(WatchedLeader::former).or_else(|| recorded(note));
    // A hand-over never leaves the key vacant.
    let is_moved = taking.is_none() && watched.is_some() && vacancy.is_none();
    let kind = kind(note, from.as_ref(), taking.as_ref(), is_moved);
    let because = match &taking {
        Some(taking) => taking.because.clone(),
        None => note.decision.because.clone(),
    };
    let position = taking.as_ref().map(|taking| taking.position).filter(|position| position.is_known());
    let mine = note.seen.postgres.answering().map(|sql| sql.lsn());
    TermBegan {
        kind,
        rule: if taking.is_some() { because.rule() } else { String::new() },
        because: short_sentence(&because.to_string()),
        request: request(note, watched.as_ref(), taking.as_ref()),
        seen: sightings(note, kind, (watched.as_ref(), vacancy.as_ref(), taking.as_ref())),
        loss: loss(note, kind, taking.as_ref()),
        considered: taking.map(|taking| taking.considered).unwrap_or_default(),
        more_considered: 0,
        from,
        steps,
        timeline: None,
        position: position.or(mine).unwrap_or_default(),
        versions: versions(note),
    }
}

/// The leader before, where this supervisor did not see it lead.
fn recorded(note: &Note<'_>) -> Option<FormerLeader> {
    let cluster = &note.seen.view.as_ref()?.cluster;
    let named = cluster.history.as_ref().and_then(|lines| lines.last()?.promoted.clone());
    let named = named.and_then(|name| MemberName::new(name).ok());
    let name = cluster.sync_record().and_then(|record| record.leader.clone()).or(named)?;
    let timeline = cluster.status.as_ref().and_then(|status| status.timeline);
    Some(FormerLeader { name, term: Term(0), timeline, position: cluster.known_end() })
}

fn kind(note: &Note<'_>, from: Option<&FormerLeader>, taking: Option<&Taking>, is_moved: bool) -> ChangeKind {
    let again = from.is_some_and(|from| from.name == note.seen.me.name);
    match taking {
        Some(taking) if taking.deposes => ChangeKind::Recruited,
        Some(taking) if taking.is_primary => ChangeKind::FoundAgain,
        _ if again => ChangeKind::Again,
        Some(taking) if taking.because == Reason::MadeCluster || from.is_none() => ChangeKind::First,
        None if is_moved => ChangeKind::HandOver,
        Some(_) | None => ChangeKind::Failover,
    }
}

fn request(
    note: &Note<'_>,
    watched: Option<&WatchedLeader>,
    taking: Option<&Taking>,
) -> Option<ChangeRequest> {
    let recent = |at: &WallTime| note.seen.wall.0 - at.0 <= REQUEST_COUNTS_MS;
    let watched = watched.and_then(|watched| watched.request.as_ref()).filter(|(_, at)| recent(at));
    let key = taking.and_then(|taking| taking.request.as_ref()).or(watched.map(|(key, _)| key))?;
    let waits = key.request.scheduled_at.is_some_and(|at| note.seen.wall.0 < at.0);
    let is_for_me = key.request.candidate.as_ref().is_none_or(|candidate| *candidate == note.seen.me.name);
    (!waits && is_for_me).then(|| ChangeRequest::of(key))
}

type Known<'a> = (Option<&'a WatchedLeader>, Option<&'a Vacancy>, Option<&'a Taking>);

fn sightings(note: &Note<'_>, kind: ChangeKind, (watched, vacancy, taking): Known<'_>) -> Vec<Sighting> {
    let at = |at: Moment, what: JournalFact| Sighting { at: note.wall(at), what };
    let mut all = Vec::new();
    let other = watched.filter(|watched| watched.name != note.seen.me.name);
    if let Some(watched) = other {
        let leader = watched.name.clone();
        match (watched.heard_at, watched.is_silent) {
            (Some(heard), true) => all.push(at(heard, JournalFact::LastHeartbeat { leader })),
            (Some(heard), false) if kind != ChangeKind::HandOver => {
                all.push(at(heard, JournalFact::StillHeard { leader }))
            }
            (None, _) if kind == ChangeKind::Failover => {
                all.push(at(note.now, JournalFact::NeverHeard { leader }))
            }
            (Some(_) | None, _) => {}
        }
    }
    all.extend(taking.iter().flat_map(|taking| &taking.elsewhere).map(|what| at(note.now, what.clone())));
    if let Some(Vacancy { at: moment, what: Some(what) }) = vacancy {
        all.push(at(*moment, what.clone()));
    }
    match (kind, other) {
        (ChangeKind::HandOver, Some(watched)) => {
            all.push(at(note.now, JournalFact::KeyMoved { leader: watched.name.clone() }))
        }
        (ChangeKind::Recruited, Some(watched)) => {
            all.push(at(note.now, JournalFact::Promised { leader: watched.name.clone() }))
        }
        (_, _) => {}
    }
    let unsettled = note.seen.view.as_ref().and_then(|view| view.cluster.unsettled());
    all.extend(
        unsettled
            .map(|key| at(note.now, JournalFact::StoreWentBack { why: short_sentence(&key.record.because) })),
    );
    all.extend(note.seen.writes.refused.clone().map(|why| at(note.now, JournalFact::WritesRefused { why })));
    all
}

fn loss(note: &Note<'_>, kind: ChangeKind, taking: Option<&Taking>) -> LossBound {
    match (kind, taking) {
        (ChangeKind::First, _) => LossBound::NothingYet,
        (ChangeKind::HandOver, _) => LossBound::NothingHandedOver,
        (ChangeKind::Again | ChangeKind::FoundAgain, _) => LossBound::NothingOwnData,
        (ChangeKind::Failover | ChangeKind::Recruited, Some(taking)) if taking.is_vouched_for => {
            LossBound::NothingSynchronous
        }
        (_, Some(Taking { is_forced: true, known_end, position, .. })) => {
            LossBound::Accepted { missing: known_end.map(|end| end.bytes_since(*position)) }
        }
        (
            ChangeKind::Failover | ChangeKind::Recruited,
            Some(Taking { known_end: Some(end), position, .. }),
        ) => LossBound::Asynchronous {
            missing: end.bytes_since(*position),
            limit: note.seen.settings.maximum_lag_on_failover,
        },
        (ChangeKind::Failover | ChangeKind::Recruited, _) => LossBound::Unknown,
    }
}

fn versions(note: &Note<'_>) -> BTreeMap<MemberName, String> {
    let members = note.seen.view.iter().flat_map(|view| &view.cluster.members);
    let version = |(name, key): (&MemberName, &MemberKey)| {
        let program = if key.record.session.is_some() { "matriarch" } else { "patroni" };
        (name.clone(), format!("{program} (interface {})", key.record.version))
    };
    let mut all: BTreeMap<_, _> = members.map(version).collect();
    let server = note.seen.postgres.answering().map_or(0, |sql| sql.server_version);
    let own = format!(
        "matriarch {}, PostgreSQL {}.{}",
        env!("CARGO_PKG_VERSION"),
        server / 10_000,
        server % 10_000
    );
    all.insert(note.seen.me.name.clone(), own);
    all
}
