//! Timelines, their history files, and the point at which two histories diverge.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lsn, LsnParseError};

/// A timeline's number (PostgreSQL manual, "Timelines"). The first is 1. The number alone is no identity: two members
/// can fork at different positions, and both call the new timeline 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The timeline of a new cluster.
    pub const FIRST: Timeline = Timeline(1);
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line of a history file: `timeline` ended at `lsn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended: the first byte that belongs to the next one.
    pub lsn: Lsn,
    /// The reason, in PostgreSQL's words.
    pub reason: String,
}

/// A history file: every switch on the way to a timeline, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory(pub Vec<Switch>);

/// A line of a history file cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryParseError {
    /// The first column is no timeline number.
    #[error("line {line} of the timeline history does not start with a timeline number")]
    Timeline {
        /// Counted from 1.
        line: usize,
    },
    /// The second column is no position.
    #[error("line {line} of the timeline history holds no WAL position")]
    Position {
        /// Counted from 1.
        line: usize,
        /// The error.
        #[source]
        source: LsnParseError,
    },
}

impl TimelineHistory {
    /// Reads the text of a `.history` file. Empty lines and comments are skipped, as PostgreSQL does.
    pub fn parse(text: &str) -> Result<TimelineHistory, HistoryParseError> {
        let mut switches = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let mut columns = content.splitn(3, char::is_whitespace);
            let timeline = columns
                .next()
                .and_then(|text| text.parse().ok())
                .ok_or(HistoryParseError::Timeline { line: line_number })?;
            let lsn = columns
                .next()
                .unwrap_or_default()
                .parse()
                .map_err(|source| HistoryParseError::Position { line: line_number, source })?;
            let reason = columns.next().unwrap_or_default().trim().to_owned();
            switches.push(Switch { timeline: Timeline(timeline), lsn, reason });
        }
        Ok(TimelineHistory(switches))
    }
}

/// A history up to a position: of the local WAL, or of the WAL that the leader is writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The switches before the current timeline.
    pub history: TimelineHistory,
    /// The current timeline.
    pub timeline: Timeline,
    /// Its end; `None` for a leader that is still writing.
    pub end: Option<Lsn>,
}

/// How the branch of a data directory relates to the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Divergence {
    /// The whole local history is part of the leader's: streaming can continue.
    None,
    /// The local branch left the leader's history: WAL beyond `at` is not the leader's.
    Forked {
        /// The last common timeline.
        timeline: Timeline,
        /// The first position that differs.
        at: Lsn,
    },
}

impl Branch {
    /// The timelines of this branch with their ends; the last one ends at `self.end`, or never.
    fn segments(&self) -> impl Iterator<Item = (Timeline, Lsn)> {
        let last = (self.timeline, self.end.unwrap_or(Lsn(u64::MAX)));
        self.history.0.iter().map(|switch| (switch.timeline, switch.lsn)).chain(std::iter::once(last))
    }

    /// This history, with a last timeline that goes on.
    #[must_use]
    pub fn open(&self) -> Branch {
        Branch { end: None, ..self.clone() }
    }

    /// Compares whole histories, never timeline numbers alone (two members can promote from one parent).
    pub fn divergence_from(&self, leader: &Branch) -> Divergence {
        let mut last_common = (Timeline::FIRST, Lsn(0));
        let mut theirs = leader.segments();
        let mine: Vec<_> = self.segments().collect();
        for (index, (timeline, my_end)) in mine.iter().copied().enumerate() {
            let is_last = index + 1 == mine.len();
            match theirs.next() {
                Some((their_timeline, their_end)) if their_timeline == timeline => {
                    let at = my_end.min(their_end);
                    if is_last && my_end <= their_end {
                        return Divergence::None;
                    }
                    if my_end != their_end {
                        return Divergence::Forked { timeline, at };
                    }
                    last_common = (timeline, at);
                }
                Some(_) | None => {
                    return Divergence::Forked { timeline: last_common.0, at: last_common.1 };
                }
            }
        }
        Divergence::None
    }

    /// The position up to which this branch is the history given: `ended` are its ended timelines with their ends,
    /// `present` is the timeline after them. WAL before the first of them counts as shared, and so does the timeline
    /// after the last if `present` is not known.
    pub fn shared_with(&self, ended: &[(Timeline, Lsn)], present: Option<Timeline>) -> Lsn {
        let end = self.end.unwrap_or(Lsn(u64::MAX));
        let first = ended.first().map(|(timeline, _)| *timeline);
        let mut mine = self.segments().skip_while(|(timeline, _)| Some(*timeline) != first).peekable();
        if mine.peek().is_none() {
            return end;
        }
        let mut shared = Lsn(0);
        for (timeline, their_end) in ended {
            match mine.next() {
                Some((mine, my_end)) if mine == *timeline => {
                    shared = my_end.min(*their_end);
                    if my_end != *their_end {
                        return shared;
                    }
                }
                Some(_) | None => return shared,
            }
        }
        match mine.next() {
            Some((mine, _)) if present.is_none_or(|present| mine == present) => end,
            Some(_) | None => shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(switches: &[(u32, u64)], timeline: u32, end: Option<u64>) -> Branch {
        let switch = |&(timeline, lsn): &(u32, u64)| Switch {
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
            reason: String::new(),
        };
        Branch {
            history: TimelineHistory(switches.iter().map(switch).collect()),
            timeline: Timeline(timeline),
            end: end.map(Lsn),
        }
    }

    #[test]
    fn reads_a_history_file() {
        let text =
            "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tbefore 2000-01-01\n";
        let history = TimelineHistory::parse(text).expect("a valid file");
        assert_eq!(history.0.len(), 2);
        assert_eq!(history.0[1].timeline, Timeline(2));
        assert_eq!(history.0[0].lsn, Lsn(0x3000148));
        assert_eq!(history.0[0].reason, "no recovery target specified");
        assert_eq!(TimelineHistory::parse("x 0/1"), Err(HistoryParseError::Timeline { line: 1 }));
        assert!(matches!(TimelineHistory::parse("1"), Err(HistoryParseError::Position { line: 1, .. })));
    }

    #[test]
    fn the_shared_part_of_two_histories_is_found() {
        let ended = [(Timeline(2), Lsn(200)), (Timeline(4), Lsn(400))];
        let cases = [
            ("on the present timeline", branch(&[(1, 100), (2, 200), (4, 400)], 5, Some(450)), 450),
            ("behind", branch(&[(1, 100)], 2, Some(150)), 150),
            ("beyond the end of a timeline", branch(&[(1, 100)], 2, Some(999)), 200),
            ("on a timeline that nobody heard of", branch(&[(1, 100), (2, 200)], 3, Some(999)), 200),
            ("on one that left later", branch(&[(1, 100), (2, 250)], 3, Some(999)), 200),
            ("at the very end", branch(&[(1, 100), (2, 200)], 4, Some(400)), 400),
            ("from before all that is known", branch(&[], 1, Some(70)), 70),
        ];
        for (name, local, expected) in cases {
            assert_eq!(local.shared_with(&ended, None), Lsn(expected), "{name}");
            assert_eq!(local.shared_with(&ended, Some(Timeline(5))), Lsn(expected), "{name}");
        }
        assert_eq!(branch(&[], 1, Some(70)).shared_with(&[], None), Lsn(70));
        let other = branch(&[(1, 100), (2, 200), (4, 400)], 6, Some(450));
        assert_eq!(
            other.shared_with(&ended, Some(Timeline(5))),
            Lsn(400),
            "another timeline from the same place"
        );
    }

    #[test]
    fn compares_whole_histories() {
        let leader = branch(&[(1, 100), (2, 200)], 3, None);
        let forked = |timeline, at| Divergence::Forked { timeline: Timeline(timeline), at: Lsn(at) };
        let cases = [
            ("behind on the first timeline", branch(&[], 1, Some(90)), Divergence::None),
            ("exactly at the switch", branch(&[], 1, Some(100)), Divergence::None),
            ("beyond the switch", branch(&[], 1, Some(101)), forked(1, 100)),
            ("on the parent", branch(&[(1, 100)], 2, Some(150)), Divergence::None),
            ("on the current timeline", branch(&[(1, 100), (2, 200)], 3, Some(900)), Divergence::None),
            ("another timeline 2 that left earlier", branch(&[(1, 80)], 2, Some(90)), forked(1, 80)),
            ("another timeline 2 that left later", branch(&[(1, 120)], 2, Some(130)), forked(1, 100)),
            (
                "another timeline 3 from the same parent",
                branch(&[(1, 100), (2, 180)], 3, Some(190)),
                forked(2, 180),
            ),
            (
                "a timeline the leader never had",
                branch(&[(1, 100), (2, 200), (3, 300)], 4, Some(310)),
                forked(3, 300),
            ),
        ];
        for (name, local, expected) in cases {
            assert_eq!(local.divergence_from(&leader), expected, "{name}");
        }
    }
}
