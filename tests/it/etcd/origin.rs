//! Endpoints that belong to two etcd clusters.

use std::time::Duration;

use matriarch::etcd::{Etcd, EtcdSetup, watch};

use super::{ANY, Server, granted, is_done, keep, name, until};

/// An endpoint of another cluster stands first. The view is that of the cluster to which most endpoints belong, and
/// never that of the other cluster, even when only the other cluster still answers.
#[tokio::test]
async fn the_view_comes_from_one_etcd_cluster() {
    let (mut servers, stranger) = (Server::start_three().await, Server::start().await);
    let keeper = keep(servers[0].setup(), 10);
    let lease = granted(&keeper).await;
    let first = servers[0].connect();
    assert!(is_done(first.commit(&first.keys().take_leadership(&name("n-1"), lease, ANY)).await));

    let ours = servers.iter().map(|server| server.url.clone());
    let endpoints = std::iter::once(stranger.url.clone()).chain(ours).collect();
    let mixed = Etcd::connect(EtcdSetup { endpoints, ..servers[0].setup() }).expect("a sound setup");
    let (_relist, relist_every) = tokio::sync::watch::channel(Duration::from_millis(100));
    let view = watch(mixed.clone(), relist_every);
    let leads = || view.borrow().as_ref().map(|view| view.cluster.leader.is_some());
    until("a view", async || leads().is_some()).await;
    for _ in 0..20 {
        let read = mixed.read(Duration::from_secs(3)).await.expect("three servers answer");
        assert!(read.leader.is_some() && leads() == Some(true));
    }
    servers.iter_mut().for_each(Server::stop);
    for _ in 0..5 {
        assert!(mixed.read(Duration::from_secs(1)).await.is_err(), "only the stranger answers");
        assert_eq!(leads(), Some(true));
    }
}
