//! Documents: links lead to files and headings that exist, every page can be found, and the README stays short.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Fault, assert_clean, fault, files, root};

/// Longest README, in lines.
const README_LINES_MAX: usize = 130;

fn is_document(file: &str) -> bool {
    file.ends_with(".md")
}

/// Numbered lines of text, without code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced && !line.starts_with("    ")).then_some((index + 1, line))
    })
}

/// The targets of `[text](target)` in one line, except web addresses.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://"))
}

/// GitHub's anchor for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| anchor(title))
    });
    headings.collect()
}

/// The path below the repository's root to which a link of `file` leads.
fn resolved(file: &str, target: &str) -> PathBuf {
    let mut path = PathBuf::from(file);
    if !target.is_empty() {
        path.pop();
    }
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn link_faults(file: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (line, text_of_line) in prose(text) {
        for link in links(text_of_line) {
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = resolved(file, target);
            if !root().join(&path).exists() {
                faults.push(fault(file, line, format!("`{link}` leads to no file")));
            } else if !heading.is_empty() {
                let found = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
                let there = if target.is_empty() { anchors(text) } else { anchors(&found) };
                if !there.contains(heading) {
                    faults.push(fault(file, line, format!("`{link}` leads to no heading")));
                }
            }
        }
    }
    faults
}

/// Pages without a link from another page. READMEs are found without a link.
fn unlinked(pages: &[(String, String)]) -> Vec<&str> {
    let linked: BTreeSet<PathBuf> = pages
        .iter()
        .flat_map(|(file, text)| prose(text).map(move |(_, line)| (file, line)))
        .flat_map(|(file, line)| {
            links(line).map(move |link| resolved(file, link.split('#').next().unwrap_or_default()))
        })
        .collect();
    let names = pages.iter().map(|(file, _)| file.as_str());
    names.filter(|file| !file.ends_with("README.md") && !linked.contains(Path::new(file))).collect()
}

fn readme_faults(file: &str, text: &str) -> Vec<Fault> {
    let lines = text.lines().count();
    if lines <= README_LINES_MAX {
        return Vec::new();
    }
    let what = format!("{lines} lines; at most {README_LINES_MAX}: details belong into deploy/guide");
    vec![fault(file, lines, what)]
}

#[test]
fn links_lead_somewhere() {
    assert_clean(is_document, link_faults);
}

#[test]
fn every_page_is_linked() {
    let read = |file: String| {
        let text = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        (file, text)
    };
    let pages: Vec<_> = files().into_iter().filter(|file| is_document(file)).map(read).collect();
    assert!(pages.len() > 10, "the documents were not found");
    assert_eq!(unlinked(&pages), Vec::<&str>::new(), "no page leads there");
}

#[test]
fn the_readme_is_short() {
    assert_clean(|file| file == "README.md", readme_faults);
}

#[test]
fn a_broken_link_is_seen() {
    let faults = |text: &str| link_faults("deploy/README.md", text).len();
    assert_eq!(faults("[a](Dockerfile) and [b](../Makefile), [c](base/), [d](https://nowhere.example)"), 0);
    assert_eq!(faults("[a](nowhere.md) and [b](Makefile)"), 2);
    assert_eq!(faults("# First, `second`!\n[a](#first-second)"), 0);
    assert_eq!(faults("# First\n[a](#second)"), 1);
    assert_eq!(faults("[a](../README.md#no-such-heading)"), 1);
    assert_eq!(faults("```\n# First\n[a](nowhere.md)\n```\n[b](#first)"), 1);
}

#[test]
fn a_page_that_cannot_be_found_is_seen() {
    let pages = [
        ("README.md", "[a](deploy/a.md#x)"),
        ("deploy/a.md", ""),
        ("deploy/b.md", "[c](https://a.example/b.md)"),
    ];
    let pages = pages.map(|(file, text)| (file.to_owned(), text.to_owned()));
    assert_eq!(unlinked(&pages), ["deploy/b.md"]);
}

#[test]
fn a_long_readme_is_seen() {
    assert_eq!(readme_faults("README.md", &"x\n".repeat(131)).len(), 1);
    assert_eq!(readme_faults("README.md", &"x\n".repeat(130)).len(), 0);
}
