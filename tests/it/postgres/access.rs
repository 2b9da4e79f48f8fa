//! The supervisor's own connections to its Postgres, against every way in which users, operators and the client lockout
//! may close access.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;
use std::time::Duration;

use matriarch::model;
use matriarch::model::{AccessWay, SlotChanges, StopMode};
use matriarch::os::clock;
use matriarch::postgres::{Parameters, Postgres, Probe, Setup};
use tokio_postgres::NoTls;

use super::herd::Herd;
use super::{SOON, promote, start, stop};
use matriarch::os::error_chain::ErrorChain;

const LISTENS: [&str; 7] = ["127.0.0.2", "*", "localhost", "0.0.0.0", "::1", "::", ""];

/// Access rules, and the error of an ordinary role that then connects through the operator's own socket directory.
const RULES: [(&str, &[&str], &str); 3] = [
    ("normal", &["local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"], ""),
    ("hostssl only", &["hostssl all all all scram-sha-256"], "no pg_hba.conf entry"),
    ("reject all", &["local all all reject", "host all all all reject"], "pg_hba.conf rejects"),
];

fn setup_of(herd: &Herd, base: &Setup, listen: &str, rules: &[&str]) -> (Setup, Parameters) {
    let setup =
        Setup { listen_addresses: listen.to_owned(), local_host: model::local_host(listen), ..base.clone() };
    let mut parameters = herd.parameters(&setup);
    let file = |name: &str| herd.root.join(name).display().to_string();
    for (name, value) in
        [("ssl", "on".to_owned()), ("ssl_cert_file", file("crt")), ("ssl_key_file", file("key"))]
    {
        parameters.parameters.insert(name.to_owned(), value);
    }
    parameters.pg_hba = Some(rules.iter().map(|rule| (*rule).to_owned()).collect());
    (setup, parameters)
}

/// Members with TLS.
fn encrypted_herd(name: &str) -> Herd {
    let herd = Herd::new(name);
    let mut openssl = Command::new("openssl");
    openssl.args("req -x509 -newkey rsa:2048 -nodes -keyout key -out crt -days 2 -subj /CN=a".split(' '));
    let made = openssl.current_dir(&herd.root).output().expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    let owner = fs::metadata(&herd.root).expect("ours");
    chown(herd.root.join("key"), Some(owner.uid()), Some(owner.gid())).expect("chown");
    herd
}

/// The error of the role `replicator` at the operator's socket directory; empty: it is let in.
async fn outsider_reads(herd: &Herd, setup: &Setup) -> String {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&herd.root).port(setup.port).user("replicator").dbname("postgres");
    config.password(setup.replication.password.newest().expect("a password"));
    match config.connect(NoTls).await {
        Ok(_) => String::new(),
        Err(error) => format!("{error}: {error:?}"),
    }
}

async fn outsider_will_read(herd: &Herd, setup: &Setup, expected: &str, case: &str) {
    let deadline = clock::now() + SOON;
    loop {
        let text = outsider_reads(herd, setup).await;
        if if expected.is_empty() { text.is_empty() } else { text.contains(expected) } {
            return;
        }
        assert!(clock::now() < deadline, "{case}: an ordinary role reads `{text}`, not `{expected}`");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every kind of statement, each on its own connection or on the kept one, and both proofs of the probe.
async fn gets_in(member: &Postgres, probe: &Probe, case: &str) {
    let now = clock::now();
    member.sql_facts().await.unwrap_or_else(|error| panic!("{case}: look: {}", error.chain()));
    let pending = member.pending_restart().await;
    let pending = pending.unwrap_or_else(|error| panic!("{case}: pending restart: {}", error.chain()));
    assert!(!pending.contains_key("unix_socket_directories"), "{case}: {pending:?}");
    let checkpoint = member.checkpoint(SOON).await;
    checkpoint.unwrap_or_else(|error| panic!("{case}: checkpoint: {}", error.chain()));
    let slots =
        member.set_slots(&SlotChanges { create: vec!["s".to_owned()], ..SlotChanges::default() }).await;
    slots.unwrap_or_else(|error| panic!("{case}: slots: {}", error.chain()));
    assert_eq!(member.access().way, Some(AccessWay::PrivateSocket), "{case}: {:?}", member.access());
    let proved = || {
        let facts = probe.facts();
        facts.connected_at.is_some_and(|at| now < at) && facts.wrote_at.is_some_and(|at| now < at)
    };
    while !proved() {
        assert!(clock::now() < now + SOON, "{case}: {:?}", probe.facts());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_setting_locks_the_supervisor_out() {
    let herd = encrypted_herd("ways");
    let base = herd.setup("a");
    let (setup, parameters) = setup_of(&herd, &base, "127.0.0.2", RULES[0].1);
    Postgres::new(setup, parameters).bootstrap().await.expect("bootstrap");
    for listen in LISTENS {
        let (setup, parameters) = setup_of(&herd, &base, listen, RULES[0].1);
        let member = Postgres::new(setup.clone(), parameters);
        // Everything that was closed stays closed; each address begins with it, so starts and promotions meet it too.
        member.set_client_lockout(true);
        member.write_client_lockout().await.expect("close the gate");
        start(&member, None).await;
        promote(&member).await;
        let probe = member.probe().expect("a probe");
        for (rules, lines, open_reads) in RULES {
            for closed in [true, false] {
                let case = format!("listen `{listen}`, {rules}, closed {closed}");
                member.apply(setup_of(&herd, &base, listen, lines).1).await.expect("apply");
                member.set_client_lockout(closed);
                member.write_client_lockout().await.expect("gate");
                let expected = if closed { "pg_hba.conf rejects" } else { open_reads };
                outsider_will_read(&herd, &setup, expected, &case).await;
                gets_in(&member, &probe, &case).await;
            }
        }
        stop(&member).await;
    }
}

/// Without configured rules the present rules stay: the supervisor's lines come before them, and a copy is kept.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_access_rules_stay_unchanged() {
    let herd = Herd::new("theirs");
    let setup = herd.setup("a");
    let parameters = Parameters { pg_hba: None, ..herd.parameters(&setup) };
    let member = Postgres::new(setup.clone(), parameters);
    member.bootstrap().await.expect("bootstrap");
    let (hba, kept) =
        (setup.data_dir.join("pg_hba.conf"), setup.data_dir.join("pg_hba.conf.before-matriarch"));
    let theirs = b"# \xfcber alles\r\nlocal all all reject\nhost all all all reject".to_vec();
    fs::write(&hba, &theirs).expect("write");
    start(&member, None).await;
    member.sql_facts().await.expect("facts");
    assert_eq!(member.access().way, Some(AccessWay::PrivateSocket));
    let now = fs::read(&hba).expect("read");
    assert!(now.ends_with(&theirs), "{}", String::from_utf8_lossy(&now));
    assert_eq!(fs::read(&kept).expect("a copy"), theirs);
    member.set_client_lockout(true);
    member.write_client_lockout().await.expect("gate");
    outsider_will_read(&herd, &setup, "pg_hba.conf rejects", "closed").await;
    assert!(
        Postgres::new(setup, member.parameters()).are_clients_locked_out(),
        "another supervisor sees that it is closed"
    );
    member.set_client_lockout(false);
    member.write_client_lockout().await.expect("gate");
    assert_eq!(fs::read(&hba).expect("read"), now, "opening takes back what closing wrote");
}

/// A role of the same name that belongs to another owner is left alone, and the superuser is used instead. The
/// configured address is used if a postmaster was started by another program, without a private directory; with TLS, if
/// the access rules admit nobody without.
#[tokio::test(flavor = "multi_thread")]
async fn other_ways_of_access_are_used_and_reported() {
    let herd = encrypted_herd("fallback");
    let base = herd.setup("a");
    let rules = ["local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"];
    let (setup, parameters) = setup_of(&herd, &base, "127.0.0.1", &rules);
    let member = Postgres::new(setup.clone(), parameters);
    member.bootstrap().await.expect("bootstrap");
    start(&member, None).await;
    promote(&member).await;
    let client = super::client(&member).await;
    client.batch_execute("ALTER ROLE matriarch_supervisor NOSUPERUSER").await.expect("alter");
    stop(&member).await;
    start(&member, None).await;
    promote(&member).await;
    assert_eq!(member.access().way, Some(AccessWay::PrivateSocketAsSuperuser));
    assert!(member.access().complaint().expect("it is said").contains("is not a superuser"));
    member.create_own_role().await.expect("nothing is done");
    let client = super::client(&member).await;
    let is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'matriarch_supervisor'";
    assert!(!client.query_one(is_superuser, &[]).await.expect("select").get::<_, bool>(0));
    client.batch_execute("DROP ROLE matriarch_supervisor").await.expect("drop");
    member.create_own_role().await.expect("a leader makes it");
    member.checkpoint(SOON).await.expect("checkpoint");
    assert_eq!(member.access().way, Some(AccessWay::PrivateSocket), "{:?}", member.access());

    // The private directory is removed under the running server: the configured address still works.
    let encrypted = ["local all all reject", "hostssl all all 127.0.0.1/32 scram-sha-256"];
    member.apply(setup_of(&herd, &base, "127.0.0.1", &encrypted).1).await.expect("apply");
    let private = herd.root.join("a.matriarch-sockets");
    fs::remove_dir_all(&private).expect("it is there");
    let adopted = Postgres::new(setup, member.parameters());
    assert_eq!(adopted.adopt(None).await, matriarch::postgres::Adoption::Running);
    adopted.checkpoint(SOON).await.expect("by the address");
    assert_eq!(adopted.access().way, Some(AccessWay::Address));
    adopted.stop(StopMode::Fast, SOON).await.expect("stop");
    start(&adopted, None).await;
    adopted.checkpoint(SOON).await.expect("checkpoint");
    assert_eq!(adopted.access().way, Some(AccessWay::PrivateSocket), "the next start makes it anew");
}
