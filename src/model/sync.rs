//! Synchronous replication: what is wanted, what the key `sync` vouches for, and `synchronous_standby_names`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::RESERVED;
use super::{Lsn, MemberName};

/// What the dynamic configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// `synchronous_mode`.
    pub mode: SyncMode,
    /// Rather no commits than commits on one member alone.
    pub strict: bool,
    /// How many standbys confirm each commit, where there are as many.
    pub node_count: usize,
    /// A standby further behind than this is not picked. Bytes; `None`: any lag will do.
    pub maximum_lag: Option<u64>,
}

impl Default for SyncSettings {
    fn default() -> SyncSettings {
        SyncSettings { mode: SyncMode::Off, strict: false, node_count: 1, maximum_lag: None }
    }
}

/// Who confirms a commit before the client hears of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMode {
    /// Nobody.
    #[default]
    Off,
    /// These standbys, each of them.
    On,
    /// That many of these standbys, whichever are fastest.
    Quorum,
}

/// The value of the key `sync`: who may be promoted without losing an acknowledged commit. The promise: among any
/// `quorum + 1` of the voters and the leader, at least one holds every acknowledged commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRecord {
    /// Who led when it was written; `None`: it vouches for nobody, and is not in force.
    pub leader: Option<MemberName>,
    /// How many other voters a candidate has to be at least as far as. Zero in mode on.
    pub quorum: usize,
    /// The standbys, without the leader.
    pub voters: BTreeSet<MemberName>,
}

/// The key `sync` with what its next write has to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncKey {
    /// What it says.
    pub record: SyncRecord,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

impl SyncRecord {
    /// True when somebody wrote it.
    pub fn is_in_force(&self) -> bool {
        self.leader.is_some()
    }

    /// True for the leader it names.
    pub fn is_leader(&self, name: &MemberName) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.is_same(name))
    }

    /// True for one of its standbys.
    pub fn is_voter(&self, name: &MemberName) -> bool {
        self.voters.iter().any(|voter| voter.is_same(name))
    }

    /// How many members may be lost, the leader included, before an acknowledged commit is.
    pub fn losses_survived(&self) -> usize {
        self.voters.len().saturating_sub(self.quorum)
    }
}

/// One row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walsender {
    /// `application_name`: the standby's member name.
    pub name: String,
    /// `state` is `streaming`.
    pub streams: bool,
    /// `sync_state`.
    pub sync: SyncState,
    /// What the standby has written, as it reported.
    pub written: Option<Lsn>,
    /// What it has flushed.
    pub flushed: Option<Lsn>,
    /// What it has replayed.
    pub replayed: Option<Lsn>,
}

/// `sync_state`, in the order in which standbys are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Not named.
    #[default]
    Async,
    /// Named, and the next one to be synchronous.
    Potential,
    /// Named with `ANY`.
    Quorum,
    /// Named with `FIRST`, and one of the first.
    Sync,
}

/// Which position of a standby a commit waits for, by `synchronous_commit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitWait {
    /// `remote_write`
    Written,
    /// `on`, and whatever waits for less.
    #[default]
    Flushed,
    /// `remote_apply`
    Replayed,
}

impl Walsender {
    /// The position that counts.
    pub fn position(&self, wait: CommitWait) -> Option<Lsn> {
        match wait {
            CommitWait::Written => self.written,
            CommitWait::Flushed => self.flushed,
            CommitWait::Replayed => self.replayed,
        }
    }
}

/// `synchronous_standby_names` (PostgreSQL manual, "Replication", `synchronous_standby_names`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNames {
    /// `ANY` instead of `FIRST`.
    pub any: bool,
    /// How many of them confirm a commit; zero: the parameter is empty and nobody does.
    pub count: usize,
    /// Who. With a count and no names nobody can confirm, and every commit waits.
    pub names: BTreeSet<MemberName>,
    /// `*`: any standby whatever, which vouches for nothing.
    pub wildcard: bool,
}

impl SyncNames {
    /// Reads a value of the parameter; one that PostgreSQL would not take reads as empty, with `false`.
    pub fn parse(text: &str) -> (SyncNames, bool) {
        match text.trim() {
            "" => (SyncNames::default(), true),
            text => match parse(text) {
                Some(names) => (names, true),
                None => (SyncNames::default(), false),
            },
        }
    }
}

impl fmt::Display for SyncNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names.iter().map(|name| quoted(name.as_str())).collect();
        let list = match names.is_empty() {
            true => RESERVED.to_owned(),
            false => names.join(","),
        };
        match (self.count, self.any) {
            (0, _) => Ok(()),
            (count, true) => write!(f, "ANY {count} ({list})"),
            (1, false) if names.len() <= 1 => f.write_str(&list),
            (count, false) => write!(f, "{count} ({list})"),
        }
    }
}

fn quoted(name: &str) -> String {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    match first && rest && !matches!(name, "first" | "any") {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Name(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next()? {
                        '"' if rest.peek() == Some(&'"') => name.extend(rest.next()),
                        '"' => break,
                        c => name.push(c),
                    }
                }
                Token::Name(name)
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) =
                    rest.next_if(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | '"'))
                {
                    word.push(c);
                }
                Token::Word(word)
            }
        });
    }
    Some(tokens)
}

fn parse(text: &str) -> Option<SyncNames> {
    let tokens = tokens(text)?;
    let word = |index: usize| match tokens.get(index) {
        Some(Token::Word(word)) => Some(word.as_str()),
        Some(_) | None => None,
    };
    let keyword =
        word(0).filter(|word| ["first", "any"].iter().any(|known| word.eq_ignore_ascii_case(known)));
    let at = usize::from(keyword.is_some());
    let count = word(at).and_then(|word| word.parse::<usize>().ok());
    let listed = count.is_some() && tokens.get(at + 1) == Some(&Token::Open);
    let (any, count, list) = match (listed, count) {
        (true, Some(count)) if tokens.last() == Some(&Token::Close) => {
            let any = keyword.is_some_and(|word| word.eq_ignore_ascii_case("any"));
            (any, count, tokens.get(at + 2..tokens.len() - 1)?)
        }
        (true, _) => return None,
        (false, _) => (false, 1, &tokens[..]),
    };
    let (mut names, mut wildcard) = (BTreeSet::new(), false);
    for (index, token) in list.iter().enumerate() {
        match (index % 2, token) {
            (0, Token::Word(name)) if name == "*" => wildcard = true,
            (0, Token::Word(name) | Token::Name(name)) if name == RESERVED => {}
            (0, Token::Word(name) | Token::Name(name)) => drop(names.insert(MemberName::new(name).ok()?)),
            (1, Token::Comma) => {}
            (_, _) => return None,
        }
    }
    (list.len() % 2 == 1 && count > 0).then_some(SyncNames { any, count, names, wildcard })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<MemberName> {
        list.iter().map(|name| MemberName::new(*name).expect("a name")).collect()
    }

    fn value(any: bool, count: usize, list: &[&str]) -> SyncNames {
        SyncNames { any, count, names: names(list), wildcard: false }
    }

    #[test]
    fn writes_what_patroni_writes() {
        assert_eq!(value(false, 0, &[]).to_string(), "");
        assert_eq!(value(false, 1, &["a"]).to_string(), "a");
        assert_eq!(value(false, 2, &["node-3", "node-1"]).to_string(), r#"2 ("node-1","node-3")"#);
        assert_eq!(value(true, 1, &["node-3", "node-1"]).to_string(), r#"ANY 1 ("node-1","node-3")"#);
        assert_eq!(value(true, 1, &["b"]).to_string(), "ANY 1 (b)");
        assert_eq!(value(false, 1, &["first"]).to_string(), r#""first""#);
        assert_eq!(value(false, 1, &[]).to_string(), RESERVED);
    }

    #[test]
    fn reads_every_form() {
        let read = |text: &str| SyncNames::parse(text);
        for (text, expected) in [
            ("", value(false, 0, &[])),
            ("a", value(false, 1, &["a"])),
            ("a, b", value(false, 1, &["a", "b"])),
            ("2 (a,b)", value(false, 2, &["a", "b"])),
            ("first 2(a,\"b c\")", value(false, 2, &["a", "b c"])),
            ("ANY 1 (a,b)", value(true, 1, &["a", "b"])),
            (r#"any 1 ("a""b")"#, value(true, 1, &[r#"a"b"#])),
            (RESERVED, value(false, 1, &[])),
            ("ANY 1 (__patroni_strict_sync_replica_placeholder__)", value(true, 1, &[])),
        ] {
            assert_eq!(read(text), (expected.clone(), true), "{text}");
            assert_eq!(read(&expected.to_string()).0, expected, "{text}");
        }
        assert!(read("*").0.wildcard);
        for text in ["2 (a", "ANY 1", "a b", "\"a", "0 (a)"] {
            let (names, sound) = read(text);
            // `ANY 1` alone is two words that name nobody.
            assert!(!sound && names == SyncNames::default(), "{text}");
        }
    }

    #[test]
    fn says_what_it_survives() {
        let record = SyncRecord { leader: None, quorum: 1, voters: names(&["b", "c"]) };
        assert_eq!(record.losses_survived(), 1);
        assert_eq!(SyncRecord { quorum: 0, ..record }.losses_survived(), 2);
    }
}
