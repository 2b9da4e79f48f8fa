//! Repeated output at an interval (`--watch`).

use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::error::CliResult;
use super::exit::Exit;
use super::rows::{Detail, members};
use super::target::open;

/// Printed below the members while etcd is full.
const ETCD_FULL: &str = "etcd refuses writes (alarm NOSPACE): the primary keeps serving, but no member can take over; \
                         `etcdctl defrag --cluster`, then `etcdctl alarm disarm`";

/// How often to print.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Print again at this interval, in seconds.
    #[arg(short, long, value_name = "SECONDS", value_parser = interval)]
    watch: Option<Duration>,
    /// Print again every 2 seconds.
    #[arg(short = 'W')]
    watch_two: bool,
}

impl WatchArgs {
    /// The interval; `None`: print once.
    pub fn every(&self) -> Option<Duration> {
        self.watch.or(self.watch_two.then_some(Duration::from_secs(2)))
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "write seconds, from 0.1 to 86400".to_owned())
}

/// Prints the members of `clusters` (empty: the configured one), once or until interrupted.
pub async fn show(
    context: &Context,
    clusters: &[String],
    detail: Detail,
    timestamp: bool,
    watch: &WatchArgs,
) -> CliResult {
    let mut clients = Vec::new();
    if clusters.is_empty() {
        clients.push(open(context, None).await?);
    }
    for cluster in clusters {
        clients.push(open(context, Some(cluster)).await?);
    }
    loop {
        let mut text = String::new();
        if timestamp {
            text.push_str(&jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S\n").to_string());
        }
        for client in &clients {
            let view = client.view().await?;
            let mut sheet = members(&client.scope, &view, detail);
            if client.is_full().await {
                sheet.footer.push(ETCD_FULL.to_owned());
            }
            text.push_str(&sheet.render(context.global.output)?);
        }
        let Some(every) = watch.every() else {
            context.ui.data(&text);
            return Ok(Exit::Done);
        };
        context.ui.redraw(&text);
        tokio::time::sleep(every).await;
    }
}
