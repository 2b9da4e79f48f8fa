//! What must hold, whatever happens: one file for each promise. A promise is checked where it could be broken; the
//! first that is broken ends the run.

use std::collections::BTreeMap;

use matriarch::model::{LeaseFacts, LeaseId, PodRole};

use crate::sim::clock::At;
use crate::sim::world::Sim;

pub(crate) mod healing;
pub(crate) mod kept;
pub(crate) mod labelled;
pub(crate) mod last_copy;
pub(crate) mod leased;
pub(crate) mod loss;
pub(crate) mod one_writer;
pub(crate) mod sync_record;
pub(crate) mod timelines;

/// What has to be remembered between two looks.
#[derive(Default)]
pub(crate) struct Memory {
    /// The highest term and timeline seen.
    pub(crate) term: i64,
    pub(crate) timeline: u32,
    /// Whom an operator wants to lead, whatever is lost, and since when.
    pub(crate) forced: BTreeMap<usize, At>,
    /// What each pod says of its role.
    pub(crate) labels: BTreeMap<usize, PodRole>,
}

/// After every step.
pub(crate) fn step(sim: &Sim) {
    one_writer::check(sim);
    leased::check(sim);
}

/// Somebody has just become primary.
pub(crate) fn promoted(sim: &Sim, member: usize) {
    sim.world().ledger.promotions += 1;
    timelines::promoted(sim, member);
    sync_record::promoted(sim, member);
    loss::promoted(sim, member);
}

/// A leader has deleted its key.
pub(crate) fn released(sim: &Sim, member: usize, ends: bool) {
    kept::released(sim, member, ends);
}

/// The leader key has moved to another lease of its leader.
pub(crate) fn moved(sim: &Sim, member: usize, lease: LeaseId) {
    leased::moved(sim, member, lease);
}

/// A renewal was confirmed.
pub(crate) fn renewed(sim: &Sim, member: usize, facts: &LeaseFacts) {
    leased::renewed(sim, member, facts);
}
