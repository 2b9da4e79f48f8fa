//! `query`: run SQL on a member.

use std::path::PathBuf;

use clap::{Arg, Args, value_parser};
use serde_json::{Map, Value};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{Format, document};
use super::selection::{OneMemberArgs, RoleFilter};
use super::sheet::{Column, Sheet};
use super::target::{environment, open};
use super::watch::WatchArgs;
use crate::client::{Client, SqlLogin, SqlRows, SqlSession};
use crate::model::json_one_line;

/// Options of `query`. Its `-c`, `-d` and `-f` are not those of the other commands.
#[derive(Debug, Args)]
#[command(arg = long_only("config_file", "config-file").value_parser(value_parser!(PathBuf)))]
#[command(arg = long_only("dcs_url", "dcs-url").visible_alias("dcs"))]
pub struct QueryArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
    #[command(flatten)]
    which: OneMemberArgs,
    /// The SQL.
    #[arg(short, long, value_name = "SQL", required_unless_present = "file")]
    command: Option<String>,
    /// A file with the SQL (`-`: standard input).
    #[arg(short, long, conflicts_with = "command")]
    file: Option<PathBuf>,
    /// The database; default: as for libpq.
    #[arg(short, long)]
    dbname: Option<String>,
    /// The user; default: as for libpq.
    #[arg(short = 'U', long)]
    username: Option<String>,
    /// Ask for the password.
    #[arg(long)]
    password: bool,
    /// Separates the columns of tsv.
    #[arg(long, default_value = "\t", hide_default_value = true)]
    delimiter: String,
    /// Output format.
    #[arg(short, long, visible_alias = "format", value_enum, default_value_t = Format::Tsv)]
    output: Format,
    #[command(flatten)]
    watch: WatchArgs,
}

fn long_only(id: &'static str, long: &'static str) -> Arg {
    Arg::new(id).long(long).hide(true)
}

/// Runs `query`.
pub async fn execute(context: &Context, args: &QueryArgs) -> CliResult {
    let sql = match &args.file {
        Some(path) => super::edit_config::text_of(path)?,
        None => args.command.clone().unwrap_or_default(),
    };
    let password = match args.password {
        true => Some(context.ui.ask_secret("Password: ")?),
        false => None,
    };
    let client = open(context, args.cluster.as_deref()).await?;
    let mut session = None;
    loop {
        let answer = answer(args, &client, password.as_deref(), &mut session, &sql).await;
        let every = args.watch.every();
        match (answer, every) {
            (Ok(rows), _) => context.ui.data(&rows.map_or(Ok(String::new()), |rows| text(args, &rows))?),
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => {
                session = None;
                context.ui.fail(error.render().trim_end());
            }
        }
        let Some(every) = every else { return Ok(Exit::Done) };
        tokio::time::sleep(every).await;
    }
}

/// The rows, over the same connection while it works.
async fn answer(
    args: &QueryArgs,
    client: &Client,
    password: Option<&str>,
    session: &mut Option<SqlSession>,
    sql: &str,
) -> Result<Option<SqlRows>, CliError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(connect(args, client, password).await?),
    };
    Ok(session.run(sql).await?)
}

async fn connect(args: &QueryArgs, client: &Client, password: Option<&str>) -> Result<SqlSession, CliError> {
    let (name, host, port) = args.which.address(&client.view().await?)?;
    let mut login = format!("host='{}' port={port}", quoted(&host));
    for (key, value) in [("user", &args.username), ("dbname", &args.dbname)] {
        if let Some(value) = value {
            login.push_str(&format!(" {key}='{}'", quoted(value)));
        }
    }
    let session = SqlLogin::new(&login, environment(), password)?.connect().await?;
    let fits = match args.which.role {
        None | Some(RoleFilter::Any | RoleFilter::Leader) => true,
        Some(RoleFilter::Primary) => !session.is_in_recovery().await?,
        Some(RoleFilter::Replica | RoleFilter::Standby | RoleFilter::StandbyLeader) => {
            session.is_in_recovery().await?
        }
    };
    match fits {
        true => Ok(session),
        false => Err(CliError::failed(format!("the PostgreSQL of {name} has another role now"))),
    }
}

/// For a value in single quotes in a connection string.
pub(super) fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn text(args: &QueryArgs, found: &SqlRows) -> Result<String, CliError> {
    match args.output {
        Format::Tsv => Ok(tsv(found, &args.delimiter)),
        Format::Json | Format::Yaml => {
            let object = |row: &Vec<Value>| {
                Value::Object(found.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>())
            };
            document(&found.rows.iter().map(object).collect(), args.output)
        }
        Format::Table => {
            let columns = found.columns.iter().map(|name| Column::text(name)).collect();
            Sheet { columns, rows: found.rows.clone(), ..Sheet::default() }.render(Format::Table)
        }
    }
}

/// The cells as patronictl writes them.
fn tsv(found: &SqlRows, delimiter: &str) -> String {
    let cell = |cell: &Value| match cell {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => json_one_line(cell),
    };
    let mut text = format!("{}\n", found.columns.join(delimiter));
    for row in &found.rows {
        text.push_str(&row.iter().map(cell).collect::<Vec<_>>().join(delimiter));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tsv_is_patronictls() {
        let found = SqlRows {
            columns: vec!["a".into(), "b".into(), "c".into()],
            rows: vec![vec![json!(true), Value::Null, json!(1)], vec![json!("x"), json!(false), json!(1.5)]],
        };
        assert_eq!(tsv(&found, "|"), "a|b|c\nTrue|None|1\nx|False|1.5\n");
    }
}
