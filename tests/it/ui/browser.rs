//! The page in Chromium. With `MATRIARCH_TEST_PICTURES=FOLDER` it is drawn there.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::checks;
use super::closed_cluster;
use crate::support::{Browser, Plan};

/// The page follows a switchover that is started on it with the keyboard alone, after a login.
#[tokio::test]
async fn a_browser_follows_a_switchover() {
    let cluster = closed_cluster().await;
    let mut browser = Browser::start(&cluster.place, Some(("admin", "s3cret"))).await;
    let urls = [0, 1].map(|index| format!("http://127.0.0.1:{}/ui", cluster.members[index].api));
    browser.open(&urls[0]).await;
    browser.wait_for("document.getElementById('live').textContent.startsWith('Live')").await;
    let names = "document.getElementById('state').innerText.includes('m1 leads')";
    browser.wait_for(names).await;
    assert_eq!(browser.asked_for_login, 0, "to read needs no login");

    // A choice stays while the page changes.
    browser.value("document.getElementById('switchover-candidate').value = 'm2'").await;
    browser.value("document.getElementById('switchover-candidate').focus()").await;
    tab_to(&mut browser, "switchover-confirm").await;
    browser.press(" ").await;
    cluster.members[0].post("/reload", &Value::Null).await;
    tab_to(&mut browser, "switchover-button").await;
    browser.press("Enter").await;
    browser.wait_for("document.body.innerText.includes('switched over to')").await;
    assert_eq!(browser.asked_for_login, 1, "to change something needs one");
    draw(&mut browser, "result").await;
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m2"), "{}", cluster.story());
    tab_to(&mut browser, "back").await;
    browser.press("Enter").await;
    browser.wait_for("document.getElementById('state')?.innerText.includes('m2 leads')").await;

    // Another one, by REST: the page shows it without being loaded again, with what is open and focused.
    browser.wait_for("document.getElementById('live').textContent.startsWith('Live')").await;
    browser.value("window.isTheSamePage = true").await;
    // The oldest one: what is recorded of the newest may still grow.
    browser.value("[...document.querySelectorAll('summary')].at(-1).focus()").await;
    browser.press("Enter").await;
    let opened = browser.value("document.querySelector('details[open]').id").await;
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m2" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    browser.wait_for("document.getElementById('state').innerText.includes('m1 leads')").await;
    let handed =
        "document.getElementById('journal').innerText.includes('m2 handed the leadership over to m1')";
    browser.wait_for(handed).await;
    assert_eq!(browser.value("window.isTheSamePage").await, true);
    assert_eq!(browser.value(&format!("document.getElementById({opened}).open")).await, true);
    let focused = browser.value("document.activeElement.id").await;
    assert_eq!(focused, format!("{}-summary", opened.as_str().unwrap_or_default()));
    assert_eq!(browser.errors, Vec::<String>::new());
    draw(&mut browser, "after").await;
}

/// Everything is reached with the keyboard, is seen, has its name, and comes from the member.
#[tokio::test]
async fn the_page_is_accessible() {
    let cluster = Plan::new(3)
        .member(
            2,
            json!({ "tags": { "replicatefrom": "m2", "datacenter": "a-rather-long-name-of-a-datacenter" } }),
        )
        .start()
        .await;
    let mut browser = Browser::start(&cluster.place, None).await;
    browser.open(&format!("http://127.0.0.1:{}/ui", cluster.members[1].api)).await;
    // The first sample of the lag is taken when the member starts, the next ones with standbys.
    browser.wait_for("document.querySelectorAll('.plot .line').length === 2").await;
    assert_eq!(browser.value(checks::STRUCTURE_FAULTS).await, json!([]));
    assert_eq!(browser.value(checks::FOREIGN_RESOURCES).await, json!([]));
    check_keyboard(&mut browser).await;
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark"), (320, "light")] {
        browser.show_as(width, scheme).await;
        assert_eq!(browser.value(checks::FAINT_TEXTS).await, json!([]), "{width} {scheme}");
        assert_eq!(browser.value(checks::FAINT_LINES).await, json!([]), "{width} {scheme}");
        let wide = browser.value("document.documentElement.scrollWidth").await;
        assert!(wide.as_u64() <= Some(width.into()), "{wide} wide at {width}");
        draw(&mut browser, &format!("{width}-{scheme}")).await;
    }
    assert_eq!(browser.errors, Vec::<String>::new());

    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.open(&format!("http://127.0.0.1:{}/ui?still", cluster.members[1].api)).await;
    let text = browser.value("document.body.innerText").await;
    let text = text.as_str().unwrap_or_default();
    for part in ["Reload the page", "m1 leads", "m3", "m1 became the first leader", "Switch over"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Tab goes to everything that can be operated, and shows where it is.
async fn check_keyboard(browser: &mut Browser) {
    let wanted = browser.value(checks::OPERABLE).await;
    let wanted = wanted.as_array().expect("a list").clone();
    assert!(wanted.len() >= 10, "{wanted:?}");
    let mut reached = Vec::new();
    while reached.len() < wanted.len() {
        browser.press("Tab").await;
        let focused = browser.value(checks::FOCUSED).await;
        assert_eq!(focused[1], true, "{focused} is not seen to have the focus");
        assert!(
            !reached.contains(&focused[0]),
            "{focused} comes twice before all: {reached:?} of {wanted:?}"
        );
        reached.push(focused[0].clone());
    }
    assert_eq!(reached, wanted, "in the order of the page");
}

async fn tab_to(browser: &mut Browser, id: &str) {
    for _ in 0..40 {
        browser.press("Tab").await;
        if browser.value("document.activeElement.id").await == id {
            return;
        }
    }
    panic!("{id} is not reached");
}

async fn draw(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("MATRIARCH_TEST_PICTURES") {
        browser.draw(&PathBuf::from(folder).join(format!("{name}.png"))).await;
    }
}
