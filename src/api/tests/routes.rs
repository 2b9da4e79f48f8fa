//! Codes and bodies of every route but the switchover.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, name, primary, replica, rig, rig_with};
use crate::agent::Status;
use crate::api::{ApiSetup, ServerTokens};
use crate::model::{
    Ask, FailsafeQuestion, FailsafeRefusal, JobKind, Lsn, ReinitializeRefusal, Reply, RestartFilter,
    RestartRefusal,
};
use crate::os::clock;

async fn expect(rig: &Rig, method: &str, path: &str, body: Option<Value>, status: u16, text: &str) {
    let answer = rig.call(method, path, body).await;
    assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    assert!(answer.1.contains(text), "{method} {path}: {}", answer.1);
}

#[tokio::test]
async fn read_routes_answer() {
    let rig = rig(primary(clock::now())).await;
    expect(&rig, "GET", "/patroni", None, 200, r#""patroni": {"version": "4.1.5""#).await;
    expect(&rig, "GET", "/patroni/x?y", None, 200, r#""role": "primary""#).await;
    expect(&rig, "GET", "//leader", None, 200, r#""state": "running""#).await;
    expect(&rig, "GET", "/", None, 200, "running").await;
    expect(&rig, "GET", "/replica", None, 503, "running").await;
    expect(&rig, "GET", "/restart", None, 503, "running").await;
    expect(&rig, "GET", "/cluster", None, 200, r#""scope": "c""#).await;
    expect(&rig, "GET", "/config", None, 200, r#"{"ttl": 30, "postgresql": {}}"#).await;
    let history = r#"[[1, 500, "no recovery target specified", "2026-11-22T21:52:27+00:00", "n1"]]"#;
    expect(&rig, "GET", "/history", None, 200, history).await;
    expect(&rig, "GET", "/failsafe", None, 502, "").await;
    expect(&rig, "GET", "/metrics", None, 200, "patroni_primary{").await;
    assert_eq!(rig.call("GET", "/liveness", None).await, (200, String::new()));
    assert_eq!(rig.call("GET", "/readiness", None).await, (200, String::new()));
}

/// Members choose a leader by it: a position that nobody has looked at since the question is no vote.
#[tokio::test]
async fn a_position_is_exact_only_after_a_look() {
    let rig = rig(replica(clock::now())).await;
    expect(&rig, "GET", "/patroni", None, 200, r#""position_is_exact": true"#).await;
    rig.world().loop_has_ended = true;
    expect(&rig, "GET", "/patroni", None, 200, r#""position_is_exact": false"#).await;
}

#[tokio::test]
async fn etcd_away_is_503_or_the_last_view() {
    let rig = rig(primary(clock::now())).await;
    rig.world().cluster = None;
    expect(&rig, "GET", "/cluster", None, 503, "no endpoint answers").await;
    expect(&rig, "GET", "/config", None, 200, "ttl").await;
    expect(&rig, "GET", "/history", None, 200, "[[1").await;
    rig.status.send_modify(|status| std::sync::Arc::make_mut(status).view = None);
    for (method, path) in [
        ("GET", "/config"),
        ("GET", "/history"),
        ("PATCH", "/config"),
        ("PUT", "/config"),
        ("POST", "/switchover"),
        ("DELETE", "/switchover"),
    ] {
        let body = (method != "GET").then(|| json!({"leader": "n1", "candidate": "n2"}));
        expect(&rig, method, path, body, 503, "etcd").await;
    }
    expect(&rig, "GET", "/leader", None, 200, "cluster_unlocked").await;
}

/// HAProxy sends OPTIONS unless it is told otherwise: on every path the general health check, and nothing but the code.
#[tokio::test]
async fn head_and_options_are_health_checks() {
    let rig = rig(primary(clock::now())).await;
    let healthy = ["/", "/primary", "/leader", "/health", "/read-write?x=y"];
    let others = ["/replica", "/patroni", "/liveness", "/readiness", "/metrics", "/config"];
    let paths = healthy.map(|path| (path, "200")).into_iter().chain(others.map(|path| (path, "503")));
    for (path, status) in paths {
        for method in ["HEAD", "OPTIONS"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = rig.raw(&request).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{method} {path}: {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "no body: {method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn other_methods_get_501_with_patronis_text() {
    let rig = rig(primary(clock::now())).await;
    for (method, path) in
        [("PUT", "/primary"), ("DELETE", "/failover"), ("POST", "/foo"), ("BREW", "/config")]
    {
        expect(&rig, method, path, None, 501, "Unsupported method").await;
        expect(&rig, method, path, None, 501, "Server does not support this operation").await;
    }
}

#[tokio::test]
async fn the_configuration_is_merged_and_replaced() {
    let rig = rig(primary(clock::now())).await;
    let change = json!({"ttl": 20, "postgresql": {"parameters": {"a": 1}}, "gone": null});
    expect(&rig, "PATCH", "/config", Some(change), 200, r#"{"ttl": 20, "postgresql": {"parameters""#).await;
    let stored = |rig: &Rig| rig.world().cluster.clone().expect("set").config.expect("set");
    assert_eq!(stored(&rig).text, r#"{"ttl":20,"postgresql":{"parameters":{"a":1}}}"#);
    expect(&rig, "PATCH", "/config", Some(json!({"ttl": "20"})), 200, r#""ttl": 20"#).await;
    assert_eq!(stored(&rig).mod_revision, 6, "the same value is not written");
    expect(&rig, "PUT", "/config", Some(json!({"ttl": 7})), 200, r#"{"ttl": 7}"#).await;
    assert_eq!(stored(&rig).text, r#"{"ttl":7}"#);
    expect(&rig, "PATCH", "/config", None, 411, "Length Required").await;
    expect(&rig, "PATCH", "/config", Some(json!([1])), 400, "Bad Request").await;
    expect(&rig, "PATCH", "/config", Some(json!({})), 400, "Bad Request").await;
    for (method, change) in [
        ("PATCH", json!({"loop_wait": "abc", "synchronous_mode": "perhaps"})),
        ("PUT", json!({"ttl": 7, "loop_wait": "abc", "synchronous_mode": "perhaps"})),
    ] {
        let named = "loop_wait: found `abc`; write a number of seconds";
        expect(&rig, method, "/config", Some(change.clone()), 400, named).await;
        let named = "synchronous_mode: found `perhaps`; write on, off or quorum";
        expect(&rig, method, "/config", Some(change), 400, named).await;
    }
    assert_eq!(stored(&rig).text, r#"{"ttl":7}"#, "nothing of it was written");
    rig.world().writes_succeed = false;
    expect(&rig, "PATCH", "/config", Some(json!({"ttl": 9})), 409, "somebody else").await;
    rig.world().writes_succeed = true;
    rig.world().cluster.as_mut().expect("set").config = None;
    expect(&rig, "PATCH", "/config", Some(json!({"ttl": 9})), 503, "missing").await;
    expect(&rig, "GET", "/config", None, 502, "missing").await;
    let kept = crate::agent::Status {
        config: Some(r#"{"ttl":20,"pause":true}"#.to_owned()),
        ..primary(clock::now())
    };
    rig.status.send_replace(std::sync::Arc::new(kept));
    expect(&rig, "PATCH", "/config", Some(json!({"pause": null})), 200, r#"{"ttl": 20}"#).await;
    assert_eq!(
        stored(&rig).text,
        r#"{"ttl":20}"#,
        "what is in force, without the pause that nobody could see"
    );
}

#[tokio::test]
async fn replies_become_status_codes() {
    let rig = rig(replica(clock::now())).await;
    let replies = [
        (Reply::Restarted, 200, "restarted successfully"),
        (Reply::RestartScheduled, 202, "Restart scheduled"),
        (Reply::RestartRefused(RestartRefusal::OtherRole), 503, "host role mismatch"),
        (
            Reply::RestartRefused(RestartRefusal::Busy(JobKind::Clone)),
            503,
            "creating replica already in progress",
        ),
        (
            Reply::ReinitializeRefused(ReinitializeRefusal::Leads),
            503,
            "I am the leader, can not reinitialize",
        ),
        (Reply::AlreadyScheduled, 409, "another restart is already scheduled"),
        (Reply::NotScheduled, 404, "no restart is scheduled"),
        (Reply::Unanswered, 503, "the supervisor is shutting down"),
    ];
    for (reply, code, text) in replies {
        rig.world().reply = reply;
        for (method, path) in [("POST", "/restart"), ("DELETE", "/restart"), ("POST", "/reinitialize")] {
            expect(&rig, method, path, None, code, text).await;
        }
    }
    rig.world().asked.clear();
    let body = json!({"force": true, "from_leader": true});
    rig.call("POST", "/reinitialize", Some(body)).await;
    rig.call("POST", "/restart", Some(json!({"restart_pending": true}))).await;
    let filter = RestartFilter { pending_only: true, ..RestartFilter::default() };
    let expected = [Ask::Reinitialize { force: true, from_leader: true }, Ask::Restart { at: None, filter }];
    assert_eq!(rig.world().asked, expected);
    expect(&rig, "POST", "/reinitialize", Some(json!("force")), 400, "Bad Request").await;
    assert_eq!(rig.world().asked.len(), 2, "a malformed body orders nothing");
    expect(&rig, "POST", "/reload", None, 202, "reload scheduled").await;
    assert_eq!(rig.world().reloads, 1);
    // Patroni itself supports it only for its tests on Windows, so it is refused here.
    expect(&rig, "POST", "/sigterm", None, 501, "Unsupported method").await;
    rig.status.send_modify(|status| std::sync::Arc::make_mut(status).settings.pause = true);
    let later = json!({"schedule": "2100-01-01T00:00:00Z"});
    expect(&rig, "POST", "/restart", Some(later), 500, "Can't schedule restart in the paused state").await;
}

/// A leader without etcd asks as Patroni does; a Matriarch also says whom it means, and for how long.
#[tokio::test]
async fn a_leader_in_failsafe_mode_is_answered() {
    let rig = rig(replica(clock::now())).await;
    let question =
        json!({"name": "n1", "conn_url": "postgres://a/", "api_url": "http://a/", "slots": {"x": 7}});
    rig.world().reply = Reply::Promised;
    expect(&rig, "POST", "/failsafe", Some(question.clone()), 200, "Accepted").await;
    rig.world().reply = Reply::NotPromised(FailsafeRefusal::Off);
    expect(&rig, "POST", "/failsafe", Some(question.clone()), 502, "failsafe_mode is not enabled").await;
    rig.world().reply = Reply::NotPromised(FailsafeRefusal::Leads);
    let mut meant = question.clone();
    (meant["scope"], meant["member"], meant["ttl_ms"]) = (json!("c"), json!("n2"), json!(9000));
    expect(&rig, "POST", "/failsafe", Some(meant), 500, "Running as a leader").await;
    expect(&rig, "POST", "/failsafe", Some(json!({"name": "n1"})), 400, "`conn_url` is missing").await;
    let slots = BTreeMap::from([("x".to_owned(), Lsn(7))]);
    let conn_url = "postgres://a/".to_owned();
    let patroni = FailsafeQuestion { leader: name("n1"), conn_url, asked: None, ttl_ms: None, slots };
    let asked = Some(("c".to_owned(), name("n2")));
    let matriarch = FailsafeQuestion { asked, ttl_ms: Some(9000), ..patroni.clone() };
    let expected = [patroni.clone(), patroni, matriarch].map(Ask::Failsafe);
    assert_eq!(rig.world().asked, expected);
    let body = question.to_string();
    let head = format!("POST /failsafe HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let raw = rig.raw(&head).await;
    assert!(raw.contains("lsn: 900"), "the position goes into a header: {raw}");
}

#[tokio::test]
async fn only_the_right_password_opens_unsafe_routes() {
    let credentials = Some(("admin".to_owned(), "s3cret".to_owned()));
    let setup = ApiSetup { credentials: credentials.clone(), ..ApiSetup::default() };
    let rig = rig_with(primary(clock::now()), setup).await;
    expect(&rig, "GET", "/config", None, 200, "ttl").await;
    expect(&rig, "POST", "/reload", None, 401, "no auth header received").await;
    expect(&rig, "POST", "/foo", None, 501, "Unsupported").await;
    let wrong = Some(("admin".to_owned(), "secret".to_owned()));
    let answer = rig.call_as("POST", "/reload", None, wrong).await;
    assert_eq!(answer, (401, "not authenticated".to_owned()));
    assert_eq!(rig.call_as("POST", "/reload", None, credentials).await.0, 202);
    let raw = rig.raw("POST /reload HTTP/1.0\r\n\r\n").await;
    assert!(raw.to_lowercase().contains("www-authenticate: basic realm=\"patroni\""), "{raw}");
    assert_eq!(rig.world().reloads, 1);
}

#[tokio::test]
async fn only_listed_addresses_open_unsafe_routes() {
    let cases = [
        (&["10.0.0.0/8"][..], false, 403),
        (&["10.0.0.0/8", "127.0.0.0/8"][..], false, 202),
        (&["localhost"][..], false, 202),
        // The members of the view have REST interfaces on 127.0.0.1.
        (&[][..], true, 202),
        (&["10.0.0.0/8"][..], true, 202),
    ];
    for (list, members, code) in cases {
        let setup = ApiSetup {
            allowlist: list.iter().map(|entry| (*entry).to_owned()).collect(),
            allowlist_include_members: members,
            ..ApiSetup::default()
        };
        let rig = rig_with(primary(clock::now()), setup).await;
        let answer = rig.call("POST", "/reload", None).await;
        assert_eq!(answer.0, code, "{list:?} {members}: {}", answer.1);
        assert_eq!(rig.call("GET", "/config", None).await.0, 200);
    }
}

/// A page of another site could have an operator's browser change something, with the password that it knows.
#[tokio::test]
async fn a_browser_changes_nothing_for_a_foreign_page() {
    let credentials = Some(("admin".to_owned(), "s3cret".to_owned()));
    for setup in [ApiSetup::default(), ApiSetup { credentials, ..ApiSetup::default() }] {
        let rig = rig_with(primary(clock::now()), setup).await;
        let login = "Host: 127.0.0.1:8008\r\nAuthorization: Basic YWRtaW46czNjcmV0\r\n";
        for (method, path) in [("POST", "/reload"), ("PATCH", "/config"), ("DELETE", "/switchover")] {
            for foreign in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Origin: null"] {
                let request = format!("{method} {path} HTTP/1.0\r\n{login}{foreign}\r\n\r\n");
                let answer = rig.raw(&request).await;
                assert!(
                    answer.contains(" 403 ") && answer.contains("page of another site"),
                    "{request}{answer}"
                );
            }
        }
        assert_eq!(rig.world().reloads, 0);
        let own = "Origin: http://127.0.0.1:8008\r\nSec-Fetch-Site: same-origin";
        let answer = rig.raw(&format!("POST /reload HTTP/1.0\r\n{login}{own}\r\n\r\n")).await;
        assert!(answer.contains(" 202 "), "{answer}");
    }
}

/// A refusal may repeat what was asked, so a browser must not take it for a page of this server's own.
#[tokio::test]
async fn a_sentence_runs_no_script_in_a_browser() {
    let rig = rig(primary(clock::now())).await;
    let answer = rig.raw("GET /switchover/check?candidate=%3Cscript%3E/ HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("<script>/"), "{answer}");
    assert!(answer.to_lowercase().contains("content-security-policy: sandbox\r\n"), "{answer}");
}

#[tokio::test]
async fn headers_follow_the_settings() {
    let setup = ApiSetup {
        extra_headers: vec![("X-Frame-Options".to_owned(), "deny".to_owned())],
        server_tokens: ServerTokens::Minimal,
        ..ApiSetup::default()
    };
    let rig = rig_with(primary(clock::now()), setup).await;
    let answer = rig.raw("GET /patroni HTTP/1.0\r\n\r\n").await.to_lowercase();
    for part in [
        "http/1.0 200 ok\r\n",
        "server: patroni/4.1.5",
        "x-frame-options: deny",
        "content-type: application/json",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

/// Postgres is queried once a second, however many probes there are, and none of them waits for the answer.
#[tokio::test]
async fn probes_cause_no_queries_and_wait_for_none() {
    let rig = rig(primary(clock::now())).await;
    let began = clock::now();
    let looked = async {
        while rig.world().looks < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked).await.expect("Postgres is queried without a probe");
    for _ in 0..20 {
        let probes = (0..10).map(|_| rig.call("GET", "/leader", None));
        assert!(futures::future::join_all(probes).await.iter().all(|answer| answer.0 == 200));
    }
    let looks_max = 1 + clock::now().since(began).as_secs();
    assert!(rig.world().looks as u64 <= looks_max, "{} looks, at most {looks_max}", rig.world().looks);
    // From now on no query is answered.
    rig.world().loop_has_ended = true;
    for path in ["/primary", "/leader", "/replica", "/health", "/readiness", "/liveness", "/metrics"] {
        let soon = Duration::from_millis(500);
        tokio::time::timeout(soon, rig.call("GET", path, None))
            .await
            .unwrap_or_else(|_| panic!("{path} waits"));
    }
}

/// The body of health checks is written once for each status, and each new status has its own.
#[tokio::test]
async fn a_health_check_shows_the_newest_status() {
    let first = primary(clock::now());
    let rig = rig(first.clone()).await;
    for because in ["all is well", "all is well", "something changed"] {
        rig.status.send_replace(Arc::new(Status { because: because.to_owned(), ..first.clone() }));
        let body: Value = serde_json::from_str(&rig.call("GET", "/primary", None).await.1).expect("JSON");
        assert_eq!(body["because"], because);
    }
}
