//! Every case has a name: no match arm of `model` and `decide` takes the remaining cases under a placeholder name.
//! Clippy finds `_` and bindings on enums; this check finds those that Clippy accepts, in tuples and behind guards.

use super::{Fault, assert_clean, code, fault, is_rust};

/// Names that begin with `_`, as a whole pattern or as one of a tuple's, stand for "whatever else".
fn arm_faults(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        let Some((pattern, _)) = code.split_once(" =>") else { continue };
        let pattern = pattern.split(" if ").next().unwrap_or_default();
        let parts = pattern.split(['(', ')', ',', '|']).map(str::trim);
        for part in parts.filter(|part| is_named_wildcard(part)) {
            faults.push(fault(file, line, format!("`{part}` takes whatever is left: name the cases")));
        }
    }
    faults
}

fn is_named_wildcard(part: &str) -> bool {
    let name = part.strip_prefix('_').unwrap_or_default();
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[test]
fn every_arm_of_model_and_decide_names_its_case() {
    let named = |file: &str| file.starts_with("src/model/") || file.starts_with("src/decide/");
    assert_clean(|file| is_rust(file) && named(file), arm_faults);
}

#[test]
fn an_arm_that_takes_whatever_is_left_is_seen() {
    assert_eq!(arm_faults("src/decide/a.rs", "        _other => None,").len(), 1);
    assert_eq!(arm_faults("src/decide/a.rs", "    _late if now < at => {").len(), 1);
    assert_eq!(arm_faults("src/decide/a.rs", "        (_anybody, None) => {}").len(), 1);
    assert_eq!(arm_faults("src/decide/a.rs", "        (Server::Silent, _) => None, // _other =>").len(), 0);
}
