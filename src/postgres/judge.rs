//! PostgreSQL's verdict on parameters before they reach its files. The installed program reads them as it would at a
//! start, and exits. Only it knows the names, types, ranges and units of its version.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{MemfdFlags, memfd_create};

use super::handle::PostgresInner;
use super::program::{run, run_to_end, tool};
use super::{Error, Parameters, Postgres, Setup, files};
use crate::os::error_chain::ErrorChain;

/// One run takes about 20 ms.
const RUN_WITHIN: Duration = Duration::from_secs(3);
/// It loads the libraries to preload as well.
const EXPLAIN_WITHIN: Duration = Duration::from_secs(10);
/// One run names all unknown parameters, the next one all invalid values.
const RUNS_MAX: usize = 5;

/// A parameter with which no server would start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Its name, as given.
    pub name: String,
    /// Its value.
    pub value: String,
    /// PostgreSQL's message, with the allowed values.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = '{}': {}", self.name, self.value, self.why)
    }
}

/// Those of `parameters` with which no server would start. Names with a dot belong to extensions, and are accepted.
pub async fn refused(setup: &Setup, parameters: &BTreeMap<String, String>) -> Result<Vec<Refused>, Error> {
    let mut left = parameters.clone();
    let mut refused = Vec::new();
    let mut refuse = |left: &mut BTreeMap<String, String>, name: &str, why: String| {
        let found = left.keys().find(|known| known.eq_ignore_ascii_case(name)).cloned();
        let value = found.as_ref().and_then(|name| left.remove(name));
        let refusal = found.zip(value).map(|(name, value)| Refused { name, value, why });
        refusal.map(|refusal| refused.push(refusal)).is_some()
    };
    for name in parameters.keys().filter(|name| !is_name(name)) {
        let why =
            "this is no name of a parameter: write letters, digits and `_`, and one dot for an extension's";
        refuse(&mut left, name, why.to_owned());
    }
    for _run in 0..RUNS_MAX {
        let said = read_as_at_a_start(setup, &left).await?;
        let mut news = false;
        for (name, why) in complaints(&said) {
            let known = left.keys().any(|known| known.eq_ignore_ascii_case(&name));
            let allowed = if known { allowed(setup, &name, &why).await } else { String::new() };
            news |= refuse(&mut left, &name, why + &allowed);
        }
        if !news {
            // The remaining complaint concerns none of these parameters.
            break;
        }
    }
    refused.sort();
    Ok(refused)
}

/// `parameters` without those with which no server would start, and the refused ones.
async fn without_refused(
    setup: &Setup,
    mut parameters: Parameters,
) -> Result<(Parameters, Vec<Refused>), Error> {
    let mut all = parameters.parameters.clone();
    all.extend(parameters.recovery.clone());
    all.extend(parameters.command_line.iter().cloned());
    // They are written, but never with these values.
    all.retain(|name, _| !files::RECOVERY_TARGETS.contains(&name.as_str()));
    let mut refused = self::refused(setup, &all).await?;
    let taken = |name: &String| !refused.iter().any(|refused| refused.name == *name);
    parameters.parameters.retain(|name, _| taken(name));
    parameters.recovery.retain(|name, _| taken(name));
    parameters.command_line.retain(|(name, _)| taken(name));
    for own in parameters.by_role.values_mut().filter(|own| !own.parameters.is_empty()) {
        let news = self::refused(setup, &own.parameters).await?;
        own.parameters.retain(|name, _| !news.iter().any(|refused| refused.name == *name));
        refused.extend(news);
    }
    Ok((parameters, refused))
}

/// Why a start failed, if a second run fails before it begins: its last lines, with hints.
pub(super) async fn explain(setup: &Setup, line: &[String]) -> Option<String> {
    let mut command = tool(setup, "postgres");
    // This parameter is computed late: before it is printed, PostgreSQL has checked everything that a start checks.
    command.args(["-C", "data_checksums", "-D"]).arg(&setup.data_dir);
    command.arg(format!("--config-file={}", files::main_file(setup).display()));
    command.args(line).args(PLAIN_WORDS);
    let ended = run_to_end("postgres -C", command, Some(EXPLAIN_WITHIN)).await.ok()?;
    let said: Vec<String> = statements(&ended.complaint).into_iter().filter(|said| !is_noise(said)).collect();
    (!ended.status.success() && !said.is_empty()).then(|| said.join("; "))
}

/// Makes the output readable, whatever the files say.
const PLAIN_WORDS: [&str; 5] = [
    "--log_min_messages=log",
    "--log_line_prefix=",
    "--log_destination=stderr",
    "--log_error_verbosity=default",
    "--lc_messages=C",
];

/// Whether a configuration file accepts the name: PostgreSQL manual, "Parameter Names and Values".
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        part.starts_with(letter) && part.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '$')
    };
    match name.split_once('.') {
        Some((class, name)) => part(class) && part(name),
        None => part(name),
    }
}

/// PostgreSQL's output when it reads `parameters` as its configuration file.
async fn read_as_at_a_start(setup: &Setup, parameters: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut text = String::new();
    for (name, value) in parameters {
        let _ = writeln!(text, "{name} = {}", files::literal(value));
    }
    // It is read twice, so it cannot be a pipe.
    let place = Path::new("memory");
    let memory = memfd_create("parameters", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
    let mut memory = File::from(memory.map_err(Error::file("create a file in", place))?);
    memory.write_all(text.as_bytes()).map_err(Error::file("write a file in", place))?;
    let mut command = tool(setup, "postgres");
    // With `-C` first PostgreSQL accepts any user. It reads no data directory.
    command.args(["-C", "work_mem", "-D", "/", "--config-file=/proc/self/fd/0"]).args(PLAIN_WORDS);
    command.stdin(Stdio::from(memory));
    Ok(run_to_end("postgres -C", command, Some(RUN_WITHIN)).await?.complaint)
}

/// Messages, each with its hints and details, without level and location.
fn statements(said: &str) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for line in said.lines() {
        let after = |level: &str| line.split_once(level).map(|(_, rest)| rest.trim());
        let more = after("HINT:  ").or(after("DETAIL:  "));
        let message = after("LOG:  ").or(after("FATAL:  ")).or(line.strip_prefix("postgres: "));
        match (more, message, statements.last_mut()) {
            (Some(more), _, Some(last)) => {
                let _ = write!(last, "; {more}");
            }
            (_, Some(message), _) => {
                let place = message.find(" in file \"/proc/self/fd/0\"").unwrap_or(message.len());
                statements.push(message[..place].to_owned());
            }
            (_, None, _) => {}
        }
    }
    statements
}

/// A message that is not the cause of the failure.
fn is_noise(said: &str) -> bool {
    said.starts_with("skipping missing configuration file")
}

/// The parameters in the complaints, each with its complaint.
fn complaints(said: &str) -> Vec<(String, String)> {
    let named = |said: String| {
        let (_, rest) = said.split_once("parameter \"")?;
        let name = rest.split_once('"')?.0.to_owned();
        Some((name, said))
    };
    statements(said).into_iter().filter_map(named).collect()
}

/// Additional help: the range of a number, or the name that may have been meant.
async fn allowed(setup: &Setup, name: &str, why: &str) -> String {
    let Ok(catalogue) = catalogue(setup).await else { return String::new() };
    if why.starts_with("unrecognized configuration parameter") {
        let near = crate::model::nearest(name, catalogue.iter().map(|known| known.name.as_str()));
        return match near {
            Some(near) => format!("; did you mean `{near}`?"),
            None => "; parameters of extensions are written with a dot".to_owned(),
        };
    }
    let known = catalogue.iter().find(|known| known.name.eq_ignore_ascii_case(name));
    let number = known.filter(|known| !known.least.is_empty() && !why.contains("outside the valid range"));
    number.map_or_else(String::new, |known| format!("; from {} to {}", known.least, known.most))
}

/// A line of `postgres --describe-config`.
#[derive(Clone)]
struct Described {
    name: String,
    least: String,
    most: String,
}

/// The catalogue of the program that was asked last. The program may be replaced at run time.
static CATALOGUE: Mutex<Option<(PathBuf, SystemTime, Vec<Described>)>> = Mutex::new(None);

async fn catalogue(setup: &Setup) -> Result<Vec<Described>, Error> {
    let program = setup.program("postgres");
    let changed_at = std::fs::metadata(&program).and_then(|file| file.modified());
    let changed_at = changed_at.map_err(Error::file("look at", &program))?;
    let cached = || CATALOGUE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, at, catalogue)) = &*cached()
        && (path, at) == (&program, &changed_at)
    {
        return Ok(catalogue.clone());
    }
    let mut command = tool(setup, "postgres");
    command.arg("--describe-config");
    let text = run("postgres --describe-config", command, Some(RUN_WITHIN)).await?;
    let described = |line: &str| {
        // Name, context, group, type, default, least, most, texts.
        let mut fields = line.split('\t');
        let (name, mut numbers) = (fields.next()?.to_owned(), fields.skip(4).map(str::to_owned));
        Some(Described { name, least: numbers.next()?, most: numbers.next()? })
    };
    let catalogue: Vec<Described> = text.lines().filter_map(described).collect();
    *cached() = Some((program, changed_at, catalogue.clone()));
    Ok(catalogue)
}

impl Postgres {
    /// Removes parameters with which no server would start. [`Postgres::apply`] does so, too.
    pub async fn judge_parameters(&self) {
        let judged = self.inner.judged(self.inner.configuration.all_parameters()).await;
        self.inner.configuration.replace_parameters(judged);
    }
}

impl PostgresInner {
    /// `parameters` without those with which no server would start; each of those is logged once.
    pub(super) async fn judged(&self, parameters: Parameters) -> Parameters {
        let (parameters, refused) = match without_refused(&self.setup, parameters.clone()).await {
            Ok(judged) => judged,
            Err(error) => {
                let error = error.chain();
                tracing::warn!(error, "could not check the parameters against PostgreSQL");
                return parameters;
            }
        };
        for news in self.configuration.replace_refused(refused) {
            tracing::warn!("a parameter is omitted, because PostgreSQL would not start with it: {news}");
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_postgres_is_parsed() {
        let said = "LOG:  skipping missing configuration file \"/postgresql.auto.conf\"
2026-01-01 GMT [7] LOG:  invalid value for parameter \"work_mem\": \"8XB\"
2026-01-01 GMT [7] HINT:  Valid units for this parameter are \"B\" and \"kB\".
LOG:  unrecognized configuration parameter \"x\" in file \"/proc/self/fd/0\" line 2
postgres: superuser_reserved_connections (300) must be less than max_connections (100)
FATAL:  configuration file \"/proc/self/fd/0\" contains errors
";
        let units = "invalid value for parameter \"work_mem\": \"8XB\"; Valid units for this parameter are \"B\" and \"kB\".";
        let expected = [("work_mem", units), ("x", "unrecognized configuration parameter \"x\"")];
        let expected = expected.map(|(name, why)| (name.to_owned(), why.to_owned()));
        assert_eq!(complaints(said), expected);
        assert!(statements(said).contains(
            &"superuser_reserved_connections (300) must be less than max_connections (100)".to_owned()
        ));
    }

    #[test]
    fn valid_parameter_names_are_recognized() {
        for name in ["work_mem", "pg_stat_statements.max", "a$1", "_x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a-b", "1a", "a.b.c", "a.", "a\n", "a=b"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
