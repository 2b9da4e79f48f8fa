use std::time::Duration;

use super::*;
use crate::api::tests::{primary, replica, synchronous_member};
use crate::model::{ClusterView, FailsafeKey, LeaderHearing, SyncMode, Term};

const NOW: Moment = Moment::from_millis(1_000_000);

const UNHEARD: HearingFacts = HearingFacts {
    hearing: LeaderHearing::Unknown,
    heard_at: None,
    suspect_after: Duration::ZERO,
    received: 0,
};

fn value(page: &str, metric: &str) -> String {
    let line = page.lines().find(|line| line.split('{').next() == Some(metric)).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn metrics_of_a_primary() {
    let page = text(&primary(NOW), &UNHEARD, NOW);
    let expected = [
        ("patroni_version", "040105"),
        ("patroni_postgres_running", "1"),
        ("patroni_postmaster_start_time", "1795384210.915509"),
        ("patroni_primary", "1"),
        ("patroni_replica", "0"),
        ("patroni_xlog_location", "1000"),
        ("patroni_xlog_received_location", "0"),
        ("patroni_postgres_server_version", "150018"),
        ("patroni_postgres_timeline", "2"),
        ("patroni_postgres_state", "5"),
        ("patroni_dcs_last_seen", "1795384262"),
        ("patroni_failover_priority", "1"),
        ("matriarch_lease_seconds_left", "10"),
        ("matriarch_ticks_total", "42"),
    ];
    for (metric, expected) in expected {
        assert_eq!(value(&page, metric), expected, "{metric}");
    }
    assert!(page.contains("patroni_primary{scope=\"c\",name=\"n1\"} 1\n"), "{page}");
    assert!(page.contains("# TYPE patroni_xlog_location counter\n"));
    let proof = "matriarch_liveness_proof_age_seconds";
    assert!(!page.contains(proof), "nothing is claimed without one: {page}");
    let mut status = primary(NOW);
    status.postgres.liveness.connected_at = Some(NOW - std::time::Duration::from_millis(1500));
    let sample = format!("{proof}{{scope=\"c\",name=\"n1\",proof=\"connection\"}} 1.5\n");
    assert!(text(&status, &UNHEARD, NOW).contains(&sample), "{sample}");
}

#[test]
fn a_silent_replica_has_no_positions() {
    let page = text(&replica(NOW), &UNHEARD, NOW);
    assert_eq!(value(&page, "patroni_xlog_replayed_location"), "800");
    assert_eq!(value(&page, "patroni_xlog_replayed_timestamp"), "1795384301.06225");
    assert_eq!(value(&page, "patroni_postgres_streaming"), "1");
    let mut status = replica(NOW);
    status.postgres.sql_trouble = Some("timeout".to_owned());
    let page = text(&status, &UNHEARD, NOW);
    assert_eq!(value(&page, "patroni_xlog_replayed_location"), "0");
    assert_eq!(value(&page, "patroni_postgres_state"), "-1");
    assert_eq!(value(&page, "patroni_postgres_streaming"), "");
}

#[test]
fn metrics_of_a_synchronous_standby() {
    for (mode, voters, expected) in [
        (SyncMode::On, &["n2"][..], ["1", "0", "1"]),
        (SyncMode::Quorum, &["n2", "n3"], ["0", "1", "2"]),
        (SyncMode::On, &["n3"], ["0", "0", "1"]),
        (SyncMode::Off, &["n2"], ["0", "0", "0"]),
    ] {
        let mut status = replica(NOW);
        synchronous_member(&mut status, mode, 0, voters);
        let found = |page: &str| {
            ["patroni_sync_standby", "patroni_quorum_standby", "matriarch_failures_tolerated"]
                .map(|metric| value(page, metric))
        };
        assert_eq!(found(&text(&status, &UNHEARD, NOW)), expected, "{mode:?} {voters:?}");
        status.postgres.sql_trouble = Some("timeout".to_owned());
        assert_eq!(found(&text(&status, &UNHEARD, NOW))[..2], ["0", "0"], "{mode:?} {voters:?}");
    }
}

/// Help and type precede each sample, each name occurs once, and every sample has both labels.
#[test]
fn the_page_is_well_formed() {
    let mut status = primary(NOW);
    status.scope = "quo\"te\\".to_owned();
    let page = text(&status, &UNHEARD, NOW);
    let mut announced = String::new();
    let mut seen = Vec::new();
    for line in page.lines().filter(|line| !line.starts_with("# patroni_postgres_state:")) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            announced = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, rest) = line.split_once('{').expect("labels");
            let of = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(*end));
            assert!(name == announced || of == Some(announced.as_str()), "{line}");
            let more = rest.strip_prefix(r#"scope="quo\"te\\",name="n1""#).expect("both labels");
            assert!(more.starts_with(['}', ',']), "{line}");
            assert!(rest.rsplit(' ').next().expect("a value").parse::<f64>().is_ok(), "{line}");
            let sample = line.rsplit_once(' ').expect("a value").0.to_owned();
            assert!(!seen.contains(&sample), "{line}");
            seen.push(sample);
        }
    }
    assert_eq!(seen.iter().filter(|name| name.starts_with("patroni_")).count(), 26);
}

#[test]
fn trouble_with_the_kubernetes_api_is_a_metric_of_a_pod() {
    assert!(!text(&primary(NOW), &UNHEARD, NOW).contains("kubernetes"), "nothing is said without one");
    let mut status = primary(NOW);
    status.kubernetes = Some(crate::api::tests::pod_in_trouble(NOW));
    let page = text(&status, &UNHEARD, NOW + std::time::Duration::from_secs(3));
    for line in [
        "matriarch_kubernetes_trouble{scope=\"c\",name=\"n1\"} 1\n",
        "matriarch_kubernetes_trouble_seconds{scope=\"c\",name=\"n1\",task=\"label\"} 3\n",
        "matriarch_kubernetes_failures_total{scope=\"c\",name=\"n1\",task=\"label\",kind=\"forbidden\"} 2\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn metrics_of_failsafe_mode() {
    let shown = |status: &Status| {
        let page = text(status, &UNHEARD, NOW);
        ["enabled", "is_active"]
            .map(|what| value(&page, &format!("patroni_failsafe_mode_{what}")))
            .into_iter()
            .chain([value(&page, "patroni_failsafe_member")])
            .collect::<String>()
    };
    let mut status = primary(NOW);
    assert_eq!(shown(&status), "000");
    status.settings.failsafe_mode = true;
    assert_eq!(shown(&status), "100");
    status.failsafe_active = true;
    let members = [(status.me.name.clone(), status.me.api_url.clone())].into();
    let view = status.last_view.as_deref().expect("a view").clone();
    let failsafe = Some(FailsafeKey { members, mod_revision: 7 });
    status.last_view = Some(std::sync::Arc::new(ClusterView { failsafe, ..view }));
    assert_eq!(shown(&status), "111");
}

#[test]
fn heartbeats_are_shown_where_there_are_any() {
    let status = replica(NOW);
    assert!(!text(&status, &UNHEARD, NOW).contains("heartbeat_age"));
    let heard = HearingFacts {
        hearing: LeaderHearing::Heard { term: Term(3) },
        heard_at: Some(NOW - Duration::from_millis(250)),
        suspect_after: Duration::from_millis(750),
        received: 12,
    };
    let page = text(&status, &heard, NOW);
    assert_eq!(value(&page, "matriarch_heartbeat_age_seconds"), "0.25");
    assert_eq!(value(&page, "matriarch_suspect_after_seconds"), "0.75");
    assert_eq!(value(&page, "matriarch_heartbeats_received_total"), "12");
}
