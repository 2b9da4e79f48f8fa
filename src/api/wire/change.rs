//! How a change of leadership ended, as the answer to `POST /switchover` and `POST /failover` says it.

/// The words by which patronictl, too, tells an end that is not known from a failure.
const UNKNOWN: &str = "status unknown";

/// How a change of leadership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEnd {
    /// Another member leads, or will at the time that was asked for.
    Accepted,
    /// Nothing has changed.
    Failed,
    /// The member that was asked waits no longer, and the change goes on.
    Unknown,
}

impl ChangeEnd {
    /// What an answer says.
    pub fn read(status: u16, body: &str) -> ChangeEnd {
        match status {
            200 | 202 => ChangeEnd::Accepted,
            _ if body.contains(UNKNOWN) => ChangeEnd::Unknown,
            _ => ChangeEnd::Failed,
        }
    }

    /// The sentence that says [`ChangeEnd::Unknown`] of the change with this title.
    pub fn unknown_text(title: &str) -> String {
        format!("{title} {UNKNOWN}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_end_is_read_as_it_is_written() {
        let text = format!("moving the leader key to n2. {}", ChangeEnd::unknown_text("Switchover"));
        assert_eq!(ChangeEnd::read(503, &text), ChangeEnd::Unknown);
        assert_eq!(ChangeEnd::read(503, "Switchover failed: refused"), ChangeEnd::Failed);
        assert_eq!(ChangeEnd::read(202, "Switchover scheduled"), ChangeEnd::Accepted);
    }
}
