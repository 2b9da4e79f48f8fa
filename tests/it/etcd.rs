//! `matriarch::etcd` against real etcd processes.

use std::future::Future;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use matriarch::core::store::Cas;
use matriarch::etcd::{Etcd, EtcdError, EtcdSetup, LeaseKeeper, TlsFiles, watch};
use matriarch::model::{
    ClusterStatus, Leading, LeaseFacts, LeaseId, Lsn, MemberName, MemberRecord, MemberState,
    TakeLeadershipPreconditions, Term, Timeline, View,
};
use matriarch::os::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch as cell;

use crate::support::free_port;

mod keys;
mod lease;
mod origin;
mod races;
mod recruit;
mod tls;

const BASE: &str = "/service/test/";
const BEFORE_ALL: TakeLeadershipPreconditions =
    TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked: 1, deposes: None };
const ANY: TakeLeadershipPreconditions =
    TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked: 1_000_000, deposes: None };
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of the test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("matriarch-etcd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One etcd, killed at the end.
struct Server {
    child: Child,
    url: String,
    peer: String,
    scratch: Scratch,
    tls: Option<TlsFiles>,
}

impl Server {
    async fn start() -> Server {
        Server::start_with(Scratch::new(), None).await
    }

    async fn start_with(scratch: Scratch, tls: Option<TlsFiles>) -> Server {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let child = spawn(&url, &peer, &scratch.0);
        let server = Server { child, url, peer, scratch, tls };
        server.wait_up().await;
        server
    }

    async fn start_three() -> Vec<Server> {
        let peers: Vec<String> = (0..3).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        let everyone: Vec<String> =
            peers.iter().enumerate().map(|(index, peer)| format!("m{index}={peer}")).collect();
        let everyone = everyone.join(",");
        let start = |(index, peer): (usize, String)| {
            let (scratch, url) = (Scratch::new(), format!("http://127.0.0.1:{}", free_port()));
            let child = spawn_as(&format!("m{index}"), &everyone, &url, &peer, &scratch.0);
            Server { child, url, peer, scratch, tls: None }
        };
        let servers: Vec<Server> = peers.into_iter().enumerate().map(start).collect();
        for server in &servers {
            server.wait_up().await;
        }
        servers
    }

    async fn wait_up(&self) {
        until("etcd answers", async || {
            let etcd = Etcd::connect(self.setup()).expect("a sound setup");
            !matches!(
                etcd.read(Duration::from_secs(1)).await,
                Err(EtcdError::Unknown(_) | EtcdError::Timeout(_))
            )
        })
        .await;
    }

    async fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.url, &self.peer, &self.scratch.0);
        self.wait_up().await;
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("etcd is there");
    }

    fn setup(&self) -> EtcdSetup {
        EtcdSetup {
            endpoints: vec![self.url.clone()],
            tls: self.tls.clone(),
            base: BASE.to_owned(),
            ..EtcdSetup::default()
        }
    }

    fn connect(&self) -> Etcd {
        Etcd::connect(self.setup()).expect("a sound setup")
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url))
            .args(arguments)
            .output()
            .expect("etcdctl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(url: &str, peer: &str, directory: &Path) -> Child {
    spawn_as("one", &format!("one={peer}"), url, peer, directory)
}

fn spawn_as(name: &str, everyone: &str, url: &str, peer: &str, directory: &Path) -> Child {
    let mut command = Command::new("etcd");
    command
        .args(["--log-level=error", "--unsafe-no-fsync"])
        .arg(format!("--name={name}"))
        .arg(format!("--data-dir={}", directory.join("data").display()))
        .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster={everyone}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if url.starts_with("https") {
        command.arg("--client-cert-auth");
        for (option, file) in
            [("trusted-ca-file", "ca.pem"), ("cert-file", "server.pem"), ("key-file", "server.key")]
        {
            command.arg(format!("--{option}={}", directory.join(file).display()));
        }
    }
    command.spawn().expect("etcd is installed")
}

/// Waits for a level.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn keep(setup: EtcdSetup, ttl: u64) -> LeaseKeeper {
    lease::keep_with(setup, ttl, None, |_| true)
}

async fn facts(keeper: &LeaseKeeper, what: &str, holds: impl Fn(&LeaseFacts) -> bool) -> LeaseFacts {
    let mut receiver = keeper.facts();
    soon(what, receiver.wait_for(|facts| holds(facts))).await.expect("the thread runs").clone()
}

async fn granted(keeper: &LeaseKeeper) -> LeaseId {
    let facts = facts(keeper, "a confirmed lease", |facts| facts.deadline.is_some()).await;
    facts.lease.expect("a lease with its deadline")
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

fn record(text: &str) -> MemberRecord {
    serde_json::from_str(text).expect("a valid record")
}

fn term(cas: Cas) -> Term {
    Term(cas.revision().expect("the change was done"))
}

async fn read(etcd: &Etcd) -> matriarch::model::ClusterView {
    etcd.read(Duration::from_secs(5)).await.expect("etcd is up")
}

fn is_done(answer: Result<Cas, EtcdError>) -> bool {
    matches!(answer, Ok(Cas::Done(_)))
}

#[tokio::test]
async fn reads_what_patroni_wrote() {
    let server = Server::start().await;
    for (key, value) in [
        ("initialize", "7301234567890123456"),
        ("leader", "node-1"),
        (
            "members/node-1",
            r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"master","version":"3.0.0","xlog_location":84171080,"timeline":2}"#,
        ),
        ("members/node-2", r#"{"state":17,"role":"replica","timeline":2}"#),
        ("members/node-3", "not json"),
        ("members/a/b", "{}"),
        ("status", r#"{"optime":117441192,"slots":{"node_2":117441192},"retain_slots":["node_1"]}"#),
        (
            "history",
            r#"[[1,84170568,"no recovery target specified"],[2,84171880,"x","2026-11-22T21:52:27+00:00","node-3"]]"#,
        ),
        ("sync", r#"{"leader":"node-1","quorum":0,"sync_standby":null}"#),
        ("failover", "node-1:node-2"),
    ] {
        server.ctl(&["put", &format!("{BASE}{key}"), value]);
    }
    let view = read(&server.connect()).await;
    assert_eq!(view.system_id(), Some(7_301_234_567_890_123_456));
    assert_eq!(view.leader.as_ref().expect("a leader").lease, None);
    assert_eq!(view.members.len(), 3);
    assert_eq!(view.members[&name("node-1")].record.lsn(), Some(Lsn(84_171_080)));
    let damaged = &view.members[&name("node-2")].record;
    assert_eq!((damaged.state, damaged.timeline), (MemberState::Unknown, Some(Timeline(2))));
    assert_eq!(view.members[&name("node-3")].record.state, MemberState::Unknown);
    assert_eq!(view.timeline(), Some(Timeline(3)));
    assert_eq!(view.status.expect("a status").retain_slots, Some(vec!["node_1".to_owned()]));
    assert_eq!(view.failover.expect("a request").request.candidate, Some(name("node-2")));
}

#[tokio::test]
async fn one_of_two_takes_leadership_and_hands_it_over() {
    let server = Server::start().await;
    let (etcd, other) = (server.connect(), server.connect());
    let (one, two) = (keep(server.setup(), 10), keep(server.setup(), 10));
    let (lease_1, lease_2) = (granted(&one).await, granted(&two).await);
    let (n1, n2) = (name("n-1"), name("n-2"));
    let (take_1, take_2) =
        (etcd.keys().take_leadership(&n1, lease_1, ANY), etcd.keys().take_leadership(&n2, lease_2, ANY));
    let (a, b) = tokio::join!(etcd.commit(&take_1), other.commit(&take_2));
    assert!(is_done(a.clone()) != is_done(b.clone()), "{a:?} {b:?}");
    let first = term(if is_done(a.clone()) { a.clone() } else { b }.expect("one won"));
    let (winner, from, to_keeper, to, to_lease) =
        if is_done(a) { (&one, lease_1, &two, n2, lease_2) } else { (&two, lease_2, &one, n1, lease_1) };
    winner.renew_now();
    facts(winner, "the winner knows", |facts| facts.leading == Leading::Yes(first)).await;

    let status = ClusterStatus { optime: Some(Lsn(5)), ..ClusterStatus::default() };
    let moved = etcd.keys().hand_over((first, from), &to, to_lease, Some(&status));
    let hand_over = || etcd.commit(&moved);
    assert_eq!(hand_over().await, Ok(Cas::Lost), "the candidate has no member key");
    let member = record("{}");
    assert!(is_done(etcd.commit(&etcd.keys().publish_member(&to, to_lease, &member)).await));
    let second = term(hand_over().await.expect("etcd is up"));
    assert!(second > first);
    let view = read(&etcd).await;
    assert_eq!(view.leader.expect("a leader").lease, Some(to_lease));
    assert_eq!(view.status.as_ref(), Some(&status));
    to_keeper.renew_now();
    facts(to_keeper, "the candidate leads", |facts| facts.leading == Leading::Yes(second)).await;
    winner.renew_now();
    facts(winner, "the former leader knows", |facts| facts.leading == Leading::No).await;

    assert_eq!(etcd.commit(&etcd.keys().publish_status((first, from), &status)).await, Ok(Cas::Lost));
    assert_eq!(etcd.commit(&etcd.keys().publish_history((first, from), &[])).await, Ok(Cas::Lost));
    assert_eq!(etcd.commit(&etcd.keys().release_leadership((first, from), None)).await, Ok(Cas::Lost));
    assert!(is_done(etcd.commit(&etcd.keys().release_leadership((second, to_lease), Some(&status))).await));
    assert_eq!(read(&etcd).await.leader, None);
}

#[tokio::test]
async fn an_abandoned_lease_expires_and_a_revoked_one_is_gone_at_once() {
    let server = Server::start().await;
    let etcd = server.connect();
    let (one, two) = (keep(server.setup(), 2), keep(server.setup(), 60));
    let (lease_1, lease_2) = (granted(&one).await, granted(&two).await);
    assert!(is_done(etcd.commit(&etcd.keys().publish_member(&name("n-1"), lease_1, &record("{}"))).await));
    assert!(is_done(etcd.commit(&etcd.keys().take_leadership(&name("n-2"), lease_2, ANY)).await));
    let keeper_facts = one.facts();
    drop(one);
    let deadline = keeper_facts.borrow().deadline.expect("it was confirmed");
    until("the member key is gone", async || read(&etcd).await.members.is_empty()).await;
    assert!(clock::now() > deadline, "etcd kept the lease at least until the deadline");
    soon("the revocation", two.revoke()).await.expect("revoked");
    assert_eq!(read(&etcd).await.leader, None);
}

#[tokio::test]
async fn a_frozen_etcd_costs_no_lease_and_moves_no_deadline() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keeper = keep(server.setup(), 8);
    let lease = granted(&keeper).await;
    let first =
        term(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await.expect("etcd is up"));
    keeper.renew_now();
    facts(&keeper, "leading", |facts| facts.leading == Leading::Yes(first)).await;
    server.signal(Signal::SIGSTOP);
    keeper.renew_now();
    let frozen = facts(&keeper, "trouble", |facts| facts.trouble.is_some()).await;
    assert_eq!((frozen.lease, frozen.leading), (Some(lease), Leading::Yes(first)));
    server.signal(Signal::SIGCONT);
    let after = facts(&keeper, "recovery", |facts| facts.deadline > frozen.deadline).await;
    assert_eq!((after.lease, after.leading, after.trouble), (Some(lease), Leading::Yes(first), None));
}

#[tokio::test]
async fn a_lost_lease_is_replaced() {
    let server = Server::start().await;
    let keeper = keep(server.setup(), 10);
    let lease = granted(&keeper).await;
    server.ctl(&["lease", "revoke", &lease.to_string()]);
    keeper.renew_now();
    let next =
        facts(&keeper, "another lease", |facts| facts.lease != Some(lease) && facts.deadline.is_some()).await;
    assert_eq!(next.leading, Leading::No);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_no_time() {
    let server = Server::start().await;
    let hole = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let accepted = std::thread::spawn({
        let hole = hole.try_clone().expect("a second handle");
        move || hole.incoming().take(64).collect::<Vec<std::io::Result<TcpStream>>>()
    });
    let closed = format!("http://127.0.0.1:{}", free_port());
    let hole_url = format!("http://{}", hole.local_addr().expect("its address"));
    let setup = EtcdSetup { endpoints: vec![hole_url, closed, server.url.clone()], ..server.setup() };
    let keeper = keep(setup.clone(), 3);
    granted(&keeper).await;
    let mut receiver = keeper.facts();
    for _ in 0..4 {
        soon("a renewal", receiver.changed()).await.expect("the thread runs");
        let left = clock::now().until(receiver.borrow().deadline.expect("a deadline"));
        assert!(left > Duration::from_secs(1), "{left:?} left");
        keeper.renew_now();
    }
    let etcd = Etcd::connect(setup).expect("a sound setup");
    let lease = keeper.facts().borrow().lease.expect("a lease");
    assert!(is_done(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await));
    let started = Instant::now();
    read(&etcd).await;
    assert!(started.elapsed() < Duration::from_millis(300), "the dead ones rank last by now");
    drop(accepted);
}

#[tokio::test]
async fn the_freeze_of_any_etcd_member_costs_no_lease() {
    let servers = Server::start_three().await;
    let endpoints = servers.iter().map(|server| server.url.clone()).collect();
    let setup = EtcdSetup { endpoints, ..servers[0].setup() };
    let etcd = Etcd::connect(setup.clone()).expect("a sound setup");
    let keeper = keep(setup, 6);
    let lease = granted(&keeper).await;
    let first = term(
        etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await.expect("a quorum is up"),
    );
    keeper.renew_now();
    facts(&keeper, "leading", |facts| facts.leading == Leading::Yes(first)).await;
    for server in &servers {
        server.signal(Signal::SIGSTOP);
        let frozen_at = clock::now();
        // Renewals sent after the freeze have been confirmed, even if it hit the etcd leader.
        let renewed = frozen_at + Duration::from_secs(6);
        let after = facts(&keeper, "a renewal", |facts| facts.deadline > Some(renewed)).await;
        assert_eq!((after.lease, after.leading), (Some(lease), Leading::Yes(first)));
        assert!(frozen_at.until(clock::now()) < Duration::from_secs(5), "before the old deadline");
        read(&etcd).await;
        server.signal(Signal::SIGCONT);
        until("the member is back", async || server.connect().read(Duration::from_millis(500)).await.is_ok())
            .await;
    }
}

/// Forwards to `server`. A message makes it abandon all open connections: they stay open and carry no more data.
async fn forgetful_proxy(server: &Server) -> (String, cell::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let target = server.url.trim_start_matches("http://").to_owned();
    let (forget, forgotten) = cell::channel(());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (target, mut forgotten) = (target.clone(), forgotten.clone());
            forgotten.mark_unchanged();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(target).await.expect("etcd is up");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = forgotten.changed() => std::future::pending().await,
                }
            });
        }
    });
    (url, forget)
}

#[tokio::test]
async fn connections_that_went_dead_silently_cost_no_lease() {
    let server = Server::start().await;
    let (url, forget) = forgetful_proxy(&server).await;
    let setup = EtcdSetup { endpoints: vec![url], ..server.setup() };
    let etcd = Etcd::connect(setup.clone()).expect("a sound setup");
    let (_every, relist_every) = cell::channel(Duration::from_secs(1));
    let mut views = watch(etcd, relist_every);
    shown(&mut views, "the first list", |_| true).await;
    let keeper = keep(setup, 10);
    let lease = granted(&keeper).await;
    forget.send(()).expect("the proxy runs");
    let dead_at = clock::now();
    keeper.renew_now();
    let renewed = Some(dead_at + Duration::from_secs(10));
    let after = facts(&keeper, "a renewal", |facts| facts.deadline > renewed).await;
    assert_eq!(after.lease, Some(lease));
    assert!(dead_at.until(clock::now()) < Duration::from_secs(8));
    server.ctl(&["put", "/service/test/leader", "n-9"]);
    shown(&mut views, "the change", |view| view.cluster.leader.is_some()).await;
}

async fn shown(views: &mut cell::Receiver<Option<View>>, what: &str, holds: impl Fn(&View) -> bool) -> View {
    let view = soon(what, views.wait_for(|view| view.as_ref().is_some_and(&holds))).await;
    view.expect("the watch runs").clone().expect("just seen")
}

#[tokio::test]
async fn the_watch_is_fast_and_survives_compaction_and_restarts() {
    let mut server = Server::start().await;
    let etcd = server.connect();
    let (_every, relist_every) = cell::channel(Duration::from_secs(60));
    let mut views = watch(etcd.clone(), relist_every);
    shown(&mut views, "the first list", |_| true).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=20 {
        let text = format!("{{\"ttl\":{round}}}");
        let revision = etcd
            .commit(&etcd.keys().write_config(&text, None))
            .await
            .expect("etcd is up")
            .revision()
            .expect("done");
        let started = Instant::now();
        shown(&mut views, "the change", |view| view.cluster.revision >= revision).await;
        slowest = slowest.max(started.elapsed());
    }
    eprintln!("slowest event after its write's answer: {slowest:?}");
    assert!(slowest < Duration::from_millis(200));
    let revision = views.borrow().as_ref().expect("a view").cluster.revision;
    server.ctl(&["compact", &revision.to_string()]);
    for restart in [false, true] {
        if restart {
            server.restart().await;
        }
        let text = format!("{{\"restart\":{restart}}}");
        until("etcd takes the change", async || {
            is_done(etcd.commit(&etcd.keys().write_config(&text, None)).await)
        })
        .await;
        shown(&mut views, "the change", |view| {
            view.cluster.config.as_ref().is_some_and(|config| config.text == text)
        })
        .await;
    }
    server.stop();
    let missed = views.borrow().as_ref().expect("a view").cluster.revision;
    server.restart().await;
    server.ctl(&["put", "/service/test/history", "[]"]);
    server.ctl(&["put", "/service/test/leader", "n-9"]);
    server.ctl(&["compact", &(missed + 2).to_string()]);
    shown(&mut views, "what happened meanwhile", |view| view.cluster.leader.is_some()).await;
}

#[tokio::test]
async fn a_password_is_used_and_a_wrong_one_is_recognized() {
    let server = Server::start().await;
    server.ctl(&["user", "add", "root:secret"]);
    server.ctl(&["user", "grant-role", "root", "root"]);
    server.ctl(&["auth", "enable"]);
    let setup = |password: &str| EtcdSetup {
        credentials: Some(("root".to_owned(), password.to_owned())),
        ..server.setup()
    };
    let etcd = Etcd::connect(setup("secret")).expect("a sound setup");
    read(&etcd).await;
    let keeper = keep(setup("secret"), 10);
    let lease = granted(&keeper).await;
    // Any change of the users makes every token invalid.
    server.ctl(&["--user=root:secret", "user", "add", "guest:x"]);
    assert!(is_done(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), lease, ANY)).await));
    keeper.renew_now();
    facts(&keeper, "a renewal with a new token", |facts| matches!(facts.leading, Leading::Yes(_))).await;
    let wrong = Etcd::connect(setup("guess")).expect("a sound setup");
    let answer = wrong.read(Duration::from_secs(5)).await;
    assert!(matches!(answer, Err(EtcdError::Authentication(_))), "{answer:?}");
    let none = server.connect().read(Duration::from_secs(5)).await;
    assert!(matches!(none, Err(EtcdError::Authentication(_))), "{none:?}");
}
