//! Names: in `src` a type's name stands for one type only, and the private words that were replaced by terms of the
//! field do not come back.

use std::collections::BTreeMap;

use super::{Fault, assert_clean, code, declared, fault, files, is_source, is_unit_test, root};

/// Words that were replaced, each with its replacement.
const REPLACED: &[(&str, &str)] = &[
    ("Prey", "PostgresProcesses"),
    ("prey", "processes"),
    ("Hunt", "ProcessKiller"),
    ("hunt", "killer"),
    ("aim", "set_target"),
    ("Fuse", "DeadManTimer"),
    ("fuse", "dead_man_timer"),
    ("Strand", "TimerProcess"),
    ("strand", "timer_process"),
    ("Wire", "Trigger"),
    ("burn", "fire"),
    ("condemn", "fail_over_unhealthy"),
    ("condemned", "unhealthy"),
    ("Sentence", "HealthVerdict"),
    ("spared", "kept_serving"),
    ("pardon", "suspend_liveness_check"),
    ("Turn", "Tick"),
    ("turn", "tick"),
    ("go_on", "advance"),
    ("unlocked_since", "leaderless_since"),
    ("too_old", "lag_disqualified"),
    ("Grounds", "TakeLeadershipPreconditions, LeadershipCheck"),
    ("Knock", "RequestCredentials"),
    ("knock", "connection_probe"),
    ("Unsafe", "MutatingRoute"),
    ("gated", "clients_locked_out"),
    ("set_gate", "set_client_lockout"),
    ("former_self", "previous_incarnation"),
    ("Deed", "GuardAction"),
    ("losses_survived", "failures_tolerated"),
];

/// The identifiers of a line, without the contents of strings.
fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    let outside = line.split('"').step_by(2);
    outside.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

fn word_faults(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        for word in identifiers(code) {
            if let Some((_, instead)) = REPLACED.iter().find(|(replaced, _)| *replaced == word) {
                faults.push(fault(file, line, format!("`{word}` has a word of the field: {instead}")));
            }
        }
    }
    faults
}

/// The types that files declare at their outermost level, each with its place.
fn types<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in texts {
        for (line, code) in code(text).filter(|(_, code)| !code.starts_with(' ')) {
            let name = ["struct", "enum", "trait", "type"].iter().find_map(|keyword| declared(code, keyword));
            if let Some(name) = name {
                found.entry(name).or_default().push(format!("{file}:{line}"));
            }
        }
    }
    found.retain(|_, places| 1 < places.len());
    found
}

#[test]
fn replaced_words_do_not_come_back() {
    assert_clean(is_source, word_faults);
}

#[test]
fn a_replaced_word_is_seen() {
    assert_eq!(word_faults("src/a.rs", "    let prey = Prey::default();").len(), 2);
    assert_eq!(word_faults("src/a.rs", "    log(\"go_on\"); // prey").len(), 0);
    assert_eq!(word_faults("src/a.rs", "let unsafe_hunter = condemned_to;").len(), 0);
}

#[test]
fn a_types_name_is_that_of_one_type() {
    let sources: Vec<String> =
        files().into_iter().filter(|file| is_source(file) && !is_unit_test(file)).collect();
    let read = |file: &String| std::fs::read_to_string(root().join(file)).unwrap_or_default();
    let texts: Vec<String> = sources.iter().map(read).collect();
    let found = types(sources.iter().map(String::as_str).zip(texts.iter().map(String::as_str)));
    assert!(found.is_empty(), "one name for several types: {found:#?}");
}

#[test]
fn a_second_type_of_a_name_is_seen() {
    let two = [("src/a.rs", "pub struct State {\n"), ("src/b.rs", "enum State {\n")];
    assert_eq!(types(two.into_iter()).len(), 1);
    let other =
        [("src/a.rs", "pub struct State {\n"), ("src/b.rs", "impl A for B {\n    type State = u8;\n}\n")];
    assert_eq!(types(other.into_iter()).len(), 0);
}
