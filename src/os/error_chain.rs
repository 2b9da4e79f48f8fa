//! An error with its causes.

use std::error::Error;

/// The messages of an error and of all its causes, outermost first. What an earlier message contains is said once.
pub fn messages(error: &dyn Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if !messages.iter().any(|earlier| earlier.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// For every error.
pub trait ErrorChain {
    /// The [`messages`] in one line.
    fn chain(&self) -> String;
}

impl<E: Error> ErrorChain for E {
    fn chain(&self) -> String {
        messages(&self).join(": ")
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
        assert_eq!(messages(&error), ["ask the member", "connect: no route to host"]);
    }
}
