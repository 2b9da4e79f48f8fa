//! Environment variables under the names that the other modules use: `MATRIARCH_X` stands for `PATRONI_X` and overrides
//! it; `X_FILE` names a file with the value of `X`, such as a mounted secret.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::environment;
use super::fault::{Fault, ValueOrigin};
use super::image;
use super::reader::ConfigFindings;

/// The passwords of PostgreSQL's roles.
const ROLE_PASSWORDS: [&str; 4] = [
    "PATRONI_SUPERUSER_PASSWORD",
    "PATRONI_REPLICATION_PASSWORD",
    "PATRONI_REWIND_PASSWORD",
    "POSTGRES_PASSWORD",
];

/// A variable with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    /// The value, never empty.
    pub(super) text: String,
    /// Its real name.
    pub(super) origin: ValueOrigin,
}

/// Variables under the names of Patroni and the official image.
pub(super) type Variables = BTreeMap<String, Variable>;

/// All known variables. Empty ones count as not set.
pub(super) fn resolve(environment: &BTreeMap<String, String>, findings: &mut ConfigFindings) -> Variables {
    let mut variables = Variables::new();
    let set = |name: &str| environment.get(name).is_some_and(|text| !text.is_empty());
    // In the order of names: `MATRIARCH_X` comes before `PATRONI_X`, and the first one counts.
    for (name, text) in environment.iter().filter(|(_, text)| !text.is_empty()) {
        let Some((known, form)) = known(name) else { continue };
        let text = match form {
            Form::Plain => text.clone(),
            Form::File { base } if set(base) => {
                let found = format!("{base} and {name} are both set");
                findings.faults.push(Fault::general(name, found, "set one of them"));
                continue;
            }
            Form::File { base } => match content(name, base, text) {
                Ok(text) => text,
                Err(fault) => {
                    findings.faults.push(fault);
                    continue;
                }
            },
        };
        let variable = Variable { text, origin: ValueOrigin { source: name.clone(), line: None } };
        match variables.entry(known) {
            Entry::Vacant(place) => drop(place.insert(variable)),
            Entry::Occupied(first) if first.get().text != variable.text => {
                let found = format!("{} says something else", first.get().origin);
                findings.warnings.push(Fault::general(name, found, "which is what counts: unset this one"));
            }
            Entry::Occupied(_) => {}
        }
    }
    variables
}

/// The environment with every variable also under Patroni's name, for lenient readers.
pub fn canonical(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let resolved = resolve(environment, &mut ConfigFindings::default());
    let mut all = environment.clone();
    all.extend(resolved.into_iter().map(|(name, variable)| (name, variable.text)));
    all
}

/// The files that variables refer to.
pub fn secret_files(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let file = |(name, path): (&String, &String)| {
        matches!(known(name), Some((_, Form::File { .. }))).then(|| PathBuf::from(path))
    };
    environment.iter().filter_map(file).collect()
}

/// Whether a password of PostgreSQL's roles is in such a file.
pub fn role_passwords_are_in_files(environment: &BTreeMap<String, String>) -> bool {
    environment.keys().any(|name| {
        let known = known(name).filter(|(_, form)| matches!(form, Form::File { .. }));
        known.is_some_and(|(name, _)| ROLE_PASSWORDS.contains(&name.as_str()))
    })
}

/// A number that is another one when the content of any of these files is another.
pub fn secrets_digest(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.iter().for_each(|file| fs::read(file).ok().hash(&mut hasher));
    hasher.finish()
}

/// The form of a variable's value.
enum Form<'a> {
    Plain,
    /// The name of a file; `base` is the variable for the plain value.
    File {
        base: &'a str,
    },
}

/// The canonical name of a variable, if it is known.
fn known(name: &str) -> Option<(String, Form<'_>)> {
    let plain = |name: &str| {
        let ours = name.strip_prefix("MATRIARCH_").or_else(|| name.strip_prefix("PATRONI_"));
        match ours {
            Some(rest) => environment::known(rest).map(|rest| format!("PATRONI_{rest}")),
            None => image::VARIABLES.contains(&name).then(|| name.to_owned()),
        }
    };
    match name.strip_suffix("_FILE") {
        Some(base) => plain(base).map(|known| (known, Form::File { base })),
        None => plain(name).map(|known| (known, Form::Plain)),
    }
}

/// The content of a file, without the final newline.
fn content(name: &str, base: &str, path: &str) -> Result<String, Fault> {
    let fault =
        |found| Fault::general(name, found, format!("name a file that holds the value, or set {base}"));
    let text = fs::read_to_string(path).map_err(|error| fault(format!("{path} cannot be read: {error}")))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(fault(format!("{path} is empty"))),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(pairs: &[(&str, &str)]) -> (Variables, ConfigFindings) {
        let environment = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut findings = ConfigFindings::default();
        (resolve(&environment, &mut findings), findings)
    }

    #[test]
    fn our_variable_overrides_patronis_with_a_warning() {
        let (variables, findings) =
            resolved(&[("PATRONI_NAME", "b"), ("MATRIARCH_NAME", "a"), ("PATH", "/")]);
        let only: Vec<_> =
            variables.iter().map(|(name, variable)| (name.as_str(), variable.text.as_str())).collect();
        assert_eq!(only, [("PATRONI_NAME", "a")]);
        assert_eq!(findings.warnings.len(), 1);
        assert!(findings.warnings[0].to_string().starts_with("PATRONI_NAME: MATRIARCH_NAME says"));
        assert!(resolved(&[("PATRONI_NAME", "a"), ("MATRIARCH_NAME", "a")]).1.warnings.is_empty());
    }

    #[test]
    fn only_files_with_passwords_of_roles_are_followed_by_roles() {
        let follows = |name: &str| {
            role_passwords_are_in_files(&[(name.to_owned(), "/secret".to_owned())].into_iter().collect())
        };
        assert!(follows("POSTGRES_PASSWORD_FILE") && follows("MATRIARCH_REPLICATION_PASSWORD_FILE"));
        assert!(!follows("PATRONI_RESTAPI_PASSWORD_FILE") && !follows("PATRONI_SUPERUSER_PASSWORD"));
    }

    #[test]
    fn a_file_gives_its_content_and_faults_name_it() {
        let path = std::env::temp_dir().join(format!("matriarch-secret-{}", std::process::id()));
        std::fs::write(&path, "s: 'ecret\n").expect("a temporary file");
        let path = path.to_str().expect("a path").to_owned();
        let (variables, findings) = resolved(&[("POSTGRES_PASSWORD_FILE", &path)]);
        assert!(findings.faults.is_empty());
        assert_eq!(variables["POSTGRES_PASSWORD"].text, "s: 'ecret");
        let (_, both) =
            resolved(&[("PATRONI_SUPERUSER_PASSWORD_FILE", &path), ("PATRONI_SUPERUSER_PASSWORD", "x")]);
        let both = both.faults[0].to_string();
        assert!(both.contains("PATRONI_SUPERUSER_PASSWORD and PATRONI_SUPERUSER_PASSWORD_FILE are both set"));
        std::fs::write(&path, "\n").expect("a temporary file");
        let (_, empty) = resolved(&[("POSTGRES_PASSWORD_FILE", &path)]);
        assert!(empty.faults[0].to_string().contains("is empty"), "{}", empty.faults[0]);
        std::fs::remove_file(&path).expect("it was just written");
        let (_, gone) = resolved(&[("MATRIARCH_ETCD3_PASSWORD_FILE", &path)]);
        assert!(gone.faults[0].to_string().contains("or set MATRIARCH_ETCD3_PASSWORD"), "{}", gone.faults[0]);
    }
}
