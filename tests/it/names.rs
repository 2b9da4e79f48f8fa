//! Two members with the same name, or with names that give the same replication slot.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Member, Place, Plan, merge};

/// A second supervisor starts with a name that is in use. It reports that and exits; the first does not notice.
#[tokio::test]
async fn a_duplicate_member_name_is_refused() {
    let cluster = Plan::new(1).start().await;
    let before = cluster.members[0].postmaster();
    let elsewhere = Place::new();
    let mut second = Member::prepare(&elsewhere, "m1", &cluster.settings, &json!({}));
    second.start();
    assert_eq!(second.exit_code(Duration::from_secs(30)).await, Some(9), "documented: duplicate name");
    assert!(second.log_text().contains("m1"), "the message names the member:\n{}", second.log_text());
    assert!(!second.data().join("PG_VERSION").exists(), "nothing was made");
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
    assert_eq!(cluster.members[0].postmaster(), before);
}

/// Only the machine's address changed. The restarted supervisor does not mistake its own answer at the former address
/// for another member of its name. A leader continues to lead, with the PostgreSQL that ran in the meantime. A reload
/// applies a new address too.
#[tokio::test]
async fn a_member_at_a_new_address_is_not_a_duplicate() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).prepare().await;
    for member in &cluster.members {
        change(member, json!({ "listen": format!("0.0.0.0:{}", member.api) }));
    }
    cluster.start().await;
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].kill_supervisor();
    for member in &cluster.members {
        change(member, json!({ "connect_address": format!("127.0.0.2:{}", member.api) }));
    }
    cluster.members[0].start();
    assert_eq!(cluster.members[1].post("/reload", &json!({})).await.status, 202);
    for name in ["m1", "m2"] {
        let key = format!("/service/herd/members/{name}");
        let what = format!("{name} is known by its new address");
        cluster
            .wait_until(Duration::from_secs(30), &what, async || {
                cluster.etcd.get(&key).await.is_some_and(|record| record.contains("http://127.0.0.2:"))
            })
            .await;
    }
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    assert_eq!(cluster.members[0].postmaster(), postmaster, "PostgreSQL was not restarted");
}

fn change(member: &Member, rest: Value) {
    let mut config = member.read_config();
    merge(&mut config, &json!({ "restapi": rest }));
    member.write_config(&config);
}

/// `m-2` runs, and `m.2` and `M_2` start later: they report which two names give which slot, and exit. The running
/// member does not notice.
#[tokio::test]
async fn a_name_with_the_slot_of_another_member_is_refused() {
    let mut cluster = Plan::new(1).start().await;
    let first = Member::prepare(&cluster.place, "m-2", &cluster.settings, &json!({}));
    cluster.members.push(first);
    cluster.members[1].start();
    cluster.wait_until_well().await;
    for name in ["m.2", "M_2"] {
        let elsewhere = Place::new();
        let mut later = Member::prepare(&elsewhere, name, &cluster.settings, &json!({}));
        later.start();
        assert_eq!(later.exit_code(Duration::from_secs(30)).await, Some(9), "documented");
        let said = later.log_text();
        assert!(
            said.contains(&format!("the names {name} and m-2 both become the replication slot m_2")),
            "{said}"
        );
        assert!(!later.data().join("PG_VERSION").exists(), "nothing was made");
    }
    cluster.wait_until_well().await;
}
