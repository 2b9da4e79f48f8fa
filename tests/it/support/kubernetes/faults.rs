//! Injected faults of the API server double: the affected client, the kind, and the count.

use std::time::Duration;

use super::status::Reply;

/// The treatment of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Answered with this status; nothing is done. A watch or a list from too old a version gets 410.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    TooMany(u32),
    /// Carried out after this delay. Another fault may follow it.
    Late(Duration),
    /// Accepted, never answered, never carried out.
    Swallowed,
    /// Accepted, and carried out when this fault is lifted, even if the client no longer waits for the answer.
    Held,
}

/// A fault for certain requests.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The token's subject; `None`: every subject.
    pub(crate) subject: Option<String>,
    /// The verb, as a Role has it; `None`: every one.
    pub(crate) verb: Option<&'static str>,
    /// Part of the path.
    pub(crate) path: String,
    /// The treatment.
    pub(crate) effect: Effect,
    /// The number of requests still to be hit.
    pub(crate) left: usize,
}

impl Fault {
    /// For every request of every subject, until it is lifted.
    pub(crate) fn always(effect: Effect) -> Fault {
        Fault { subject: None, verb: None, path: String::new(), effect, left: usize::MAX }
    }

    /// Only for this subject.
    pub(crate) fn of(mut self, subject: &str) -> Fault {
        self.subject = Some(subject.to_owned());
        self
    }

    /// Only for this verb.
    pub(crate) fn on(mut self, verb: &'static str) -> Fault {
        self.verb = Some(verb);
        self
    }

    /// Only for paths that contain this text.
    pub(crate) fn at(mut self, path: &str) -> Fault {
        self.path = path.to_owned();
        self
    }

    /// Only so many times.
    pub(crate) fn times(mut self, count: usize) -> Fault {
        self.left = count;
        self
    }

    /// Whether it hits this request, which is then counted.
    pub(crate) fn hits(&mut self, subject: &str, verb: &str, path: &str) -> bool {
        let meant = self.subject.as_deref().is_none_or(|one| one == subject)
            && self.verb.is_none_or(|one| one == verb)
            && path.contains(&self.path)
            && self.left > 0;
        if meant && self.left != usize::MAX {
            self.left -= 1;
        }
        meant
    }
}

/// The answer with that status, as the API server gives it for its own failures.
pub(crate) fn reply(code: u16, resource: &str, name: &str) -> Reply {
    match code {
        401 => Reply::unauthorized(),
        403 => Reply::failure(
            403,
            "Forbidden",
            &format!("{resource} \"{name}\" is forbidden: no policy matched"),
        ),
        409 => Reply::modified(resource, name),
        410 => Reply::expired(1, 2),
        429 => Reply::too_many(1),
        code => Reply::broken(code),
    }
}
