//! `history`: every change of leadership.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::sheet::{Column, Sheet};
use super::target::open;
use crate::model::ClusterView;

/// Options of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The cluster; default: the configured cluster.
    cluster: Option<String>,
}

/// Runs `history`.
pub async fn execute(context: &Context, args: &HistoryArgs) -> CliResult {
    let client = open(context, args.cluster.as_deref()).await?;
    let view = client.view().await?;
    context.ui.data(&sheet(&view).render(context.global.output)?);
    Ok(Exit::Done)
}

fn sheet(view: &ClusterView) -> Sheet<'static> {
    let lines = view.history.iter().flatten();
    Sheet {
        title: String::new(),
        columns: vec![
            Column::number("TL"),
            Column::number("LSN"),
            Column::text("Reason"),
            Column::text("Timestamp"),
            Column::text("New Leader"),
        ],
        rows: lines
            .map(|line| {
                vec![
                    json!(line.parent),
                    json!(line.lsn),
                    json!(line.reason),
                    json!(line.at),
                    json!(line.promoted),
                ]
            })
            .collect(),
        footer: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use crate::model::{HistoryLine, Lsn, Timeline};

    #[test]
    fn missing_cells_are_blank() {
        let reason = "no recovery target specified".to_owned();
        let line = HistoryLine { parent: Timeline(1), lsn: Lsn(84170568), reason, at: None, promoted: None };
        let view = ClusterView { history: Some(vec![line]), ..ClusterView::default() };
        let tsv = sheet(&view).render(Format::Tsv).expect("tsv");
        assert_eq!(
            tsv,
            "TL\tLSN\tReason\tTimestamp\tNew Leader\n1\t84170568\tno recovery target specified\t\t\n"
        );
    }
}
