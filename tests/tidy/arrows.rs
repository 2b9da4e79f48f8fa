//! The imports among the files of `decide`, and among those of `cli`, have no circle. An import through a front page
//! (`mod.rs`) counts as an import of the file that defines the name.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, files, is_rust, is_unit_test, root};

/// Texts by module: `race`, `sync::leader`; a front page has the name of its folder, `sync`, and the topmost an empty
/// name.
type Texts = BTreeMap<String, String>;
/// The modules that each module names.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn module_of(folder: &str, file: &str) -> Option<String> {
    let module = file
        .strip_prefix("src/")?
        .strip_prefix(folder)?
        .strip_prefix('/')?
        .strip_suffix(".rs")?
        .replace('/', "::");
    let front = module.strip_suffix("::mod").or((module == "mod").then_some(""));
    Some(front.map_or(module.clone(), str::to_owned))
}

fn joined(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_owned() } else { format!("{base}::{name}") }
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

/// The paths of a tree such as `a::{b, c::D as E}`, each with its local name, up to the end of the tree.
fn paths(tree: &str) -> Vec<(Vec<String>, String)> {
    let word: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let rest = &tree[word.len()..];
    let Some(rest) = rest.strip_prefix("::") else {
        let alias = rest.trim_start().strip_prefix("as ").map(str::trim_start).unwrap_or(&word);
        let alias = alias.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        return vec![(vec![word], alias)];
    };
    let below: Vec<_> = match rest.strip_prefix('{') {
        Some(group) => parts(group).into_iter().flat_map(paths).collect(),
        None => paths(rest),
    };
    let prefixed = |(mut path, name): (Vec<String>, String)| {
        path.insert(0, word.clone());
        (path, name)
    };
    below.into_iter().map(prefixed).collect()
}

/// The parts of a group, split at its own commas, up to its closing brace.
fn parts(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth > 0 => {}
            ',' | '}' => {
                found.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|part| !part.is_empty());
    found
}

/// The names that a front page exports, each with its module.
fn handed_on(texts: &Texts, front: &str) -> BTreeMap<String, String> {
    let text = texts.get(front).map(String::as_str).unwrap_or_default();
    let uses = text.split(" use ").skip(1).flat_map(paths);
    let own = uses.filter(|(path, _)| texts.contains_key(&joined(front, &path[0])));
    own.map(|(path, name)| (name, joined(front, &path[0]))).collect()
}

/// The module of `path`, as seen from `base`.
fn resolve(texts: &Texts, base: &str, path: &[String]) -> String {
    let Some((first, rest)) = path.split_first() else { return base.to_owned() };
    let below = joined(base, first);
    if texts.contains_key(&below) {
        return resolve(texts, &below, rest);
    }
    handed_on(texts, base).get(first).cloned().unwrap_or_else(|| base.to_owned())
}

/// The modules of the tree at the beginning of `rest`, as seen from `base`.
fn named(texts: &Texts, base: &str, rest: &str) -> Vec<String> {
    let tree = match rest.strip_prefix('{') {
        Some(group) => parts(group).into_iter().flat_map(paths).collect(),
        None => paths(rest),
    };
    tree.iter().map(|(path, _)| resolve(texts, base, path)).collect()
}

/// The arrows among the files of `folder`, by `super::` and by `crate::FOLDER::`.
fn arrows(folder: &str, texts: &Texts) -> Arrows {
    let topmost = format!("crate::{folder}::");
    let mut arrows = Arrows::new();
    for (module, text) in texts {
        let to = arrows.entry(module.clone()).or_default();
        for (at, _) in text.match_indices("super::").filter(|(at, _)| !text[..*at].ends_with("::")) {
            let (mut base, mut rest) = (module.as_str(), &text[at..]);
            while let Some(further) = rest.strip_prefix("super::") {
                (base, rest) = (parent(base), further);
            }
            to.extend(named(texts, base, rest));
        }
        for (at, path) in text.match_indices(&topmost) {
            to.extend(named(texts, "", &text[at + path.len()..]));
        }
        to.remove(module);
    }
    arrows
}

/// The modules of a circle, if there is one, in order.
fn circle(arrows: &Arrows) -> Option<Vec<String>> {
    fn walk(arrows: &Arrows, at: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<usize> {
        if let Some(begin) = way.iter().position(|before| before == at) {
            return Some(begin);
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        way.push(at.to_owned());
        for next in arrows.get(at).into_iter().flatten() {
            if let Some(begin) = walk(arrows, next, way, done) {
                return Some(begin);
            }
        }
        way.pop();
        None
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|from| {
        let mut way = Vec::new();
        let begin = walk(arrows, from, &mut way, &mut done)?;
        Some(way.split_off(begin))
    })
}

/// The code of a file, in one line.
fn flat(text: &str) -> String {
    let lines: Vec<&str> = code(text).map(|(_, line)| line.trim()).collect();
    format!(" {}", lines.join(" "))
}

/// The arrows among the files of `folder`, at least `arrows_min` of them, make no circle.
fn assert_straight(folder: &str, arrows_min: usize) {
    let sources = files().into_iter().filter(|file| is_rust(file) && !is_unit_test(file));
    let texts: Texts = sources
        .filter_map(|file| {
            let text = std::fs::read_to_string(root().join(&file)).ok()?;
            Some((module_of(folder, &file)?, flat(&text)))
        })
        .collect();
    let arrows = arrows(folder, &texts);
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() >= arrows_min, "not all are found: {arrows:?}");
    assert_eq!(circle(&arrows), None, "each names the next, and the last the first");
}

#[test]
fn no_circle_among_the_files_of_decide() {
    assert_straight("decide", 50);
}

#[test]
fn no_circle_among_the_files_of_the_command_line() {
    assert_straight("cli", 80);
}

#[test]
fn a_circle_is_seen() {
    let texts = |files: &[(&str, &str)]| -> Texts {
        files.iter().map(|(module, text)| ((*module).to_owned(), flat(text))).collect()
    };
    let front = ("", "pub use race::{Candidates as Fit, run};\nmod race;");
    let race = ("race", "use super::{\n    store::{self, bars},\n    sync,\n};");
    let sync = ("sync", "pub(super) use leader::name;\nmod leader;");
    let straight = texts(&[front, race, sync, ("store", ""), ("sync::leader", "use super::super::store;")]);
    assert_eq!(circle(&arrows("decide", &straight)), None);
    let round = |store: &str| {
        let leader = ("sync::leader", "// use super::super::race;\nfn f() { super::super::race::run() }");
        circle(&arrows("decide", &texts(&[front, race, sync, ("store", store), leader])))
    };
    assert_eq!(
        round("use super::sync::name;"),
        Some(["race", "store", "sync::leader"].map(str::to_owned).to_vec())
    );
    assert_eq!(round("use super::Fit;"), Some(["race", "store"].map(str::to_owned).to_vec()));
    assert_eq!(round("use crate::decide::race::run;"), round("use super::Fit;"));
}
