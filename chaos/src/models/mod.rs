//! Small models, visited to the last state: every order in which a few members, etcd and time can do a few things.
//!
//! ```text
//!  lease      who may write, and until when                        the product's Renewal, LeaseFacts and LeaseTiming
//!  hand_over  a switchover, with every answer late, lost or twice   the product's decide
//!  recruit    a leader is replaced before its lease ends           the product's decide, transactions and SyncMachine
//!  check      visits a world, says what holds, and the shortest path to what does not
//! ```
//!
//! The simulation goes far into few of all possible lives; a small world goes into all of few. Each world can be broken
//! on purpose by one of its mutations, and then the checker has to find out.
//! Deliberately absent: fairness. Whatever a member does it may do late or never, which is what a freeze is.

mod check;
mod control_file;
mod hand_over;
mod lease;
mod recruit;

use std::process::ExitCode;

use check::{Report, Size};
use clap::ValueEnum;

/// Visits every state of the small models and says which promises hold.
#[derive(Debug, clap::Args)]
pub(crate) struct Models {
    /// Only this one.
    name: Option<World>,
    /// Breaks the protocol in this way, and expects that it is found out.
    #[arg(long)]
    mutation: Option<String>,
    /// The sizes of the tests, which take seconds.
    #[arg(long)]
    small: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum World {
    /// The lease: renewals, the guard, etcd's own change of leader, a shorter TTL.
    Lease,
    /// The hand-over: a switchover with crashes, late answers and writes of unknown outcome.
    HandOver,
    /// Recruiting: a leader that may live is replaced before its lease ends.
    Recruit,
}

/// Prints the reports; fails when a promise did not hold, or a mutation was not found out.
pub(crate) fn run(arguments: &Models) -> ExitCode {
    let wanted = |world: &&World| arguments.name.is_none_or(|name| name == **world);
    let size = if arguments.small { Size::Small } else { Size::Full };
    let mut reports = 0;
    let mut good = true;
    for world in World::value_variants().iter().filter(wanted) {
        if let Some(report) = visit(*world, arguments.mutation.as_deref(), size) {
            reports += 1;
            good &= report.is_as_expected();
            println!("{report}");
        }
    }
    if reports == 0 {
        eprintln!("no such mutation");
    }
    if good && reports > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `None` when this world does not know the mutation.
fn visit(world: World, mutation: Option<&str>, size: Size) -> Option<Report> {
    match world {
        World::Lease => named(mutation, lease::visit),
        World::HandOver => named(mutation, |mutation| hand_over::visit(mutation, size)),
        World::Recruit => named(mutation, |mutation| recruit::visit(mutation, size)),
    }
}

fn named<M: ValueEnum>(text: Option<&str>, visit: impl Fn(Option<M>) -> Report) -> Option<Report> {
    match text {
        None => Some(visit(None)),
        Some(text) => M::from_str(text, false).ok().map(|mutation| visit(Some(mutation))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unbroken every promise holds; broken in any of its ways a world says so.
    fn checks<M: ValueEnum + Copy>(visit: impl Fn(Option<M>) -> Report) {
        let report = visit(None);
        assert!(report.is_as_expected(), "{report}");
        for mutation in M::value_variants() {
            let report = visit(Some(*mutation));
            assert!(report.is_as_expected(), "{report}");
        }
    }

    #[test]
    fn the_lease() {
        checks(lease::visit);
    }

    #[test]
    fn the_hand_over() {
        checks(|mutation| hand_over::visit(mutation, Size::Small));
    }

    #[test]
    fn recruiting() {
        checks(|mutation| recruit::visit(mutation, Size::Small));
    }
}
