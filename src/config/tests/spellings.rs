//! Alternative spellings of settings, and the values that they mean.

use super::*;
use crate::model::FailoverBy;

fn load(text: &str, environment: &[(&str, &str)]) -> (Config, Vec<String>) {
    let loaded = load_text(text, environment).expect("valid");
    (loaded.config, loaded.warnings.iter().map(|warning| after_its_file(&warning.to_string())).collect())
}

/// The text without the name of the temporary file.
fn after_its_file(text: &str) -> String {
    text.split_once(".yml:").map_or(text, |(_, rest)| rest).to_owned()
}

#[test]
fn listen_addresses_in_every_spelling() {
    let cases = [
        ("'127.0.0.1, 127.0.0.2:5433'", ("127.0.0.1,127.0.0.2", 5433)),
        ("'127.0.0.1,[::1]:5432'", ("127.0.0.1,::1", 5432)),
        ("'[::1], 127.0.0.1'", ("::1,127.0.0.1", 5432)),
        ("'*:5432'", ("*", 5432)),
        ("::1:5432", ("::1", 5432)),
        ("localhost", ("localhost", 5432)),
    ];
    for (written, (hosts, port)) in cases {
        let listen = load(&WHOLE.replace("127.0.0.1:5432", written), &[]).0.postgresql.listen;
        assert_eq!((listen.host.as_str(), listen.port), (hosts, port), "{written}");
    }
    for written in ["'127.0.0.1,,::1:5432'", "'127.0.0.1, :5432'", "'/tmp:5432'", "'a b:5432'"] {
        let faults = load_text(&WHOLE.replace("127.0.0.1:5432", written), &[]).expect_err(written).0;
        assert_eq!(lines_of(&faults), [(Some(6), "postgresql.listen")], "{written}");
    }
}

#[test]
fn hosts_of_etcd_in_every_spelling() {
    let (one, two) = (["http://10.0.0.1:2379"], ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]);
    let cases: [(&str, &[&str]); 7] = [
        ("10.0.0.1", &one),
        ("['10.0.0.1:2379', '']", &one),
        ("\n    - 10.0.0.1:2379", &one),
        ("|\n    10.0.0.1:2379", &one),
        ("|\n    - 10.0.0.1:2379", &one),
        (">-\n    10.0.0.1,\n    10.0.0.2", &two),
        ("|\n    - '10.0.0.1:2379'\n    - 10.0.0.2:2379\n", &two),
    ];
    for (written, endpoints) in cases {
        let text =
            WHOLE.replace("etcd3: {hosts: '10.0.0.1:2379,10.0.0.2'}", &format!("etcd3:\n  hosts: {written}"));
        assert_eq!(load(&text, &[]).0.etcd.endpoints, endpoints, "{written}");
    }
    let cases: [(&str, &[&str]); 5] = [
        ("- 10.0.0.1:2379", &one),
        ("- 10.0.0.1\n- 10.0.0.2", &two),
        ("[10.0.0.1,\n10.0.0.2]", &two),
        ("10.0.0.1\n10.0.0.2", &two),
        ("'10.0.0.1:2379', \"10.0.0.2\"", &two),
    ];
    for (written, endpoints) in cases {
        assert_eq!(load(WHOLE, &[("PATRONI_ETCD3_HOSTS", written)]).0.etcd.endpoints, endpoints, "{written}");
    }
}

#[test]
fn an_empty_list_item_is_left_out_with_a_warning() {
    let rules = "  pg_hba:\n  - local all all peer\n  -\n  - ''\n  - host all all all md5\n";
    let (config, warnings) = load(&format!("{WHOLE}{rules}"), &[]);
    let expected = ["local all all peer".to_owned(), "host all all all md5".to_owned()];
    assert_eq!(config.postgresql.pg_hba.as_deref(), Some(&expected[..]));
    let said = |line, found| {
        format!("{line}: postgresql.pg_hba: {found}; an empty item of the list is left out: remove it")
    };
    assert_eq!(warnings, [said(11, "found nothing"), said(12, "found ``")]);
}

#[test]
fn of_duplicate_keys_the_last_one_counts_with_a_warning() {
    let (config, warnings) = load(&WHOLE.replace("name: a", "name: b\nname: a"), &[]);
    assert_eq!(config.name.as_str(), "a");
    assert_eq!(warnings, ["3: name: is given twice, first on line 2; the last one counts: remove the other"]);
}

const WITHOUT_EFFECT: &str = "  pg_ctl_timeout: 60
  use_slots: true
  use_unix_socket_repl: true
thread_pool_size: 5
thread_stack_size: 512kB
log: {traceback_level: ERROR, format: '%(message)s', dateformat: '%c', static_fields: {a: b}, loggers: {a: INFO}, max_queue_size: 1,
  mode: 0640, file_size: 1, file_num: 4, deduplicate_heartbeat_logs: true}
etcd: {host: a}
citus: {group: 0, database: x}
bootstrap:
  users: {admin: {password: x}}
  post_bootstrap: /x
  post_init: /y
  dcs:
    failsafe_mode: true
    primary_race_backoff: 5
    master_start_timeout: 5
    primary_start_timeout: 6
    postgresql: {callbacks: {on_stop: /x}, create_replica_methods: [a], basebackup: [verbose], custom_conf: /x,
      pg_ctl_timeout: 5, bin_dir: /x, use_unix_socket: true, listen: x, pre_promote: /x}
";

/// Every key that works in Patroni but not here is named.
#[test]
fn keys_without_effect_are_named() {
    let text = format!("{WHOLE}{WITHOUT_EFFECT}")
        .replace("restapi: {", "restapi: {request_queue_size: 5, thread_pool_size: 5, ");
    let (_, warnings) = load(&text, &[]);
    let mut keys: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(": ").nth(1)).collect();
    keys.sort_unstable();
    let dynamic = ["master_start_timeout"].into_iter();
    let of_postgresql =
        ["basebackup", "bin_dir", "callbacks", "create_replica_methods", "custom_conf", "listen"];
    let of_postgresql = of_postgresql.into_iter().chain(["pg_ctl_timeout", "pre_promote", "use_unix_socket"]);
    let of_log = ["deduplicate_heartbeat_logs", "loggers", "max_queue_size", "traceback_level"].into_iter();
    let own = ["pg_ctl_timeout", "use_slots", "use_unix_socket_repl"];
    let rest = ["request_queue_size", "thread_pool_size"];
    let under = |path: &'static str| move |key: &str| format!("{path}.{key}");
    let mut expected: Vec<String> = dynamic
        .chain(["primary_race_backoff"])
        .map(under("bootstrap.dcs"))
        .chain(of_postgresql.map(under("bootstrap.dcs.postgresql")))
        .chain(["post_init", "users"].map(under("bootstrap")))
        .chain(of_log.map(under("log")))
        .chain(own.map(under("postgresql")))
        .chain(rest.map(under("restapi")))
        .chain(["citus", "etcd", "thread_pool_size", "thread_stack_size"].map(str::to_owned))
        .collect();
    expected.sort_unstable();
    assert_eq!(keys, expected, "{warnings:#?}");
    let silent = warnings.iter().find(|warning| !warning.contains("effect") && !warning.contains("not "));
    assert_eq!(silent, None, "each says that nothing comes of it");
}

#[test]
fn a_first_dynamic_configuration_must_be_a_section() {
    let faults = load_text(&format!("{WHOLE}bootstrap: {{dcs: 7}}\n"), &[]).expect_err("a fault").0;
    assert_eq!(lines_of(&faults), [(Some(9), "bootstrap.dcs")]);
}

/// The sections of logins from before `authentication`.
#[test]
fn old_sections_of_logins_are_read() {
    let old = "  superuser: {username: s, password: t}\n  replication: {username: r, password: u}\n  \
               pg_rewind: {username: w}\n";
    let text = WHOLE.replace("  authentication: {replication: {username: r, password: 0123}}\n", old);
    let (config, warnings) = load(&text, &[]);
    let postgresql = config.postgresql;
    let names =
        [&postgresql.superuser, &postgresql.replication, postgresql.rewind.as_ref().expect("it is set")];
    assert_eq!(names.map(|login| login.username.as_str()), ["s", "r", "w"]);
    assert_eq!(warnings, [""; 0]);
    let both = format!("{WHOLE}  replication: {{username: other}}\n");
    assert_eq!(load(&both, &[]).0.postgresql.replication.username, "r");
}

#[test]
fn old_names_of_variables_are_read() {
    let (config, warnings) = load(WHOLE, &[("PATRONI_LOGLEVEL", "WARNING"), ("PATRONI_LOG_DATEFMT", "%Y")]);
    assert_eq!((config.log.level, config.log.time_format.as_deref()), ("warn", Some("%Y")));
    assert_eq!(warnings, [""; 0]);
    for text in ["[asctime, {levelname: level}]", "asctime, levelname"] {
        let (config, _) = load(WHOLE, &[("PATRONI_LOG_FORMAT", text), ("PATRONI_LOG_TYPE", "json")]);
        assert_eq!(config.log.format.map(|parts| parts.len()), Some(2), "{text}");
    }
    let (config, _) = load(WHOLE, &[("PATRONI_LOGFORMAT", "%(asctime)s: %(message)s")]);
    assert_eq!(config.log.format.map(|parts| parts.len()), Some(3));
}

/// Options that only the supervisor sets: with `dry-run` a data directory would count as rewound that is not.
#[test]
fn options_of_the_supervisor_are_refused() {
    let text = format!("{WHOLE}  rewind: [dry-run, --no-sync, debug]\n  basebackup: [{{pgdata: /x}}]\n");
    let faults = load_text(&text, &[]).expect_err("two faults").0;
    let said: Vec<&str> = faults.iter().map(|fault| fault.expected.as_str()).collect();
    let refused = ["remove `pgdata`: it is not yours to set", "remove `dry-run`: it is not yours to set"];
    assert_eq!(said, refused);
    let (config, _) = load(&format!("{WHOLE}  rewind: [--no-sync, debug]\n"), &[]);
    assert_eq!(config.postgresql.rewind_options, ["no-sync", "debug"]);
}

/// 0.0.0.0 would be published, and lead each member to itself.
#[test]
fn an_address_that_no_other_machine_can_mean_is_a_warning() {
    let warnings = |text: &str| load(text, &[]).1.len();
    let everywhere = WHOLE.replace("127.0.0.1:", "0.0.0.0:");
    assert_eq!((warnings(WHOLE), warnings(&everywhere)), (0, 2));
    let told = everywhere.replace("'0.0.0.0:8008'", "'0.0.0.0:8008', connect_address: 'a:8008'");
    assert_eq!(warnings(&format!("{told}  connect_address: a\n")), 0);
    let told = told.replace("'a:8008'", "'0.0.0.0:8008'");
    assert_eq!(warnings(&format!("{told}  connect_address: a\n")), 1);
    let tags = format!("{WHOLE}tags: {{nosync: true, sync_priority: 2}}\n");
    assert_eq!(warnings(&tags), 1);
}

/// `ttl` and the like have an effect in the dynamic configuration only.
#[test]
fn timings_in_the_members_own_file_are_unknown_keys() {
    let (config, warnings) = load(&format!("ttl: 5\nloop_wait: 1\nretry_timeout: 1\n{WHOLE}"), &[]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(effective(&config, None, 15).expect("good").settings.ttl.as_secs(), 10);
}

#[test]
fn a_url_of_etcd_may_have_a_login() {
    let text = WHOLE.replace("hosts: '10.0.0.1:2379,10.0.0.2'", "url: 'https://u:p@etcd:2379'");
    let (config, _) = load(&text, &[]);
    assert_eq!(config.etcd.endpoints, ["https://etcd:2379"]);
    assert_eq!(
        config.etcd.credentials.map(|who| (who.username, who.password)),
        Some(("u".into(), "p".into()))
    );
}

#[test]
fn a_number_of_segments_is_written_as_a_size() {
    let (config, _) = load(WHOLE, &[]);
    let kept = |json: &str, major| {
        let text = format!(r#"{{"postgresql": {{"parameters": {json}}}}}"#);
        let effective = effective(&config, Some(&text), major).expect("good");
        effective.parameters.get("wal_keep_size").cloned()
    };
    assert_eq!(kept(r#"{"wal_keep_segments": 10}"#, 15).as_deref(), Some("160MB"));
    assert_eq!(kept(r#"{"wal_keep_segments": 10, "wal_keep_size": "1GB"}"#, 15).as_deref(), Some("1GB"));
    assert_eq!(kept(r#"{"wal_keep_size": "1MB"}"#, 15).as_deref(), Some("128MB"));
}

/// `ctl` has the login for other members, and `restapi` in its place.
#[test]
fn members_call_each_other_with_the_login_of_ctl() {
    let login = |ctl: &str| {
        let rest = WHOLE.replace("restapi: {", "restapi: {authentication: {username: r, password: p}, ");
        let (config, warnings) = load(&format!("{rest}{ctl}"), &[]);
        (config.member_login().map(|login| login.username.clone()).unwrap_or_default(), warnings.len())
    };
    assert_eq!(login(""), ("r".to_owned(), 0));
    assert_eq!(login("ctl: {authentication: {username: c, password: p}}\n"), ("c".to_owned(), 0));
    assert_eq!(login("ctl: {auth: 'o:p'}\n"), ("o".to_owned(), 0));
    assert_eq!(login("ctl: {insecure: true}\n"), ("r".to_owned(), 0));
}

#[test]
fn etcd_is_named_by_dns_or_a_proxy() {
    let of = |etcd: &str| WHOLE.replace("hosts: '10.0.0.1:2379,10.0.0.2'", etcd);
    let (config, warnings) = load(&of("srv: example.org, srv_suffix: blue, use_proxies: true"), &[]);
    let srv = Some(("example.org".to_owned(), Some("blue".to_owned())));
    assert!(!config.etcd.with_announced);
    assert_eq!((config.etcd.srv, config.etcd.endpoints.len(), warnings.len()), (srv, 0, 0));
    let (config, warnings) = load(&of("discovery_srv: example.org, host: a"), &[]);
    assert!(config.etcd.with_announced);
    assert_eq!(config.etcd.srv, Some(("example.org".to_owned(), None)));
    assert_eq!((config.etcd.endpoints, warnings), (vec!["http://a:2379".to_owned()], Vec::new()));
    let (config, warnings) = load(&of("proxy: 'http://u:p@proxy:1', hosts: 'a:1', srv: example.org"), &[]);
    assert!(!config.etcd.with_announced);
    assert_eq!((config.etcd.srv, config.etcd.endpoints), (None, vec!["http://proxy:1".to_owned()]));
    assert_eq!(config.etcd.credentials.expect("in the URL").username, "u");
    let without =
        |key: &str| format!("4: etcd3.{key}; this key has no effect here: the proxy is the only endpoint");
    assert_eq!(warnings, [without("hosts: found `a:1`"), without("srv: found `example.org`")]);
    let faults = load_text(&of("srv_suffix: blue"), &[]).expect_err("no address").0;
    assert_eq!(lines_of(&faults), [(Some(4), "etcd3.hosts")]);
}

#[test]
fn ciphers_and_the_password_of_the_key_are_read() {
    let of = |rest: &str| WHOLE.replace("restapi: {", &format!("restapi: {{certfile: /c, {rest}"));
    let (config, warnings) = load(&of("keyfile_password: secret, ciphers: 'AESGCM+aRSA:AES256-SHA', "), &[]);
    let tls = config.restapi.tls.expect("it is on");
    let ciphers = ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"];
    assert_eq!(tls.ciphers.as_deref(), Some(&ciphers[..]));
    assert!(tls.keyfile_password == Some(KeyfilePassword("secret".to_owned())));
    assert!(!format!("{tls:?}").contains("secret"), "{tls:?}");
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("AES256-SHA is not spoken here; there are ECDHE-ECDSA-AES256"),
        "{warnings:?}"
    );
    let faults = load_text(&of("ciphers: AES256-SHA, "), &[]).expect_err("none is left").0;
    assert!(faults[0].to_string().contains("no cipher of TLS 1.2 is left: choose among ECDHE-ECDSA-AES256"));
    let (config, _) = load(&of(""), &[("PATRONI_CTL_KEYFILE_PASSWORD", "other")]);
    assert!(config.ctl.keyfile_password == Some(KeyfilePassword("other".to_owned())));
}

/// Every variable reaches its key: alone over a file it changes the configuration.
#[test]
fn every_variable_has_an_effect() {
    // The options of a login are not among what is logged of it.
    let shown = |environment: &[(&str, &str)]| {
        let config = load(WHOLE, environment).0;
        format!("{config:?} {:?}", config.postgresql.replication.options)
    };
    let without = shown(&[]);
    for (name, text) in [
        ("NAME", "other"),
        ("SCOPE", "other"),
        ("NAMESPACE", "/other"),
        ("LOG_LEVEL", "DEBUG"),
        ("LOGLEVEL", "DEBUG"),
        ("LOG_TYPE", "json"),
        ("RESTAPI_LISTEN", "127.0.0.1:7"),
        ("RESTAPI_CONNECT_ADDRESS", "127.0.0.1:7"),
        ("RESTAPI_ALLOWLIST", "10.0.0.0/8, 127.0.0.1"),
        ("RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "true"),
        ("RESTAPI_SERVER_TOKENS", "minimal"),
        ("RESTAPI_HTTP_EXTRA_HEADERS", "X-A: b"),
        ("CTL_INSECURE", "on"),
        ("CTL_CACERT", "/ca.pem"),
        ("POSTGRESQL_LISTEN", "127.0.0.1:7"),
        ("POSTGRESQL_CONNECT_ADDRESS", "127.0.0.1:7"),
        ("POSTGRESQL_PROXY_ADDRESS", "127.0.0.1:7"),
        ("POSTGRESQL_CONFIG_DIR", "/etc/other"),
        ("POSTGRESQL_DATA_DIR", "/other"),
        ("POSTGRESQL_PGPASS", "/other/pgpass"),
        ("POSTGRESQL_BIN_DIR", "/other/bin"),
        ("POSTGRESQL_BIN_INITDB", "other"),
        ("POSTGRESQL_BIN_PG_CONTROLDATA", "other"),
        ("POSTGRESQL_BIN_PG_BASEBACKUP", "other"),
        ("POSTGRESQL_BIN_POSTGRES", "other"),
        ("POSTGRESQL_BIN_PG_REWIND", "other"),
        ("SUPERUSER_USERNAME", "other"),
        ("REPLICATION_USERNAME", "other"),
        ("REPLICATION_SSLMODE", "verify-full"),
        ("REPLICATION_SSLROOTCERT", "/ca.pem"),
        ("REPLICATION_SSLCERT", "/c.pem"),
        ("REPLICATION_SSLKEY", "/k.pem"),
        ("REPLICATION_SSLCRL", "/crl.pem"),
        ("REPLICATION_SSLCRLDIR", "/crl"),
        ("REPLICATION_GSSENCMODE", "disable"),
        ("REPLICATION_CHANNEL_BINDING", "disable"),
        ("REPLICATION_SSLNEGOTIATION", "postgres"),
        ("ETCD3_HOSTS", "10.0.0.9:1, 10.0.0.8:1"),
        ("ETCD3_PROXY", "http://10.0.0.9:1"),
        ("ETCD3_PROTOCOL", "https"),
        ("ETCD3_CACERT", "/ca.pem"),
    ] {
        let variable = format!("PATRONI_{name}");
        assert_ne!(shown(&[(&variable, text)]), without, "{variable}");
    }
}

#[test]
fn how_a_dead_leader_is_replaced() {
    let local = load(WHOLE, &[]).0;
    let settings = |text: &str| effective(&local, Some(text), 15).map(|effective| effective.settings);
    let read = |text: &str| settings(text).map(|it| (it.failover, it.suspect_after.as_millis())).expect(text);
    assert_eq!(read("{}"), (FailoverBy::Recruit, 600));
    assert_eq!(read(r#"{"failover": "recruit", "suspect_after": 1.5}"#), (FailoverBy::Recruit, 1_500));
    assert_eq!(read(r#"{"failover": "lease", "suspect_after": "10ms"}"#), (FailoverBy::Lease, 300));
    assert_eq!(read(r#"{"suspect_after": 60}"#), (FailoverBy::Recruit, 2_000));
    for text in [r#"{"failover": "recruits"}"#, r#"{"failover": true}"#] {
        let fault = settings(text).expect_err(text).to_string();
        assert!(fault.contains("failover") && fault.contains("write lease or recruit"), "{fault}");
    }
}

#[test]
fn the_web_page_is_served_unless_it_is_switched_off() {
    let served = |rest: &str, variables: &[(&str, &str)]| {
        let text = WHOLE.replace("restapi: {", &format!("restapi: {{{rest}"));
        let (config, warnings) = load(&text, variables);
        assert!(warnings.is_empty(), "{warnings:?}");
        config.restapi.ui
    };
    assert!(served("", &[]) && served("ui: on, ", &[]));
    assert!(!served("ui: false, ", &[]) && !served("ui: true, ", &[("MATRIARCH_RESTAPI_UI", "off")]));
}
