use super::*;

const PATH: &str = "/matriarch.v1.Peer/Heartbeats";
const HELLO: HelloCall<'_> = HelloCall { scope: "herd", from: "m2", to: "m1", nonce: &[1; 16] };

fn key(password: &str) -> MacKey {
    MacKey::of_password(password, "herd")
}

fn serving(passwords: &[&str]) -> PeerSessions {
    let passwords: Vec<String> = passwords.iter().map(|&password| password.to_owned()).collect();
    let sessions = PeerSessions::new("herd", "m1");
    sessions.use_keys(PeerKeys::of(&passwords, false, "herd"));
    sessions
}

/// Begins a session as a client that knows `key`: its number and its key.
fn begin(sessions: &PeerSessions, hello: &HelloCall<'_>, key: &MacKey) -> (u64, MacKey) {
    let welcome = sessions.hello(hello, &hello.mac(key), false).expect("it is proved");
    let session_key = hello.session_key(key, &welcome.nonce, welcome.session);
    assert!(session_key.confirms(MacLabel::Welcome, &[], &welcome.mac), "the server proves itself");
    (welcome.session, session_key)
}

fn call(session: u64, counter: u64) -> PeerCall<'static> {
    PeerCall { session, counter, path: PATH, message: b"" }
}

fn admit(sessions: &PeerSessions, call: &PeerCall<'_>, key: &MacKey) -> Result<u64, PeerRefusal> {
    sessions.admit(call, &call.mac(key)).map(|admitted| admitted.number)
}

#[test]
fn a_member_that_knows_the_password_is_admitted() {
    let sessions = serving(&["new", "old"]);
    for password in ["new", "old"] {
        let (number, session_key) = begin(&sessions, &HELLO, &key(password));
        assert!(!sessions.is_in_use(number));
        assert_eq!(admit(&sessions, &call(number, 1), &session_key), Ok(number));
        assert!(sessions.is_in_use(number), "{password}");
    }
    let hello = |mac: &[u8]| sessions.hello(&HELLO, mac, true).map(|_| ());
    assert_eq!(hello(&HELLO.mac(&key("older"))), Err(PeerRefusal::Unproved));
    assert_eq!(hello(&[]), Err(PeerRefusal::Unproved));
    let mac = HELLO.mac(&key("new"));
    let another = HelloCall { from: "m3", ..HELLO };
    assert_eq!(sessions.hello(&another, &mac, true).map(|_| ()), Err(PeerRefusal::Unproved));
}

#[test]
fn another_member_or_cluster_is_not_served() {
    let sessions = serving(&["p"]);
    for hello in [HelloCall { to: "m3", ..HELLO }, HelloCall { scope: "flock", ..HELLO }] {
        let refused = sessions.hello(&hello, &hello.mac(&key("p")), false).map(|_| ());
        assert!(matches!(refused, Err(PeerRefusal::Misdirected { .. })), "{refused:?}");
    }
}

#[test]
fn repeated_and_forged_calls_are_refused() {
    let sessions = serving(&["p"]);
    let (number, session_key) = begin(&sessions, &HELLO, &key("p"));
    assert_eq!(admit(&sessions, &call(number, 1), &key("p")), Err(PeerRefusal::Unproved), "the wrong key");
    let first = call(number, 1);
    for forged in [
        PeerCall { counter: 2, ..first },
        PeerCall { path: "/x", ..first },
        PeerCall { message: b"x", ..first },
    ] {
        let refused = sessions.admit(&forged, &first.mac(&session_key)).map(|_| ());
        assert_eq!(refused, Err(PeerRefusal::Unproved), "{forged:?}");
    }
    for counter in [1, 5, 6] {
        assert_eq!(admit(&sessions, &call(number, counter), &session_key), Ok(number));
        for old in [counter, counter - 1] {
            assert_eq!(admit(&sessions, &call(number, old), &session_key), Err(PeerRefusal::Repeated));
        }
    }
    let elsewhere = serving(&["p"]);
    begin(&elsewhere, &HELLO, &key("p"));
    assert_eq!(
        admit(&elsewhere, &call(number, 9), &session_key),
        Err(PeerRefusal::NoSession),
        "a new process"
    );
}

/// Hellos that are repeated from a record begin sessions that nobody can use.
#[test]
fn sessions_are_few_and_a_repeated_hello_ends_none() {
    let sessions = serving(&["p"]);
    let (number, session_key) = begin(&sessions, &HELLO, &key("p"));
    assert!(admit(&sessions, &call(number, 1), &session_key).is_ok());
    for _ in 0..3 * BEGUN_MAX {
        begin(&sessions, &HELLO, &key("p"));
    }
    assert_eq!(sessions.sessions().begun.len(), BEGUN_MAX);
    assert!(sessions.is_in_use(number));
    let (newer, newer_key) = begin(&sessions, &HELLO, &key("p"));
    assert!(admit(&sessions, &call(newer, 1), &newer_key).is_ok());
    assert!(!sessions.is_in_use(number) && sessions.is_in_use(newer), "the newer one ends the older");
    for from in (0..IN_USE_MAX).map(|number| format!("x{number}")) {
        let hello = HelloCall { from: &from, ..HELLO };
        let (number, session_key) = begin(&sessions, &hello, &key("p"));
        assert!(admit(&sessions, &call(number, 1), &session_key).is_ok());
    }
    assert!(sessions.sessions().in_use.len() == IN_USE_MAX && !sessions.is_in_use(newer), "the oldest goes");
}

#[test]
fn without_a_password_a_certificate_is_the_proof() {
    let sessions = PeerSessions::new("herd", "m1");
    let hello = |certified| sessions.hello(&HELLO, &HELLO.mac(&key("")), certified).map(|_| ());
    assert_eq!(hello(true), Err(PeerRefusal::NotOffered));
    sessions.use_keys(PeerKeys::of(&[], false, "herd"));
    assert_eq!(hello(true), Err(PeerRefusal::NotOffered));
    sessions.use_keys(PeerKeys::of(&[], true, "herd"));
    assert_eq!((hello(false), hello(true)), (Err(PeerRefusal::Unproved), Ok(())));
    sessions.use_keys(PeerKeys::of(&["p".to_owned()], true, "herd"));
    assert_eq!(hello(true), Err(PeerRefusal::Unproved), "a password counts where there is one");
}
