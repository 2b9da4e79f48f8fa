//! `edit-config`: change the dynamic configuration, with a look at the difference first.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde_json::Value;
use similar::TextDiff;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{sorted, to_yaml};
use super::setting::{Setting, merge, parse_yaml};
use super::show_config::read;
use super::target::{config_path, environment, open};
use super::ui::Consent;
use crate::config::{self, Config, Fault, Given, Sources};

/// Options of `edit-config`.
#[derive(Debug, Args)]
pub struct EditConfigArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    /// Do not print the difference.
    #[arg(short, long)]
    quiet: bool,
    /// Set a key (dots separate levels) to a YAML value; `null` removes the key.
    #[arg(short, long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Set a PostgreSQL parameter.
    #[arg(short, long, visible_alias = "pg", value_name = "GUC=VALUE")]
    pg_set: Vec<String>,
    /// Merge a YAML file into the configuration (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Replace the whole configuration with a YAML file (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    replace: Option<PathBuf>,
    /// Do not ask for confirmation.
    #[arg(long)]
    force: bool,
}

/// Runs `edit-config`. `ask` returns the faults that the PostgreSQL programs of a configuration find in parameters, or
/// why the programs could not be asked.
pub async fn execute(
    context: &Context,
    args: &EditConfigArgs,
    ask: impl AsyncFnOnce(&Config, &[Given]) -> Result<Vec<Fault>, String>,
) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let (before, revision) = read(&client.view().await?, &client.scope)?;
    let after = changed(context, args, &before)?;
    let Some(changed) = after.as_object() else {
        return Err(CliError::failed("the dynamic configuration must be a mapping of keys to values"));
    };
    let known = before.as_object().cloned().unwrap_or_default();
    config::refuse_faults(&known, changed)
        .map_err(|faults| CliError::failed(format!("nothing was changed:\n{faults}")))?;
    check_parameters(context, &config::new_parameters(&known, changed), ask).await?;
    if after == before {
        context.ui.say("Not changed");
        return Ok(Exit::Done);
    }
    for warning in config::new_warnings(&known, changed) {
        context.ui.say(&format!("warning: {warning}"));
    }
    if !args.quiet {
        context.ui.say(&difference(&before, &after)?);
    }
    context.ui.consent("Apply these changes?", Consent::from_force(args.force))?;
    if !client.write_config(&after.to_string(), Some(revision)).await? {
        return Err(CliError::failed("the configuration was changed by another client at the same time")
            .hint("nothing was written; run the command again to start from the current configuration"));
    }
    context.ui.say("Configuration changed");
    Ok(Exit::Done)
}

/// Refuses parameters with which this machine's PostgreSQL would not start, if the configuration has one.
async fn check_parameters(
    context: &Context,
    given: &[Given],
    ask: impl AsyncFnOnce(&Config, &[Given]) -> Result<Vec<Fault>, String>,
) -> Result<(), CliError> {
    let sources = Sources { path: config_path(context)?, environment: environment(), ..Sources::default() };
    let asked = match config::load(&sources) {
        _ if given.is_empty() => return Ok(()),
        Ok(loaded) => ask(&loaded.config, given).await,
        Err(_no_member) => Err("this is not the configuration of a member".to_owned()),
    };
    match asked {
        Ok(faults) if faults.is_empty() => Ok(()),
        Ok(faults) => Err(CliError::failed(format!("nothing was changed:\n{}", config::Faults(faults)))),
        Err(why) => {
            context.ui.say(&format!(
                "warning: the parameters were not checked against PostgreSQL ({why}); each member omits parameters \
                 that its PostgreSQL rejects, and logs them"
            ));
            Ok(())
        }
    }
}

fn changed(context: &Context, args: &EditConfigArgs, before: &Value) -> Result<Value, CliError> {
    let mut after = match &args.replace {
        Some(path) => parse_yaml(&text_of(path)?)?,
        None if args.apply.is_none() && args.set.is_empty() && args.pg_set.is_empty() => {
            return edited(context, before);
        }
        None => before.clone(),
    };
    if let Some(path) = &args.apply {
        merge(&mut after, &parse_yaml(&text_of(path)?)?);
    }
    for text in &args.set {
        Setting::parse(text)?.apply(&mut after);
    }
    for text in &args.pg_set {
        Setting::parse_parameter(text)?.apply(&mut after);
    }
    Ok(after)
}

/// The content of a file; `-`: of standard input.
pub fn text_of(path: &PathBuf) -> Result<String, CliError> {
    let fault = |error: std::io::Error| {
        CliError::failed(format!("failed to read {}", path.display())).because(&error)
    };
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(fault)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(fault)
}

/// The document after the user's changes in an editor.
fn edited(context: &Context, before: &Value) -> Result<Value, CliError> {
    if !context.ui.can_ask() {
        return Err(CliError::usage("there is no terminal for an editor")
            .hint("use -s KEY=VALUE, -p GUC=VALUE, --apply FILE or --replace FILE"));
    }
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let editor = set("EDITOR").or_else(|| set("VISUAL")).unwrap_or_else(|| "vi".to_owned());
    let path = std::env::temp_dir().join(format!("matriarch-config-{}.yml", std::process::id()));
    // An existing file belongs to another user: `create_new` refuses to write through it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(to_yaml(&sorted(before))?.as_bytes())?;
    drop(file);
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(&path).status();
    let text = std::fs::read_to_string(&path);
    let _ = std::fs::remove_file(&path);
    match status {
        Ok(status) if status.success() => parse_yaml(&text?),
        Ok(status) => {
            Err(CliError::failed(format!("the editor {program} ended with {status}: nothing was changed")))
        }
        Err(error) => Err(CliError::failed(format!("failed to start the editor {program}"))
            .because(&error)
            .hint("set EDITOR, or use -s, -p, --apply or --replace")),
    }
}

fn difference(before: &Value, after: &Value) -> Result<String, CliError> {
    let (old, new) = (to_yaml(&sorted(before))?, to_yaml(&sorted(after))?);
    let diff = TextDiff::from_lines(&old, &new);
    Ok(diff.unified_diff().context_radius(3).header("before", "after").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_a_unified_difference() {
        let text = difference(&json!({"ttl": 30, "loop_wait": 10}), &json!({"ttl": 20, "loop_wait": 10}));
        assert_eq!(
            text.expect("a difference"),
            "--- before\n+++ after\n@@ -1,2 +1,2 @@\n loop_wait: 10\n-ttl: 30\n+ttl: 20\n"
        );
    }
}
