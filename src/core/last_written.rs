//! What was written to a file last, and when it is written again: the copy of the dynamic configuration, and the
//! parameters of PostgreSQL.

use std::time::Duration;

use crate::model::Moment;

/// The pause after a failed write of the same content.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The content of a file, as far as it is known.
#[derive(Clone, Debug)]
pub struct LastWritten<T> {
    content: Option<T>,
    failed: Option<(T, Moment)>,
}

impl<T> Default for LastWritten<T> {
    fn default() -> LastWritten<T> {
        LastWritten { content: None, failed: None }
    }
}

impl<T: PartialEq> LastWritten<T> {
    /// Whether `wanted` is to be written now.
    pub fn is_due<W: ?Sized>(&self, wanted: &W, now: Moment) -> bool
    where
        T: PartialEq<W>,
    {
        let pauses = |(failed, at): &(T, Moment)| failed == wanted && now < *at + AGAIN_AFTER;
        !self.content.as_ref().is_some_and(|content| content == wanted)
            && !self.failed.as_ref().is_some_and(pauses)
    }

    /// A write of `content` has ended.
    pub fn ended(&mut self, content: T, is_written: bool, now: Moment) {
        (self.content, self.failed) = match is_written {
            true => (Some(content), None),
            // The file may have either content, or a part of it.
            false => (None, Some((content, now))),
        };
    }

    /// Something else has changed the content.
    pub fn changed(&mut self, change: impl FnOnce(&mut T)) {
        self.content.as_mut().map(change);
    }

    /// The file belongs to another member, or is gone: it is written again.
    pub fn forget(&mut self) {
        *self = LastWritten::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_written_again_after_a_pause_and_other_content_at_once() {
        let (mut file, now) = (LastWritten::<String>::default(), Moment::from_millis(1_000));
        assert!(file.is_due("a", now));
        file.ended("a".to_owned(), false, now);
        assert!(!file.is_due("a", now) && file.is_due("b", now) && file.is_due("a", now + AGAIN_AFTER));
        file.ended("a".to_owned(), true, now);
        assert!(!file.is_due("a", now) && file.is_due("b", now));
        file.ended("b".to_owned(), false, now);
        assert!(file.is_due("a", now), "the failed write may have left anything");
        file.ended("a".to_owned(), true, now);
        file.forget();
        assert!(file.is_due("a", now));
    }
}
