//! The tags of a member: they limit the roles that it may take.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::MemberName;

/// The tags as configured. Known tags are read through methods; all others are published unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub Map<String, Value>);

impl Tags {
    /// It never becomes leader: `nofailover`, or a `failover_priority` of zero or less unless `nofailover` is false.
    pub fn nofailover(&self) -> bool {
        match self.0.get("nofailover") {
            Some(value) => truthy(value),
            None => self.priority_tag().is_some_and(|priority| priority <= 0),
        }
    }

    /// Of equally advanced candidates the one with the higher priority wins. Zero for a member that must not lead.
    pub fn failover_priority(&self) -> i64 {
        if self.nofailover() { 0 } else { self.priority_tag().unwrap_or(1).max(1) }
    }

    /// A preferred source of base backups.
    pub fn clonefrom(&self) -> bool {
        self.flag("clonefrom")
    }

    /// Preference among synchronous standbys, the higher the better; `None`: it never is one (`nosync`, or a
    /// `sync_priority` of zero or less).
    pub fn sync_priority(&self) -> Option<i64> {
        let priority = number(self.0.get("sync_priority"));
        let nosync = match self.0.get("nosync") {
            Some(value) => truthy(value),
            None => priority.is_some_and(|priority| priority <= 0),
        };
        (!nosync).then(|| priority.unwrap_or(1).max(1))
    }

    /// Not to be used for read-only traffic.
    pub fn noloadbalance(&self) -> bool {
        self.flag("noloadbalance")
    }

    /// It takes its WAL from the archive only: no streaming and no slot.
    pub fn nostream(&self) -> bool {
        self.flag("nostream")
    }

    /// The member this one cascades from.
    pub fn replicatefrom(&self) -> Option<MemberName> {
        let name = self.0.get("replicatefrom")?.as_str()?;
        MemberName::new(name).ok()
    }

    /// The tags as published. Known booleans that are false are left out, except `nofailover` beside a
    /// `failover_priority` and `nosync` beside a `sync_priority`.
    pub fn published(&self) -> Tags {
        let keep = |key: &str, value: &Value| match key {
            "nofailover" => truthy(value) || self.0.contains_key("failover_priority"),
            "nosync" => truthy(value) || self.0.contains_key("sync_priority"),
            "clonefrom" | "noloadbalance" | "nostream" => truthy(value),
            _ => true,
        };
        let kept = self.0.iter().filter(|(key, value)| keep(key, value));
        Tags(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The published tags of a standby that is about to stop.
    pub fn never_synchronous(&self) -> Tags {
        let mut tags = self.published();
        tags.0.insert("nosync".to_owned(), Value::Bool(true));
        tags.0.insert("sync_priority".to_owned(), Value::from(0));
        tags
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(truthy)
    }

    fn priority_tag(&self) -> Option<i64> {
        number(self.0.get("failover_priority"))
    }
}

fn number(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Patroni's reading of a boolean: on, true, yes, 1.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(value: Value) -> Tags {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn explicit_nofailover_wins_over_the_priority() {
        assert!(tags(json!({"failover_priority": 0})).nofailover());
        assert!(!tags(json!({"failover_priority": 0, "nofailover": false})).nofailover());
        assert!(tags(json!({"failover_priority": 5, "nofailover": "on"})).nofailover());
        assert_eq!(tags(json!({"failover_priority": "7"})).failover_priority(), 7);
        assert_eq!(tags(json!({})).failover_priority(), 1);
    }

    #[test]
    fn publishes_without_the_booleans_that_are_off() {
        let all = tags(json!({"clonefrom": false, "nofailover": false, "dc": "a", "nostream": true}));
        assert_eq!(all.published(), tags(json!({"dc": "a", "nostream": true})));
        let with_priority = tags(json!({"nofailover": false, "failover_priority": 2}));
        assert_eq!(with_priority.published(), with_priority);
    }
}
