//! `/config`: reading and changing the dynamic configuration.

use serde_json::{Map, Value};

use super::answer::HttpAnswer;
use super::{cluster, wire};
use crate::agent::{Handle, ParameterCheck};
use crate::config;
use crate::model::json_compact;

/// GET.
pub(super) async fn get(handle: &Handle) -> Result<Map<String, Value>, HttpAnswer> {
    let view = cluster::newest(handle).await.map_err(|error| HttpAnswer::unavailable(&error))?;
    wire::config_of(&view).ok_or_else(|| HttpAnswer::text(502, "the key config is missing or no object"))
}

/// PATCH: merges, and writes only if the key has not changed meanwhile. Without a key it changes the settings in force,
/// so that a pause in force can be ended.
pub(super) async fn patch(
    handle: &Handle,
    parameter_check: Option<&ParameterCheck>,
    change: Map<String, Value>,
) -> Result<WrittenConfig, HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let stored = wire::config_of(&view);
    let (lost, revision) = (stored.is_none(), view.config.as_ref().map_or(0, |key| key.mod_revision));
    let Some(before) = stored.or_else(|| in_force(handle)) else {
        return Err(HttpAnswer::text(503, "the key config is missing or no object"));
    };
    let mut config = before.clone();
    if merge(&mut config, change) || lost {
        usable(parameter_check, &before, &config).await?;
        write(handle, &config, Some(revision), 503).await?;
    }
    Ok(written(&before, config))
}

/// The configuration that the leader would restore.
fn in_force(handle: &Handle) -> Option<Map<String, Value>> {
    let status = handle.status();
    serde_json::from_str(&config::restored(status.config.as_deref()?, &status.settings.sync)).ok()
}

/// PUT: replaces the value, and returns the new one.
pub(super) async fn put(
    handle: &Handle,
    parameter_check: Option<&ParameterCheck>,
    config: Map<String, Value>,
) -> Result<WrittenConfig, HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let before = wire::config_of(&view);
    let known = before.clone().unwrap_or_default();
    if before.as_ref() != Some(&config) {
        usable(parameter_check, &known, &config).await?;
        write(handle, &config, None, 502).await?;
    }
    Ok(written(&known, config))
}

/// The value after a change.
pub(super) struct WrittenConfig {
    pub(super) config: Map<String, Value>,
    /// New keys without effect.
    pub(super) warnings: Vec<String>,
}

impl WrittenConfig {
    pub(super) fn answer(self) -> HttpAnswer {
        HttpAnswer::json(200, &Value::Object(self.config)).warn(&self.warnings)
    }
}

fn written(before: &Map<String, Value>, config: Map<String, Value>) -> WrittenConfig {
    let warnings = config::new_warnings(before, &config);
    WrittenConfig { warnings: warnings.iter().map(ToString::to_string).collect(), config }
}

/// Refuses a value that members could not use, with all faults.
async fn usable(
    parameter_check: Option<&ParameterCheck>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Result<(), HttpAnswer> {
    let refuse = |faults| HttpAnswer::text(400, format!("nothing was changed:\n{faults}"));
    config::refuse_faults(before, after).map_err(refuse)?;
    let Some(parameter_check) = parameter_check else { return Ok(()) };
    match parameter_check.faults(&config::new_parameters(before, after)).await {
        Ok(faults) if faults.is_empty() => Ok(()),
        Ok(faults) => Err(refuse(config::Faults(faults))),
        Err(why) => {
            tracing::warn!(
                why,
                "new parameters were accepted unchecked: could not check them against PostgreSQL"
            );
            Ok(())
        }
    }
}

async fn write(
    handle: &Handle,
    config: &Map<String, Value>,
    if_revision: Option<i64>,
    failed: u16,
) -> Result<(), HttpAnswer> {
    let text = json_compact(&Value::Object(config.clone()));
    match handle.write_config(text, if_revision).await {
        Ok(true) => {
            // The watch brings the change anyway; this is only faster.
            let _ = handle.wake().await;
            Ok(())
        }
        Ok(false) => Err(HttpAnswer::text(409, "the configuration was changed by somebody else: try again")),
        Err(error) => Err(HttpAnswer::text(failed, format!("the configuration was not written: {error}"))),
    }
}

/// Merges `change` into `config`, deeply; null deletes. A scalar with the same text is no change. True if anything
/// changed.
pub(super) fn merge(config: &mut Map<String, Value>, change: Map<String, Value>) -> bool {
    let mut changed = false;
    for (key, new) in change {
        changed |= match (config.get_mut(&key), new) {
            (None, Value::Null) => false,
            // Not swap_remove: readers compare the order of the other keys.
            (Some(_), Value::Null) => config.shift_remove(&key).is_some_and(|old| !old.is_null()),
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(old), new) if !new.is_object() && text(old) == text(&new) => false,
            (Some(old), new) => {
                *old = new;
                true
            }
            (None, new) => {
                config.insert(key, new);
                true
            }
        };
    }
    changed
}

/// The text of a scalar.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => unreachable!("{other} is no object"),
        }
    }

    #[test]
    fn objects_merge_deeply_and_null_deletes() {
        let before = json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": 2}, "use_slots": true}});
        let cases = [
            (json!({"ttl": 30}), false, before.clone()),
            (json!({"ttl": "30"}), false, before.clone()),
            (json!({"postgresql": {"use_slots": "True"}}), false, before.clone()),
            (json!({"absent": null}), false, before.clone()),
            (json!({"ttl": null}), true, json!({"postgresql": before["postgresql"]})),
            (
                json!({"postgresql": {"parameters": {"a": null, "c": 3}}}),
                true,
                json!({"ttl": 30, "postgresql": {"parameters": {"b": 2, "c": 3}, "use_slots": true}}),
            ),
            (json!({"ttl": {"x": 1}}), true, json!({"ttl": {"x": 1}, "postgresql": before["postgresql"]})),
            (json!({"postgresql": 1}), true, json!({"ttl": 30, "postgresql": 1})),
        ];
        for (change, expected_change, expected) in cases {
            let mut config = object(before.clone());
            assert_eq!(merge(&mut config, object(change.clone())), expected_change, "{change}");
            assert_eq!(Value::Object(config), expected, "{change}");
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0i64..5).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop::collection::vec(("[a-d]", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
        })
    }

    fn map() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::vec(("[a-d]", tree()), 0..4).prop_map(|pairs| pairs.into_iter().collect())
    }

    proptest! {
        #[test]
        fn merging_twice_changes_nothing_more(mut config in map(), change in map()) {
            merge(&mut config, change.clone());
            let once = config.clone();
            prop_assert!(!merge(&mut config, change));
            prop_assert_eq!(config, once);
        }

        #[test]
        fn a_merge_reports_a_change_only_if_there_is_one(mut config in map(), change in map()) {
            let before = config.clone();
            let changed = merge(&mut config, change);
            prop_assert_eq!(changed, config != before);
        }

        #[test]
        fn null_deletes_any_value(mut config in map(), key in "[a-d]") {
            merge(&mut config, Map::from_iter([(key.clone(), Value::Null)]));
            prop_assert!(!config.contains_key(&key));
        }

        #[test]
        fn untouched_keys_keep_their_order(mut config in map(), change in map()) {
            let kept = |map: &Map<String, Value>| -> Vec<String> {
                map.keys().filter(|key| !change.contains_key(*key)).cloned().collect()
            };
            let before = kept(&config);
            merge(&mut config, change.clone());
            prop_assert_eq!(kept(&config), before);
        }
    }
}
