//! Answers in the words of the API server: a `Status` for every failure.

use serde_json::{Value, json};

/// An answer that is no stream.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) code: u16,
    /// JSON.
    pub(crate) body: Value,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
}

impl Reply {
    /// An object, or a list.
    pub(crate) fn ok(code: u16, body: Value) -> Reply {
        Reply { code, body, retry_after: None }
    }

    /// A failure with only these details.
    pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Reply {
        Reply::detailed(code, reason, message, Value::Null)
    }

    /// A failure that concerns one object of a resource.
    fn about(code: u16, reason: &str, message: &str, resource: &str, name: &str) -> Reply {
        Reply::detailed(code, reason, message, json!({ "name": name, "kind": resource }))
    }

    fn detailed(code: u16, reason: &str, message: &str, details: Value) -> Reply {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": message, "reason": reason,
        });
        if !details.is_null() {
            body["details"] = details;
        }
        body["code"] = json!(code);
        Reply { code, body, retry_after: None }
    }

    /// The object does not exist.
    pub(crate) fn not_found(resource: &str, name: &str) -> Reply {
        Reply::about(404, "NotFound", &format!("{resource} \"{name}\" not found"), resource, name)
    }

    /// The path does not exist.
    pub(crate) fn no_resource() -> Reply {
        let message = "the server could not find the requested resource";
        Reply::detailed(404, "NotFound", message, json!({}))
    }

    /// An object of this name exists.
    pub(crate) fn exists(resource: &str, name: &str) -> Reply {
        Reply::about(409, "AlreadyExists", &format!("{resource} \"{name}\" already exists"), resource, name)
    }

    /// The object differs from the precondition.
    pub(crate) fn conflict(resource: &str, name: &str, why: &str) -> Reply {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Reply::about(409, "Conflict", &message, resource, name)
    }

    /// The writer used an old version.
    pub(crate) fn modified(resource: &str, name: &str) -> Reply {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Reply::conflict(resource, name, why)
    }

    /// A field has an invalid value.
    pub(crate) fn invalid(kind: &str, name: &str, field: &str, why: &str) -> Reply {
        let message = format!("{kind} \"{name}\" is invalid: {field}: {why}");
        let cause = json!({ "reason": "FieldValueInvalid", "message": why, "field": field });
        let details = json!({ "name": name, "kind": kind, "causes": [cause] });
        Reply::detailed(422, "Invalid", &message, details)
    }

    /// A patch that cannot be applied to this object.
    pub(crate) fn inapplicable() -> Reply {
        let message = "the server rejected our request due to an error in our request";
        Reply::detailed(422, "Invalid", message, json!({}))
    }

    /// Part of the request cannot be read.
    pub(crate) fn bad_request(message: &str) -> Reply {
        Reply::failure(400, "BadRequest", message)
    }

    /// The content type is not supported here.
    pub(crate) fn media_type() -> Reply {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json";
        Reply::detailed(415, "UnsupportedMediaType", message, json!({}))
    }

    /// The method is not supported here.
    pub(crate) fn method() -> Reply {
        let message = "the server does not allow this method on the requested resource";
        Reply::detailed(405, "MethodNotAllowed", message, json!({}))
    }

    /// The token is missing or has expired.
    pub(crate) fn unauthorized() -> Reply {
        Reply::failure(401, "Unauthorized", "Unauthorized")
    }

    /// The Role does not grant the request.
    pub(crate) fn forbidden(user: &str, verb: &str, group: &str, resource: &str, place: &Place<'_>) -> Reply {
        let qualified = match (group, place.name) {
            ("", "") => resource.to_owned(),
            ("", name) => format!("{resource} \"{name}\""),
            (group, "") => format!("{resource}.{group}"),
            (group, name) => format!("{resource}.{group} \"{name}\""),
        };
        let message = format!(
            "{qualified} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \
             \"{group}\" in the namespace \"{}\"",
            place.namespace
        );
        let mut details = json!({ "kind": resource });
        for (key, value) in [("name", place.name), ("group", group)] {
            if !value.is_empty() {
                details[key] = json!(value);
            }
        }
        Reply::detailed(403, "Forbidden", &message, details)
    }

    /// The requested version is no longer kept: an answer, or the content of a watch's `ERROR` event.
    pub(crate) fn expired(version: u64, oldest: u64) -> Reply {
        Reply::failure(410, "Expired", &format!("too old resource version: {version} ({oldest})"))
    }

    /// Too many requests.
    pub(crate) fn too_many(retry_after: u32) -> Reply {
        let message = "the server has received too many requests and has asked us to try again later";
        let details = json!({ "retryAfterSeconds": retry_after });
        let reply = Reply::detailed(429, "TooManyRequests", message, details);
        Reply { retry_after: Some(retry_after), ..reply }
    }

    /// The API server, or a service behind it, fails.
    pub(crate) fn broken(code: u16) -> Reply {
        let (reason, message) = match code {
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "Timeout: request did not complete within the allotted timeout"),
            _ => ("InternalError", "Internal error occurred: etcdserver: leader changed"),
        };
        Reply::failure(code, reason, message)
    }
}

/// The target of a request.
pub(crate) struct Place<'a> {
    /// The namespace.
    pub(crate) namespace: &'a str,
    /// The object; empty: all.
    pub(crate) name: &'a str,
}
