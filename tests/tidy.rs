//! The house style as a test: layers, sizes, banned words, forgotten files, documents.
//!
//! Each check takes a path and a text and returns its findings, so each unit test can show it a sample that must fail.
//! The checks read lines, not syntax: rustfmt puts every closing brace where they look for it.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/tables.rs"]
mod tables;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/arms.rs"]
mod arms;
#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/density.rs"]
mod density;
#[path = "tidy/layers.rs"]
mod layers;

/// Longest function, in lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Longest file, in lines.
const FILE_LINES_MAX: usize = 400;
/// Longest line of a comment, in characters: rustfmt does not break those.
const COMMENT_COLUMNS_MAX: usize = 120;
/// Longest other line. rustfmt keeps code within 110; some texts and tables are not worth a break.
const COLUMNS_MAX: usize = 160;

/// Files that may be longer, with the most lines and the reason. The numbers only ever go down.
const LONG_FILES: &[(&str, usize, &str)] = &[
    ("tests/tidy.rs", 481, "all checks with their samples read best in one place"),
    ("tests/it/etcd.rs", 530, "to be split by what it tests"),
];

/// Texts that a pure layer never contains.
const IMPURE: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "rand::",
];

/// Parts of names without meaning.
const EMPTY_WORDS: &[&str] =
    &["manager", "handler", "util", "utils", "helper", "helpers", "misc", "common", "instance"];

/// Words only for compatible interfaces.
const FOREIGN_WORDS: &[&str] = &["master", "dcs", "node"];

/// Folders that implement compatible interfaces: Patroni's keys, paths and options.
const COMPATIBLE: &[&str] = &["src/api/", "src/config/", "src/cli/", "src/etcd/"];

/// Everything on the top level, besides dot-files.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "Makefile",
    "README.md",
    "deny.toml",
    "rust-toolchain.toml",
    "src",
    "deploy",
    "proto",
    "tests",
    "chaos",
];

/// One fault: the place, and the remedy.
#[derive(Debug, PartialEq)]
struct Fault {
    file: String,
    line: usize,
    text: String,
}

fn fault(file: &str, line: usize, text: impl Into<String>) -> Fault {
    Fault { file: file.to_owned(), line, text: text.into() }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Paths of all files of the repository: those that git tracks or would add; without git, all that exist.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut files: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(root(), &mut found);
            found
        }
    };
    files.retain(|file| root().join(file).is_file());
    files.sort();
    files.dedup();
    files
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path: PathBuf = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            walk(&path, found);
        } else if let (true, Ok(short)) = (path.is_file(), path.strip_prefix(root())) {
            found.push(short.to_string_lossy().into_owned());
        }
    }
}

/// Runs a check over the files that `wanted` picks and fails with all its findings.
fn assert_clean(wanted: impl Fn(&str) -> bool, check: impl Fn(&str, &str) -> Vec<Fault>) {
    let mut report = String::new();
    for file in files().iter().filter(|file| wanted(file)) {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        for found in check(file, &text) {
            let _ = writeln!(report, "{}:{}: {}", found.file, found.line, found.text);
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn is_rust(file: &str) -> bool {
    file.ends_with(".rs")
}

fn is_source(file: &str) -> bool {
    is_rust(file) && file.starts_with("src/")
}

/// Unit tests in separate files may use things that are banned in the code under test.
fn is_unit_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// This file contains the banned words.
fn is_tidy(file: &str) -> bool {
    file == "tests/tidy.rs"
}

/// Numbered lines of code: no comments, and not the unit tests, which come last.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(index, line)| (index + 1, line.split("// ").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

// ---- purity ----

fn purity_faults(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        for banned in IMPURE.iter().filter(|banned| code.contains(**banned)) {
            faults.push(fault(file, line, format!("a pure layer never contains `{}`", banned.trim())));
        }
        if file.starts_with("src/decide/") && code.contains("Result<") {
            faults.push(fault(file, line, "a decision is total: no `Result` in `decide`"));
        }
    }
    faults
}

#[test]
fn model_decide_and_core_are_pure() {
    let pure =
        |file: &str| ["src/model/", "src/decide/", "src/core/"].iter().any(|pure| file.starts_with(pure));
    assert_clean(|file| is_rust(file) && pure(file), purity_faults);
}

#[test]
fn impurity_is_seen() {
    assert_eq!(purity_faults("src/model/a.rs", "use std::collections::HashMap;").len(), 1);
    assert_eq!(purity_faults("src/decide/a.rs", "fn f() -> Result<(), E> {").len(), 1);
    assert_eq!(purity_faults("src/model/a.rs", "fn f() -> Result<(), E> {").len(), 0);
    assert_eq!(purity_faults("src/decide/a.rs", "//! no tokio here").len(), 0);
}

// ---- sizes ----

fn size_faults(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let allowed =
        LONG_FILES.iter().find(|(long, _, _)| *long == file).map_or(FILE_LINES_MAX, |found| found.1);
    let lines = text.lines().count();
    if lines > allowed {
        faults.push(fault(file, lines, format!("{lines} lines; at most {allowed} in a file: split it")));
    }
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        let comment = line.trim_start().starts_with("//");
        let columns_max = if comment { COMMENT_COLUMNS_MAX } else { COLUMNS_MAX };
        if columns > columns_max {
            faults.push(fault(file, index + 1, format!("{columns} columns; at most {columns_max}")));
        }
    }
    for (name, line, lines) in functions(text) {
        if lines > FUNCTION_LINES_MAX {
            let what = format!("fn {name} has {lines} lines; at most {FUNCTION_LINES_MAX}");
            faults.push(fault(file, line, what));
        }
    }
    faults
}

/// Every function with a body on separate lines: name, first line, number of lines.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = declared(line, "fn") else { continue };
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let end = lines.iter().skip(index + 1).position(|later| {
            let same = later.len() - later.trim_start().len() == indent && !later.trim().is_empty();
            same && (later.trim_start().starts_with('}') || later.ends_with(';'))
        });
        found.push((name, index + 1, end.map_or(lines.len() - index, |distance| distance + 2)));
    }
    found
}

#[test]
fn files_functions_and_lines_are_short() {
    assert_clean(is_rust, size_faults);
}

#[test]
fn length_is_seen() {
    let long_function = format!("pub async fn long(\n) {{\n{}}}\n", "    x;\n".repeat(70));
    assert_eq!(functions(&long_function), vec![("long".to_owned(), 1, 73)]);
    assert_eq!(size_faults("src/a.rs", &long_function).len(), 1);
    assert_eq!(size_faults("src/a.rs", &"x\n".repeat(401)).len(), 1);
    assert_eq!(size_faults("src/a.rs", &format!("//{}", "x".repeat(119))).len(), 1);
    assert_eq!(size_faults("src/a.rs", "fn short() {\n    x;\n}\n").len(), 0);
}

// ---- words ----

/// The name that `line` declares with `keyword`, behind any visibility and qualifiers.
fn declared(line: &str, keyword: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        let word = words.next()?;
        if word == keyword {
            let name: String =
                words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            return (!name.is_empty()).then_some(name);
        }
        let qualifier = matches!(word, "async" | "const" | "unsafe" | "extern" | "\"C\"" | "in");
        if !qualifier && !word.starts_with("pub") {
            return None;
        }
    }
}

/// `HttpServer` and `http_server` as `http`, `server`.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("starts with one").extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn name_faults(file: &str, text: &str) -> Vec<Fault> {
    let compatible = COMPATIBLE.iter().any(|folder| file.starts_with(folder));
    let banned = |word: &String| {
        EMPTY_WORDS.contains(&word.as_str()) || (!compatible && FOREIGN_WORDS.contains(&word.as_str()))
    };
    let stem = Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names = vec![(1, stem.unwrap_or_default())];
    for (line, code) in code(text) {
        for keyword in ["fn", "struct", "enum", "trait", "mod", "type"] {
            names.extend(declared(code, keyword).map(|name| (line, name)));
        }
    }
    let mut faults = Vec::new();
    for (line, name) in names {
        for word in words_of(&name).iter().filter(|word| banned(word)) {
            faults.push(fault(file, line, format!("`{name}`: `{word}` is not a word of this house")));
        }
    }
    faults
}

/// Macros and attributes that must not stay in the sources.
fn macro_faults(file: &str, text: &str) -> Vec<Fault> {
    let speaks = !file.starts_with("src/") || file.starts_with("src/cli/ui") || file == "src/main.rs";
    let mut faults = Vec::new();
    for (line, code) in code(text) {
        for banned in ["todo!", "dbg!", "unimplemented!"] {
            if code.contains(banned) {
                faults.push(fault(file, line, format!("`{banned}` is left over")));
            }
        }
        if !speaks && ["println!", "eprintln!", "print!("].iter().any(|print| code.contains(print)) {
            faults.push(fault(file, line, "only cli::ui speaks to the terminal; the rest logs"));
        }
        if code.contains("#[allow(") || code.contains("#![allow(") {
            faults.push(fault(file, line, "say `#[expect(…, reason = …)]`, not `allow`"));
        }
    }
    faults
}

#[test]
fn names_say_what_a_thing_is() {
    assert_clean(|file| is_rust(file) && !is_tidy(file), name_faults);
}

#[test]
fn left_over_macros_and_allow_are_gone() {
    assert_clean(|file| is_rust(file) && !is_tidy(file), macro_faults);
}

#[test]
fn an_empty_word_is_seen() {
    assert_eq!(name_faults("src/agent/a.rs", "pub(crate) struct LeaseManager;").len(), 1);
    assert_eq!(name_faults("src/agent/string_utils.rs", "").len(), 1);
    assert_eq!(name_faults("src/agent/a.rs", "pub async fn find_master() {").len(), 1);
    assert_eq!(name_faults("src/api/a.rs", "fn master() {").len(), 0);
    assert_eq!(name_faults("src/agent/a.rs", "struct Handle;\nfn utility() {").len(), 0);
}

#[test]
fn a_left_over_is_seen() {
    assert_eq!(macro_faults("src/agent/a.rs", "    todo!()").len(), 1);
    assert_eq!(macro_faults("src/agent/a.rs", "    println!(\"x\");").len(), 1);
    assert_eq!(macro_faults("src/agent/a.rs", "#[allow(dead_code)]").len(), 1);
    assert_eq!(macro_faults("src/cli/ui.rs", "    println!(\"x\");").len(), 0);
}

// ---- any text ----

/// Texts that no committed file contains: places of one machine, a registry's host, unfinished work.
fn text_faults(file: &str, text: &str) -> Vec<Fault> {
    let places = ["/work/", "/root/", "/home/"];
    let hosts = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("npmjs", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let left_over = ["FIXME", "TODO", "XXX"];
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in places.iter().filter(|place| line.contains(**place)) {
            faults.push(fault(file, index + 1, format!("`{place}`: a place that only one machine has")));
        }
        for host in hosts.iter().filter(|host| line.contains(**host)) {
            faults.push(fault(file, index + 1, format!("`{host}`: the host of a registry")));
        }
        for word in line.split(|c: char| !c.is_alphanumeric()) {
            if left_over.contains(&word) {
                faults.push(fault(file, index + 1, format!("`{word}`: do it, or open an issue")));
            }
        }
    }
    faults
}

#[test]
fn no_file_names_one_machine_or_work_left_over() {
    let skipped = ["Cargo.lock", "LICENSE"];
    assert_clean(|file| !is_tidy(file) && !skipped.contains(&file), text_faults);
}

#[test]
fn a_machines_place_is_seen() {
    assert_eq!(text_faults("a", "see /root/x").len(), 1);
    assert_eq!(text_faults("a", concat!("https://crates", ".io/x")).len(), 1);
    assert_eq!(text_faults("a", "// TODO: later").len(), 1);
    assert_eq!(text_faults("a", "mastodons").len(), 0);
}

// ---- files ----

/// The files that may declare `file` as their module, and the name that they must declare.
fn parents(file: &str) -> Option<(Vec<String>, String)> {
    let path = Path::new(file);
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    let folder = path.parent()?;
    let (name, home) = if stem == "mod" {
        (folder.file_name()?.to_string_lossy().into_owned(), folder.parent()?)
    } else {
        (stem, folder)
    };
    let home = home.to_string_lossy();
    let candidates = ["/mod.rs", ".rs", "/lib.rs", "/main.rs"].map(|end| format!("{home}{end}"));
    Some((candidates.to_vec(), name))
}

fn declares(text: &str, module: &str) -> bool {
    text.lines().any(|line| declared(line, "mod").as_deref() == Some(module))
}

#[test]
fn every_source_file_is_compiled() {
    let all = files();
    let roots = |file: &str| {
        ["src/lib.rs", "src/main.rs", "chaos/src/main.rs", "chaos/src/lib.rs", "tests/it/main.rs"]
            .contains(&file)
            || ["src/bin/", "chaos/src/bin/", "proto/"].iter().any(|root| file.starts_with(root))
            || !(file.contains("src/") || file.starts_with("tests/it/"))
    };
    let known: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    let forgotten: Vec<&String> = all
        .iter()
        .filter(|file| is_rust(file) && !roots(file))
        .filter(|file| {
            let Some((homes, module)) = parents(file) else { return true };
            !homes.iter().filter(|home| known.contains(home.as_str())).any(|home| {
                declares(&std::fs::read_to_string(root().join(home)).unwrap_or_default(), &module)
            })
        })
        .collect();
    assert!(forgotten.is_empty(), "no `mod` line leads to {forgotten:?}");
}

#[test]
fn a_forgotten_file_is_seen() {
    let (homes, module) = parents("src/model/lsn.rs").expect("has a parent");
    assert!(homes.contains(&"src/model/mod.rs".to_owned()) && module == "lsn");
    let (homes, module) = parents("src/model/mod.rs").expect("has a parent");
    assert!(homes.contains(&"src/lib.rs".to_owned()) && module == "model");
    assert!(declares("pub mod lsn;", "lsn") && !declares("// mod lsn;", "lsn"));
}

fn misplaced(files: &[String]) -> BTreeSet<&str> {
    let tops = files.iter().filter_map(|file| file.split('/').next());
    tops.filter(|top| !top.starts_with('.') && !TOP_LEVEL.contains(top)).collect()
}

#[test]
fn the_top_level_stays_clean() {
    let all = files();
    let strangers = misplaced(&all);
    assert!(strangers.is_empty(), "not at the top level: {strangers:?}");
}

#[test]
fn a_stranger_at_the_top_is_seen() {
    let files = ["src/lib.rs", ".ci/run", "notes.txt"].map(str::to_owned);
    assert_eq!(misplaced(&files).into_iter().collect::<Vec<_>>(), ["notes.txt"]);
}
