//! The settings that the official image of PostgreSQL takes from its environment. Every other source overrides them.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::reader::ConfigFindings;
use super::tree::{Node, Value};
use super::variables::{Variable, Variables};
use crate::model::shell_words;

/// The variables with an effect; each also with the suffix `_FILE`.
pub(super) const VARIABLES: [&str; 5] =
    ["PGDATA", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_INITDB_ARGS"];
/// Variables without an effect, with the alternative.
const NOT_BUILT: [(&str, &str); 2] = [
    ("POSTGRES_HOST_AUTH_METHOD", "write the access rules in MATRIARCH_BOOTSTRAP_PG_HBA, one a line"),
    ("POSTGRES_INITDB_WALDIR", "put the whole data directory on that volume"),
];
/// Options of initdb by their letters. Options that the supervisor sets are refused under their long names.
const LETTERS: [(char, &str); 12] = [
    ('A', "auth"),
    ('c', "set"),
    ('D', "pgdata"),
    ('E', "encoding"),
    ('g', "allow-group-access"),
    ('k', "data-checksums"),
    ('n', "no-clean"),
    ('N', "no-sync"),
    ('T', "text-search-config"),
    ('U', "username"),
    ('W', "pwprompt"),
    ('X', "waldir"),
];

/// The part for every member.
pub(super) fn server(variables: &Variables) -> Node {
    let superuser = ["postgresql", "authentication", "superuser"];
    let paths: [(&str, &[&str]); 3] = [
        ("PGDATA", &["postgresql", "data_dir"]),
        ("POSTGRES_USER", &[superuser[0], superuser[1], superuser[2], "username"]),
        ("POSTGRES_PASSWORD", &[superuser[0], superuser[1], superuser[2], "password"]),
    ];
    let mut node = Node { value: Value::Map(Vec::new()), ..Node::default() };
    for (name, path) in paths {
        if let Some(variable) = variables.get(name) {
            node.put(path, Node::text(&variable.text, &variable.origin));
        }
    }
    node
}

/// The part for a new cluster, only for a member that may create one. `defaults` are options of initdb for those that
/// are not given.
pub(super) fn bootstrap(
    variables: &Variables,
    environment: &BTreeMap<String, String>,
    defaults: Vec<String>,
    findings: &mut ConfigFindings,
) -> Node {
    let mut node = Node { value: Value::Map(Vec::new()), ..Node::default() };
    if let Some(database) = variables.get("POSTGRES_DB").or(variables.get("POSTGRES_USER")) {
        node.put(&["bootstrap", "database"], Node::text(&database.text, &database.origin));
    }
    let arguments = variables.get("POSTGRES_INITDB_ARGS");
    let mut options = arguments.map_or_else(Vec::new, |arguments| initdb(arguments, findings));
    for default in defaults {
        let name =
            |option: &str| option.split('=').next().unwrap_or_default().trim_start_matches("no-").to_owned();
        if !options.iter().any(|option| name(option) == name(&default)) {
            options.push(default);
        }
    }
    if !options.is_empty() {
        let origin = arguments.map(|arguments| arguments.origin.clone()).unwrap_or_default();
        let items = options.iter().map(|option| Node::text(option, &origin)).collect();
        node.put(&["bootstrap", "initdb"], Node { value: Value::List(items), origin });
    }
    for (name, instead) in NOT_BUILT {
        if environment.get(name).is_some_and(|text| !text.is_empty()) {
            findings.warnings.push(Fault::general(name, "is not acted on", instead));
        }
    }
    node
}

/// Converts arguments of initdb, in shell syntax, to the long options of the file.
fn initdb(arguments: &Variable, findings: &mut ConfigFindings) -> Vec<String> {
    let mut fault = |found: String| {
        findings.faults.push(Fault {
            origin: arguments.origin.clone(),
            key: String::new(),
            found,
            expected: "write options of initdb, as in `--locale=C --data-checksums`".to_owned(),
        });
    };
    let words = shell_words(&arguments.text).unwrap_or_else(|| {
        fault("a quote is not closed".to_owned());
        Vec::new()
    });
    let mut options: Vec<String> = Vec::new();
    for word in words {
        let letter = word.strip_prefix('-').and_then(|rest| rest.chars().next());
        match (word.strip_prefix("--"), letter, options.last_mut()) {
            (Some(option), _, _) => options.push(option.to_owned()),
            (None, Some(letter), _) => match LETTERS.iter().find(|(known, _)| *known == letter) {
                Some((_, name)) => match word[1..].strip_prefix(letter).unwrap_or_default() {
                    "" => options.push((*name).to_owned()),
                    value => options.push(format!("{name}={value}")),
                },
                None => fault(format!("found `{word}`")),
            },
            // The value of the preceding option.
            (None, None, Some(option)) if !option.contains('=') => {
                option.push('=');
                option.push_str(&word);
            }
            (None, None, _) => fault(format!("found `{word}`")),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::super::fault::ValueOrigin;
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let variable = Variable { text: text.to_owned(), origin: ValueOrigin::default() };
        let mut findings = ConfigFindings::default();
        let options = initdb(&variable, &mut findings);
        (options, findings.faults.into_iter().map(|fault| fault.found).collect())
    }

    #[test]
    fn options_of_initdb_are_parsed_like_a_shell_and_initdb_do() {
        let (options, faults) = read("--locale=C -k -E UTF8 -Atrust --set 'work_mem=8 MB' -c a=b");
        let expected =
            ["locale=C", "data-checksums", "encoding=UTF8", "auth=trust", "set=work_mem=8 MB", "set=a=b"];
        assert_eq!((options, faults), (expected.map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn unknown_options_are_faults() {
        assert_eq!(read("data -z --locale=C x").1, ["found `data`", "found `-z`", "found `x`"]);
        assert_eq!(read("--locale='C").1, ["a quote is not closed"]);
    }
}
