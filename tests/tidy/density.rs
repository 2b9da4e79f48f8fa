//! Branches by function: a parent decides, its leaves compute. Of ten functions of `decide` nine have five branches at
//! most; the tenth may be a match that is flat, as the table itself is.
//!
//! Each `if`, each arm of a match, each `&&`, `||` and `?`, and the `else` of a `let` is one, also in closures.

use super::{code, files, is_rust, is_unit_test, root};

/// The folder whose functions are counted.
const FOLDER: &str = "src/decide/";
/// Nine of ten functions have no more.
const BRANCHES_MAX: usize = 5;

/// Code in one line, without comments and without the contents of strings.
fn bare(text: &str) -> String {
    let lines: Vec<&str> = code(text).map(|(_, line)| line.trim()).collect();
    let joined = lines.join(" ").replace("\\\"", "");
    joined.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The body of each function, with its name.
fn bodies(bare: &str) -> Vec<(&str, &str)> {
    let body = |(at, word): (usize, &str)| {
        let rest = &bare[at + word.len()..];
        let name = rest.split(['(', '<']).next()?;
        let begin = rest.find('{')?;
        let mut depth = 0;
        let end = rest[begin..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        })?;
        Some((name, &rest[begin..begin + end]))
    };
    bare.match_indices(" fn ").filter_map(body).collect()
}

fn branches(body: &str) -> usize {
    let words = body.split(|c: char| !c.is_alphanumeric() && c != '_');
    let ifs = words.filter(|word| *word == "if").count();
    // A closure without arguments begins like this too, but not after a value.
    let or = |at: usize| !body[..at].trim_end().ends_with(['(', ',', '=', '{', '|']);
    let ors = body.match_indices("||").filter(|(at, _)| or(*at)).count();
    let let_elses = body.matches(" else {").count() - body.matches("} else {").count();
    let others: usize = ["=>", "&&", "?"].iter().map(|token| body.matches(token).count()).sum();
    ifs + ors + let_elses + others
}

/// The fewest branches that nine of ten functions do not exceed.
fn ninth_of_ten(mut counts: Vec<usize>) -> usize {
    counts.sort_unstable();
    counts.get(counts.len() * 9 / 10).copied().unwrap_or_default()
}

#[test]
fn functions_of_decide_branch_little() {
    let sources =
        files().into_iter().filter(|file| is_rust(file) && file.starts_with(FOLDER) && !is_unit_test(file));
    let texts: Vec<(String, String)> = sources
        .filter_map(|file| Some((file.clone(), bare(&std::fs::read_to_string(root().join(&file)).ok()?))))
        .collect();
    let counted: Vec<(usize, &str, &str)> = texts
        .iter()
        .flat_map(|(file, text)| {
            bodies(text).into_iter().map(|(name, body)| (branches(body), &file[..], name))
        })
        .collect();
    assert!(counted.len() > 300, "the functions are found: {}", counted.len());
    let over: Vec<_> = counted.iter().filter(|(branches, ..)| *branches > BRANCHES_MAX).collect();
    let found = ninth_of_ten(counted.iter().map(|(branches, ..)| *branches).collect());
    assert!(found <= BRANCHES_MAX, "{found} branches; of {} functions too many: {over:#?}", counted.len());
}

#[test]
fn branches_are_seen() {
    let counts = |text: &str| -> Vec<usize> {
        bodies(&bare(&format!("mod a;\n{text}"))).into_iter().map(|(_, body)| branches(body)).collect()
    };
    assert_eq!(counts("fn f() { 1 }\npub fn g(a: u8) -> bool { a == 1 && a == 2 }"), [0, 1]);
    let chain = "fn f() {\n    if a && b\n        || c\n    {\n        return x?; // if d\n    }\n}";
    assert_eq!(counts(chain), [4]);
    assert_eq!(counts("fn f() { let Some(a) = b else { return }; c(|| a, \"if ? || {\") }"), [1]);
    assert_eq!(counts("fn f() { match a { A => 1, B if b => { if c { 2 } else { 3 } } } }"), [4]);
    assert_eq!(ninth_of_ten(vec![6, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 6);
    assert_eq!(ninth_of_ten(vec![1; 19].into_iter().chain([6]).collect()), 1);
}
