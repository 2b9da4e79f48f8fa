//! The connections to etcd: one client for each endpoint. The best endpoint is asked first, the next one when it is
//! slow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, ResponseHeader};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};

use super::announced::{ANNOUNCED_MAX, AnnouncedUrls};
use super::error::{auth_is_off, needs_login};
use super::origin::ClusterIds;
use super::tls::{TlsFiles, tls};
use super::{EtcdError, SrvDomain};
use crate::core::store::Keys;
use crate::model::{Moment, WriteFacts};
use crate::os::clock;

/// How long a connection attempt may take before it has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 pings detect a peer that vanished silently, even while only a watch is open.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// After this many failures in a row, or one request without any answer, the connection is opened anew: TCP itself may
/// take minutes to notice that the network works again.
const RECONNECT_AFTER: u32 = 2;
/// The highest count of failures in a row; more say nothing new about an endpoint.
const FAILURES_MAX: u32 = 8;
/// A configured endpoint fails this often in a row before an announced one is asked before it.
const FAILURES_BEFORE_ANNOUNCED: u32 = 2;

/// The addresses of etcd and the login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdSetup {
    /// URLs, such as `http://10.0.0.1:2379`; at least one, unless they are in DNS.
    pub endpoints: Vec<String>,
    /// Where in DNS they are.
    pub srv: Option<SrvDomain>,
    /// The URLs that etcd's members announce are used as well.
    pub with_announced: bool,
    /// User name and password, if etcd requires them.
    pub credentials: Option<(String, String)>,
    /// Certificates, for `https` endpoints.
    pub tls: Option<TlsFiles>,
    /// `/NAMESPACE/SCOPE/`, with both slashes.
    pub base: String,
}

/// A connection to etcd; clones share it. It belongs to the tokio runtime in which it is first used.
#[derive(Clone)]
pub struct Etcd {
    inner: Arc<EtcdInner>,
}

/// A user and its password, shared by all connections.
type SharedCredentials = Arc<Mutex<Option<(String, String)>>>;

struct EtcdInner {
    setup: EtcdSetup,
    /// In place of those of the setup, which may have changed.
    login: SharedCredentials,
    keys: Keys,
    /// The configured ones, then those that etcd has announced.
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
    announced: Arc<AnnouncedUrls>,
    /// The highest raft term seen for each cluster id, and when an answer last showed it.
    terms: Mutex<BTreeMap<u64, (u64, Moment)>>,
    /// Which etcd cluster is in use.
    origin: Arc<ClusterIds>,
    /// The view may be wrong.
    look_again: Notify,
    /// Whether etcd accepts writes.
    writes: watch::Sender<WriteFacts>,
}

pub(super) struct Endpoint {
    pub(super) index: usize,
    url: String,
    client: Mutex<Option<Client>>,
    failures: AtomicU32,
}

impl Etcd {
    /// Prepares the connections. etcd need not be up, and nothing is sent before the first request.
    ///
    /// # Errors
    /// [`EtcdError::Setup`] when there is no endpoint. Wrong credentials show at the first request.
    pub fn connect(setup: EtcdSetup) -> Result<Etcd, EtcdError> {
        if setup.endpoints.is_empty() {
            return Err(EtcdError::Setup("no endpoint is configured".to_owned()));
        }
        let origin = Arc::new(ClusterIds::new(setup.endpoints.len()));
        let login = Arc::new(Mutex::new(setup.credentials.clone()));
        Ok(Etcd::new(setup, login, origin, Arc::default()))
    }

    /// Logs in with these from now on. A login that etcd has accepted before stays valid until etcd refuses it.
    pub fn set_credentials(&self, credentials: Option<(String, String)>) {
        *self.inner.login.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// Separate connections to the same etcd, for another runtime.
    pub(super) fn apart(&self) -> Etcd {
        let EtcdInner { setup, login, origin, announced, .. } = &*self.inner;
        Etcd::new(setup.clone(), login.clone(), origin.clone(), announced.clone())
    }

    fn new(
        setup: EtcdSetup,
        login: SharedCredentials,
        origin: Arc<ClusterIds>,
        announced: Arc<AnnouncedUrls>,
    ) -> Etcd {
        let configured = setup.endpoints.iter().enumerate();
        let endpoints = Mutex::new(configured.map(|(index, url)| Endpoint::new(index, url)).collect());
        let keys = Keys::new(&setup.base);
        Etcd {
            inner: Arc::new(EtcdInner {
                setup,
                login,
                keys,
                endpoints,
                announced,
                terms: Mutex::default(),
                origin,
                look_again: Notify::new(),
                writes: watch::Sender::default(),
            }),
        }
    }

    /// Sets the etcd cluster that a previous incarnation of this process used; zero: unknown.
    pub fn expect_cluster(&self, cluster_id: u64) {
        self.inner.origin.expect(cluster_id);
    }

    pub(super) fn origin(&self) -> &ClusterIds {
        &self.inner.origin
    }

    pub(super) fn announced(&self) -> &AnnouncedUrls {
        &self.inner.announced
    }

    pub(super) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.inner.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = endpoints.len() - self.inner.setup.endpoints.len();
        for url in self.inner.announced.beyond(taken) {
            let index = endpoints.len();
            endpoints.push(Endpoint::new(index, &url));
        }
        endpoints.clone()
    }

    /// The paths of this cluster's keys.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The configured endpoints.
    pub fn endpoint_urls(&self) -> &[String] {
        &self.inner.setup.endpoints
    }

    /// Whether etcd accepts writes. Changes with every write that succeeds or is refused.
    pub fn writes(&self) -> watch::Receiver<WriteFacts> {
        self.inner.writes.subscribe()
    }

    /// Records a write that succeeded or was refused; one with an unknown result does not count.
    pub(super) fn note_write(&self, refused: Option<&str>) {
        self.inner.writes.send_modify(|facts| {
            facts.refused = refused.map(str::to_owned);
            facts.done_at = if refused.is_none() { Some(clock::now()) } else { facts.done_at };
        });
    }

    /// When it is notified, the whole cluster is read anew.
    pub fn look_again(&self) -> &Notify {
        &self.inner.look_again
    }

    /// More than there ever are.
    pub(super) fn endpoints_max(&self) -> usize {
        self.inner.setup.endpoints.len() + ANNOUNCED_MAX
    }

    /// The endpoints, the healthiest first; those of another etcd cluster last. A configured one is among the first
    /// two.
    pub(super) fn ranked(&self) -> Vec<Arc<Endpoint>> {
        let (mut ranked, configured) = (self.endpoints(), self.inner.setup.endpoints.len());
        let origin = &self.inner.origin;
        ranked.sort_by_key(|endpoint| {
            let failures = endpoint.failures.load(Ordering::Relaxed);
            let announced = if endpoint.index < configured { 0 } else { FAILURES_BEFORE_ANNOUNCED };
            (origin.is_foreign(endpoint.index), failures + announced)
        });
        if let Some(at) = ranked.iter().position(|endpoint| endpoint.index < configured)
            && 1 < at
        {
            ranked[1..=at].rotate_right(1);
        }
        ranked
    }

    /// Whether an endpoint belongs to the etcd cluster in use. The connection is not kept.
    pub(super) async fn is_of_this_cluster(&self, url: &str) -> Result<bool, EtcdError> {
        let answer = self.open(url).await?.member_list().await?;
        Ok(answer.header().is_some_and(|header| self.inner.origin.is_ours(header.cluster_id())))
    }

    /// Runs `ask` on the best endpoint. It also asks the next one when no answer came after `hedge_after`, or at once
    /// after an error; the first good answer wins. A refusal is the result only if all endpoints that were asked refuse
    /// ([`EtcdError::and`]). Only for requests that may be repeated.
    pub(super) async fn hedged<T, F, A>(
        &self,
        hedge_after: Duration,
        within: Duration,
        ask: F,
    ) -> Result<T, EtcdError>
    where
        F: Fn(Etcd, Arc<Endpoint>) -> A,
        A: Future<Output = Result<T, EtcdError>>,
    {
        let tag = |endpoint: Arc<Endpoint>| {
            let answer = ask(self.clone(), endpoint.clone());
            async move { (endpoint, answer.await) }
        };
        let mut waiting = self.ranked().into_iter();
        let mut asked: Vec<Arc<Endpoint>> = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut trouble: Option<EtcdError> = None;
        let deadline = tokio::time::sleep(within);
        tokio::pin!(deadline);
        loop {
            if let Some(endpoint) = waiting.next() {
                asked.push(endpoint.clone());
                running.push(tag(endpoint));
            } else if running.is_empty() {
                return Err(trouble.unwrap_or_else(|| EtcdError::Unknown("no endpoint".to_owned())));
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some((endpoint, answer)) = running.next() => match answer {
                    Ok(value) => {
                        rank_after_race(&asked, &endpoint);
                        return Ok(value);
                    }
                    Err(error) if error.is_definite() => return Err(error),
                    Err(error) => {
                        asked.retain(|other| other.index != endpoint.index);
                        match &error {
                            // The alarm concerns the whole cluster: other endpoints would answer the same.
                            EtcdError::NoSpace(_) => waiting = Vec::new().into_iter(),
                            _other => endpoint.failed(),
                        }
                        trouble = Some(match trouble.take() {
                            Some(before) => before.and(error),
                            None => error,
                        });
                    }
                },
                () = tokio::time::sleep(hedge_after), if more => {}
                () = &mut deadline => {
                    for endpoint in &asked {
                        endpoint.failed();
                        endpoint.forget();
                    }
                    return Err(EtcdError::Timeout(within));
                }
            }
        }
    }

    /// Runs one request on one endpoint. When etcd refused the token, it logs in again and repeats the request once.
    pub(super) async fn call<T, F, A>(&self, endpoint: &Endpoint, request: F) -> Result<T, EtcdError>
    where
        F: Fn(Client) -> A,
        A: Future<Output = Result<T, etcd_client::Error>>,
    {
        let client = self.client(endpoint).await?;
        match request(client).await {
            Err(error) if needs_login(&error) => {
                endpoint.forget();
                Ok(request(self.client(endpoint).await?).await?)
            }
            other => Ok(other?),
        }
    }

    /// Refuses an answer of another etcd cluster, and one from a member that is behind: its raft term is lower than one
    /// seen before.
    pub(super) fn fresh(
        &self,
        endpoint: &Endpoint,
        header: Option<&ResponseHeader>,
    ) -> Result<u64, EtcdError> {
        self.newest_term(endpoint, header, None)
    }

    /// The same for the answer to a linearizable read sent at `asked_at`. A majority has confirmed it since then. If
    /// its raft term is lower than one seen before that, the store was restored, and terms count anew.
    pub(super) fn linearized(
        &self,
        endpoint: &Endpoint,
        header: Option<&ResponseHeader>,
        asked_at: Moment,
    ) -> Result<u64, EtcdError> {
        self.newest_term(endpoint, header, Some(asked_at))
    }

    fn newest_term(
        &self,
        endpoint: &Endpoint,
        header: Option<&ResponseHeader>,
        read_at: Option<Moment>,
    ) -> Result<u64, EtcdError> {
        let Some(header) = header else {
            return Err(EtcdError::Unknown("an answer without a header".to_owned()));
        };
        self.inner.origin.takes(endpoint.index, header.cluster_id())?;
        let mut terms = self.inner.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let (highest, seen_at) = terms.entry(header.cluster_id()).or_insert((0, now));
        if header.raft_term() < *highest && read_at.is_none_or(|read_at| read_at <= *seen_at) {
            let text = format!("a stale answer, of raft term {} after {highest}", header.raft_term());
            return Err(EtcdError::Unknown(text));
        }
        (*highest, *seen_at) = (header.raft_term(), now);
        Ok(*highest)
    }

    async fn client(&self, endpoint: &Endpoint) -> Result<Client, EtcdError> {
        let known = endpoint.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let client = self.open(&endpoint.url).await?;
        *endpoint.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    pub(super) async fn open(&self, url: &str) -> Result<Client, EtcdError> {
        let setup = &self.inner.setup;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING.0, PING.1)
            .with_require_leader(true);
        if let (Some(files), true) = (&setup.tls, url.starts_with("https://")) {
            options = options.with_tls(tls(files).await?);
        }
        let login = self.inner.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((user, password)) = login else {
            return Ok(Client::connect([url], Some(options)).await?);
        };
        let login = options.clone().with_user(user, password);
        match Client::connect([url], Some(login)).await {
            Err(error) if auth_is_off(&error) => Ok(Client::connect([url], Some(options)).await?),
            other => Ok(other?),
        }
    }
}

/// The winner is healthy; endpoints asked before it that did not answer in time are less so.
fn rank_after_race(asked: &[Arc<Endpoint>], winner: &Endpoint) {
    winner.failures.store(0, Ordering::Relaxed);
    for endpoint in asked.iter().take_while(|endpoint| endpoint.index != winner.index) {
        endpoint.failed();
    }
}

impl Endpoint {
    fn new(index: usize, url: &str) -> Arc<Endpoint> {
        let (client, failures) = (Mutex::new(None), AtomicU32::new(0));
        Arc::new(Endpoint { index, url: url.to_owned(), client, failures })
    }

    pub(super) fn failed(&self) {
        let failures = (self.failures.load(Ordering::Relaxed) + 1).min(FAILURES_MAX);
        self.failures.store(failures, Ordering::Relaxed);
        if failures >= RECONNECT_AFTER {
            self.forget();
        }
    }

    fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
