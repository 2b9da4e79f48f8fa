//! Calls between members over the fake loop.

use std::time::Duration;

use matriarch_proto::v1::peer_client::PeerClient;
use matriarch_proto::v1::{HeartbeatsRequest, HeartbeatsResponse, HelloRequest};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::{Rig, primary, rig};
use crate::model::{Heartbeat, LeaseFacts, Lsn, SyncKey, SyncRecord, Term};
use crate::os::clock;
use crate::peer::{HeartbeatSource, HelloCall, MacKey, PeerCall, PeerError, PeerKeys, Peers};

const SOON: Duration = Duration::from_secs(20);
const PATH: &str = "/matriarch.v1.Peer/Heartbeats";

fn keys(password: &str) -> PeerKeys {
    PeerKeys::of(&[password.to_owned()], false, "c")
}

/// A leader whose members know each other by a password.
async fn leader() -> Rig {
    let rig = rig(primary(clock::now())).await;
    rig.channel.sessions().use_keys(keys("p"));
    rig
}

fn source(rig: &Rig) -> HeartbeatSource {
    let text = str::to_owned;
    let api_url = format!("http://{}/patroni", rig.address);
    HeartbeatSource { scope: text("c"), from: text("n2"), leader: text("n1"), api_url }
}

/// Listens as a member does, until it has heard so many or the stream breaks.
async fn hear(source: &HeartbeatSource, keys: &PeerKeys, count: usize) -> Result<Vec<Heartbeat>, PeerError> {
    let mut heartbeats = Peers::default().listen(source, keys).await?;
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.push(heartbeats.next().await?);
    }
    Ok(heard)
}

#[tokio::test]
async fn a_member_hears_its_leader() {
    let rig = leader().await;
    rig.status.send_modify(|status| {
        let mut changed = (**status).clone();
        let now = clock::now();
        changed.postgres.liveness.connected_at = Some(now);
        changed.postgres.liveness.wrote_at = Some(now - Duration::from_secs(3));
        let mut view = super::view();
        let record = SyncRecord { leader: None, quorum: 0, voters: Default::default() };
        view.sync = Some(SyncKey { record, mod_revision: 6 });
        changed.last_view = Some(view.into());
        *status = changed.into();
    });
    let began_at = clock::now();
    let heard = timeout(SOON, hear(&source(&rig), &keys("p"), 5)).await.expect("soon").expect("it leads");
    let took = clock::now().since(began_at);
    assert!(Duration::from_millis(350) < took, "{took:?}");
    let numbers: Vec<u64> = heard.iter().map(|heartbeat| heartbeat.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let Heartbeat { term, flushed, proof_age, sync_revision, .. } = heard[0];
    assert_eq!((term, flushed, sync_revision), (Term(3), Lsn(1000), 6));
    assert!((Duration::from_secs(3)..SOON).contains(&proof_age), "{proof_age:?}");
}

#[tokio::test]
async fn a_member_without_a_valid_lease_is_silent() {
    let rig = leader().await;
    let lease = rig.status.borrow().lease.clone();
    let lead = |lease: LeaseFacts| {
        rig.status
            .send_modify(|status| *status = crate::agent::Status { lease, ..(**status).clone() }.into());
    };
    lead(LeaseFacts { deadline: Some(clock::now()), ..lease.clone() });
    let error = timeout(SOON, hear(&source(&rig), &keys("p"), 1)).await.expect("soon").expect_err("silence");
    assert!(matches!(error, PeerError::Timeout { .. }), "{error}");
    let (source, keys) = (source(&rig), keys("p"));
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        lead(lease);
    };
    let (heard, ()) = tokio::join!(hear(&source, &keys, 1), later);
    assert_eq!(heard.expect("the stream was open all the time")[0].number, 1);
}

#[tokio::test]
async fn who_does_not_know_the_password_is_refused() {
    let rig = leader().await;
    let refused = |from: HeartbeatSource, keys: PeerKeys| async move {
        let ended = timeout(SOON, hear(&from, &keys, 1)).await.expect("soon");
        ended.expect_err("it is refused").to_string()
    };
    let source = source(&rig);
    let text = refused(source.clone(), keys("q")).await;
    assert!(text.contains("does not prove that a member of the cluster makes it"), "{text}");
    let text = refused(HeartbeatSource { leader: "n3".to_owned(), ..source.clone() }, keys("p")).await;
    assert!(text.contains("this is n1 of the cluster c"), "{text}");
    let rotating = PeerKeys::of(&["new".to_owned(), "p".to_owned()], false, "c");
    assert!(hear(&source, &rotating, 1).await.is_ok(), "the former password of this member");
    rig.channel.sessions().use_keys(PeerKeys::default());
    let text = refused(source, keys("p")).await;
    assert!(text.contains("needs a password of the replication user"), "{text}");
}

/// A client that does what it likes.
struct RawClient {
    client: PeerClient<Channel>,
    session: u64,
    key: MacKey,
}

impl RawClient {
    async fn begin(rig: &Rig, key: &MacKey) -> RawClient {
        let endpoint = Endpoint::from_shared(format!("http://{}", rig.address)).expect("a URL");
        let mut client = PeerClient::new(endpoint.connect().await.expect("it speaks gRPC"));
        let (nonce, text) = ([7; 16], str::to_owned);
        let hello = HelloCall { scope: "c", from: "n2", to: "n1", nonce: &nonce };
        let mac = hello.mac(key).to_vec();
        let request =
            HelloRequest { scope: text("c"), from: text("n2"), to: text("n1"), nonce: nonce.to_vec(), mac };
        let welcome = client.hello(request).await.expect("it is proved").into_inner();
        let key = hello.session_key(key, &welcome.nonce, welcome.session);
        RawClient { client, session: welcome.session, key }
    }

    async fn call(&mut self, counter: u64, key: &MacKey) -> Result<Streaming<HeartbeatsResponse>, Status> {
        let call = PeerCall { session: self.session, counter, path: PATH, message: b"" };
        let mac: String = call.mac(key).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut request = Request::new(HeartbeatsRequest {});
        for (name, value) in [
            ("matriarch-session", self.session.to_string()),
            ("matriarch-counter", counter.to_string()),
            ("matriarch-mac", mac),
        ] {
            request.metadata_mut().insert(name, value.parse().expect("ASCII"));
        }
        Ok(self.client.heartbeats(request).await?.into_inner())
    }
}

#[tokio::test]
async fn unproved_and_repeated_calls_are_refused() {
    let rig = leader().await;
    let key = rig.channel.sessions().keys().keys[0].clone();
    let mut raw = RawClient::begin(&rig, &key).await;
    let refused = |outcome: Result<Streaming<HeartbeatsResponse>, Status>| {
        let status = outcome.expect_err("it is refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        status.message().to_owned()
    };
    let without = raw.client.heartbeats(HeartbeatsRequest {}).await.map(tonic::Response::into_inner);
    assert!(refused(without).contains("does not prove"));
    let wrong = raw.call(1, &key).await;
    assert!(refused(wrong).contains("does not prove"), "the key of the password is not that of the session");
    let own = raw.key.clone();
    let mut stream = raw.call(1, &own).await.expect("it is proved and new");
    assert!(stream.message().await.expect("it leads").is_some());
    let repeated = raw.call(1, &own).await;
    assert!(refused(repeated).contains("not newer than the last one"));
    raw.session += 1;
    let unknown = raw.call(2, &own).await;
    assert!(refused(unknown).contains("session is not known"));

    let mut newer = RawClient::begin(&rig, &key).await;
    assert!(stream.message().await.expect("it leads").is_some(), "a session without a call ends none");
    let own = newer.key.clone();
    let mut second = newer.call(1, &own).await.expect("it is proved and new");
    let ended = async { while stream.message().await.expect("it ends in order").is_some() {} };
    timeout(SOON, ended).await.expect("the newer session ends the older");
    assert!(second.message().await.expect("it leads").is_some());
}

/// No stream holds up the end of the supervisor.
#[tokio::test]
async fn a_stream_ends_with_the_loop() {
    let Rig { address, world, status, channel, _setup } = leader().await;
    let rig = Rig { address, world, status: status.clone(), channel, _setup };
    let (source, keys) = (source(&rig), keys("p"));
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop((status, rig));
    };
    let (ended, ()) = tokio::join!(timeout(SOON, hear(&source, &keys, 1000)), ending);
    let error = ended.expect("soon").expect_err("it ends").to_string();
    assert!(error.contains("broke"), "{error}");
}
