//! Tables in documents agree with the sources: mutations, exit codes, metrics.

use std::collections::BTreeSet;

use super::{files, root};

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_default()
}

/// `NoLagLimit` as `no-lag-limit`.
fn kebab(name: &str) -> String {
    super::words_of(name).join("-")
}

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Promise and mutation of each `is_caught(Mutation::NoLagLimit, "loss", 38)`.
fn tested(source: &str) -> BTreeSet<(String, String)> {
    let calls = source.split("is_caught(Mutation::").skip(1);
    calls
        .filter_map(|call| {
            let (mutation, rest) = call.split_once(", \"")?;
            let (promise, _) = rest.split_once('"')?;
            Some((promise.to_owned(), kebab(mutation)))
        })
        .collect()
}

/// Promise and mutation of each row of the table `| promise | what is checked | mutations |`. In a row with two
/// promises their mutations are separated by a semicolon.
fn documented(text: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, promises, _, mutations, _] = cells[..] else { continue };
        for (promise, mutations) in quoted(promises).zip(mutations.split(';')) {
            found.extend(quoted(mutations).map(|mutation| (promise.to_owned(), mutation.to_owned())));
        }
    }
    found
}

/// The codes in the first column of a table.
fn codes(text: &str) -> BTreeSet<u8> {
    let rows = text.lines().map(|line| line.trim_start_matches("//! "));
    rows.filter_map(|row| row.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

/// Names with the prefix of a metric.
fn metrics(text: &str) -> BTreeSet<String> {
    let names = quoted(text).filter(|name| name.starts_with("matriarch_"));
    let whole = names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    whole.map(str::to_owned).collect()
}

#[test]
fn each_mutation_stands_in_the_row_of_its_promise() {
    let (tested, documented) =
        (tested(&read("chaos/src/sim/tests.rs")), documented(&read("chaos/README.md")));
    assert!(tested.len() > 20, "the tests were not found");
    let differ: Vec<_> = tested.symmetric_difference(&documented).collect();
    assert!(differ.is_empty(), "chaos/README.md and chaos/src/sim/tests.rs differ in {differ:?}");
}

/// A mutation that no code reads breaks nothing, and no story can catch it.
#[test]
fn each_mutation_is_carried_out() {
    let (list, tests) = ("chaos/src/sim/mutation.rs", "chaos/src/sim/tests.rs");
    let is_driver =
        |file: &&String| file.starts_with("chaos/src/sim/") && ![list, tests].contains(&file.as_str());
    let drivers: String = files().iter().filter(is_driver).map(|file| read(file)).collect();
    let text = read(list);
    let variants: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    assert!(variants.len() > 40, "the mutations were not found");
    let is_dead = |name: &&str| !drivers.contains(&format!("Mutation::{name}"));
    let dead: Vec<&str> = variants.into_iter().filter(is_dead).collect();
    assert!(dead.is_empty(), "no code carries out {dead:?}");
}

#[test]
fn the_guide_has_every_exit_code() {
    let (source, guide) = (codes(&read("src/cli/exit.rs")), codes(&read("deploy/guide/commands.md")));
    assert!(source.len() > 10, "the table was not found");
    assert_eq!(source, guide, "src/cli/exit.rs and deploy/guide/commands.md differ");
}

/// Metrics are named in full, and counters of the loop without their common prefix.
#[test]
fn every_metric_in_a_document_exists() {
    let sources: String = files()
        .iter()
        .filter(|file| file.starts_with("src/") && file.ends_with(".rs"))
        .map(|file| read(file))
        .collect();
    let role = "matriarch_supervisor";
    let mut named = 0;
    for file in files().iter().filter(|file| file.ends_with(".md")) {
        for name in metrics(&read(file)).iter().filter(|name| *name != role) {
            named += 1;
            let counter = format!("\"{}\"", name.trim_start_matches("matriarch_"));
            assert!(sources.contains(name) || sources.contains(&counter), "{file}: no metric `{name}`");
        }
    }
    assert!(named > 5, "the documents name no metrics");
}

#[test]
fn rows_and_names_are_read() {
    let source = "    is_caught(Mutation::NoLagLimit, \"loss\", 38);\n    is_caught(Mutation::TtlJump, \"guarded\", 2);";
    let table = "| `leased`, `guarded` | `x` | `a`; `ttl-jump` |\n| `loss` | y | `no-lag-limit` |\n| `one_job` | z | |";
    let pair = |promise: &str, mutation: &str| (promise.to_owned(), mutation.to_owned());
    assert_eq!(tested(source), BTreeSet::from([pair("guarded", "ttl-jump"), pair("loss", "no-lag-limit")]));
    assert_eq!(
        documented(table).difference(&tested(source)).collect::<Vec<_>>(),
        [&pair("leased", "a")],
        "one that no test tries"
    );
    assert_eq!(codes("//! | 3 | a |\n| 130 | b |\n| code | c |\n| 5 and | d |"), BTreeSet::from([3, 5, 130]));
    assert_eq!(
        metrics("`matriarch_x_total`, matriarch_y, `matriarch_z…`"),
        BTreeSet::from(["matriarch_x_total".to_owned()])
    );
}
