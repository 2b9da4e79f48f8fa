//! Whole configurations in, faults and settings out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

mod by_role;
mod samples;
mod spellings;

const WHOLE: &str = "\
scope: main
name: a
restapi: {listen: '127.0.0.1:8008'}
etcd3: {hosts: '10.0.0.1:2379,10.0.0.2'}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /data
  authentication: {replication: {username: r, password: 0123}}
";

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let path = std::env::temp_dir().join(format!("matriarch-config-{}-{:p}.yml", std::process::id(), &text));
    std::fs::write(&path, text).expect("a temporary file");
    let sources = Sources { path: Some(path), environment: variables(environment), ..Sources::default() };
    let loaded = load(&sources);
    let path = sources.path.expect("it was set");
    std::fs::remove_file(&path).expect("it was just written");
    loaded
}

fn load_environment(environment: BTreeMap<String, String>) -> Result<Loaded, Faults> {
    load(&Sources { environment, ..Sources::default() })
}

fn config(text: &str) -> Config {
    load_text(text, &[]).expect("a valid configuration").config
}

fn lines_of(faults: &[Fault]) -> Vec<(Option<u32>, &str)> {
    faults.iter().map(|fault| (fault.origin.line, fault.key.as_str())).collect()
}

#[test]
fn defaults_complete_a_small_file() {
    let config = config(WHOLE);
    assert_eq!(config.namespace, "/service");
    assert_eq!(config.etcd.endpoints, ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]);
    assert_eq!(config.postgresql.connect_address.to_string(), "127.0.0.1:5432");
    assert_eq!(config.postgresql.superuser.username, "postgres");
    assert!(config.bootstrap.is_none());
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = WHOLE
        .replace("127.0.0.1:8008", "5432abc")
        .replace("name: a", "name: a/b")
        .replace("  data_dir: /data\n", "");
    let faults = load_text(&text, &[]).expect_err("three faults").0;
    assert_eq!(
        lines_of(&faults),
        [(Some(2), "name"), (Some(3), "restapi.listen"), (Some(6), "postgresql.data_dir")]
    );
    assert!(faults[1].to_string().contains("found `5432abc`"), "{}", faults[1]);
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_known_one() {
    let warnings =
        load_text(&WHOLE.replace("  listen: 127", "  lisen: x\n  listen: 127"), &[]).expect("valid").warnings;
    assert_eq!(lines_of(&warnings), [(Some(6), "postgresql.lisen")]);
    assert!(warnings[0].expected.contains("`listen`"), "{}", warnings[0]);
}

#[test]
fn permitted_writers_are_logged() {
    let access = |rest: &str, variables: &[(&str, &str)]| {
        let text = WHOLE.replace("restapi: {", &format!("restapi: {{{rest}"));
        let loaded = load_text(&text, variables).expect("valid");
        (loaded.config.restapi.write_access(), loaded.warnings.len())
    };
    let cases = [
        ("", WriteAccess::LocalAndMembers, 0),
        ("allow_unauthenticated_writes: true, ", WriteAccess::Everybody, 0),
        ("allowlist: [10.0.0.0/8], ", WriteAccess::Configured, 0),
        ("allowlist_include_members: true, ", WriteAccess::Configured, 0),
        ("auth: 'u:p', ", WriteAccess::Configured, 0),
        ("auth: 'u:p', allow_unauthenticated_writes: true, ", WriteAccess::Configured, 1),
    ];
    for (rest, expected, warnings) in cases {
        assert_eq!(access(rest, &[]), (expected, warnings), "{rest}");
    }
    let variable = [("MATRIARCH_RESTAPI_ALLOW_UNAUTHENTICATED_WRITES", "true")];
    assert_eq!(access("", &variable), (WriteAccess::Everybody, 0));
}

#[test]
fn a_certificate_switches_rest_to_tls() {
    let load = |rest: &str| load_text(&WHOLE.replace("restapi: {", &format!("restapi: {{{rest}")), &[]);
    let config = load("certfile: /c, cafile: /a, verify_client: Required, ").expect("valid").config;
    let RestTls { certfile, keyfile, verify_client, .. } = config.restapi.tls.clone().expect("it is on");
    assert_eq!((certfile, keyfile), ("/c".into(), "/c".into()));
    assert_eq!(verify_client, VerifyClient::Required("/a".into()));
    assert_eq!(config.restapi.write_access(), WriteAccess::Configured);
    let headers = "http_extra_headers: {A: 1}, https_extra_headers: {A: 2}, ";
    let plain = load(&format!("{headers}keyfile: /k, verify_client: optional, ")).expect("valid");
    assert_eq!((plain.config.restapi.tls, plain.warnings.len()), (None, 2));
    assert_eq!(plain.config.restapi.http_extra_headers.len(), 1);
    let both = load(&format!("{headers}certfile: /c, keyfile: /k, ")).expect("valid");
    assert_eq!(both.config.restapi.http_extra_headers[1], ("A".to_owned(), "2".to_owned()));
    assert_eq!(both.config.restapi.write_access(), WriteAccess::LocalAndMembers);
    for (rest, key) in
        [("verify_client: optional, ", "cafile"), ("verify_client: sometimes, ", "verify_client")]
    {
        let faults = load(&format!("certfile: /c, {rest}")).expect_err("a fault").0;
        assert_eq!(faults[0].key, format!("restapi.{key}"));
    }
}

#[test]
fn variables_override_the_file_and_suffice_without_one() {
    let overridden =
        load_text(WHOLE, &[("PATRONI_NAME", "b"), ("PATRONI_POSTGRESQL_LISTEN", "10.1.1.1:6000")]);
    let overridden = overridden.expect("valid").config;
    assert_eq!((overridden.name.as_str(), overridden.postgresql.listen.port), ("b", 6000));
    let alone = variables(&[
        ("PATRONI_SCOPE", "main"),
        ("PATRONI_NAME", "a"),
        ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"),
        ("PATRONI_RESTAPI_USERNAME", "u"),
        ("PATRONI_RESTAPI_PASSWORD", "a:b#c"),
        ("PATRONI_ETCD3_HOSTS", "'10.0.0.1:2379','10.0.0.2:2379'"),
        ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5432"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "/data"),
        ("PATRONI_REPLICATION_USERNAME", "r"),
        ("PATRONI_SUPERUSER_PASSWORD", "0123"),
    ]);
    let alone = load_environment(alone).expect("valid").config;
    assert_eq!(alone.restapi.authentication.expect("set").password, "a:b#c");
    assert_eq!(alone.postgresql.superuser.password.as_deref(), Some("0123"));
    let text = variables(&[("PATRONI_CONFIGURATION", WHOLE), ("PATRONI_NAME", "ignored")]);
    assert_eq!(load_environment(text).expect("valid").config.name.as_str(), "a");
}

#[test]
fn missing_settings_without_a_file_name_the_variable() {
    let unsaid =
        variables(&[("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"), ("PATRONI_POSTGRESQL_LISTEN", "::1")]);
    let faults = load_environment(unsaid).expect_err("nothing was said").to_string();
    let wanted = [
        "set MATRIARCH_SCOPE",
        "set MATRIARCH_ETCD3_HOSTS",
        "set PGDATA",
        "set POSTGRES_PASSWORD, or POSTGRES_PASSWORD_FILE",
        "set MATRIARCH_REPLICATION_PASSWORD",
    ];
    assert_eq!(faults.lines().count(), wanted.len(), "{faults}");
    for wanted in wanted {
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
}

#[test]
fn the_file_overrides_the_image_s_variables() {
    let image =
        [("PGDATA", "/elsewhere"), ("POSTGRES_PASSWORD", "image"), ("POSTGRES_INITDB_ARGS", "-E LATIN1")];
    let loaded = load_text(WHOLE, &image).expect("valid").config;
    assert_eq!(loaded.postgresql.data_dir.to_str(), Some("/data"));
    assert_eq!(loaded.postgresql.superuser.password.as_deref(), Some("image"));
    assert!(loaded.bootstrap.is_none(), "they make no member one that may make a cluster");
    let may = load_text(&format!("{WHOLE}bootstrap: {{dcs: {{ttl: 5}}}}\n"), &image).expect("valid").config;
    let bootstrap = may.bootstrap.expect("it may");
    assert_eq!(bootstrap.initdb, ["encoding=LATIN1", "data-checksums"]);
    assert_eq!(bootstrap.wait_for_members, Duration::from_secs(10));
}

#[test]
fn command_line_parameters_override_and_controlled_ones_join_the_bootstrap() {
    let path = std::env::temp_dir().join(format!("matriarch-arguments-{}.yml", std::process::id()));
    let text = format!("{WHOLE}  parameters: {{work_mem: 4MB}}\nbootstrap: {{dcs: {{ttl: 5}}}}\n");
    std::fs::write(&path, text).expect("a temporary file");
    let parameters = [("work_mem", "7MB"), ("max_connections", "57")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let loaded = load(&Sources { path: Some(path.clone()), parameters, ..Sources::default() });
    std::fs::remove_file(&path).expect("it was just written");
    let loaded = loaded.expect("valid").config;
    let dcs = serde_json::Value::Object(loaded.bootstrap.clone().expect("there").dcs);
    assert_eq!(dcs["postgresql"]["parameters"]["max_connections"], "57");
    let effective = effective(&loaded, Some(&dcs.to_string()), 15).expect("usable");
    assert_eq!(effective.parameters["work_mem"], "7MB");
    assert_eq!(controlled(&effective, "max_connections"), "57");
    assert!(effective.warnings.is_empty(), "{:?}", effective.warnings);
}

#[test]
fn a_fault_in_a_variable_names_the_variable() {
    let faults = load_text(WHOLE, &[("PATRONI_RESTAPI_LISTEN", "nowhere")]).expect_err("a fault").0;
    assert_eq!(faults[0].origin.to_string(), "PATRONI_RESTAPI_LISTEN");
}

#[test]
fn impossible_timings_are_faults() {
    let text = format!("{WHOLE}bootstrap: {{dcs: {{ttl: 2, loop_wait: soon}}}}\n");
    let faults = load_text(&text, &[]).expect_err("two faults").0;
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["bootstrap.dcs.loop_wait", "bootstrap.dcs.ttl"]);
}

fn effective_of(text: &str, dynamic: &str) -> Effective {
    effective(&config(text), Some(dynamic), 15).expect("usable")
}

fn controlled<'a>(effective: &'a Effective, name: &str) -> &'a str {
    let found = effective.command_line.iter().find(|(known, _)| known == name);
    &found.expect("every controlled parameter is there").1
}

#[test]
fn controlled_parameters_come_from_the_dynamic_side_only() {
    let text = WHOLE.replace(
        "  data_dir",
        "  parameters: {max_connections: 500, work_mem: 8MB, hot_standby: on}\n  data_dir",
    );
    let dynamic =
        r#"{"postgresql":{"parameters":{"max_connections":200,"work_mem":"1MB","wal_level":"nonsense"}}}"#;
    let effective = effective_of(&text, dynamic);
    assert_eq!(controlled(&effective, "max_connections"), "200");
    assert_eq!(controlled(&effective, "wal_level"), "replica");
    assert_eq!(controlled(&effective, "restart_after_crash"), "off");
    assert_eq!(effective.parameters["work_mem"], "8MB");
    assert_eq!(effective.parameters["wal_keep_size"], "128MB");
    assert_eq!(effective.warnings.len(), 2, "{:?}", effective.warnings);
}

#[test]
fn bare_booleans_keep_postgresqls_spelling() {
    let text = WHOLE.replace("  data_dir", "  parameters: {log_connections: on, fsync: off}\n  data_dir");
    let effective = effective_of(&text, r#"{"postgresql":{"parameters":{"jit":false}}}"#);
    let values = ["log_connections", "fsync", "jit"].map(|name| &*effective.parameters[name]);
    assert_eq!(values, ["on", "off", "off"]);
}

#[test]
fn timings_are_used_as_written_and_older_names_work() {
    let effective =
        effective_of(WHOLE, r#"{"ttl":30,"master_start_timeout":"1min","maximum_lag_on_failover":"2MB"}"#);
    assert_eq!(effective.settings.ttl, Duration::from_secs(30));
    assert_eq!(effective.settings.primary_start_timeout, Duration::from_secs(60));
    assert_eq!(effective.settings.maximum_lag_on_failover, 2 << 20);
    assert_eq!(effective_of(WHOLE, r#"{"ttl":1}"#).settings.ttl, Duration::from_secs(3));
    assert_eq!(effective_of(WHOLE, "{}").settings, crate::model::Settings::default());
}

#[test]
fn an_invalid_dynamic_configuration_is_not_applied() {
    for text in ["[]", "{", r#"{"ttl":"long"}"#, r#"{"postgresql":[]}"#] {
        assert!(effective(&config(WHOLE), Some(text), 15).is_err(), "{text}");
        let mended = super::mended(text, "{}").text;
        assert!(effective(&config(WHOLE), Some(&mended), 15).is_ok(), "{text}");
    }
}

/// Configured rules are the operator's, to the line; without them an existing file stays unchanged.
#[test]
fn configured_access_rules_stay_unchanged() {
    let text = WHOLE.replace("  data_dir", "  pg_hba: ['local all all peer']\n  data_dir");
    assert_eq!(effective_of(&text, "{}").pg_hba, Some(vec!["local all all peer".to_owned()]));
    let dynamic = r#"{"postgresql":{"pg_hba":["local all all md5"]}}"#;
    assert_eq!(effective_of(WHOLE, dynamic).pg_hba, Some(vec!["local all all md5".to_owned()]));
    assert_eq!(effective_of(WHOLE, r#"{"postgresql":{"pg_hba":[]}}"#).pg_hba, None);
}

/// `scram-sha-256` refuses a role whose password is stored as an MD5 hash.
#[test]
fn the_first_access_rules_use_the_stored_password_method() {
    let rules = effective_of(WHOLE, "{}").first_pg_hba;
    assert_eq!(rules.first().map(String::as_str), Some("local all \"postgres\" peer"), "no password");
    let mut config = config(WHOLE);
    config.postgresql.superuser.password = Some("p".to_owned());
    let last = |dynamic| effective(&config, Some(dynamic), 15).expect("it is fit").first_pg_hba[2..].to_vec();
    assert_eq!(last("{}"), ["host all all all scram-sha-256"]);
    let md5 = r#"{"postgresql":{"parameters":{"password_encryption":"md5"}}}"#;
    assert_eq!(last(md5), ["host all all all md5"]);
}

#[test]
fn unquoted_passwords_keep_their_text() {
    for written in ["y", "1e5", "99999999999999999999", "n"] {
        let text = WHOLE.replace("password: 0123", &format!("password: {written}"));
        assert_eq!(config(&text).postgresql.replication.password.as_deref(), Some(written));
    }
}

#[test]
fn debug_output_hides_passwords() {
    let shown = format!(
        "{:?}",
        config(&WHOLE.replace("restapi: {", "restapi: {authentication: {username: u, password: hush}, "))
    );
    assert!(!shown.contains("hush") && !shown.contains("0123") && !shown.contains("83"), "{shown}");
}

#[test]
fn the_watchdog_section_is_read_as_in_patroni() {
    let with = |section: &str| config(&format!("{WHOLE}\nwatchdog: {section}\n")).watchdog;
    let plain = config(WHOLE).watchdog;
    assert_eq!((plain.mode, plain.driver), (WatchdogMode::Automatic, WatchdogDriver::Default));
    assert_eq!((plain.device, plain.safety_margin), ("/dev/watchdog".into(), Some(Duration::from_secs(5))));
    assert_eq!(with("{mode: off}").mode, WatchdogMode::Off);
    let testing = with("{mode: required, driver: testing, device: /tmp/fifo, safety_margin: -1}");
    assert_eq!((testing.mode, testing.driver), (WatchdogMode::Required, WatchdogDriver::Testing));
    assert_eq!((testing.device, testing.safety_margin), ("/tmp/fifo".into(), None));
}

#[test]
fn without_the_section_there_is_no_pod() {
    let environment = [("POD_NAME", "pg-0"), ("POD_NAMESPACE", "db")];
    assert_eq!(load_text(WHOLE, &environment).expect("valid").config.kubernetes, None);
}

#[test]
fn the_pods_name_comes_from_the_file_the_pod_or_the_member() {
    let text = format!("{WHOLE}kubernetes: {{labels: {{application: pg}}, role_label: example.org/role}}\n");
    let pod = config(&text).kubernetes.expect("a section");
    assert_eq!((pod.pod.as_str(), pod.namespace.as_str(), pod.pod_uid), ("a", "default", None));
    let selector = [("application", "pg"), ("cluster-name", "main")];
    assert_eq!(pod.names.selector, variables(&selector));
    assert_eq!((pod.names.leader.as_str(), pod.names.follower.as_str()), ("primary", "replica"));
    assert_eq!(pod.names.role_label, "example.org/role");
    let told = [("POD_NAME", "pg-0"), ("POD_NAMESPACE", "db"), ("POD_UID", "u-1")];
    let pod = load_text(&text, &told).expect("valid").config.kubernetes.expect("a section");
    assert_eq!(
        (pod.pod.as_str(), pod.namespace.as_str(), pod.pod_uid.as_deref()),
        ("pg-0", "db", Some("u-1"))
    );
    let given = [
        ("PATRONI_KUBERNETES_NAMESPACE", "prod"),
        ("PATRONI_KUBERNETES_LABELS", "{application: spilo}"),
        ("PATRONI_KUBERNETES_SCOPE_LABEL", "version"),
        ("PATRONI_KUBERNETES_LEADER_LABEL_VALUE", "master"),
        ("PATRONI_KUBERNETES_BOOTSTRAP_LABELS", r#"{"critical-operation":"true"}"#),
        ("POD_NAMESPACE", "db"),
    ];
    let pod = load_text(WHOLE, &given).expect("valid").config.kubernetes.expect("from variables alone");
    assert_eq!((pod.namespace.as_str(), pod.names.leader.as_str()), ("prod", "master"));
    assert_eq!(pod.names.selector, variables(&[("application", "spilo"), ("version", "main")]));
    assert_eq!(pod.names.bootstrap_labels, variables(&[("critical-operation", "true")]));
}

#[test]
fn invalid_labels_are_faults_and_keys_without_effect_are_warnings() {
    let section = |keys: &str| load_text(&format!("{WHOLE}kubernetes:\n{keys}"), &[]);
    let faults = section(
        "  role_label: -x\n  leader_label_value: same\n  follower_label_value: same\n  labels: {a: b/c}\n",
    );
    assert_eq!(
        lines_of(&faults.expect_err("three faults").0),
        [
            (Some(13), "kubernetes.labels.a"),
            (Some(12), "kubernetes.follower_label_value"),
            (Some(10), "kubernetes.role_label")
        ]
    );
    let warnings =
        section("  use_endpoints: true\n  pod_ip: 10.0.0.1\n  bypass_api_service: false\n  lables: {}\n");
    let warnings = warnings.expect("valid").warnings;
    assert_eq!(
        lines_of(&warnings),
        [
            (Some(10), "kubernetes.use_endpoints"),
            (Some(11), "kubernetes.pod_ip"),
            (Some(13), "kubernetes.lables")
        ]
    );
}

#[test]
fn the_wait_for_members_is_read_as_a_time_span() {
    let read = |value: &str| load_text(&format!("{WHOLE}bootstrap: {{wait_for_members: {value}}}\n"), &[]);
    let wait = |value: &str| read(value).expect("valid").config.bootstrap.expect("there").wait_for_members;
    assert_eq!((wait("0"), wait("1min")), (Duration::ZERO, Duration::from_secs(60)));
    for value in ["-1", "soon", "[]"] {
        assert!(read(value).is_err(), "{value}");
    }
}

#[test]
fn a_name_longer_than_a_slot_is_a_warning() {
    let read = |letters| load_text(&WHOLE.replace("name: a", &format!("name: {}", "a".repeat(letters))), &[]);
    assert_eq!(lines_of(&read(63).expect("valid").warnings), []);
    assert_eq!(lines_of(&read(64).expect("valid").warnings), [(Some(2), "name")]);
}
