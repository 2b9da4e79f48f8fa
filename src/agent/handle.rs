//! Access to the loop from outside: read the status, or send an order and wait for its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::{PeerChannel, Status};
use crate::model::{
    Ask, ClusterView, FailoverRequest, Heartbeat, JournalRecord, Moment, PeerAnswer, PeerIdentity,
    PreflightFacts, Reply,
};
use crate::peer::endpoint_url;

/// The most orders that wait; further callers wait for a free place. A loop that is 64 orders behind is stuck.
const ORDERS_MAX: usize = 64;

/// An order from outside, with the channel for its answer.
#[derive(Debug)]
pub enum ApiOrder {
    /// An operator's request; answered when it is decided or done.
    Ask(Ask, oneshot::Sender<Reply>),
    /// Read the local configuration again, as SIGHUP does.
    Reload,
    /// Run a tick now.
    Wake,
    /// Query Postgres now, unless the last query is younger than this; answered when the status has the result.
    Look(Duration, oneshot::Sender<()>),
    /// A linearizable read of the cluster.
    ReadCluster(oneshot::Sender<Result<ClusterView, OrderError>>),
    /// Write the key `config`, if one is given only over this revision. False: the revision is another one.
    WriteConfig(String, Option<i64>, oneshot::Sender<Result<bool, OrderError>>),
    /// Write the key `failover` (`None` clears it), with the same condition.
    /// The answer is its new revision; `None`: the revision was another one.
    WriteFailover(Option<FailoverRequest>, Option<i64>, oneshot::Sender<Result<Option<i64>, OrderError>>),
    /// A linearizable read of the journal.
    ReadJournal(oneshot::Sender<Result<Vec<JournalRecord>, OrderError>>),
    /// This member's facts for the check before a switchover.
    Preflight(oneshot::Sender<Result<PreflightFacts, String>>),
    /// GET this URL of another member: status and body.
    GetPeer(String, oneshot::Sender<Result<(u16, String), String>>),
    /// Ask another member at this `api_url` for its state.
    AskPeer(String, oneshot::Sender<PeerAnswer>),
}

/// An order could not be carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// etcd refused or failed; the text has the reason.
    #[error("etcd: {0}")]
    Etcd(String),
    /// The loop has ended.
    #[error("the supervisor is shutting down")]
    Gone,
}

/// The loop's ends of the channels.
#[derive(Debug)]
pub struct Orders {
    /// Orders in the order of their arrival.
    pub orders: mpsc::Receiver<ApiOrder>,
    /// Receives each new status.
    pub status: watch::Sender<Arc<Status>>,
}

/// The REST interface's ends of the channels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<ApiOrder>,
    status: watch::Receiver<Arc<Status>>,
    channel: Arc<PeerChannel>,
}

/// Both ends, with the status to show until the first tick.
pub fn handle(first: Status) -> (Handle, Orders) {
    let channel = Arc::new(PeerChannel::new(&first.scope, first.me.name.as_str()));
    let (order_sender, orders) = mpsc::channel(ORDERS_MAX);
    let (status_sender, status) = watch::channel(Arc::new(first));
    (Handle { orders: order_sender, status, channel }, Orders { orders, status: status_sender })
}

impl Handle {
    /// The status after the last tick.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Every status from now on.
    pub fn statuses(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The channel to other members.
    pub fn channel(&self) -> &Arc<PeerChannel> {
        &self.channel
    }

    /// This leader's heartbeat of this number; `None` without a lease that is valid at this moment.
    pub fn heartbeat(&self, number: u64, now: Moment) -> Option<Heartbeat> {
        self.channel.heartbeat(&self.status(), number, now)
    }

    /// The loop has ended.
    pub fn has_ended(&self) -> bool {
        self.status.has_changed().is_err()
    }

    /// Waits until the status rests on a query of Postgres no older than `at_most`. When Postgres does not answer, the
    /// status shows that after the loop's own deadline. False: the loop has ended, and only its last status exists.
    pub async fn look(&self, at_most: Duration) -> bool {
        let (sender, answer) = oneshot::channel();
        self.orders.send(ApiOrder::Look(at_most, sender)).await.is_ok() && answer.await.is_ok()
    }

    /// Sends a request to the loop and waits for its answer.
    pub async fn ask(&self, ask: Ask) -> Reply {
        let (sender, answer) = oneshot::channel();
        if self.orders.send(ApiOrder::Ask(ask, sender)).await.is_err() {
            return Reply::Unanswered;
        }
        answer.await.unwrap_or(Reply::Unanswered)
    }

    /// Reads the local configuration again.
    pub async fn reload(&self) -> Result<(), OrderError> {
        self.orders.send(ApiOrder::Reload).await.map_err(|_| OrderError::Gone)
    }

    /// Runs a tick now.
    pub async fn wake(&self) -> Result<(), OrderError> {
        self.orders.send(ApiOrder::Wake).await.map_err(|_| OrderError::Gone)
    }

    /// Reads the cluster from etcd, linearizable.
    pub async fn read_cluster(&self) -> Result<ClusterView, OrderError> {
        self.call(ApiOrder::ReadCluster).await
    }

    /// Reads the journal from etcd, linearizable.
    pub async fn read_journal(&self) -> Result<Vec<JournalRecord>, OrderError> {
        self.call(ApiOrder::ReadJournal).await
    }

    /// Writes the key `config`; false when its revision is no longer `if_revision`.
    pub async fn write_config(&self, text: String, if_revision: Option<i64>) -> Result<bool, OrderError> {
        self.call(|answer| ApiOrder::WriteConfig(text, if_revision, answer)).await
    }

    /// Writes or clears the key `failover`, and returns its revision; `None` when that was no longer `if_revision`.
    pub async fn write_failover(
        &self,
        request: Option<FailoverRequest>,
        if_revision: Option<i64>,
    ) -> Result<Option<i64>, OrderError> {
        self.call(|answer| ApiOrder::WriteFailover(request, if_revision, answer)).await
    }

    /// Asks another member for its state; `None` when the loop has ended. An answer of another process than `asked`
    /// does not count.
    pub async fn ask_peer(&self, api_url: String, asked: &PeerIdentity) -> Option<PeerAnswer> {
        let (sender, answer) = oneshot::channel();
        self.orders.send(ApiOrder::AskPeer(api_url, sender)).await.ok()?;
        Some(answer.await.ok()?.of(asked))
    }

    /// This member's facts for the check before a switchover.
    ///
    /// # Errors
    /// A sentence: its PostgreSQL does not answer.
    pub async fn preflight_facts(&self) -> Result<PreflightFacts, String> {
        self.beside(ApiOrder::Preflight).await
    }

    /// The same of the member at this `api_url`.
    ///
    /// # Errors
    /// A sentence: it does not answer, or gives no such facts.
    pub async fn preflight_facts_of(&self, api_url: &str) -> Result<PreflightFacts, String> {
        let (status, text) = self.get_peer(api_url, "/preflight").await?;
        let facts = serde_json::from_str(&text).ok().filter(|_| status == 200);
        facts.ok_or_else(|| match status {
            503 if !text.starts_with('{') => text,
            _ => "it knows no such question, and may be Patroni or an older program".to_owned(),
        })
    }

    /// GET `endpoint` of the member at this `api_url`: status and body.
    ///
    /// # Errors
    /// A sentence: it does not answer.
    pub async fn get_peer(&self, api_url: &str, endpoint: &str) -> Result<(u16, String), String> {
        let url = endpoint_url(api_url, endpoint);
        self.beside(|answer| ApiOrder::GetPeer(url, answer)).await
    }

    async fn beside<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> ApiOrder,
    ) -> Result<T, String> {
        let gone = || OrderError::Gone.to_string();
        let (sender, answer) = oneshot::channel();
        self.orders.send(order(sender)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn call<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, OrderError>>) -> ApiOrder,
    ) -> Result<T, OrderError> {
        let (sender, answer) = oneshot::channel();
        self.orders.send(order(sender)).await.map_err(|_| OrderError::Gone)?;
        answer.await.map_err(|_| OrderError::Gone)?
    }
}
