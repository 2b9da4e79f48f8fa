//! Checks of the files themselves: numbers have reasons, images are pinned, no secret is in git, scripts and Dockerfile
//! pass their linters.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder;
use super::objects::{BUNDLES, run};
use super::pods::pods;
use crate::support::{python_program, tool};

/// The largest distance between a number and its comment above, in lines.
const COMMENT_WITHIN: usize = 6;

/// Every file below `deploy/`.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![folder()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn ends_with(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.contains(&ending.to_string_lossy().as_ref()))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_number_says_why() {
    let mut faults = Vec::new();
    for path in files().iter().filter(|path| ends_with(path, &["yaml", "yml", "conf", "ini"])) {
        let found = bare_numbers(&read(path));
        faults.extend(found.into_iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(faults.is_empty(), "numbers without a reason above them:\n{}", faults.join("\n"));
}

/// Lines with a number that has no comment beside or above it. A comment above must be near enough, and not be indented
/// deeper than the number.
fn bare_numbers(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_comment = |line: &str| line.trim_start().starts_with(['#', ';']);
    let explained = |index: usize| {
        let above = lines[..index].iter().rev().take(COMMENT_WITHIN);
        lines[index].contains(" # ")
            || above.clone().any(|line| is_comment(line) && indent(line) <= indent(lines[index]))
    };
    let bare = |(index, line): (usize, &&str)| {
        (!is_comment(line) && has_number(line) && !explained(index)).then_some(index + 1)
    };
    lines.iter().enumerate().filter_map(bare).collect()
}

/// Whether one of the values in a line is a number, with or without a unit.
fn has_number(line: &str) -> bool {
    let words = line.split(|c: char| c.is_whitespace() || "=:,\"'[]{}()".contains(c));
    words.into_iter().any(|word| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < word.len() && unit.len() <= 2 && unit.chars().all(char::is_alphabetic)
    })
}

#[test]
fn a_bare_number_is_seen() {
    assert_eq!(bare_numbers("a:\n  b: 3\n"), [2]);
    assert_eq!(bare_numbers("a:\n  # Why.\n  b: 3\n"), [0; 0]);
    assert_eq!(bare_numbers("a:\n    # Deeper.\n  b: 20Gi\n"), [3]);
    assert_eq!(bare_numbers("b: \"14\"\n"), [1]);
    assert_eq!(bare_numbers("b: \"14\" # Two weeks.\n"), [0; 0]);
    assert_eq!(bare_numbers("; Why.\nport = 6432\nq = pg-0.pg, v1, 17.2\n"), [0; 0]);
}

#[test]
fn lines_are_not_too_long() {
    for path in files().iter().filter(|path| !ends_with(path, &["json", "md"])) {
        let long = read(path).lines().position(|line| line.chars().count() > 132);
        assert_eq!(long.map(|line| line + 1), None, "{}", path.display());
    }
}

/// No value stands beside the name of a secret, and no Secret is in git.
#[test]
fn no_password_is_in_git() {
    let mut faults = Vec::new();
    for path in files() {
        for (index, line) in read(&path).lines().enumerate() {
            if is_secret(line) {
                faults.push(format!("{}:{}: {line}", path.display(), index + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for bundle in BUNDLES.iter() {
        assert!(bundle.objects.iter().all(|object| object.kind != "Secret"), "{}", bundle.name);
        for pod in pods(bundle) {
            for variable in pod.containers().flat_map(|container| container.env.iter().flatten()) {
                let name = ["PASS", "SECRET", "KEY", "TOKEN"].iter().any(|word| variable.name.contains(word));
                let path = variable.value.as_ref().is_none_or(|value| value.starts_with('/'));
                let public = variable.name.ends_with("CLUSTER_TOKEN");
                assert!(!name || path || public, "{}: {}", pod.owner, variable.name);
            }
        }
    }
}

/// `password: x`, `password = x`, a key block, or an URL with a password.
fn is_secret(line: &str) -> bool {
    let line = line.trim_start();
    let Some((name, value)) = line.split_once(['=', ':']) else { return false };
    let value = value.trim().trim_matches('"');
    let named = ["password", "passwd", "secret-key", "token"].iter().any(|word| {
        let name = name.trim_start_matches("- ").trim();
        name.eq_ignore_ascii_case(word) || name.to_ascii_lowercase().ends_with(&format!("_{word}"))
    });
    let taken_elsewhere = value.is_empty() || value.starts_with(['$', '/', '{', '<']);
    (named && !taken_elsewhere) || line.contains("PRIVATE KEY-----")
}

#[test]
fn a_password_is_seen() {
    for line in [
        "password: hunter2",
        "  PGPASSWORD = x",
        "superuser_password: \"x\"",
        "-----BEGIN PRIVATE KEY-----: ",
    ] {
        assert_eq!(is_secret(line), !line.contains("PGPASSWORD"), "{line}");
    }
    for line in ["password: ", "password: $X", "key: superuser-password", "password_file: x"] {
        assert!(!is_secret(line), "{line}");
    }
}

/// Every image has a version as its tag, and is an image that the Dockerfile builds, under that name.
#[test]
fn images_are_pinned_and_ours() {
    let dockerfile = read(&folder().join("Dockerfile"));
    for bundle in BUNDLES.iter() {
        for pod in pods(bundle) {
            for container in pod.containers() {
                let image = container.image.as_deref().expect("a container has an image");
                let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
                assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{image}");
                assert!(
                    dockerfile.contains(&format!("-t {image} ")),
                    "{image}: the Dockerfile does not say how"
                );
            }
        }
    }
    for line in dockerfile.lines().filter(|line| line.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).expect("FROM names something");
        let is_stage = dockerfile.contains(&format!(" AS {image}\n"));
        assert!(is_stage || (image.contains(':') && !image.contains("latest")), "{line}");
    }
    let version = format!("-t matriarch:{}-pg", env!("CARGO_PKG_VERSION"));
    assert!(dockerfile.contains(&version), "the tag is that of the package");
}

#[test]
fn hadolint_accepts_the_dockerfile() {
    run(Command::new(python_program("hadolint")).arg(folder().join("Dockerfile")));
}

#[test]
fn shellcheck_accepts_the_scripts() {
    let scripts: Vec<PathBuf> = files().into_iter().filter(|path| ends_with(path, &["sh"])).collect();
    assert!(scripts.len() >= 2, "{scripts:?}");
    run(Command::new(tool("shellcheck")).args(scripts));
}
