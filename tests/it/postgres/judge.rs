//! Parameters, checked by the installed PostgreSQL.

use std::collections::BTreeMap;
use std::time::Duration;

use matriarch::postgres::{Parameters, Postgres, refused};

use super::herd::Herd;

#[tokio::test]
async fn parameters_that_prevent_a_start_are_refused_with_the_allowed_values() {
    let herd = Herd::new("judge");
    let cases = [
        ("work_mem", "8MB", None),
        ("Work_Mem", "64kB", None),
        ("pg_stat_statements.max", "any", None),
        ("zero_damaged_pages", "on", None),
        ("log_line_prefix", "%m 'it\\s'\n", None),
        ("shared_preload_libraries", "not_there", None),
        ("log_min_messages", "panic", None),
        (
            "work_memm",
            "8MB",
            Some("unrecognized configuration parameter \"work_memm\"; did you mean `work_mem`?"),
        ),
        ("maintenance_work_mem", "8XB", Some("Valid units for this parameter are \"B\", \"kB\"")),
        ("autovacuum_work_mem", "many", Some("from -1 to 2147483647")),
        ("temp_buffers", "1", Some("outside the valid range for parameter \"temp_buffers\" (100 .. ")),
        ("log_statement", "some", Some("Available values: none, ddl, mod, all.")),
        ("jit", "perhaps", Some("requires a Boolean value")),
        ("timezone", "Mars", Some("invalid value for parameter \"TimeZone\": \"Mars\"")),
        ("server_version", "9", Some("cannot be changed")),
        ("standby_mode", "on", Some("parameters of extensions are written with a dot")),
        ("my-ext.x", "1", Some("this is no name of a parameter")),
        ("a.b.c", "1", Some("this is no name of a parameter")),
    ];
    let parameters: BTreeMap<String, String> =
        cases.iter().map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned())).collect();
    let refused = refused(&herd.setup("m"), &parameters).await.expect("it answers");
    for (name, value, why) in cases {
        let said = refused.iter().find(|refused| refused.name == name);
        assert_eq!(said.is_some(), why.is_some(), "{name}: {said:?}");
        if let (Some(said), Some(why)) = (said, why) {
            assert!(said.why.contains(why) && said.value == value, "{name}: {said:?}");
        }
    }
}

/// An invalid parameter that is already in a configuration is left out. Parameters that fail only in combination
/// prevent a start, and are named.
#[tokio::test]
async fn a_start_omits_or_names_invalid_parameters() {
    let herd = Herd::new("judged");
    let setup = herd.setup("m");
    let mut parameters = herd.parameters(&setup);
    for (name, value) in
        [("stats_temp_directoryy", "x"), ("work_mem", "8XB"), ("maintenance_work_mem", "9MB")]
    {
        parameters.parameters.insert(name.to_owned(), value.to_owned());
    }
    let member = Postgres::new(setup, parameters.clone());
    member.judge_parameters().await;
    member.bootstrap().await.expect("bootstrap");
    super::start(&member, None).await;
    let kept = |parameters: &Parameters| parameters.parameters.get("maintenance_work_mem").cloned();
    assert_eq!(kept(&member.parameters()).as_deref(), Some("9MB"));
    member.apply(parameters.clone()).await.expect("it goes on");
    assert_eq!(member.parameters().parameters.get("work_mem"), None);
    member.stop(matriarch::model::StopMode::Fast, Duration::from_secs(10)).await.expect("it stops");
    parameters.parameters.insert("superuser_reserved_connections".to_owned(), "50".to_owned());
    member.apply(parameters).await.expect("each is good");
    let error =
        member.start_standby(None, Duration::from_secs(10)).await.expect_err("not together").to_string();
    assert!(error.contains("superuser_reserved_connections"), "{error}");
}
