//! A requested change of leadership, and its way past the REST interface.

use serde_json::{Value, json};

use super::context::Context;
use crate::api::wire::ChangeEnd;
use crate::client::{Client, ClientError};
use crate::model::{FailoverRequest, MemberName, WallTime};

/// A requested change of leadership.
#[derive(Debug)]
pub struct LeadershipChange {
    /// Its name.
    pub word: &'static str,
    /// The REST endpoint.
    pub endpoint: &'static str,
    /// The request's body.
    pub body: Value,
    /// The current leader.
    pub from: Option<String>,
    /// The next leader.
    pub to: Option<String>,
}

impl LeadershipChange {
    /// The request for the key in etcd. That of a switchover names the leader, so that it is void once that leader has
    /// given up leadership on another request.
    pub fn in_etcd(&self) -> Option<FailoverRequest> {
        let name = |name: &Option<String>| name.as_ref().and_then(|name| MemberName::new(name).ok());
        if self.endpoint == "/failover" {
            let down = self.body.get("confirm_down").cloned().unwrap_or_else(|| json!([]));
            return Some(FailoverRequest {
                candidate: Some(name(&self.to)?),
                confirmed_down: serde_json::from_value(down).ok()?,
                rebuild: self.body.get("rebuild") == Some(&Value::Bool(true)),
                requested_by: self.requested_by(),
                ..FailoverRequest::default()
            });
        }
        let at = self.body.get("scheduled_at").and_then(Value::as_str);
        let at = at.map(|at| at.parse::<jiff::Timestamp>().map(|at| WallTime(at.as_millisecond())));
        let request = FailoverRequest {
            leader: name(&self.from),
            candidate: name(&self.to),
            scheduled_at: at.transpose().ok()?,
            requested_by: self.requested_by(),
            ..FailoverRequest::default()
        };
        request.leader.is_some().then_some(request)
    }

    fn requested_by(&self) -> Option<String> {
        self.body.get("requested_by").and_then(Value::as_str).and_then(FailoverRequest::asker)
    }

    /// The same with who asks in it: the user of this process.
    pub fn signed(mut self) -> LeadershipChange {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.map_or_else(|| format!("uid {}", nix::unistd::getuid()), |user| user.name);
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let at = host.map_or_else(String::new, |host| format!("@{host}"));
        self.body["requested_by"] = json!(format!("{user}{at}, matriarch"));
        self
    }
}

/// Writes it there, for members whose REST interfaces are silent.
pub async fn write_to_etcd(
    context: &Context,
    client: &Client,
    change: &LeadershipChange,
    request: &FailoverRequest,
) -> Result<ChangeEnd, ClientError> {
    let view = client.view().await?;
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    if request.is_failover() && leader.is_some() && leader != change.from.as_deref() {
        // A member may have got the request before it fell silent. The next leader would get this one as a new one.
        context.ui.say("another member leads now, and nothing was written");
    } else if !client.request_failover(request).await? {
        context.ui.say("there is a request in etcd already, and nothing was written");
    } else if request.scheduled_at.is_some() {
        return Ok(ChangeEnd::Accepted);
    }
    Ok(ChangeEnd::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_in_etcd_names_only_the_candidate() {
        let body = json!({"candidate": "m2", "confirm_down": ["m3"], "rebuild": true});
        let (from, to) = (Some("m1".to_owned()), Some("m2".to_owned()));
        let change = LeadershipChange { word: "Failover", endpoint: "/failover", body, from, to };
        let name = |name: &str| MemberName::new(name).expect("a name");
        let expected = FailoverRequest {
            candidate: Some(name("m2")),
            confirmed_down: vec![name("m3")],
            rebuild: true,
            ..FailoverRequest::default()
        };
        assert_eq!(change.in_etcd(), Some(expected));
    }

    #[test]
    fn a_switchover_in_etcd_names_the_leader() {
        let body =
            json!({"leader": "m1", "candidate": null, "scheduled_at": "2026-11-22T21:52:27.031+00:00"});
        let from = Some("m1".to_owned());
        let change = LeadershipChange { word: "Switchover", endpoint: "/switchover", body, from, to: None };
        let request = change.in_etcd().expect("it can be written");
        assert_eq!(request.leader.as_ref().map(MemberName::as_str), Some("m1"));
        assert_eq!((request.candidate, request.scheduled_at), (None, Some(WallTime(1_795_384_347_031))));
    }
}
