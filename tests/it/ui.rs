//! The web page of a member: without a browser, and in one.

mod browser;
mod checks;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Cluster, Member, Plan, merge};

const WITHIN: Duration = Duration::from_secs(30);
/// `admin:s3cret`.
const LOGIN: &str = "Authorization: Basic YWRtaW46czNjcmV0\r\n";

/// A cluster whose REST interface needs a login.
async fn closed_cluster() -> Cluster {
    let login = json!({ "username": "admin", "password": "s3cret" });
    Plan::new(2).all(json!({ "restapi": { "authentication": login } })).start().await
}

/// Sends bytes, and reads until the other end has no more, or until these words have come.
async fn exchange(member: &Member, request: &str, words: Option<&str>) -> String {
    let exchanging = async {
        let mut stream = TcpStream::connect(("127.0.0.1", member.api)).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("an open connection");
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !words.is_some_and(|words| text.contains(words)) {
            match stream.read(&mut buffer).await.expect("an open connection") {
                0 => break,
                count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
        text
    };
    tokio::time::timeout(WITHIN, exchanging).await.unwrap_or_else(|_| panic!("{words:?} does not come"))
}

async fn page(member: &Member) -> String {
    member.get("/ui").await.expect("an answer").body
}

/// Sends a form as a browser does.
async fn send_form(member: &Member, action: &str, headers: &str, fields: &str) -> String {
    let (port, length) = (member.api, fields.len());
    let head = format!(
        "POST /ui/{action} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    exchange(member, &(head + fields), None).await
}

fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"token\" value=\"").expect("a form");
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// Page, stream, and a switchover by a form: without a browser, and without a script.
#[tokio::test]
async fn a_switchover_by_a_form_is_seen_on_the_page() {
    let cluster = closed_cluster().await;
    let [m1, m2] = &cluster.members[..] else { panic!("two members") };
    for part in ["m1 leads (term ", "Promise", "m1 became the first leader", "data-label=\"Follows\">m1"] {
        let is_there = async || page(m2).await.contains(part);
        cluster.wait_until(WITHIN, part, is_there).await;
    }

    let fields = format!("token={}&leader=m1&candidate=m2&confirm=m1", token(&page(m1).await));
    for (headers, status) in [
        ("", "401"),
        (&*format!("{LOGIN}Origin: http://evil.example\r\n"), "403"),
        (&*format!("{LOGIN}Sec-Fetch-Site: cross-site\r\n"), "403"),
    ] {
        let answer = send_form(m1, "switchover", headers, &fields).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{headers}: {answer}");
    }
    let foreign = fields.replace("token=", "token=x");
    let answer = send_form(m1, "switchover", LOGIN, &foreign).await;
    assert!(answer.contains(" 403 ") && answer.contains("not of this process"), "{answer}");
    assert_eq!(cluster.seen().await.as_ref().and_then(|seen| seen.leader()), Some("m1"));

    let events = "GET /ui/events HTTP/1.1\r\nHost: m2\r\n\r\n";
    let follow = exchange(m2, events, Some("switchover: m1 handed the leadership over to m2"));
    let headers = format!("{LOGIN}Origin: http://127.0.0.1:{}\r\nSec-Fetch-Site: same-origin\r\n", m1.api);
    let (seen, answer) = tokio::join!(follow, send_form(m1, "switchover", &headers, &fields));
    assert!(
        answer.contains("200 OK") && answer.contains("switched over to"),
        "{answer}\n{}",
        cluster.story()
    );
    assert!(seen.contains("m1 leads (term ") && seen.contains("m2 leads (term "), "{seen}");
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m2"));
    let told = page(m1).await;
    assert!(
        told.contains("an operator (the web page, from 127.0.0.1) asked for a switchover from m1 to m2"),
        "{told}"
    );
}

/// `restapi.ui: false`, at the next reload; open streams do not keep a supervisor from its end.
#[tokio::test]
async fn the_page_can_be_switched_off() {
    let mut cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    let events = "GET /ui/events HTTP/1.1\r\nHost: m1\r\n\r\n";
    exchange(member, events, Some("event: state")).await;
    let mut config = member.read_config();
    merge(&mut config, &json!({ "restapi": { "ui": false } }));
    member.write_config(&config);
    assert_eq!(member.post("/reload", &Value::Null).await.status, 202);
    let is_off = async || {
        let answer = member.get("/ui").await.expect("an answer");
        answer.status == 404 && answer.body.contains("restapi.ui is false")
    };
    cluster.wait_until(WITHIN, "the page is off", is_off).await;
    assert_eq!(send_form(member, "pause", "", "confirm=yes").await.split(' ').nth(1), Some("404"));
    assert_eq!(member.status("/primary").await, 200);
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(WITHIN).await, Some(0));
}
