//! `matriarch.v1.Peer`: sessions of members, and the leader's heartbeats.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use hyper::HeaderMap;
use hyper::http::request::Parts;
use matriarch_proto::v1::peer_server::Peer;
use matriarch_proto::v1::{HeartbeatsRequest, HeartbeatsResponse, HelloRequest, HelloResponse};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Request, Response, Status};

use super::Admission;
use super::admin::admission;
use crate::agent::{AdmittedSession, Handle, Hearer, HelloCall, PeerCall, PeerRefusal};
use crate::os::clock;

/// The time from one heartbeat to the next.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);
/// The bytes before a message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// The service of one call.
pub(super) struct PeerService {
    pub(super) handle: Handle,
}

fn status(refusal: &PeerRefusal) -> Status {
    let sentence = refusal.to_string();
    match refusal {
        PeerRefusal::NotOffered => Status::unimplemented(sentence),
        PeerRefusal::Misdirected { .. } => Status::failed_precondition(sentence),
        PeerRefusal::Unproved | PeerRefusal::NoSession | PeerRefusal::Repeated => {
            Status::unauthenticated(sentence)
        }
    }
}

/// Admits a call within a session, by the proof in its metadata. `body`: the request's only frame.
pub(super) fn admit(handle: &Handle, head: &Parts, body: &[u8]) -> Result<AdmittedSession, Status> {
    let unproved = || status(&PeerRefusal::Unproved);
    let proof = CallProof::read(&head.headers).ok_or_else(unproved)?;
    let message = body.get(FRAME_HEAD..).ok_or_else(unproved)?;
    let CallProof { session, counter, mac } = proof;
    let call = PeerCall { session, counter, path: head.uri.path(), message };
    handle.channel().sessions().admit(&call, &mac).map_err(|refusal| status(&refusal))
}

/// What the metadata of a call say.
#[derive(Debug, PartialEq, Eq)]
struct CallProof {
    session: u64,
    counter: u64,
    mac: Vec<u8>,
}

impl CallProof {
    fn read(headers: &HeaderMap) -> Option<CallProof> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let number = |name: &str| text(name)?.parse().ok();
        let digits = text("matriarch-mac")?.as_bytes();
        let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        Some(CallProof {
            session: number("matriarch-session")?,
            counter: number("matriarch-counter")?,
            mac: pairs.collect::<Option<Vec<u8>>>()?,
        })
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type HeartbeatsStream = LeaderHeartbeats;

    async fn hello(&self, mut request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let certified = admission(&mut request)?.caller.certified;
        let HelloRequest { scope, from, to, nonce, mac } = request.into_inner();
        let call = HelloCall { scope: &scope, from: &from, to: &to, nonce: &nonce };
        let welcome = self.handle.channel().sessions().hello(&call, &mac, certified);
        let welcome = welcome.map_err(|refusal| status(&refusal))?;
        let (nonce, mac) = (welcome.nonce.to_vec(), welcome.mac.to_vec());
        Ok(Response::new(HelloResponse { session: welcome.session, nonce, mac }))
    }

    async fn heartbeats(
        &self,
        mut request: Request<HeartbeatsRequest>,
    ) -> Result<Response<LeaderHeartbeats>, Status> {
        let session = request.extensions_mut().remove::<AdmittedSession>();
        let session = session.ok_or_else(|| status(&PeerRefusal::Unproved))?;
        let mut every = tokio::time::interval(HEARTBEAT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (handle, admission) = (self.handle.clone(), admission(&mut request)?);
        let hearer = handle.channel().hearer();
        Ok(Response::new(LeaderHeartbeats {
            handle,
            session,
            every,
            number: 0,
            _hearer: hearer,
            _admission: admission,
        }))
    }
}

/// The heartbeats for one member. They are made when they are sent, where the connection is served: neither the loop
/// nor its jobs are in their way, and a process that is frozen makes none.
pub(super) struct LeaderHeartbeats {
    handle: Handle,
    session: AdmittedSession,
    every: Interval,
    number: u64,
    _hearer: Hearer,
    _admission: Arc<Admission>,
}

impl Stream for LeaderHeartbeats {
    type Item = Result<HeartbeatsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            ready!(self.every.poll_tick(context));
            let in_use = self.handle.channel().sessions().is_in_use(self.session.number);
            if !in_use || self.handle.has_ended() {
                return Poll::Ready(None);
            }
            if let Some(heartbeat) = self.handle.heartbeat(self.number + 1, clock::now()) {
                self.number += 1;
                return Poll::Ready(Some(Ok(self.session.sealed(&heartbeat))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_whole_or_not_at_all() {
        let read = |session: &str, counter: &str, mac: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in
                [("matriarch-session", session), ("matriarch-counter", counter), ("matriarch-mac", mac)]
            {
                headers.insert(name, value.parse().expect("ASCII"));
            }
            CallProof::read(&headers)
        };
        let most = u64::MAX;
        let proof = CallProof { session: most, counter: 7, mac: vec![0x0f, 0xa0] };
        assert_eq!(read(&most.to_string(), "7", "0fA0"), Some(proof));
        for (session, counter, mac) in [("-1", "7", "00"), ("1", "", "00"), ("1", "7", "0g"), ("1", "7", "é")]
        {
            assert_eq!(read(session, counter, mac), None, "{session} {counter} {mac}");
        }
        assert_eq!(CallProof::read(&HeaderMap::new()), None);
    }
}
