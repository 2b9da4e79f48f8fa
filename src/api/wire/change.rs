//! The end of a change of leadership, as the answer to `POST /switchover` and `POST /failover`.

/// The words with which patronictl, too, distinguishes an unknown result from a failure.
const UNKNOWN: &str = "status unknown";

/// The result of a change of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEnd {
    /// Another member leads, or will at the requested time.
    Accepted,
    /// Nothing has changed.
    Failed,
    /// The member that was asked stopped waiting, and the change continues.
    Unknown,
}

impl ChangeEnd {
    /// The result in an answer.
    pub fn read(status: u16, body: &str) -> ChangeEnd {
        match status {
            200 | 202 => ChangeEnd::Accepted,
            _ if body.contains(UNKNOWN) => ChangeEnd::Unknown,
            _ => ChangeEnd::Failed,
        }
    }

    /// The sentence for [`ChangeEnd::Unknown`], for a change with this title.
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
