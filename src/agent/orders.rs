//! Orders from outside. The parts that are not decisions (reading and writing etcd, requests to members) run beside the
//! loop.

use std::time::Duration;

use super::cycle::Cycle;
use super::{ApiOrder, OrderError};
use crate::core::member::MemberEvent;
use crate::core::store::Cas;
use crate::etcd::EtcdError;
use crate::model::{Request, RequestId};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::peer::Call;

/// How long an order waits for another member.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How long another member may take where it asks its PostgreSQL, or etcd.
const GET_WITHIN: Duration = Duration::from_secs(4);

impl Cycle {
    /// Takes one order; the next tick answers it.
    pub(super) fn order(&mut self, order: ApiOrder) {
        let etcd = self.tools.etcd.clone();
        match order {
            ApiOrder::Ask(ask, answer) => {
                self.state.next_request += 1;
                let id = RequestId(self.state.next_request);
                self.state.answers.insert(id, answer);
                self.state.arrived.push(MemberEvent::Asked(Request { id, ask }));
            }
            ApiOrder::Reload => {
                self.reload();
                self.state.arrived.push(MemberEvent::LevelChanged);
            }
            ApiOrder::Wake => self.state.arrived.push(MemberEvent::Woke),
            ApiOrder::Look(at_most, answer) => {
                let fresh = self.core.postgres_asked_at().is_some_and(|at| clock::now() < at + at_most);
                match fresh {
                    // The caller may have gone.
                    true => drop(answer.send(())),
                    false => {
                        self.state.lookers.push((clock::now(), answer));
                        self.state.arrived.push(MemberEvent::LookWanted);
                    }
                }
            }
            ApiOrder::ReadCluster(answer) => {
                let within = self.dynamic.settings().retry_timeout / 2;
                tokio::spawn(async move { answer.send(etcd.read(within).await.map_err(unavailable)) });
            }
            ApiOrder::WriteConfig(text, if_revision, answer) => {
                tokio::spawn(async move {
                    let written = etcd.commit(&etcd.keys().write_config(&text, if_revision)).await;
                    answer.send(written.map(done).map_err(unavailable))
                });
            }
            ApiOrder::WriteFailover(request, if_revision, answer) => {
                tokio::spawn(async move {
                    let written = etcd.write_failover(request.as_ref(), if_revision).await;
                    answer.send(written.map(Cas::revision).map_err(unavailable))
                });
            }
            ApiOrder::ReadJournal(answer) => {
                let within = self.dynamic.settings().retry_timeout / 2;
                tokio::spawn(async move { answer.send(etcd.journal(within).await.map_err(unavailable)) });
            }
            ApiOrder::Preflight(answer) => {
                let postgres = self.tools.postgres.clone();
                tokio::spawn(async move {
                    answer.send(postgres.preflight_facts().await.map_err(|error| error.chain()))
                });
            }
            ApiOrder::GetPeer(url, answer) => {
                let peers = self.peers.clone();
                let call =
                    Call { method: "GET".to_owned(), url, body: None, credentials: None, within: GET_WITHIN };
                tokio::spawn(
                    async move { answer.send(peers.call(call).await.map_err(|error| error.chain())) },
                );
            }
            ApiOrder::AskPeer(api_url, answer) => {
                let peers = self.peers.clone();
                tokio::spawn(async move { answer.send(peers.ask(&api_url, ASK_WITHIN).await) });
            }
        }
    }
}

fn done(cas: Cas) -> bool {
    cas != Cas::Lost
}

fn unavailable(error: EtcdError) -> OrderError {
    OrderError::Etcd(error.to_string())
}
