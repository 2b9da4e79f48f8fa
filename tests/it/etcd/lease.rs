//! The lease: a change of its TTL, and the takeover of an existing one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use matriarch::etcd::{Etcd, EtcdSetup, LeaseHooks, LeaseKeeper, PromisingMembers, keep_lease};
use matriarch::model::{FailsafeMembers, Leading, LeaseFacts, LeaseId, MemberName};
use matriarch::os::clock;

use super::{ANY, Server, facts, granted, keep, name, read, term};

/// A keeper with this answer of the guard.
pub(super) fn keep_with(
    setup: EtcdSetup,
    ttl: u64,
    resumed: Option<LeaseId>,
    guard_holds: impl Fn(&LeaseFacts) -> bool + Send + 'static,
) -> LeaseKeeper {
    let etcd = Etcd::connect(setup).expect("sound");
    keep_lease(&etcd, Duration::from_secs(ttl), resumed, hooks(guard_holds)).expect("sound")
}

fn hooks(guard_holds: impl Fn(&LeaseFacts) -> bool + Send + 'static) -> LeaseHooks {
    LeaseHooks {
        on_confirmed: Box::new(|_: &LeaseFacts| ()),
        on_moving: Box::new(guard_holds),
        withheld: Box::new(|| None),
        members: Box::new(NoMembers),
    }
}

/// Failsafe mode is off.
struct NoMembers;

impl PromisingMembers for NoMembers {
    fn needed(&self, then: &mut dyn FnMut(&Option<FailsafeMembers>)) {
        then(&None);
    }

    fn ask(
        &self,
        _: &FailsafeMembers,
        _: &BTreeSet<MemberName>,
        _: Duration,
        _: Duration,
    ) -> BoxFuture<'static, BTreeSet<MemberName>> {
        Box::pin(std::future::ready(BTreeSet::new()))
    }
}

#[tokio::test]
async fn a_new_ttl_moves_leadership_to_a_new_lease() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keeper = keep(server.setup(), 30);
    let lease = granted(&keeper).await;
    let first =
        term(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await.expect("etcd is up"));
    keeper.set_ttl(Duration::from_secs(5));
    let moved = facts(&keeper, "the new lease leads", |facts| {
        facts.lease != Some(lease) && matches!(facts.leading, Leading::Yes(term) if term > first)
    })
    .await;
    let leader = read(&etcd).await.leader.expect("a leader");
    assert_eq!((leader.lease, leader.name), (moved.lease, name("n-1")));
    let limit = clock::now() + Duration::from_secs(5);
    assert!(moved.deadline.expect("a deadline") < limit, "the shorter TTL counts");
}

/// Without the guard's acknowledgement nothing moves: the present lease stays, and the move is tried again.
#[tokio::test]
async fn a_new_ttl_waits_for_the_guard() {
    let server = Server::start().await;
    let etcd = server.connect();
    let (holds, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let guard = (holds.clone(), asked.clone());
    let keeper = keep_with(server.setup(), 30, None, move |shorter| {
        let limit = clock::now() + Duration::from_secs(5);
        assert!(shorter.deadline.is_some_and(|at| at < limit), "armed before the key moves: {shorter:?}");
        guard.1.store(true, Ordering::SeqCst);
        guard.0.load(Ordering::SeqCst)
    });
    let lease = granted(&keeper).await;
    let first =
        term(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await.expect("etcd is up"));
    keeper.renew_now();
    facts(&keeper, "leading", |facts| facts.leading == Leading::Yes(first)).await;
    keeper.set_ttl(Duration::from_secs(5));
    // After the refusal the former lease is renewed, and the former deadline is in force again.
    let kept = facts(&keeper, "the lease is kept", |facts| {
        let later = clock::now() + Duration::from_secs(10);
        asked.load(Ordering::SeqCst) && facts.deadline.is_some_and(|at| later < at)
    })
    .await;
    assert_eq!((kept.lease, kept.leading), (Some(lease), Leading::Yes(first)));
    assert_eq!(read(&etcd).await.leader.expect("a leader").lease, Some(lease));
    holds.store(true, Ordering::SeqCst);
    let moved = facts(&keeper, "the new lease leads", |facts| facts.lease != Some(lease)).await;
    assert_eq!(moved.ttl, Duration::from_secs(5));
    assert_eq!(read(&etcd).await.leader.expect("a leader").lease, moved.lease);
}

/// A lease of a previous incarnation may have another TTL than the present settings: it is renewed within its own TTL,
/// and then replaced.
#[tokio::test]
async fn a_resumed_lease_gets_the_present_ttl() {
    let server = Server::start().await;
    let etcd = server.connect();
    let former = keep(server.setup(), 3);
    let lease = granted(&former).await;
    let first =
        term(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await.expect("etcd is up"));
    drop(former);
    let keeper = keep_with(server.setup(), 60, Some(lease), |_| true);
    let moved = facts(&keeper, "a lease with the present TTL leads", |facts| {
        let leads = matches!(facts.leading, Leading::Yes(term) if term > first);
        leads && facts.lease != Some(lease) && facts.ttl == Duration::from_secs(60)
    })
    .await;
    assert_eq!(read(&etcd).await.leader.expect("a leader").lease, moved.lease);
}

/// The new password is known here before etcd changes it: the lease is renewed on.
#[tokio::test]
async fn a_new_password_is_used_when_etcd_asks_for_it() {
    let server = Server::start().await;
    server.ctl(&["user", "add", "root:first"]);
    server.ctl(&["user", "grant-role", "root", "root"]);
    server.ctl(&["auth", "enable"]);
    let login = |password: &str| Some(("root".to_owned(), password.to_owned()));
    let etcd = Etcd::connect(EtcdSetup { credentials: login("first"), ..server.setup() }).expect("sound");
    let keeper = keep_lease(&etcd, Duration::from_secs(10), None, hooks(|_| true)).expect("sound");
    let lease = granted(&keeper).await;
    read(&etcd).await;
    etcd.set_credentials(login("second"));
    read(&etcd).await;
    let passwd = "echo second | etcdctl --user=root:first user passwd root --interactive=false --endpoints=";
    let mut command = std::process::Command::new("sh");
    let done = command.args(["-c", &format!("{passwd}{}", server.url)]).env("ETCDCTL_API", "3").status();
    assert!(done.expect("sh starts").success());
    read(&etcd).await;
    let before = keeper.facts().borrow().deadline;
    facts(&keeper, "a renewal", |facts| facts.lease == Some(lease) && before < facts.deadline).await;
}
