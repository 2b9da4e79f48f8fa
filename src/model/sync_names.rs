//! `synchronous_standby_names`, as text and as a value.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::MemberName;
use super::name::RESERVED;

/// `synchronous_standby_names` (PostgreSQL manual, "Replication", `synchronous_standby_names`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncNames {
    /// `ANY` instead of `FIRST`.
    pub any: bool,
    /// How many of them confirm a commit; zero: the parameter is empty, and commits do not wait.
    pub count: usize,
    /// The standbys. With a count and no names no standby can confirm, and every commit waits.
    pub names: BTreeSet<MemberName>,
    /// `*`: any standby, so that the parameter proves nothing about one.
    pub wildcard: bool,
}

impl SyncNames {
    /// Reads a value of the parameter. A value that PostgreSQL would reject gives the empty one and `false`.
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
            // `ANY 1` alone is two words without a name.
            assert!(!sound && names == SyncNames::default(), "{text}");
        }
    }
}
