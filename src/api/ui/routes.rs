//! The paths below `/ui`.

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde_json::{Map, Value, json};

use super::HEADERS;
use super::forms::CONFIRMED;
use super::page;
use crate::api::ApiSetup;
use crate::api::answer::HttpAnswer;
use crate::api::dispatch::{BODY_WITHIN, Caller, Routes};
use crate::api::query::Query;
use crate::api::request_limits::RequestClass;
use crate::api::sentences::answer_of;
use crate::api::{config, operate, switchover};
use crate::os::clock;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("app.js");
/// More than any form here.
const FORM_BYTES_MAX: usize = 8 << 10;

/// An operation that a form asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UiAction {
    Switchover,
    Restart,
    Pause,
    Resume,
}

impl UiAction {
    fn of(path: &str) -> Option<UiAction> {
        match path {
            "/ui/switchover" => Some(UiAction::Switchover),
            "/ui/restart" => Some(UiAction::Restart),
            "/ui/pause" => Some(UiAction::Pause),
            "/ui/resume" => Some(UiAction::Resume),
            _ => None,
        }
    }

    fn title(self) -> &'static str {
        match self {
            UiAction::Switchover => "Switchover",
            UiAction::Restart => "Restart",
            UiAction::Pause => "Pause",
            UiAction::Resume => "Resume",
        }
    }
}

/// Answers a GET.
pub(in crate::api) async fn get(routes: &Routes, path: &str, setup: &ApiSetup) -> HttpAnswer {
    if !setup.web_page {
        return off();
    }
    match path {
        "/ui" | "/ui/" => whole(routes).await.unwrap_or_else(|refusal| as_page("Not now", refusal)),
        "/ui/style.css" => HttpAnswer::fixed("text/css; charset=utf-8", STYLE, HEADERS),
        "/ui/app.js" => HttpAnswer::fixed("text/javascript; charset=utf-8", SCRIPT, HEADERS),
        _ => as_page("Not found", HttpAnswer::text(404, format!("There is no page {path} here."))),
    }
}

/// Answers a POST.
pub(in crate::api) async fn post(
    routes: &Routes,
    path: &str,
    request: Request<Incoming>,
    caller: Caller,
    setup: &ApiSetup,
) -> HttpAnswer {
    if !setup.web_page {
        return off();
    }
    let Some(action) = UiAction::of(path) else {
        return as_page("Not found", HttpAnswer::text(404, format!("There is no form for {path} here.")));
    };
    let (head, body) = request.into_parts();
    let act =
        async { act(routes, action, &head, body, caller, setup).await.unwrap_or_else(|refusal| refusal) };
    let answer = match action {
        // They are answered when they are done, with deadlines of their own.
        UiAction::Switchover | UiAction::Restart => act.await,
        UiAction::Pause | UiAction::Resume => routes.patiently(act).await,
    };
    as_page(action.title(), answer)
}

/// The setting is off.
pub(super) fn off() -> HttpAnswer {
    HttpAnswer::text(404, "the web page is switched off here: restapi.ui is false")
}

/// An answer of the REST interface as a page.
pub(super) fn as_page(title: &str, answer: HttpAnswer) -> HttpAnswer {
    let page = page::result(title, &String::from_utf8_lossy(&answer.body));
    answer.shown_as(HttpAnswer::fixed("text/html; charset=utf-8", page.into_string(), HEADERS))
}

async fn whole(routes: &Routes) -> Result<HttpAnswer, HttpAnswer> {
    let _place = routes.place(RequestClass::Read)?;
    let ui = routes.ui.clone();
    let drawn = async move { page::whole(&ui.now().await, clock::wall()).into_string() };
    let page = routes.calls.spawn(drawn).await.map_err(|error| HttpAnswer::text(500, error.to_string()))?;
    Ok(HttpAnswer::fixed("text/html; charset=utf-8", page, HEADERS))
}

async fn act(
    routes: &Routes,
    action: UiAction,
    head: &Parts,
    body: Incoming,
    caller: Caller,
    setup: &ApiSetup,
) -> Result<HttpAnswer, HttpAnswer> {
    routes.admit(head, caller, setup, true).await?;
    let form = form(body).await?;
    let field = |name: &str| form.first(name).unwrap_or_default();
    if !routes.ui.token.is(field("token")) {
        return Err(HttpAnswer::text(
            403,
            "This form is not of this process: the member has been restarted since, or another page sent it. Go back, \
             reload the page and try again.",
        ));
    }
    let handle = &routes.handle;
    let needed = match action {
        UiAction::Switchover => field("leader").to_owned(),
        UiAction::Restart => handle.status().me.name.to_string(),
        UiAction::Pause => CONFIRMED.to_owned(),
        UiAction::Resume => String::new(),
    };
    if field("confirm") != needed {
        return Err(HttpAnswer::text(400, "Nothing was done: the box beside the button was not ticked."));
    }
    let _place = routes.place(RequestClass::Change)?;
    match action {
        UiAction::Switchover => {
            let body = object(json!({"leader": field("leader"), "candidate": field("candidate")}));
            let body = caller.signed(body, "the web page,");
            switchover::request(handle, switchover::LeadershipRequest::Switchover, &body).await
        }
        UiAction::Restart => Ok(answer_of(&operate::restart(handle, &Map::new()).await?)),
        UiAction::Pause | UiAction::Resume => {
            let (change, sentence) = match action {
                UiAction::Pause => (json!({"pause": true}), "The cluster is paused."),
                _ => (json!({"pause": null}), "The pause has ended."),
            };
            config::patch(handle, setup.parameter_check.as_ref(), object(change)).await?;
            Ok(HttpAnswer::text(200, sentence))
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// The fields of a form.
async fn form(body: Incoming) -> Result<Query, HttpAnswer> {
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, FORM_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(Query::parse(&String::from_utf8_lossy(&collected.to_bytes()))),
        Ok(Err(_)) | Err(_) => Err(HttpAnswer::text(400, "The form is too long, or did not arrive in time.")),
    }
}
