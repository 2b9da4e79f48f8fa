//! A dynamic configuration with faults. A write of one is refused. When one is read, each faulty key keeps its last
//! valid value, and all other keys are in force.

use serde_json::{Map, Value as Json};

use super::dynamic;
use super::fault::{Fault, Faults, ValueOrigin};
use super::given::new_parameters;
use super::guc;
use super::reader::ConfigFindings;
use super::standby_cluster;
use super::synchronous::SYNC_MODE;
use super::tree::Node;
use crate::model::{SyncMode, SyncSettings};

/// The usable part of a new text, completed by the previous one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// A text without faults.
    pub text: String,
    /// Warnings for the operator: each refused key, with the value in force.
    pub warnings: Vec<String>,
    /// Whether the text decides about the synchronous mode; it does so even without the key.
    pub says_mode: bool,
}

/// Takes over the JSON `text` of the key `config` as far as it is valid. An invalid value is replaced by the value in
/// `before`, or by the default. If `text` is unusable, `before` stays as a whole.
pub fn mended(text: &str, before: &str) -> Mended {
    let before = object(before).unwrap_or_default();
    let Some(mut config) = object(text) else {
        let warning = Fault::general(
            "config",
            "it is no JSON object",
            "write one with `edit-config`; the one before stays in force",
        );
        let text = Json::Object(before).to_string();
        return Mended { text, warnings: vec![warning.to_string()], says_mode: false };
    };
    let found = faults(&config);
    if found.is_empty() {
        return Mended { text: text.to_owned(), warnings: Vec::new(), says_mode: true };
    }
    let mut warnings = Vec::new();
    for fault in &found {
        let stays = put_back(&mut config, &before, &fault.key);
        let stays = stays.map_or_else(|| "the default".to_owned(), |value| format!("`{value}`"));
        warnings.push(format!("{fault}; {stays} is in force"));
    }
    // The previous text has no faults, unless its saved copy was edited.
    for fault in faults(&config) {
        put_back(&mut config, &Map::new(), &fault.key);
    }
    let says_mode = found.iter().all(|fault| fault.key != SYNC_MODE);
    Mended { text: Json::Object(config).to_string(), warnings, says_mode }
}

/// To be called before `after` replaces `before`.
///
/// # Errors
/// All faults of `after` that `before` does not have: existing faults do not prevent a change elsewhere.
pub fn refuse_faults(before: &Map<String, Json>, after: &Map<String, Json>) -> Result<(), Faults> {
    let known = faults(before);
    let new = faults(after).into_iter().filter(|fault| !known.contains(fault));
    // When it is read, a bad value there leaves the section in force, without a source.
    let of_standby_cluster = new_warnings(before, after).into_iter().filter(standby_cluster::is_bad_value);
    let new: Vec<Fault> =
        new.chain(of_standby_cluster).chain(guc::faults(&new_parameters(before, after))).collect();
    if new.is_empty() { Ok(()) } else { Err(Faults(new)) }
}

/// Warnings about keys of `after` without the expected effect, unless `before` has the same ones.
pub fn new_warnings(before: &Map<String, Json>, after: &Map<String, Json>) -> Vec<Fault> {
    let known = findings(before).warnings;
    findings(after).warnings.into_iter().filter(|warning| !known.contains(warning)).collect()
}

/// The text to write when the key `config` is gone: the settings in force. They include the synchronous mode, which may
/// come from the key `sync` alone.
pub fn restored(text: &str, sync: &SyncSettings) -> String {
    let mut config = object(text).unwrap_or_default();
    if sync.mode != SyncMode::Off && dynamic::sync_settings(text).mode == SyncMode::Off {
        let mode = match sync.mode {
            SyncMode::Quorum => Json::from("quorum"),
            SyncMode::On | SyncMode::Off => Json::from(true),
        };
        config.insert(SYNC_MODE.to_owned(), mode);
        config.insert("synchronous_node_count".to_owned(), Json::from(sync.node_count));
        return Json::Object(config).to_string();
    }
    text.to_owned()
}

fn object(text: &str) -> Option<Map<String, Json>> {
    match serde_json::from_str(text) {
        Ok(Json::Object(config)) => Some(config),
        Ok(_) | Err(_) => None,
    }
}

fn faults(config: &Map<String, Json>) -> Vec<Fault> {
    findings(config).faults
}

fn findings(config: &Map<String, Json>) -> ConfigFindings {
    let origin = ValueOrigin { source: "config".to_owned(), line: None };
    let mut findings = ConfigFindings::default();
    dynamic::read(&Node::from_json(&Json::Object(config.clone()), &origin), &mut findings);
    findings
}

/// Replaces the value under the dotted `key` by that of `before`, and returns it. A key may contain dots itself.
fn put_back<'a>(
    config: &mut Map<String, Json>,
    before: &'a Map<String, Json>,
    key: &str,
) -> Option<&'a Json> {
    if config.contains_key(key) {
        match before.get(key) {
            Some(value) => drop(config.insert(key.to_owned(), value.clone())),
            None => drop(config.shift_remove(key)),
        }
        return before.get(key);
    }
    let (first, rest) = key.split_once('.')?;
    let section = config.get_mut(first)?.as_object_mut()?;
    match before.get(first) {
        Some(Json::Object(before)) => put_back(section, before, rest),
        Some(_) | None => {
            put_back(section, &Map::new(), rest);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Json) -> Map<String, Json> {
        match value {
            Json::Object(map) => map,
            other => unreachable!("{other} is no object"),
        }
    }

    #[test]
    fn an_invalid_key_does_not_affect_other_keys() {
        let before = json!({"synchronous_mode": "quorum", "loop_wait": 7, "maximum_lag_on_failover": 5,
            "postgresql": {"use_slots": false, "parameters": {"a.b": "1"}}});
        let text = json!({"synchronous_mode": [], "loop_wait": "abc", "ttl": {}, "synchronous_node_count": 2,
            "maximum_lag_on_failover": "much", "postgresql": {"use_slots": 3, "parameters": {"a.b": {}, "c": [1]}}});
        let taken = mended(&text.to_string(), &before.to_string());
        let expected = json!({"synchronous_mode": "quorum", "loop_wait": 7, "synchronous_node_count": 2,
            "maximum_lag_on_failover": 5, "postgresql": {"use_slots": false, "parameters": {"a.b": "1"}}});
        assert_eq!(serde_json::from_str::<Json>(&taken.text).expect("JSON"), expected);
        assert!(!taken.says_mode);
        assert_eq!(taken.warnings.len(), 7, "{:?}", taken.warnings);
        let said = taken.warnings.join("\n");
        for part in
            ["loop_wait: found `abc`; write a number of seconds", "`7` is in force", "ttl: found a section"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn a_patch_that_is_not_an_object_changes_nothing() {
        let before = r#"{"synchronous_mode":"on"}"#;
        for text in ["[]", "{", "", "7"] {
            let taken = mended(text, before);
            assert_eq!(
                (taken.text.as_str(), taken.says_mode, taken.warnings.len()),
                (before, false, 1),
                "{text}"
            );
        }
        let section = mended(r#"{"postgresql":[],"ttl":5}"#, r#"{"postgresql":{"use_slots":false}}"#);
        assert_eq!(section.text, r#"{"postgresql":{"use_slots":false},"ttl":5}"#);
        assert!(section.says_mode);
    }

    #[test]
    fn faults_of_the_saved_copy_are_not_applied() {
        let taken = mended(r#"{"ttl":"long"}"#, r#"{"ttl":"longer"}"#);
        assert_eq!(taken.text, "{}");
    }

    #[test]
    fn a_valid_text_is_applied_unchanged_and_decides_the_mode() {
        for text in [r#"{ "ttl": 1 , "unknown": 3}"#, "{}", r#"{"synchronous_mode":null}"#] {
            let taken = mended(text, r#"{"synchronous_mode":"on"}"#);
            assert_eq!((taken.text.as_str(), taken.says_mode, taken.warnings.len()), (text, true, 0));
        }
    }

    #[test]
    fn new_faults_are_refused_together_and_old_ones_accepted() {
        let before = map(json!({"ttl": "long"}));
        let refused = refuse_faults(&before, &map(json!({"ttl": "long", "loop_wait": "abc", "pause": "x"})));
        let said = refused.expect_err("two faults").to_string();
        assert!(
            said.contains("loop_wait: found `abc`; write") && said.contains("pause: found `x`"),
            "{said}"
        );
        assert!(!said.contains("ttl"), "{said}");
        assert_eq!(refuse_faults(&before, &map(json!({"ttl": "long", "pause": true, "other": {}}))), Ok(()));
        let parameters = json!({"Max_connections": 24, "wal_level": "minimal", "max_wal_senders": 5, "a": 1});
        let refused = refuse_faults(&before, &map(json!({"postgresql": {"parameters": parameters}})));
        let expected =
            "config: postgresql.parameters.Max_connections: found `24`; write a number from 25 to 262143
config: postgresql.parameters.wal_level: found `minimal`; write one of replica, hot_standby, logical";
        assert_eq!(refused.expect_err("two faults").to_string(), expected);
    }

    #[test]
    fn a_bad_value_of_a_standby_cluster_is_refused_and_leaves_it_in_force() {
        let text = json!({"standby_cluster": {"host": "a", "port": "much", "hots": "b"}});
        let refused = refuse_faults(&Map::new(), &map(text.clone())).expect_err("one fault").0;
        let keys: Vec<&str> = refused.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["standby_cluster.port"]);
        assert_eq!(refuse_faults(&map(text.clone()), &map(text.clone())), Ok(()), "it was there before");
        assert_eq!(mended(&text.to_string(), "{}").text, text.to_string());
    }

    #[test]
    fn ineffective_settings_are_reported_once() {
        let before = map(json!({"ignore_slots": [{"name": "a"}]}));
        let said = |after: Json| -> Vec<String> {
            new_warnings(&before, &map(after)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(said(json!({"ignore_slots": [{"name": "a"}], "slots": {}, "ttl": 5})), [""; 0]);
        let postgresql =
            json!({"callbacks": {"on_start": "/x"}, "parameters": {"Port": 1, "work_mem": "4MB"}});
        let news = said(json!({"ignore_slots": [{"name": "a"}], "postgresql": postgresql, "tll": 5}));
        let expected = [
            "config: postgresql.parameters.Port: found `1`; Matriarch sets this parameter itself: this one has no \
             effect",
            "config: postgresql.callbacks: found a section; this key has no effect here: write it in each member's own \
             file",
            "config: tll: is not known; did you mean `ttl`?",
        ];
        assert_eq!(news, expected);
    }

    #[test]
    fn restored_values_do_not_release_the_mode_in_force() {
        let sync = SyncSettings { mode: SyncMode::Quorum, node_count: 2, ..SyncSettings::default() };
        let text = restored(r#"{"ttl":5}"#, &sync);
        assert_eq!(text, r#"{"ttl":5,"synchronous_mode":"quorum","synchronous_node_count":2}"#);
        assert_eq!(restored(&text, &sync), text);
        assert_eq!(restored("{}", &SyncSettings::default()), "{}");
    }
}
