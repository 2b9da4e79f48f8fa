//! Races for the leader key.

use matriarch::core::store::Cas;
use matriarch::model::{TakeLeadershipPreconditions, Timeline};

use super::{Server, granted, is_done, keep, name, read, record, term};

/// Between the queries to the members and the race, another member took the key, was promoted, and was gone again.
#[tokio::test]
async fn a_member_that_asked_before_another_promotion_does_not_lead() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keepers = [keep(server.setup(), 10), keep(server.setup(), 10)];
    let (mine, other) = (granted(&keepers[0]).await, granted(&keepers[1]).await);
    let asked = TakeLeadershipPreconditions {
        sync: 0,
        unfenced: 0,
        failsafe: 0,
        unlocked: read(&etcd).await.revision,
        deposes: None,
    };
    let led = term(
        etcd.commit(&etcd.keys().take_leadership(&name("n-2"), other, asked)).await.expect("etcd is up"),
    );
    let (claim, passed_over) = etcd.keys().claim_timeline((led, other), Timeline(1), None);
    assert_eq!(passed_over, Timeline(1));
    assert!(is_done(etcd.commit(&claim).await));
    assert!(is_done(etcd.commit(&etcd.keys().release_leadership((led, other), None)).await));
    assert_eq!(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), mine, asked)).await, Ok(Cas::Lost));
    let asked_again = TakeLeadershipPreconditions {
        sync: 0,
        unfenced: 0,
        failsafe: 0,
        unlocked: read(&etcd).await.revision,
        deposes: None,
    };
    assert!(is_done(etcd.commit(&etcd.keys().take_leadership(&name("n-1"), mine, asked_again)).await));
}

/// A member with data takes the key while another one makes a new cluster: one of the two clusters must not be.
#[tokio::test]
async fn a_new_cluster_is_not_made_beside_a_leader_with_data() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keepers = [keep(server.setup(), 10), keep(server.setup(), 10)];
    let (mine, other) = (granted(&keepers[0]).await, granted(&keepers[1]).await);
    let keys = etcd.keys();
    let vacant = async || {
        let unlocked = read(&etcd).await.revision;
        TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked, deposes: None }
    };
    let before = vacant().await;
    assert!(is_done(etcd.commit(&keys.win_initialize(mine, 0)).await));
    assert_eq!(etcd.commit(&keys.take_leadership(&name("n-2"), other, before)).await, Ok(Cas::Lost));
    let claimed = vacant().await;
    let led =
        term(etcd.commit(&keys.take_leadership(&name("n-2"), other, claimed)).await.expect("etcd is up"));
    assert_eq!(etcd.commit(&keys.finish_initialize(mine, 7, "{}")).await, Ok(Cas::Lost), "n-2 leads");
    assert!(is_done(etcd.commit(&keys.release_leadership((led, other), None)).await));
    let released = vacant().await;
    assert!(is_done(etcd.commit(&keys.finish_initialize(mine, 7, "{}")).await));
    assert_eq!(etcd.commit(&keys.take_leadership(&name("n-2"), other, released)).await, Ok(Cas::Lost));
}

/// Between the last look and the claim of a new cluster a member registered: it may have data.
#[tokio::test]
async fn a_member_that_missed_a_registration_creates_no_cluster() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keeper = keep(server.setup(), 10);
    let lease = granted(&keeper).await;
    let seen = read(&etcd).await.revision;
    assert!(is_done(etcd.commit(&etcd.keys().publish_member(&name("n-1"), lease, &record("{}"))).await));
    assert_eq!(etcd.commit(&etcd.keys().win_initialize(lease, seen)).await, Ok(Cas::Lost));
    let seen = read(&etcd).await.revision;
    assert!(is_done(
        etcd.commit(&etcd.keys().publish_member(&name("n-1"), lease, &record(r#"{"state":"stopped"}"#)))
            .await
    ));
    assert!(
        is_done(etcd.commit(&etcd.keys().win_initialize(lease, seen)).await),
        "it was known, and only said something new"
    );
}
