//! Two members of one name.

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
