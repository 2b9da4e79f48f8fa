//! An error with its causes, where there is room for one line only.

use std::error::Error;

/// For every error.
pub trait ErrorChain {
    /// The message and those of all causes, in one line. What a message repeats of its cause is said once.
    fn chain(&self) -> String;
}

impl<E: Error> ErrorChain for E {
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Caused>>,
    }

    #[test]
    fn all_causes_are_named_once() {
        let root = Caused { text: "no route to host", source: None };
        let middle = Caused { text: "connect: no route to host", source: Some(Box::new(root)) };
        let error = Caused { text: "ask the member", source: Some(Box::new(middle)) };
        assert_eq!(error.chain(), "ask the member: connect: no route to host");
    }
}
