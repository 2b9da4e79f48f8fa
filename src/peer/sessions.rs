//! The serving side of the calls between members: it admits calls that are new and that prove to come from a member.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::heartbeat;
use super::mac::{MAC_BYTES, MacKey, MacLabel};
use crate::model::Heartbeat;
use crate::os::random;
use matriarch_proto::v1::HeartbeatsResponse;

/// The most sessions in which no call has arrived yet. More begin only where somebody repeats recorded calls.
const BEGUN_MAX: usize = 64;
/// The most sessions in use, one for each member that calls.
const IN_USE_MAX: usize = 64;

/// What members know each other by.
#[derive(Clone, Debug, Default)]
pub struct PeerKeys {
    /// The key of the newest password, then the one of the former.
    pub keys: Vec<MacKey>,
    /// There is no password: TLS with a certificate on both sides is the proof.
    pub by_certificate: bool,
}

impl PeerKeys {
    /// From the passwords of the replication user, the newest first. `certificates`: REST requires one of every client.
    pub fn of(passwords: &[String], certificates: bool, scope: &str) -> PeerKeys {
        let by_certificate = passwords.is_empty() && certificates;
        let passwords = passwords.iter().map(String::as_str).chain(by_certificate.then_some(""));
        PeerKeys {
            keys: passwords.map(|password| MacKey::of_password(password, scope)).collect(),
            by_certificate,
        }
    }
}

/// The beginning of a session, as a client sends it.
#[derive(Clone, Copy, Debug)]
pub struct HelloCall<'a> {
    /// The cluster's name.
    pub scope: &'a str,
    /// The member that calls.
    pub from: &'a str,
    /// The member that is meant.
    pub to: &'a str,
    /// The client's nonce.
    pub nonce: &'a [u8],
}

impl HelloCall<'_> {
    fn parts(&self) -> [&[u8]; 4] {
        [self.scope.as_bytes(), self.from.as_bytes(), self.to.as_bytes(), self.nonce]
    }

    /// The client's proof.
    pub fn mac(&self, key: &MacKey) -> [u8; MAC_BYTES] {
        key.mac(MacLabel::Hello, &self.parts())
    }

    /// The key of the session that follows.
    pub fn session_key(&self, key: &MacKey, nonce: &[u8], session: u64) -> MacKey {
        let [scope, from, to, own] = self.parts();
        key.derived(MacLabel::Session, &[scope, from, to, own, nonce, &session.to_be_bytes()])
    }
}

/// The answer to a [`HelloCall`].
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// The number of the session.
    pub session: u64,
    /// The server's nonce.
    pub nonce: [u8; MAC_BYTES],
    /// The server's proof.
    pub mac: [u8; MAC_BYTES],
}

/// A call within a session.
#[derive(Clone, Copy, Debug)]
pub struct PeerCall<'a> {
    /// The number of the session.
    pub session: u64,
    /// The number of the call.
    pub counter: u64,
    /// The path of the method.
    pub path: &'a str,
    /// The request's message.
    pub message: &'a [u8],
}

impl PeerCall<'_> {
    /// The client's proof, with the key of the session.
    pub fn mac(&self, key: &MacKey) -> [u8; MAC_BYTES] {
        let (session, counter) = (self.session.to_be_bytes(), self.counter.to_be_bytes());
        key.mac(MacLabel::Call, &[self.path.as_bytes(), &session, &counter, self.message])
    }

    fn is_proved(&self, key: &MacKey, mac: &[u8]) -> bool {
        let (session, counter) = (self.session.to_be_bytes(), self.counter.to_be_bytes());
        key.confirms(MacLabel::Call, &[self.path.as_bytes(), &session, &counter, self.message], mac)
    }
}

/// Why a member's call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Members cannot know each other here.
    #[error(
        "members do not call each other here: that needs a password of the replication user, or restapi.verify_client: \
         required"
    )]
    NotOffered,
    /// Another member was meant.
    #[error("this is {name} of the cluster {scope}")]
    Misdirected {
        /// The cluster's name.
        scope: String,
        /// This member.
        name: String,
    },
    /// The caller has not proved to be a member.
    #[error("this call does not prove that a member of the cluster makes it")]
    Unproved,
    /// The session is not known, or not any more.
    #[error("this session is not known")]
    NoSession,
    /// The call is one that was made before.
    #[error("this call is not newer than the last one of its session")]
    Repeated,
}

struct PeerSession {
    number: u64,
    key: MacKey,
    from: String,
    counter: u64,
}

/// The newest sessions.
#[derive(Default)]
struct NewestSessions {
    begun: VecDeque<PeerSession>,
    in_use: VecDeque<PeerSession>,
}

/// All sessions of this member's clients, and the keys. Sessions end with the process.
pub struct PeerSessions {
    scope: String,
    name: String,
    keys: RwLock<Arc<PeerKeys>>,
    sessions: Mutex<NewestSessions>,
}

/// A session in which a call has just been admitted.
#[derive(Clone, Debug)]
pub struct AdmittedSession {
    /// Its number.
    pub number: u64,
    key: MacKey,
}

impl AdmittedSession {
    /// The heartbeat as it is sent in this session.
    pub fn sealed(&self, heartbeat: &Heartbeat) -> HeartbeatsResponse {
        heartbeat::sealed(heartbeat, &self.key)
    }
}

impl PeerSessions {
    /// Of the member `name`; until it has keys, it refuses all.
    pub fn new(scope: &str, name: &str) -> PeerSessions {
        PeerSessions {
            scope: scope.to_owned(),
            name: name.to_owned(),
            keys: RwLock::default(),
            sessions: Mutex::default(),
        }
    }

    /// Uses these keys for the sessions that begin from now on.
    pub fn use_keys(&self, keys: PeerKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// The keys in use.
    pub fn keys(&self) -> Arc<PeerKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sessions(&self) -> MutexGuard<'_, NewestSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session with a caller that has proved to be a member. `certified`: it presented a certificate.
    ///
    /// # Errors
    /// The refusal.
    pub fn hello(&self, call: &HelloCall<'_>, mac: &[u8], certified: bool) -> Result<Welcome, PeerRefusal> {
        let keys = self.keys();
        if keys.keys.is_empty() {
            return Err(PeerRefusal::NotOffered);
        }
        let proved = keys.keys.iter().find(|key| key.confirms(MacLabel::Hello, &call.parts(), mac));
        let key = proved.filter(|_| certified || !keys.by_certificate).ok_or(PeerRefusal::Unproved)?;
        if call.scope != self.scope || call.to != self.name {
            return Err(PeerRefusal::Misdirected { scope: self.scope.clone(), name: self.name.clone() });
        }
        let (number, nonce) = (u64::from_be_bytes(random::bytes()), random::bytes());
        let key = call.session_key(key, &nonce, number);
        let mac = key.mac(MacLabel::Welcome, &[]);
        let begun = &mut self.sessions().begun;
        push(begun, PeerSession { number, key, from: call.from.to_owned(), counter: 0 }, BEGUN_MAX);
        Ok(Welcome { session: number, nonce, mac })
    }

    /// Admits a call that is proved and new. The first one of a session ends the older session of the same member.
    ///
    /// # Errors
    /// The refusal.
    pub fn admit(&self, call: &PeerCall<'_>, mac: &[u8]) -> Result<AdmittedSession, PeerRefusal> {
        let mut sessions = self.sessions();
        let NewestSessions { begun, in_use } = &mut *sessions;
        let has_number = |session: &PeerSession| session.number == call.session;
        let begun_at = begun.iter().position(has_number);
        let session = match begun_at {
            Some(at) => begun.get_mut(at),
            None => in_use.iter_mut().find(|session| session.number == call.session),
        };
        let session = session.ok_or(PeerRefusal::NoSession)?;
        if !call.is_proved(&session.key, mac) {
            return Err(PeerRefusal::Unproved);
        }
        if call.counter <= session.counter {
            return Err(PeerRefusal::Repeated);
        }
        session.counter = call.counter;
        let admitted = AdmittedSession { number: session.number, key: session.key.clone() };
        if let Some(session) = begun_at.and_then(|at| begun.remove(at)) {
            in_use.retain(|older| older.from != session.from);
            push(in_use, session, IN_USE_MAX);
        }
        Ok(admitted)
    }

    /// Whether the session is in use, and not ended by a newer one.
    pub fn is_in_use(&self, number: u64) -> bool {
        self.sessions().in_use.iter().any(|session| session.number == number)
    }
}

fn push(sessions: &mut VecDeque<PeerSession>, session: PeerSession, most: usize) {
    sessions.push_back(session);
    if sessions.len() > most {
        sessions.pop_front();
    }
}

#[cfg(test)]
mod tests;
