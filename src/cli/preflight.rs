//! The check before a switchover, as the leader answers it.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::output::{Format, document};
use super::paragraph::hanging;
use super::sheet::{Column, Sheet};
use super::table;
use crate::client::Client;
use crate::model::{ClusterView, Finding, FindingUnit, FindingVerdict, size};

/// How long the leader may take: it asks its PostgreSQL and the candidates, each with a deadline of its own.
const CHECK_WITHIN: Duration = Duration::from_secs(15);

/// `switchover --check`: prints all findings. The exit code tells whether a switchover would be refused.
pub async fn execute(
    context: &Context,
    client: &Client,
    view: &ClusterView,
    candidate: Option<&str>,
) -> CliResult {
    let findings = ask(client, view, candidate).await?;
    let text = match context.global.output {
        Format::Table => text(&client.scope, &findings),
        format @ (Format::Json | Format::Yaml | Format::Tsv) => document(&json!(findings), format)?,
    };
    context.ui.data(&text);
    let refused = findings.iter().any(|finding| finding.verdict == FindingVerdict::Refuses);
    Ok(if refused { Exit::Failed } else { Exit::Done })
}

/// Prints what a switchover that begins now meets. One that cannot be checked is not held up: the leader refuses by the
/// same rules.
pub async fn warn(context: &Context, client: &Client, view: &ClusterView, candidate: Option<&str>) {
    match ask(client, view, candidate).await {
        Ok(findings) => sentences(&findings).iter().for_each(|text| context.ui.say(text.trim_end())),
        Err(error) => context.ui.say(&format!("the switchover was not checked: {}", error.message)),
    }
}

async fn ask(client: &Client, view: &ClusterView, candidate: Option<&str>) -> Result<Vec<Finding>, CliError> {
    let (leader, member) =
        view.leader_member().ok_or_else(|| CliError::failed("the leader is not a member of the cluster"))?;
    let api_url = member.record.api_url.as_deref();
    let api_url = api_url.ok_or_else(|| CliError::failed(format!("{leader} has no REST interface")))?;
    let candidate = candidate.map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string());
    let endpoint = match candidate {
        Some(name) => format!("/switchover/check?candidate={name}"),
        None => "/switchover/check".to_owned(),
    };
    let answer = client.call("GET", api_url, &endpoint, None, CHECK_WITHIN).await?;
    if answer.status != 200 && !answer.body.starts_with('{') {
        return Err(CliError::failed(answer.text().to_owned()));
    }
    serde_json::from_str(&answer.body).map_err(|_| {
        CliError::failed(format!("{leader} cannot check a switchover: it runs Patroni, or an older program"))
    })
}

/// The table, and below it the sentences of all that is not fine.
fn text(scope: &str, findings: &[Finding]) -> String {
    let sentences = sentences(findings);
    let below = match sentences.is_empty() {
        true => "Nothing is in the way.\n".to_owned(),
        false => sentences.concat(),
    };
    table::render(&sheet(scope, findings)) + &below
}

fn sentences(findings: &[Finding]) -> Vec<String> {
    let told = findings.iter().filter(|finding| finding.verdict != FindingVerdict::Fine);
    told.map(|finding| hanging(&format!("{:9}", word(finding.verdict)), &finding.text)).collect()
}

fn sheet(scope: &str, findings: &[Finding]) -> Sheet<'static> {
    let row = |finding: &Finding| {
        let what = json!(finding.what);
        let number =
            |number: Option<u64>| number.map_or(Value::Null, |number| measured(number, finding.unit));
        let what = what.as_str().unwrap_or_default().replace('_', " ");
        vec![
            json!(finding.member),
            json!(what),
            number(finding.value),
            number(finding.limit),
            json!(word(finding.verdict)),
        ]
    };
    Sheet {
        title: format!(" Switchover of {scope} "),
        columns: vec![
            Column::text("Member"),
            Column::text("Check"),
            Column::number("Value"),
            Column::number("Limit"),
            Column::text("Verdict"),
        ],
        rows: findings.iter().map(row).collect(),
        footer: Vec::new(),
    }
}

fn measured(number: u64, unit: Option<FindingUnit>) -> Value {
    match unit {
        Some(FindingUnit::Bytes) => json!(size(number)),
        Some(FindingUnit::Milliseconds) => json!(format!("{:.1} s", number as f64 / 1000.0)),
        Some(FindingUnit::Files | FindingUnit::Transactions | FindingUnit::Timeline) | None => json!(number),
    }
}

fn word(verdict: FindingVerdict) -> &'static str {
    match verdict {
        FindingVerdict::Fine => "fine",
        FindingVerdict::Warns => "warns",
        FindingVerdict::Refuses => "refuses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FindingKind, MemberName};

    #[test]
    fn numbers_have_units_and_only_what_matters_has_a_sentence() {
        let finding = |what, value, unit, verdict, text: &str| Finding {
            what,
            member: MemberName::new("m2").expect("a name"),
            value,
            unit,
            limit: value,
            verdict,
            text: text.to_owned(),
        };
        let (bytes, late) = (Some(FindingUnit::Bytes), Some(FindingUnit::Milliseconds));
        let fine = finding(FindingKind::ReceiveLag, Some(2048), bytes, FindingVerdict::Fine, "near");
        let warns = finding(FindingKind::ReplayDelay, Some(7000), late, FindingVerdict::Warns, "wait");
        let shown = text("demo", std::slice::from_ref(&fine));
        assert!(shown.contains("| m2     | receive lag | 2.0 kB | 2.0 kB | fine    |"), "{shown}");
        assert!(shown.ends_with("Nothing is in the way.\n"), "{shown}");
        let shown = text("demo", &[fine, warns]);
        assert!(shown.contains("7.0 s") && shown.ends_with("warns    wait\n"), "{shown}");
    }
}
