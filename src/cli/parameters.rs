//! Parameters of PostgreSQL among the words of `run`, written as for `postgres` itself.
//!
//! `matriarch run [FILE] [postgres] -c NAME=VALUE --name=value`: command lines of the official image work unchanged.
//! Before the word `postgres`, `-c` may also name the configuration file: a value that begins like `NAME=` is a
//! parameter.

use std::ffi::OsString;

use super::error::CliError;

/// Options with a value, so that the value is not mistaken for the command.
const WITH_VALUE: [&str; 9] =
    ["-c", "--config-file", "-d", "--dcs-url", "--dcs", "-o", "--output", "-f", "--format"];
/// The program's long options, which are not parameters.
const OURS: [&str; 7] = ["config-file", "dcs-url", "dcs", "output", "format", "help", "version"];

/// A command line without the parameters, and the parameters.
pub type Separated = (Vec<OsString>, Vec<(String, String)>);

/// Separates the parameters from a command line. Only `run` has parameters; other commands stay unchanged.
///
/// # Errors
/// A word after `postgres` that is not a parameter.
pub fn separate(words: impl IntoIterator<Item = OsString>) -> Result<Separated, CliError> {
    let words: Vec<OsString> = words.into_iter().collect();
    let Some(run) = command(&words).filter(|index| words[*index] == "run") else {
        return Ok((words, Vec::new()));
    };
    let (mut rest, mut parameters) = (words[..=run].to_vec(), Vec::new());
    let mut behind_postgres = false;
    let mut words = words.into_iter().skip(run + 1);
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "postgres" && !behind_postgres {
            behind_postgres = true;
        } else if text == "-c" {
            let value = words.next();
            match value.as_ref().and_then(|value| assignment(value.to_str()?)) {
                Some(parameter) => parameters.push(parameter),
                None if behind_postgres => return Err(no_parameter("-c", value.as_ref())),
                None => rest.extend([word].into_iter().chain(value)),
            }
        } else if let Some(parameter) = text.strip_prefix("-c").and_then(assignment) {
            parameters.push(parameter);
        } else if let Some(parameter) =
            text.strip_prefix("--").and_then(assignment).filter(|_| !is_ours(text))
        {
            parameters.push(parameter);
        } else if behind_postgres {
            return Err(no_parameter(text, None));
        } else {
            rest.push(word);
        }
    }
    Ok((rest, parameters))
}

/// The position of the command.
fn command(words: &[OsString]) -> Option<usize> {
    let mut index = 1;
    while let Some(word) = words.get(index) {
        let text = word.to_str().unwrap_or_default();
        if !text.starts_with('-') {
            return Some(index);
        }
        index += 1 + usize::from(WITH_VALUE.contains(&text));
    }
    None
}

/// `NAME=VALUE`. In names, `-` counts as `_`, as in PostgreSQL.
fn assignment(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    (begins && goes_on).then(|| (name.replace('-', "_"), value.to_owned()))
}

fn is_ours(text: &str) -> bool {
    let name = text.trim_start_matches('-').split('=').next().unwrap_or_default();
    OURS.contains(&name)
}

fn no_parameter(word: &str, value: Option<&OsString>) -> CliError {
    let value = value.map(|value| format!(" {}", value.to_string_lossy())).unwrap_or_default();
    CliError::usage(format!("`{word}{value}` is not a PostgreSQL parameter"))
        .hint("after `postgres`, write `-c NAME=VALUE` or `--name=value`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(String, String), String> {
        let words = line.split(' ').map(OsString::from);
        let (rest, parameters) = separate(words).map_err(|error| error.render())?;
        let rest: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok((rest.join(" "), parameters.join(" ")))
    }

    #[test]
    fn parameters_are_separated_from_options() {
        let cases = [
            ("m run -c a.yml", "m run -c a.yml", ""),
            ("m -c run run f.yml -c a=1", "m -c run run f.yml", "a=1"),
            ("m run postgres -c a=1 -cb.c=2 --d-e=3=4", "m run", "a=1 b.c=2 d_e=3=4"),
            (
                "m run f.yml -c ./a=b.yml --dcs-url=etcd3://h --work_mem=1MB",
                "m run f.yml -c ./a=b.yml --dcs-url=etcd3://h",
                "work_mem=1MB",
            ),
            ("m list -c a=1", "m list -c a=1", ""),
            ("m run", "m run", ""),
        ];
        for (line, rest, parameters) in cases {
            assert_eq!(read(line), Ok((rest.to_owned(), parameters.to_owned())), "{line}");
        }
    }

    #[test]
    fn values_that_only_postgres_accepts_are_refused() {
        for line in
            ["m run postgres -p 5433", "m run postgres -c file", "m run postgres x", "m run postgres -c"]
        {
            assert!(read(line).is_err_and(|error| error.contains("NAME=VALUE")), "{line}");
        }
    }
}
