//! Access to a cluster from outside: etcd supplies the state, and the members' REST interfaces accept commands.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;

use super::error::ClientError;
use super::target::Target;
use crate::config::Ctl;
use crate::etcd::Etcd;
use crate::model::{ClusterView, FailoverRequest, JournalRecord, LeaseId, MemberName, PeerAnswer};
use crate::os::tls::{self, Identity, TlsError, Trust};
use crate::peer::{Call, Peers, endpoint_url};

/// How long one read or write of etcd may take.
const ETCD_WITHIN: Duration = Duration::from_secs(5);
/// How long a quick question to a member may take.
pub const ASK_WITHIN: Duration = Duration::from_secs(3);
/// How long a member may work on an order before it answers: a restart or switchover blocks until it is done.
pub const ORDER_WITHIN: Duration = Duration::from_secs(900);

/// A cluster that can be read and given orders.
pub struct Client {
    /// The cluster's name.
    pub scope: String,
    etcd: Etcd,
    peers: Peers,
    credentials: Option<(String, String)>,
}

/// A member's answer over REST.
#[derive(Clone, Debug)]
pub struct RestAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl RestAnswer {
    /// Whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self.status, 200 | 202)
    }

    /// The body without the final newline.
    pub fn text(&self) -> &str {
        self.body.trim()
    }
}

impl Client {
    /// Prepares the connections; nothing is sent yet, except for a question to DNS.
    pub async fn connect(target: Target) -> Result<Client, ClientError> {
        let setup = target.etcd.discovered().await.map_err(ClientError::EtcdSetup)?;
        let etcd = Etcd::connect(setup).map_err(ClientError::EtcdSetup)?;
        let peers = match tls(&target.ctl) {
            Ok(tls) => Peers::with_tls(Arc::new(tls)),
            // Only members with an https URL need it.
            Err(TlsError::NoAuthorities) => Peers::default(),
            Err(error) => return Err(ClientError::Certificates(error)),
        };
        Ok(Client { scope: target.scope, etcd, peers, credentials: target.credentials })
    }

    /// Reads the cluster.
    pub async fn view(&self) -> Result<ClusterView, ClientError> {
        let failed = |source| ClientError::Read { scope: self.scope.clone(), source };
        self.etcd.read(ETCD_WITHIN).await.map_err(failed)
    }

    /// The journal's records, in the order of their terms.
    pub async fn journal(&self) -> Result<Vec<JournalRecord>, ClientError> {
        let failed = |source| ClientError::Read { scope: self.scope.clone(), source };
        self.etcd.journal(ETCD_WITHIN).await.map_err(failed)
    }

    /// How long etcd keeps a lease yet, and its TTL; `None` if that is unknown.
    pub async fn lease_left(&self, lease: LeaseId) -> Option<(Duration, Duration)> {
        self.etcd.lease_left(lease, ASK_WITHIN).await.ok().flatten()
    }

    /// Whether etcd refuses writes; false if that is unknown.
    pub async fn is_full(&self) -> bool {
        self.etcd.is_full(ASK_WITHIN).await.unwrap_or(false)
    }

    /// Writes the dynamic configuration if its revision is still this one; false: it is another one.
    pub async fn write_config(&self, text: &str, if_revision: Option<i64>) -> Result<bool, ClientError> {
        let txn = self.etcd.keys().write_config(text, if_revision);
        let written = self.etcd.commit(&txn).await.map_err(ClientError::WriteConfig)?;
        Ok(written.revision().is_some())
    }

    /// Writes a failover request where there is none; false: there is one.
    pub async fn request_failover(&self, request: &FailoverRequest) -> Result<bool, ClientError> {
        let written = self.etcd.write_failover(Some(request), Some(0)).await;
        Ok(written.map_err(ClientError::Request)?.revision().is_some())
    }

    /// Withdraws the failover request of this revision; false: it is another one.
    pub async fn withdraw_failover(&self, revision: i64) -> Result<bool, ClientError> {
        let written = self.etcd.write_failover(None, Some(revision)).await;
        Ok(written.map_err(ClientError::Withdraw)?.revision().is_some())
    }

    /// Deletes every key of the cluster; returns how many there were.
    pub async fn remove(&self) -> Result<i64, ClientError> {
        self.etcd.delete_all(ETCD_WITHIN).await.map_err(ClientError::Remove)
    }

    /// Calls `endpoint` (such as `/switchover`) of the member with this `api_url`.
    pub async fn call(
        &self,
        method: &str,
        api_url: &str,
        endpoint: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<RestAnswer, ClientError> {
        let url = endpoint_url(api_url, endpoint);
        let (body, credentials) = (body.cloned(), self.credentials.clone());
        let call = Call { method: method.to_owned(), url, body, credentials, within };
        let (status, body) = self.peers.call(call).await.map_err(ClientError::Silent)?;
        Ok(RestAnswer { status, body })
    }

    /// A member's `/patroni`, if it answers.
    pub async fn ask(&self, api_url: &str) -> Option<Value> {
        let answer = self.call("GET", api_url, "/patroni", None, ASK_WITHIN).await.ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    /// A member's state as another member reads it. A missing answer is one, too.
    pub async fn ask_as_member(&self, api_url: &str) -> PeerAnswer {
        self.peers.ask(api_url, ASK_WITHIN).await
    }

    /// Calls the leader, then the other members, until one answers.
    pub async fn call_any(
        &self,
        view: &ClusterView,
        method: &str,
        endpoint: &str,
        body: Option<&Value>,
    ) -> Result<RestAnswer, ClientError> {
        let leader = view.leader.as_ref().map(|leader| &leader.name);
        let mut order: Vec<(&MemberName, &str)> = view
            .members
            .iter()
            .filter_map(|(name, member)| Some((name, member.record.api_url.as_deref()?)))
            .collect();
        order.sort_by_key(|(name, _)| Some(*name) != leader);
        let mut last = None;
        for (_, api_url) in order {
            match self.call(method, api_url, endpoint, body, ORDER_WITHIN).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClientError::NoMembers))
    }
}

/// The trusted authorities and the client's certificate, as in patronictl.
fn tls(ctl: &Ctl) -> Result<ClientConfig, TlsError> {
    let identity = ctl.certfile.as_deref().map(|certificate| Identity {
        certificate,
        key: ctl.keyfile.as_deref().unwrap_or(certificate),
        password: ctl.keyfile_password.as_ref().map(|password| password.0.as_str()),
    });
    let trust = match (ctl.insecure, identity, &ctl.cacert) {
        (true, None, _) | (true, Some(_), None) => Trust::Anyone,
        (true, Some(_), Some(authorities)) => Trust::chain(authorities)?,
        (false, _, authorities) => Trust::name(authorities.as_deref())?,
    };
    tls::client(trust, identity)
}
