//! REST over TLS: between members, patronictl and Matriarch's command line, and with replaced certificates.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use matriarch::os::tls::{self, Identity, Trust};
use matriarch::peer::{Call, Peers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::grpc::calls;
use crate::heartbeats::without_password;
use crate::support::{Cluster, Member, Place, Plan, Seen, merge, python_program, user};

const WITHIN: Duration = Duration::from_secs(60);

/// An authority that signs certificates.
struct Authority(PathBuf);

impl Authority {
    fn new(place: &Place, name: &str) -> Authority {
        let authority = Authority(place.folder(name));
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        authority.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN={name}"));
        let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(authority.0.join("extensions"), extensions).expect("our own place is writable");
        user::give(&authority.certificate());
        authority
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Writes `NAME.pem` and `NAME.key`, for 127.0.0.1.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions";
        self.openssl(&format!("x509 -req -in {name}.csr -out {name}.pem {sign}"));
        let files = (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")));
        user::give(&files.0);
        user::give(&files.1);
        files
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(&self.0)
            .args(arguments.split_whitespace())
            .output()
            .expect("openssl starts");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A client that trusts this authority, with a certificate or without.
    fn caller(&self, identity: Option<&(PathBuf, PathBuf)>) -> Peers {
        let trust = Trust::name(Some(&self.certificate())).expect("it was just written");
        let identity = identity.map(|(certificate, key)| Identity { certificate, key, password: None });
        Peers::with_tls(Arc::new(tls::client(trust, identity).expect("they were just written")))
    }
}

/// One request by HTTPS. `None`: no answer.
async fn call(from: &Peers, to: &Member, method: &str, path: &str) -> Option<(u16, String)> {
    let url = format!("https://127.0.0.1:{}{path}", to.api);
    let call = Call { method: method.to_owned(), url, body: None, credentials: None, within: WITHIN };
    from.call(call).await.ok()
}

async fn seen(from: &Peers, cluster: &Cluster) -> Option<Seen> {
    for member in &cluster.members {
        if let Some((200, text)) = call(from, member, "GET", "/cluster").await {
            return Some(Seen(serde_json::from_str(&text).expect("JSON")));
        }
    }
    None
}

async fn wait_until_well(from: &Peers, cluster: &Cluster, leader: &str) {
    let size = cluster.members.len();
    let what = format!("{leader} leads, and all others stream");
    cluster
        .wait_until(WITHIN, &what, async || {
            seen(from, cluster).await.is_some_and(|seen| seen.is_well(size) && seen.leader() == Some(leader))
        })
        .await;
}

fn configure(member: &Member, over: &Value) {
    let mut config = member.read_config();
    merge(&mut config, over);
    member.write_config(&config);
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("our own place is writable");
    user::give(to);
}

async fn patronictl(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(python_program("patronictl"));
    command.arg("-c").arg(cluster.members[0].config_file()).args(words).stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await;
    done.expect("it is waited for").expect("patronictl starts")
}

/// Starts the second member when the first leads.
async fn start_one_by_one(from: &Peers, cluster: &mut Cluster) {
    cluster.members[0].start();
    cluster
        .wait_until(WITHIN, "m1 leads", async || {
            seen(from, cluster).await.is_some_and(|seen| seen.leader() == Some("m1"))
        })
        .await;
    cluster.members[1].start();
}

/// Whether the second member hears its leader.
async fn hears(from: &Peers, cluster: &Cluster) -> bool {
    let answer = call(from, &cluster.members[1], "GET", "/health").await;
    answer.is_some_and(|(_, body)| body.contains(r#""leader_heartbeats": {"state": "heard""#))
}

/// Where the replication user has no password, and every client needs a certificate, members know each other by that.
#[tokio::test]
async fn members_without_a_password_hear_each_other_by_certificates() {
    let mut cluster =
        Plan::new(2).member(0, without_password()).member(1, without_password()).prepare().await;
    let authority = Authority::new(&cluster.place, "authority");
    for member in &cluster.members {
        let (certificate, key) = authority.issue(&member.name);
        configure(
            member,
            &json!({
                "restapi": {
                    "certfile": certificate, "keyfile": key, "cafile": authority.certificate(),
                    "verify_client": "required",
                },
                "ctl": { "certfile": certificate, "keyfile": key },
            }),
        );
    }
    let known = authority.caller(Some(&authority.issue("operator")));
    start_one_by_one(&known, &mut cluster).await;
    cluster.wait_until(WITHIN, "m2 hears its leader", async || hears(&known, &cluster).await).await;
}

/// Members accept only TLS, query each other with it, and accept changes only from clients with a certificate.
#[tokio::test]
async fn members_and_operators_use_tls() {
    let mut cluster = Plan::new(2).prepare().await;
    let authority = Authority::new(&cluster.place, "authority");
    let operator = authority.issue("operator");
    for member in &cluster.members {
        let (certificate, key) = authority.issue(&member.name);
        configure(
            member,
            &json!({
                "restapi": {
                    "certfile": certificate, "keyfile": key, "cafile": authority.certificate(),
                    "verify_client": "optional", "https_extra_headers": { "Strict-Transport-Security": "max-age=1" },
                },
                "ctl": { "cacert": authority.certificate(), "certfile": operator.0, "keyfile": operator.1 },
            }),
        );
    }
    let (known, anonymous) = (authority.caller(Some(&operator)), authority.caller(None));
    start_one_by_one(&known, &mut cluster).await;
    wait_until_well(&known, &cluster, "m1").await;
    let urls = seen(&known, &cluster).await.expect("it answers");
    assert!(
        urls.members().iter().all(|member| member["api_url"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://") && url.ends_with("/patroni"))),
        "{urls:?}"
    );

    cluster.wait_until(WITHIN, "m2 hears its leader", async || hears(&known, &cluster).await).await;

    let member = &cluster.members[0];
    assert_eq!(call(&anonymous, member, "GET", "/primary").await.map(|answer| answer.0), Some(200));
    let refused = call(&anonymous, member, "POST", "/reload").await;
    assert_eq!(refused, Some((403, "client certificate required".to_owned())));
    assert_eq!(call(&known, member, "POST", "/reload").await.map(|answer| answer.0), Some(202));
    assert!(member.get("/liveness").await.is_none_or(|answer| answer.status != 200), "no plain HTTP");

    let there = patronictl(&cluster, &["switchover", "--leader", "m1", "--candidate", "m2", "--force"]).await;
    assert!(there.status.success(), "{there:?}\n{}", cluster.story());
    wait_until_well(&known, &cluster, "m2").await;
    let back = cluster.members[0].command(&["switchover", "--candidate", "m1", "--force"]).await;
    assert!(back.status.success(), "{back:?}\n{}", cluster.story());
    wait_until_well(&known, &cluster, "m1").await;
    // A client that trusts another authority does not connect.
    let other = Authority::new(&cluster.place, "other");
    assert_eq!(call(&other.caller(None), &cluster.members[0], "GET", "/liveness").await, None);
}

/// New files take effect without a restart, broken ones change nothing, and a reload changes which clients need a
/// certificate.
#[tokio::test]
async fn certificates_are_replaced_while_it_runs() {
    let mut cluster = Plan::new(1).prepare().await;
    let (first, second) = (Authority::new(&cluster.place, "first"), Authority::new(&cluster.place, "second"));
    let folder = cluster.place.folder("served");
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let issued = first.issue("m1");
    copy(&issued.0, &certificate);
    copy(&issued.1, &key);
    configure(&cluster.members[0], &json!({ "restapi": { "certfile": certificate, "keyfile": key } }));
    cluster.members[0].start();
    let (of_first, of_second) = (first.caller(None), second.caller(None));
    let primary =
        async |from: &Peers| call(from, &cluster.members[0], "GET", "/primary").await.map(|answer| answer.0);
    cluster.wait_until(WITHIN, "it is primary", async || primary(&of_first).await == Some(200)).await;
    assert_eq!(primary(&of_second).await, None);

    std::fs::write(&certificate, "rubbish").expect("our own place is writable");
    let said = "the new certificates of the REST interface are unusable";
    let log = || cluster.members[0].log_text();
    cluster.wait_until(WITHIN, "it says so", async || log().contains(said)).await;
    assert_eq!(primary(&of_first).await, Some(200), "the old one stays in force");

    let issued = second.issue("m1");
    copy(&issued.1, &key);
    copy(&issued.0, &certificate);
    cluster
        .wait_until(WITHIN, "the new one is served", async || primary(&of_second).await == Some(200))
        .await;
    assert_eq!(primary(&of_first).await, None);

    let over = json!({ "restapi": { "cafile": second.certificate(), "verify_client": "required" } });
    configure(&cluster.members[0], &over);
    cluster.members[0].signal_supervisor(Signal::SIGHUP);
    cluster
        .wait_until(WITHIN, "who shows nothing stays out", async || primary(&of_second).await.is_none())
        .await;
    let known = second.caller(Some(&second.issue("operator")));
    assert_eq!(primary(&known).await, Some(200));
    let reloaded = call(&known, &cluster.members[0], "POST", "/reload").await;
    assert_eq!(reloaded.map(|answer| answer.0), Some(202));
}

/// The protocol that a TLS client chose, of those that it offers.
fn chosen(member: &Member, offered: &str) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{}", member.api), "-alpn", offered]);
    let output = command.stdin(Stdio::null()).output().expect("openssl starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().find_map(|line| line.strip_prefix("ALPN protocol: ")).map(str::to_owned)
}

/// A client that offers HTTP/2 gets it, others get HTTP/1. gRPC calls that change something need a certificate, too.
#[tokio::test]
async fn http2_and_grpc_over_tls() {
    let mut cluster = Plan::new(1).prepare().await;
    let authority = Authority::new(&cluster.place, "authority");
    let (certificate, key) = authority.issue("m1");
    let root = authority.certificate();
    let rest =
        json!({ "certfile": certificate, "keyfile": key, "cafile": root, "verify_client": "optional" });
    configure(&cluster.members[0], &json!({ "restapi": rest }));
    cluster.members[0].start();
    let (caller, member) = (authority.caller(None), &cluster.members[0]);
    let primary = async || call(&caller, member, "GET", "/primary").await.map(|answer| answer.0) == Some(200);
    cluster.wait_until(WITHIN, "it is primary", primary).await;
    for (offered, expected) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1"), ("http/1.0", "http/1.0")] {
        assert_eq!(chosen(member, offered).as_deref(), Some(expected));
    }
    let asked = json!([["matriarch.v1.Admin/GetStatus", {}], ["matriarch.v1.Admin/Reload", {}]]);
    let (certificate, key) = authority.issue("operator");
    let known = json!({ "root": root, "certificate": certificate, "key": key });
    for (with, reload) in [(json!({ "root": root }), "PERMISSION_DENIED"), (known, "OK")] {
        let answers = &calls(member, with, asked.clone()).await["answers"];
        assert_eq!(answers[0]["messages"][0]["status"]["primary"], true, "{answers}");
        assert_eq!(answers[1]["code"], reload, "{answers}");
    }
}

/// Unusable files are faults: `check` names them, and the remedy for a key with a password.
#[tokio::test]
async fn unusable_certificate_files_are_faults() {
    let cluster = Plan::new(1).prepare().await;
    let member = &cluster.members[0];
    let authority = Authority::new(&cluster.place, "authority");
    let (certificate, key) = authority.issue("m1");
    authority.openssl("pkey -in m1.key -aes256 -passout pass:x -out locked.key");
    let (locked, other) = (authority.0.join("locked.key"), authority.issue("m2").1);
    user::give(&locked);
    for (certfile, keyfile, words) in [
        (&certificate, &key, "The configuration is valid"),
        (&certificate, &locked, "set `keyfile_password`, or write"),
        (&certificate, &other, "cannot be used for TLS"),
        (&key, &key, "holds no certificate"),
        (&PathBuf::from("/nonexistent.pem"), &key, "cannot read /nonexistent.pem"),
    ] {
        configure(member, &json!({ "restapi": { "certfile": certfile, "keyfile": keyfile } }));
        let output = member.binary(&["check", &member.config_file().to_string_lossy()]).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(output.status.code(), Some(if words.ends_with("valid") { 0 } else { 3 }), "{said}");
    }
}

/// Whether the server speaks TLS 1.2 with this cipher; `None`: TLS 1.3.
fn speaks(member: &Member, cipher: Option<&str>) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{}", member.api)]);
    match cipher {
        Some(cipher) => command.args(["-tls1_2", "-cipher", cipher]),
        None => command.arg("-tls1_3"),
    };
    let output = command.stdin(Stdio::null()).output().expect("openssl starts");
    output.status.success()
}

/// Keys with a password, of the interface and of a caller, and one cipher of TLS 1.2. Both change at a reload.
#[tokio::test]
async fn keys_have_passwords_and_ciphers_are_chosen() {
    let mut cluster = Plan::new(1).prepare().await;
    let authority = Authority::new(&cluster.place, "authority");
    let (certificate, _) = authority.issue("m1");
    for password in ["first", "second"] {
        authority.openssl(&format!("pkcs8 -topk8 -in m1.key -out {password}.key -passout pass:{password}"));
        user::give(&authority.0.join(format!("{password}.key")));
    }
    let settings = |password: &str, ciphers: &str| {
        let key = authority.0.join(format!("{password}.key"));
        let own = json!({ "certfile": certificate, "keyfile": key, "keyfile_password": password });
        let mut rest = own.clone();
        merge(&mut rest, &json!({ "ciphers": ciphers, "cafile": authority.certificate() }));
        json!({ "restapi": rest, "ctl": own })
    };
    let [aes, chacha] = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
    configure(&cluster.members[0], &settings("first", aes));
    cluster.members[0].start();
    let caller = authority.caller(None);
    let member = &cluster.members[0];
    let primary = async || call(&caller, member, "GET", "/primary").await.map(|answer| answer.0) == Some(200);
    cluster.wait_until(WITHIN, "it is primary", primary).await;
    assert_eq!(
        [speaks(member, Some(aes)), speaks(member, Some(chacha)), speaks(member, None)],
        [true, false, true]
    );

    configure(member, &settings("second", "CHACHA20"));
    member.signal_supervisor(Signal::SIGHUP);
    let changed = async || speaks(member, Some(chacha)) && !speaks(member, Some(aes));
    cluster.wait_until(WITHIN, "the other cipher is spoken", changed).await;
    let output = member.command(&["reload", "herd", "--force"]).await;
    assert!(output.status.success(), "the command line opens its key: {output:?}");

    configure(member, &json!({ "restapi": { "keyfile_password": "wrong" } }));
    let output = member.binary(&["check", &member.config_file().to_string_lossy()]).await;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("the password does not open the private key in"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
}
