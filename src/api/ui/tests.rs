//! The pages of a real server over a fake loop.

use serde_json::json;

use super::members::page_of;
use super::page;
use crate::agent::Status;
use crate::api::ApiSetup;
use crate::api::tests::{Rig, name, primary, replica, rig_with, view};
use crate::model::{Ask, JournalEntry, JournalRecord, MemberKey, RestartFilter, Tags, Term, WallTime};
use crate::os::clock;

async fn page_rig(first: Status) -> Rig {
    rig_with(first, ApiSetup { web_page: true, ..ApiSetup::default() }).await
}

async fn get(rig: &Rig, path: &str) -> String {
    rig.raw(&format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:8008\r\n\r\n")).await
}

/// Sends a form as a browser does.
async fn send(rig: &Rig, action: &str, headers: &str, fields: &str) -> String {
    let length = fields.len();
    let head = format!(
        "POST /ui/{action} HTTP/1.0\r\nHost: 127.0.0.1:8008\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    rig.raw(&(head + fields)).await
}

fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"token\" value=\"").expect("a form");
    rest.split('"').next().unwrap_or_default().to_owned()
}

fn refused(why: &str) -> JournalRecord {
    let entry = JournalEntry::Refused { why: why.to_owned(), request: None, steps: Vec::new() };
    JournalRecord { term: Term(3), by: name("n1"), at: WallTime(1_795_384_262_000), entry }
}

#[tokio::test]
async fn the_page_shows_the_cluster_without_a_script() {
    let rig = page_rig(replica(clock::now())).await;
    rig.world().journal.push(refused("n2 has not confirmed"));
    let page = get(&rig, "/ui").await;
    for part in [
        "200 OK",
        "content-type: text/html; charset=utf-8",
        "n1 leads (term 3) and runs as the primary",
        "<strong>n2</strong>: replica, running",
        "all is well",
        "href=\"http://127.0.0.1:1/ui\"",
        "dc=b",
        "data-label=\"Receive lag\">100 B",
        "data-label=\"Replay lag\">200 B",
        "d=\"M708.0 ",
        "a hand-over by n1 did not happen",
        "n2 has not confirmed",
        "action=\"/ui/switchover\"",
        "action=\"/ui/pause\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    for (path, kind) in [("/ui/style.css", "text/css"), ("/ui/app.js", "text/javascript")] {
        assert!(get(&rig, path).await.contains(&format!("content-type: {kind}; charset=utf-8")), "{path}");
    }
    assert!(get(&rig, "/ui/none").await.contains("404"));
}

#[tokio::test]
async fn every_answer_has_the_strict_headers() {
    let rig = page_rig(primary(clock::now())).await;
    let sent = send(&rig, "pause", "", "").await;
    let streamed = first_of_stream(&rig).await;
    for answer in
        [get(&rig, "/ui").await, get(&rig, "/ui/app.js").await, get(&rig, "/ui/x").await, sent, streamed]
    {
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: same-origin\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
    }
}

/// Names, tags and reasons come from etcd and from other programs.
#[tokio::test]
async fn what_is_shown_is_text() {
    let evil = "<script>alert(1)</script>\"'&";
    let mut status = primary(clock::now());
    let mut cluster = view();
    let record = json!({"state": "running", "role": "replica", "tags": {evil: evil}, "refusal": evil,
        "api_url": "javascript://x:1/%0aalert(1)", "replication_state": evil});
    let record = serde_json::from_value(record).expect("a valid record");
    let odd = name(&evil.replace('/', ""));
    cluster.members.insert(odd, MemberKey { record, lease: None });
    status.because = evil.to_owned();
    status.me.tags = Tags::default();
    (status.view, status.last_view) = (Some(cluster.clone().into()), Some(cluster.into()));
    let rig = page_rig(status).await;
    rig.world().journal.push(refused(evil));
    let page = get(&rig, "/ui").await;
    assert!(page.matches("&lt;script&gt;").count() > 6, "{page}");
    assert_eq!(page.matches("<script").count(), 1, "only our own: {page}");
    assert!(!page.contains("javascript:"), "{page}");
    let streamed = first_of_stream(&rig).await;
    assert!(streamed.contains("&lt;script&gt;") && !streamed.contains("<script"), "{streamed}");
}

#[test]
fn a_link_leads_to_a_page_of_the_web() {
    for (url, page) in [
        ("https://m1.example:8008/patroni", Some("https://m1.example:8008/ui")),
        ("http://[fd00::1]:8008", Some("http://[fd00::1]:8008/ui")),
        ("javascript://m1/x", None),
        ("http://user@m1/", None),
        ("http://m 1/", None),
        ("http:///x", None),
        ("127.0.0.1:8008", None),
    ] {
        assert_eq!(page_of(url).as_deref(), page, "{url}");
    }
}

#[tokio::test]
async fn a_form_does_what_rest_does() {
    let rig = page_rig(primary(clock::now())).await;
    let token = token(&get(&rig, "/ui").await);
    let own = "Origin: http://127.0.0.1:8008\r\nSec-Fetch-Site: same-origin\r\n";
    let answer = send(&rig, "restart", own, &format!("token={token}&confirm=n1")).await;
    assert!(answer.contains("200 OK") && answer.contains("restarted successfully"), "{answer}");
    assert_eq!(rig.world().asked, [Ask::Restart { at: None, filter: RestartFilter::default() }]);
    let answer = send(&rig, "pause", own, &format!("token={token}&confirm=yes")).await;
    assert!(answer.contains("The cluster is paused."), "{answer}");
    let config = |rig: &Rig| rig.world().cluster.clone().expect("set").config.expect("set").text;
    assert!(config(&rig).contains(r#""pause":true"#), "{}", config(&rig));
    let answer = send(&rig, "resume", own, &format!("token={token}")).await;
    assert!(answer.contains("The pause has ended."), "{answer}");
    assert!(!config(&rig).contains("pause"), "{}", config(&rig));
    // A refusal of REST is shown with its status.
    let fields = format!("token={token}&leader=n1&candidate=n%31&confirm=n1");
    let answer = send(&rig, "switchover", own, &fields).await;
    assert!(answer.contains(" 400 ") && answer.contains("target and source are the same"), "{answer}");
}

#[tokio::test]
async fn a_form_of_a_foreign_page_is_refused() {
    let credentials = Some(("admin".to_owned(), "s3cret".to_owned()));
    let setup = ApiSetup { web_page: true, credentials, ..ApiSetup::default() };
    let rig = rig_with(primary(clock::now()), setup).await;
    let token = token(&get(&rig, "/ui").await);
    let login = "Authorization: Basic YWRtaW46czNjcmV0\r\n";
    let fields = format!("token={token}&confirm=yes");
    for (headers, fields, status, words) in [
        ("", &*fields, " 401 ", "www-authenticate: Basic"),
        ("Authorization: Basic eDp5\r\n", &*fields, " 401 ", "not authenticated"),
        (&*format!("{login}Sec-Fetch-Site: same-site\r\n"), &*fields, " 403 ", "page of another site"),
        (&*format!("{login}Origin: http://m2:8008\r\n"), &*fields, " 403 ", "page of another site"),
        (login, "confirm=yes", " 403 ", "not of this process"),
        (login, "token=x&confirm=yes", " 403 ", "not of this process"),
        (login, &*format!("token={token}"), " 400 ", "was not ticked"),
    ] {
        let answer = send(&rig, "pause", headers, fields).await;
        assert!(answer.contains(status) && answer.contains(words), "{headers}{fields}: {answer}");
    }
    let config = rig.world().cluster.clone().expect("set").config.expect("set").text;
    assert!(!config.contains("pause"), "nothing was done: {config}");
    let answer = send(&rig, "pause", login, &fields).await;
    assert!(answer.contains("The cluster is paused."), "{answer}");
}

#[tokio::test]
async fn the_list_of_writers_holds_for_forms() {
    let setup =
        ApiSetup { web_page: true, allowlist: vec!["192.0.2.0/24".to_owned()], ..ApiSetup::default() };
    let rig = rig_with(primary(clock::now()), setup).await;
    let token = token(&get(&rig, "/ui").await);
    let answer = send(&rig, "pause", "", &format!("token={token}&confirm=yes")).await;
    assert!(answer.contains(" 403 ") && answer.contains("Access is denied"), "{answer}");
}

#[tokio::test]
async fn a_setting_switches_it_off() {
    let rig = rig_with(primary(clock::now()), ApiSetup::default()).await;
    for answer in
        [get(&rig, "/ui").await, get(&rig, "/ui/events").await, send(&rig, "pause", "", "confirm=yes").await]
    {
        assert!(answer.contains(" 404 ") && answer.contains("restapi.ui is false"), "{answer}");
    }
}

/// Reads a stream until every part of the page has come.
async fn first_of_stream(rig: &Rig) -> String {
    let mut stream = StreamReader::open(rig).await;
    stream.read_until("event: operations\n").await
}

struct StreamReader {
    stream: tokio::net::TcpStream,
    read: String,
}

impl StreamReader {
    async fn open(rig: &Rig) -> StreamReader {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(rig.address).await.expect("a listening server");
        stream.write_all(b"GET /ui/events HTTP/1.1\r\nHost: m1\r\n\r\n").await.expect("an open connection");
        StreamReader { stream, read: String::new() }
    }

    /// All that has come, once this has; what came before is not looked at again.
    async fn read_until(&mut self, words: &str) -> String {
        use tokio::io::AsyncReadExt;
        let reading = async {
            let mut buffer = [0; 4096];
            while !self.read.contains(words) {
                let count = self.stream.read(&mut buffer).await.expect("an open connection");
                assert_ne!(count, 0, "the stream ended: {}", self.read);
                self.read.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            std::mem::take(&mut self.read)
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), reading).await;
        read.unwrap_or_else(|_| panic!("{words} does not come"))
    }
}

#[tokio::test]
async fn a_stream_sends_only_what_has_changed() {
    let rig = page_rig(primary(clock::now())).await;
    let mut stream = StreamReader::open(&rig).await;
    let first = stream.read_until("event: operations\n").await;
    assert!(first.contains("content-type: text/event-stream\r\n"), "{first}");
    for part in &page::PARTS {
        assert!(first.contains(&format!("event: {}\ndata: ", part.id)), "{}: {first}", part.id);
    }
    let mut status = primary(clock::now());
    status.because = "something else".to_owned();
    rig.status.send_replace(status.into());
    let next = stream.read_until("something else").await;
    assert!(next.contains("event: state\n"), "{next}");
    assert!(!next.contains("event: members\n") && !next.contains("event: operations\ndata: <"), "{next}");
}

/// Pages that are left open keep nobody from a health check, and a further one gets a clear answer.
#[tokio::test]
async fn so_many_streams_are_open_at_once() {
    let rig = page_rig(primary(clock::now())).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = StreamReader::open(&rig).await;
        stream.read_until("event: state\n").await;
        streams.push(stream);
    }
    let answer = get(&rig, "/ui/events").await;
    assert!(
        answer.contains(" 503 ") && answer.contains("too many web pages that follow the state"),
        "{answer}"
    );
    assert_eq!(rig.call("GET", "/primary", None).await.0, 200);
    assert!(get(&rig, "/ui").await.contains("200 OK"));
    drop(streams);
    let free = async {
        while !first_or_refusal(&rig).await.contains("200 OK") {
            rig.status.send_modify(|status| std::sync::Arc::make_mut(status).because.push('.'));
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), free)
        .await
        .expect("an ended stream frees its place");
}

async fn first_or_refusal(rig: &Rig) -> String {
    let mut stream = StreamReader::open(rig).await;
    stream.read_until("\r\n\r\n").await
}
