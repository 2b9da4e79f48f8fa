//! The response of the API server double to a request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};

use super::client_port::{ClientPort, PortState};
use super::exec::Exec;
use super::faults::{self, Effect};
use super::patch::Kind;
use super::resource::Resource;
use super::selector::Selector;
use super::server::{Asked, Server};
use super::status::{Place, Reply};
use super::watch;

/// A path, taken apart.
struct Target {
    resource: &'static Resource,
    namespace: String,
    name: String,
    subresource: String,
}

/// Answers one request, in the order of a real API server: authentication, faults, authorization, request.
pub(super) async fn answer(server: Arc<Server>, client_port: ClientPort, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let authorization = header_text(&head.headers, header::AUTHORIZATION);
    let subject = server.access.lock().expect("nobody panics with it").subject(authorization);
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let number = server.note(Asked {
        at: Instant::now(),
        subject: subject.clone(),
        method: head.method.to_string(),
        path: path.clone(),
        query: query.clone(),
        body: json.clone(),
        code: None,
        bytes: 0,
    });
    let mut state = client_port.state();
    // A port lives as long as its connections.
    let _ = state.wait_for(|state| *state != PortState::Hangs).await;
    if *state.borrow() == PortState::Shut {
        std::future::pending::<()>().await;
    }
    let call = Call {
        method: head.method.as_str(),
        path: &path,
        query: parse_query(&query),
        content_type: header_text(&head.headers, header::CONTENT_TYPE).unwrap_or_default(),
        body: (!body.is_empty()).then_some(&json),
    };
    match call.answer(&server, subject.as_deref()).await {
        Ok(Answered::Watch(start)) => {
            server.note_more(number, |asked| asked.code = Some(200));
            let body = Body::from_stream(watch::stream(server, client_port, number, start));
            let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
            response.body(body).expect("is well-formed")
        }
        Ok(Answered::Exec(pod)) => {
            server.note_more(number, |asked| asked.code = Some(101));
            let words = pairs(&query).filter(|(key, _)| key == "command").map(|(_, word)| word).collect();
            let programs = server.programs.lock().expect("nobody panics with it").clone();
            Exec { pod, words }.start(&programs, &head.headers, upgrade)
        }
        Ok(Answered::Reply(reply)) | Err(reply) => {
            let text = reply.body.to_string();
            server.note_more(number, |asked| (asked.code, asked.bytes) = (Some(reply.code), text.len()));
            let mut response =
                Response::builder().status(reply.code).header(header::CONTENT_TYPE, "application/json");
            if let Some(seconds) = reply.retry_after {
                response = response.header(header::RETRY_AFTER, seconds);
            }
            response.body(Body::from(text)).expect("is well-formed")
        }
    }
}

enum Answered {
    Reply(Reply),
    Watch(watch::Start),
    /// A command in this pod.
    Exec(String),
}

struct Call<'a> {
    method: &'a str,
    path: &'a str,
    query: BTreeMap<String, String>,
    content_type: &'a str,
    /// `Null`: the body could not be read.
    body: Option<&'a Value>,
}

impl Call<'_> {
    async fn answer(&self, server: &Server, subject: Option<&str>) -> Result<Answered, Reply> {
        let subject = subject.ok_or_else(Reply::unauthorized)?;
        if self.path == "/version" {
            let version =
                json!({ "major": "1", "minor": "30", "gitVersion": "v1.30.0", "platform": "linux/amd64" });
            return Ok(Answered::Reply(Reply::ok(200, version)));
        }
        let target = target(self.path).ok_or_else(Reply::no_resource)?;
        let verb = self.verb(&target).ok_or_else(Reply::method)?;
        let qualified = target.resource.qualified();
        match server.suffer(subject, verb, self.path).await {
            Some(Effect::TooMany(seconds)) => return Err(Reply::too_many(seconds)),
            Some(Effect::Status(code)) => return Err(faults::reply(code, &qualified, &target.name)),
            _ => {}
        }
        let access = server.access.lock().expect("nobody panics with it");
        // Servers before 1.35 ask for `get` only, as the WebSocket is one; later ones also for the verb of a POST.
        let verbs: &[&str] = if target.subresource == "exec" { &["get", "create"] } else { &[verb] };
        let refused = |verb: &&&str| !access.allows(subject, verb, target.resource, &target.subresource);
        if let Some(verb) = verbs.iter().find(refused) {
            let (group, place) =
                (target.resource.group, Place { namespace: &target.namespace, name: &target.name });
            let resource = match target.subresource.as_str() {
                "" => target.resource.plural.to_owned(),
                subresource => format!("{}/{subresource}", target.resource.plural),
            };
            return Err(Reply::forbidden(subject, verb, group, &resource, &place));
        }
        drop(access);
        self.perform(server, verb, &target)
    }

    /// The verb, as a Role has it.
    fn verb(&self, target: &Target) -> Option<&'static str> {
        let one = !target.name.is_empty();
        match self.method {
            "GET" if self.flag("watch") => Some("watch"),
            "GET" if one => Some("get"),
            "GET" => Some("list"),
            "POST" if !one => Some("create"),
            "PATCH" if one => Some("patch"),
            "DELETE" if one => Some("delete"),
            _ => None,
        }
    }

    fn perform(&self, server: &Server, verb: &str, target: &Target) -> Result<Answered, Reply> {
        let Target { resource, namespace, name, subresource } = target;
        let place = (namespace.as_str(), name.as_str());
        let selector = || {
            let text = |key: &str| self.query.get(key).map(String::as_str);
            Selector::parse(text("labelSelector"), text("fieldSelector"))
        };
        let object = match verb {
            "get" if subresource == "exec" => {
                server.with_store(|store| store.get(resource, namespace, name))?;
                return Ok(Answered::Exec(name.clone()));
            }
            "watch" => return Ok(Answered::Watch(self.start(target, selector()?)?)),
            "get" => server.with_store(|store| store.get(resource, namespace, name))?,
            "list" => {
                let selector = selector()?;
                server.with_store(|store| {
                    resource.list(store.version(), store.select(resource, namespace, &selector))
                })
            }
            "create" => {
                let object = self.readable_body()?.clone();
                server.with_store(|store| store.create(resource, namespace, object))?
            }
            "patch" => {
                let kind = Kind::of(self.content_type).ok_or_else(Reply::media_type)?;
                let patch = (kind, self.readable_body()?);
                server.with_store(|store| store.patch(resource, place, subresource == "status", patch))?
            }
            _ => {
                let options = self.body.cloned().unwrap_or_default();
                server.with_store(|store| store.delete(resource, place, &options))?
            }
        };
        Ok(Answered::Reply(Reply::ok(if verb == "create" { 201 } else { 200 }, object)))
    }

    fn start(&self, target: &Target, selector: Selector) -> Result<watch::Start, Reply> {
        let number =
            |key: &str| self.query.get(key).filter(|text| !text.is_empty()).map(|text| text.parse::<u64>());
        let version = number("resourceVersion").transpose().map_err(|error| {
            let given = self.query.get("resourceVersion").map(String::as_str).unwrap_or_default();
            let why = format!("resourceVersion: Invalid value: \"{given}\": {error}");
            Reply::failure(500, "InternalError", &why)
        })?;
        let seconds = number("timeoutSeconds").transpose();
        Ok(watch::Start {
            resource: target.resource,
            namespace: target.namespace.clone(),
            selector,
            version: version.filter(|version| *version > 0),
            seconds: seconds.map_err(|error| Reply::bad_request(&error.to_string()))?.unwrap_or(2400),
            bookmarks: self.flag("allowWatchBookmarks"),
        })
    }

    fn readable_body(&self) -> Result<&Value, Reply> {
        let body = self.body.filter(|body| !body.is_null());
        body.ok_or_else(|| Reply::bad_request("the body of the request could not be read as JSON"))
    }

    fn flag(&self, key: &str) -> bool {
        self.query.get(key).is_some_and(|value| value == "true" || value == "1")
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `/api/v1/…` or `/apis/GROUP/v1/…`, then `namespaces/NS/…` or not, then a resource, a name, a subresource.
fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, "v1", rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, "", ""),
        [plural, name] => (plural, *name, ""),
        [plural, name, subresource @ ("status" | "exec")] => (plural, *name, *subresource),
        _ => return None,
    };
    let resource = Resource::find(group, plural)?;
    let text = |part: &str| part.to_owned();
    Some(Target { resource, namespace: text(namespace), name: text(name), subresource: text(subresource) })
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    pairs(query).collect()
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value)))
}

/// Undoes the escapes of a query.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let escaped = more.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = escaped.and_then(|two| u8::from_str_radix(two, 16).ok());
        (bytes, rest) = match (first, escaped) {
            (b'%', Some(byte)) => ([bytes, vec![byte]].concat(), &more[2..]),
            (b'+', _) => ([bytes, vec![b' ']].concat(), more),
            (byte, _) => ([bytes, vec![*byte]].concat(), more),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
