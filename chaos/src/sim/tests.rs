//! That the simulation tells the same story twice, and that it sees what it is there to see.

use std::time::Duration;

use super::false_alarm::{self, Calm};
use super::mutation::Mutation;
use super::run::{Ended, Request, run};

fn story(seed: u64, mutation: Option<Mutation>) -> Ended {
    run(&Request { seed, mutation, ..Request::default() })
}

/// How many seeds are tried when the story of the likely one has changed.
const SEEDS_TRIED: u64 = 400;

/// Some seed breaks this promise when the product is broken in this way, and not otherwise: the likely one, or another.
fn is_caught(mutation: Mutation, invariant: &str, likely: u64) {
    let breaks = |seed: &u64| {
        let only = Some(invariant.to_owned());
        let request = Request { seed: *seed, mutation: Some(mutation), only, ..Request::default() };
        run(&request).broken.is_some_and(|(broken, _)| broken == invariant)
    };
    let seed = std::iter::once(likely).chain(0..SEEDS_TRIED).find(breaks);
    let seed = seed.unwrap_or_else(|| panic!("{mutation:?} is not caught by {invariant}"));
    assert_eq!(story(seed, None).broken, None, "seed {seed} without the mutation");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let (one, two) = (story(5, None), story(5, None));
    assert_eq!((one.digest, one.steps, one.at), (two.digest, two.steps, two.at));
    assert_ne!(one.digest, story(6, None).digest);
    assert!(0 < one.promises && 0 < one.promotions);
}

#[test]
fn two_writers_are_seen() {
    is_caught(Mutation::DeadlineTooLate, "one_writer", 20);
    is_caught(Mutation::NoDeadManTimer, "one_writer", 129);
    is_caught(Mutation::IgnoreUnfenced, "one_writer", 97);
    is_caught(Mutation::ConfirmRunning, "one_writer", 70);
}

#[test]
fn two_writers_in_failsafe_mode_are_seen() {
    is_caught(Mutation::MostPromises, "one_writer", 217);
    is_caught(Mutation::PromisesForgotten, "one_writer", 208);
    is_caught(Mutation::UnlistedLeads, "one_writer", 1882);
    is_caught(Mutation::AnybodyPromises, "one_writer", 8);
    is_caught(Mutation::PredecessorForgotten, "one_writer", 65);
}

#[test]
fn a_writer_without_the_key_or_a_guard_is_seen() {
    is_caught(Mutation::TakeFromAnybody, "leased", 19);
    is_caught(Mutation::CountFromAnswer, "leased", 42);
    is_caught(Mutation::NoConfirmedRead, "leased", 0);
    is_caught(Mutation::ForgetFormerLease, "leased", 221);
    is_caught(Mutation::PromisesFromAnswer, "leased", 95);
}

#[test]
fn a_writer_without_a_guard_is_seen() {
    is_caught(Mutation::NoGuard, "guarded", 0);
    is_caught(Mutation::DisarmOnDoubt, "guarded", 18);
    is_caught(Mutation::TtlJump, "guarded", 34);
}

#[test]
fn a_guard_that_forgets_its_order_or_goes_too_early_is_seen() {
    is_caught(Mutation::DisarmOvertaken, "guarded", 18);
    is_caught(Mutation::RelieveEarly, "guarded", 6);
}

#[test]
fn a_leader_that_is_replaced_without_enough_promises_is_seen() {
    is_caught(Mutation::SuspicionPromises, "deposed", 5688);
    is_caught(Mutation::DeposeWithdrawn, "leased", 548);
}

#[test]
fn a_leader_that_stands_still_for_a_moment_stays_and_for_seconds_does_not() {
    let calm = |seed: u64, stalls_below: u64, secs: u64| {
        let calm = Calm {
            stalls_below: Duration::from_millis(stalls_below),
            lasts: Some(Duration::from_secs(secs)),
        };
        false_alarm::tell(&Request { seed, ..Request::default() }, calm).broken
    };
    (0..4).for_each(|seed| assert_eq!(calm(seed, 500, 60), None, "seed {seed}"));
    let broken = calm(2, 3_000, 60).expect("somebody else leads");
    assert_eq!(broken.0, "false_alarm", "{}", broken.1);
}

/// What nothing announces has to be looked for: a member that waits for another event loses half a second here.
#[test]
fn a_leader_whose_cable_is_pulled_is_replaced_without_a_pause() {
    for seed in 0..20 {
        let outage = false_alarm::outage(seed).expect("somebody leads");
        assert!(outage < Duration::from_millis(1_200), "seed {seed}: {outage:?}");
    }
}

#[test]
fn a_lost_commit_is_seen() {
    is_caught(Mutation::NoLagLimit, "loss", 42);
    is_caught(Mutation::HandOverUnproved, "loss", 349);
}

#[test]
fn a_commit_lost_under_the_sync_record_is_seen() {
    is_caught(Mutation::IgnoreSyncRecord, "loss", 18);
    is_caught(Mutation::ConfirmTooEarly, "loss", 4643);
}

#[test]
fn a_commit_lost_to_strangers_or_faulty_settings_is_seen() {
    is_caught(Mutation::TrustAnyAnswer, "loss", 978);
    is_caught(Mutation::SettingsByDefault, "loss", 1282);
}

#[test]
fn a_restored_store_that_is_trusted_is_seen() {
    is_caught(Mutation::TrustRestoredStore, "one_writer", 513);
}

#[test]
fn a_promotion_outside_the_sync_record_is_seen() {
    is_caught(Mutation::PromoteUnprepared, "sync_record", 0);
}

#[test]
fn a_label_out_of_its_time_is_seen() {
    is_caught(Mutation::LabelEarly, "labelled", 0);
    is_caught(Mutation::LabelLate, "labelled", 4);
}

#[test]
fn a_timeline_that_is_used_twice_is_seen() {
    is_caught(Mutation::ReuseTimelines, "timelines", 20);
    is_caught(Mutation::AttachUnchecked, "timelines", 8);
}

#[test]
fn a_start_in_place_where_it_is_not_certain_or_clients_come_too_early_is_seen() {
    is_caught(Mutation::GoesOnAfterAnybody, "timelines", 0);
    is_caught(Mutation::NoLockoutInPlace, "loss", 1466);
}

#[test]
fn a_last_copy_that_is_deleted_is_seen() {
    is_caught(Mutation::WipeBeforeClone, "last_copy", 26);
}

#[test]
fn a_second_cluster_is_seen() {
    is_caught(Mutation::ForgetCluster, "last_copy", 25);
}

#[test]
fn a_key_that_is_given_to_nobody_is_seen() {
    is_caught(Mutation::GiveToNobody, "kept", 14);
}

#[test]
fn a_cluster_that_does_not_heal_is_seen() {
    is_caught(Mutation::LogBlocks, "healing", 15);
}

#[test]
fn a_switchover_in_pause_that_leaves_no_primary_is_seen() {
    is_caught(Mutation::CandidateForgets, "healing", 29);
}

#[test]
fn a_view_that_is_never_read_again_is_seen() {
    is_caught(Mutation::NeverRelist, "healing", 28);
}

#[test]
fn a_synchronous_mode_that_is_not_in_force_is_seen() {
    is_caught(Mutation::NamesNotWritten, "sync_mode", 1);
}

#[test]
fn passwords_that_do_not_follow_their_secret_are_seen() {
    is_caught(Mutation::RolesUnchanged, "roles", 3);
    is_caught(Mutation::OnePassword, "roles", 48);
    is_caught(Mutation::FormerForgotten, "roles", 252);
    is_caught(Mutation::OwnRoleDropped, "roles", 3);
}

#[test]
fn a_driver_that_drops_or_ignores_something_is_seen() {
    is_caught(Mutation::StopDropped, "healing", 1);
    is_caught(Mutation::ExitIgnored, "healing", 0);
    is_caught(Mutation::HistoryIgnored, "healing", 0);
}

#[test]
fn a_driver_that_ignores_its_guard_is_seen() {
    is_caught(Mutation::GuardUnheard, "healing", 0);
}

#[test]
fn a_driver_that_does_something_twice_or_out_of_order_is_seen() {
    is_caught(Mutation::OutcomeTwice, "one_job", 1);
    is_caught(Mutation::CancelWithoutAbort, "one_job", 2);
    is_caught(Mutation::ArmAfterPromotion, "guarded", 3);
    is_caught(Mutation::GuardKillDropped, "one_writer", 34);
}
