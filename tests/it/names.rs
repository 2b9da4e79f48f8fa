//! Two members of one name, or of names that become one replication slot.

use std::time::Duration;

use serde_json::json;

use crate::support::{Member, Place, Plan};

/// A second supervisor starts with a name that is taken. It says so and ends; the first does not notice.
#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
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

/// `m-2` is there, and `m.2` and `M_2` come later: they say which two names become which slot, and end. What runs does
/// not notice.
#[tokio::test]
async fn a_name_whose_slot_is_taken_is_refused() {
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
