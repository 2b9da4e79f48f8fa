//! What the member has counted and measured since it started.

use super::Page;
use crate::model::Tally;

pub(super) fn text(page: &mut Page, tally: &Tally) {
    let began: Vec<_> = tally
        .terms_began()
        .map(|((kind, reason), count)| (format!("kind=\"{kind}\",reason=\"{reason}\""), count))
        .collect();
    page.counters(
        "matriarch_leadership_changes_total",
        "Number of times that this member became the leader and served.",
        &began,
    );
    let ended: Vec<_> =
        tally.terms_ended().map(|(reason, count)| (format!("reason=\"{reason}\""), count)).collect();
    page.counters(
        "matriarch_leadership_ends_total",
        "Number of times that this member ceased to be the leader.",
        &ended,
    );
    page.counter(
        "matriarch_hand_overs_refused_total",
        "Number of hand-overs by this leader that did not happen.",
        tally.refused,
    );
    page.counter(
        "matriarch_postgres_crashes_total",
        "Number of crashes of PostgreSQL while this member led.",
        tally.crashes,
    );
    page.counter(
        "matriarch_decisions_total",
        "Number of decisions that differ from the one before.",
        tally.decisions,
    );
    let outages: Vec<_> =
        tally.outages().map(|(kind, histogram)| (format!("kind=\"{kind}\","), histogram)).collect();
    page.histograms(
        "matriarch_outage_seconds",
        "Times without a primary that ended at this member, from the first sign that it saw.",
        &outages,
    );
    page.histograms(
        "matriarch_leadership_phase_seconds",
        "Parts of a change of leadership: until the decision to lead, and from there until PostgreSQL served.",
        &[
            ("phase=\"detection\",".to_owned(), &tally.detection),
            ("phase=\"promotion\",".to_owned(), &tally.promotion),
        ],
    );
    page.histograms(
        "matriarch_lease_margin_seconds",
        "Seconds that were left of the leader lease when a renewal was confirmed.",
        &[(String::new(), &tally.lease_margin)],
    );
}
