//! Every key of a cluster, as text and as values. Pure.
//!
//! Writers produce compact JSON with every non-ASCII character as `\uXXXX`. Readers take any JSON; a member, status,
//! history or failover key that cannot be read never hides the rest of the cluster.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::model::{
    ClusterStatus, ClusterView, ConfigKey, FailoverKey, FailoverRequest, FailsafeKey, GenerationKey,
    HistoryLine, LeaderKey, LeaseId, Lsn, MemberKey, MemberName, MemberRecord, RecruitKey, StoreGeneration,
    SyncKey, SyncRecord, Term, Timeline, TimelineClaim, UnfencedKey, UnfencedPrimary, WallTime,
};

/// The paths of one cluster's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    base: String,
}

/// The value of a key is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {key} is corrupt: {because}")]
pub struct CorruptKey {
    /// Its full path.
    pub key: String,
    /// The error.
    pub because: String,
}

/// One key as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Its bytes.
    pub value: Vec<u8>,
    /// Its lease; 0 for none.
    pub lease: i64,
    /// The revision of its last write.
    pub mod_revision: i64,
    /// The revision of its first write since it was last absent.
    pub create_revision: i64,
}

impl Keys {
    /// `base` is `/NAMESPACE/SCOPE`; runs of slashes count as one, the last one may be missing.
    pub fn new(base: &str) -> Keys {
        let parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
        Keys { base: format!("/{}/", parts.join("/")) }
    }

    /// The prefix of every key, `/NAMESPACE/SCOPE/`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The path of a key by its short name, such as `leader`.
    pub fn path(&self, name: &str) -> String {
        [self.base.as_str(), name].concat()
    }

    /// The path of a member's key.
    pub fn member(&self, name: &MemberName) -> String {
        format!("{}members/{name}", self.base)
    }

    /// The attempt in the text of the key `recruit`. An invalid value is none: no member promises anything to it.
    pub fn recruit(text: &str, attempt: i64) -> Option<RecruitKey> {
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let candidate = MemberName::new(fields.get("candidate")?.as_str()?).ok()?;
        Some(RecruitKey { candidate, term: Term(fields.get("term")?.as_i64()?), attempt })
    }

    /// Builds the view from the keys under the prefix, by full path, as a list showed them at `revision`.
    ///
    /// # Errors
    /// [`CorruptKey`] when the leader key has no valid name: then the leader is unknown.
    pub fn view(
        &self,
        stored: &BTreeMap<String, StoredKey>,
        revision: i64,
    ) -> Result<ClusterView, CorruptKey> {
        let mut view = ClusterView { revision, listed: revision, ..ClusterView::default() };
        let mut legacy_optime = None;
        for (path, key) in stored {
            let Some(name) = path.strip_prefix(&self.base) else { continue };
            let text = String::from_utf8_lossy(&key.value);
            match name {
                "leader" => {
                    view.leader = Some(leader(path, &text, key)?);
                    view.leader_created = Some(key.create_revision);
                }
                "initialize" => {
                    (view.initialize, view.initialize_lease) = (Some(text.into_owned()), lease(key.lease));
                }
                "config" => view.config = config(&text, key.mod_revision),
                "status" => view.status = Some(status(&text)),
                "optime/leader" => legacy_optime = text.trim().parse().ok().map(Lsn),
                "history" => view.history = history(&text),
                "generation" => view.generation = generation(&text, key.mod_revision),
                "failover" => view.failover = failover_key(&text, key.mod_revision),
                "failsafe" => view.failsafe = Some(failsafe(&text, key.mod_revision)),
                "recruit" => view.recruit = Keys::recruit(&text, key.mod_revision),
                "timeline" => view.timeline_claim = timeline_claim(&text, key.mod_revision),
                "unfenced" => {
                    view.unfenced =
                        Some(UnfencedKey { primaries: unfenced(&text), mod_revision: key.mod_revision });
                }
                "sync" => view.sync = Some(SyncKey { record: sync(&text), mod_revision: key.mod_revision }),
                other => {
                    let member = other.strip_prefix("members/").map(MemberName::new);
                    if let Some(Ok(name)) = member {
                        view.members.insert(
                            name,
                            MemberKey { record: member_record(&text), lease: lease(key.lease) },
                        );
                    }
                }
            }
        }
        if view.status.is_none() && legacy_optime.is_some() {
            view.status = Some(ClusterStatus { optime: legacy_optime, ..ClusterStatus::default() });
        }
        Ok(view)
    }
}

fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

fn leader(path: &str, text: &str, key: &StoredKey) -> Result<LeaderKey, CorruptKey> {
    let corrupt =
        |error: crate::model::NameError| CorruptKey { key: path.to_owned(), because: error.to_string() };
    let name = MemberName::new(text).map_err(corrupt)?;
    Ok(LeaderKey { name, lease: lease(key.lease), term: Term(key.mod_revision) })
}

pub(super) fn timeline_claim(text: &str, mod_revision: i64) -> Option<TimelineClaim> {
    let timeline = Timeline(text.trim().parse().ok()?);
    Some(TimelineClaim { timeline, mod_revision })
}

/// A value that is no object counts as no configuration, so that the leader restores it.
fn config(text: &str, mod_revision: i64) -> Option<ConfigKey> {
    is_object(text).then(|| ConfigKey { text: text.to_owned(), mod_revision })
}

/// True for the text of a JSON object.
pub(super) fn is_object(text: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

fn member_record(text: &str) -> MemberRecord {
    let record = sound_record(text);
    let conn_url = record.conn_url.clone().or_else(|| conn_url_of_parts(text));
    MemberRecord { conn_url, ..record }
}

/// The other form of `conn_url`: `conn_kwargs` with `host` and `port`.
fn conn_url_of_parts(text: &str) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
    let parts = fields.get("conn_kwargs")?;
    let host = parts.get("host")?.as_str()?;
    let port = parts.get("port").map_or(Some(5432), number)?;
    Some(if host.contains(':') {
        format!("postgres://[{host}]:{port}")
    } else {
        format!("postgres://{host}:{port}")
    })
}

fn sound_record(text: &str) -> MemberRecord {
    if let Ok(record) = serde_json::from_str(text) {
        return record;
    }
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ if text.starts_with("postgres") => legacy_member(text),
        _ => Map::new(),
    };
    // Every field that is valid by itself is kept.
    let sound = |(name, value): &(String, Value)| {
        serde_json::from_value::<MemberRecord>(json!({ name.as_str(): value })).is_ok()
    };
    let sound: Map<String, Value> = fields.into_iter().filter(sound).collect();
    serde_json::from_value(Value::Object(sound)).expect("every field has a default")
}

/// The form before JSON: the connection URL, with the API's URL as its application name.
fn legacy_member(text: &str) -> Map<String, Value> {
    let (conn_url, query) = text.split_once('?').unwrap_or((text, ""));
    let api_url = query.split('&').find_map(|part| part.strip_prefix("application_name="));
    let mut fields = Map::from_iter([("conn_url".to_owned(), json!(conn_url))]);
    fields.extend(api_url.map(|url| ("api_url".to_owned(), json!(url))));
    fields
}

fn status(text: &str) -> ClusterStatus {
    let inner = |value: &Value| match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        other => other.clone(),
    };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => ClusterStatus {
            optime: fields.get("optime").and_then(number).map(Lsn),
            timeline: fields.get("timeline").and_then(|value| serde_json::from_value(value.clone()).ok()),
            slots: fields.get("slots").map(inner).and_then(|slots| {
                let slots = slots.as_object()?.iter();
                Some(slots.filter_map(|(name, lsn)| Some((name.clone(), Lsn(number(lsn)?)))).collect())
            }),
            retain_slots: fields
                .get("retain_slots")
                .map(inner)
                .and_then(|names| serde_json::from_value(names).ok()),
        },
        Ok(value) => ClusterStatus { optime: number(&value).map(Lsn), ..ClusterStatus::default() },
        Err(_) => ClusterStatus::default(),
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn history(text: &str) -> Option<Vec<HistoryLine>> {
    let lines: Vec<Vec<Value>> = serde_json::from_str(text).ok()?;
    lines.iter().map(|line| history_line(line)).collect()
}

fn history_line(line: &[Value]) -> Option<HistoryLine> {
    let word = |index: usize| line.get(index).and_then(Value::as_str).map(str::to_owned);
    Some(HistoryLine {
        parent: Timeline(line.first()?.as_u64()?.try_into().ok()?),
        lsn: Lsn(number(line.get(1)?)?),
        reason: word(2)?,
        at: word(3),
        promoted: word(4),
    })
}

/// An invalid value gives a record that is not in force.
fn sync(text: &str) -> SyncRecord {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return SyncRecord::default() };
    let name = |text: &str| MemberName::new(text.trim()).ok();
    let word = |key: &str| fields.get(key).and_then(Value::as_str);
    let standbys = word("sync_standby").unwrap_or_default().split(',');
    SyncRecord {
        leader: word("leader").and_then(name),
        quorum: fields.get("quorum").and_then(number).unwrap_or_default() as usize,
        voters: standbys.filter_map(name).collect(),
    }
}

/// What cannot be read names nobody.
fn failsafe(text: &str, mod_revision: i64) -> FailsafeKey {
    let fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let member = |(name, url): (String, Value)| {
        Some((MemberName::new(name).ok()?, url.as_str().unwrap_or_default().to_owned()))
    };
    FailsafeKey { members: fields.into_iter().filter_map(member).collect(), mod_revision }
}

/// The text of the key `recruit`.
pub(super) fn recruit_text(candidate: &MemberName, term: Term) -> String {
    compact(&json!({ "candidate": candidate, "term": term.0 }))
}

/// An invalid value is an unconfirmed generation.
fn generation(text: &str, mod_revision: i64) -> Option<GenerationKey> {
    let unread = || StoreGeneration { ids: vec![text.to_owned()], ..StoreGeneration::default() };
    Some(GenerationKey { record: serde_json::from_str(text).unwrap_or_else(|_| unread()), mod_revision })
}

/// The text of the key `sync`.
pub(super) fn sync_text(record: &SyncRecord) -> String {
    let voters: Vec<&str> = record.voters.iter().map(MemberName::as_str).collect();
    let standbys = (!voters.is_empty()).then(|| voters.join(","));
    let leader = record.leader.as_ref().map(MemberName::as_str);
    compact(&json!({ "leader": leader, "quorum": record.quorum, "sync_standby": standbys }))
}

/// An invalid entry still names its member.
fn unfenced(text: &str) -> BTreeMap<MemberName, UnfencedPrimary> {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return BTreeMap::new() };
    let entry = |(name, left): (String, Value)| {
        Some((MemberName::new(name).ok()?, serde_json::from_value(left).unwrap_or_default()))
    };
    fields.into_iter().filter_map(entry).collect()
}

/// The request in the text of the key `failover`; `None` for an empty one.
pub fn failover_key(text: &str, mod_revision: i64) -> Option<FailoverKey> {
    let name = |text: &str| MemberName::new(text).ok();
    let request = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => FailoverRequest {
            leader: fields.get("leader").and_then(Value::as_str).and_then(name),
            candidate: fields.get("member").and_then(Value::as_str).and_then(name),
            scheduled_at: fields.get("scheduled_at").and_then(Value::as_str).and_then(wall_time),
            confirmed_down: fields.get("confirmed_down").map(names).unwrap_or_default(),
            rebuild: fields.get("rebuild").and_then(Value::as_bool).unwrap_or_default(),
            requested_by: fields.get("requested_by").and_then(Value::as_str).and_then(FailoverRequest::asker),
        },
        Ok(_) => FailoverRequest::default(),
        Err(_) => {
            let (leader, candidate) = text.split_once(':').unwrap_or((text, ""));
            FailoverRequest { leader: name(leader), candidate: name(candidate), ..FailoverRequest::default() }
        }
    };
    let nothing =
        FailoverRequest { requested_by: request.requested_by.clone(), ..FailoverRequest::default() };
    (request != nothing).then_some(FailoverKey { request, mod_revision })
}

fn names(list: &Value) -> Vec<MemberName> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| MemberName::new(text).ok()).collect()
}

fn wall_time(text: &str) -> Option<WallTime> {
    Some(WallTime(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()))
}

/// The text of the key `failover`.
pub(super) fn failover_text(request: Option<&FailoverRequest>) -> String {
    let mut fields = Map::new();
    if let Some(request) = request {
        let FailoverRequest { leader, candidate, scheduled_at, confirmed_down, rebuild, requested_by } =
            request;
        fields.extend(leader.as_ref().map(|name| ("leader".to_owned(), json!(name))));
        fields.extend(candidate.as_ref().map(|name| ("member".to_owned(), json!(name))));
        let at = scheduled_at.and_then(|at| jiff::Timestamp::from_millisecond(at.0).ok());
        let text = at.map(|at| json!(at.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()));
        fields.extend(text.map(|text| ("scheduled_at".to_owned(), text)));
        let down = (!confirmed_down.is_empty()).then(|| json!(confirmed_down));
        fields.extend(down.map(|names| ("confirmed_down".to_owned(), names)));
        fields.extend(rebuild.then(|| ("rebuild".to_owned(), json!(true))));
        fields.extend(requested_by.as_ref().map(|who| ("requested_by".to_owned(), json!(who))));
    }
    compact(&fields)
}

/// The text of the key `history`.
pub(super) fn history_text(lines: &[HistoryLine]) -> String {
    let line = |line: &HistoryLine| {
        let mut parts = vec![json!(line.parent), json!(line.lsn), json!(line.reason)];
        parts.extend(line.at.as_ref().map(|at| json!(at)));
        // The fifth element has its meaning from its place, so it needs the fourth.
        parts.extend(line.at.as_ref().and(line.promoted.as_ref()).map(|name| json!(name)));
        parts
    };
    compact(&lines.iter().map(line).collect::<Vec<_>>())
}

/// Compact JSON in ASCII.
pub(super) fn compact(value: &impl Serialize) -> String {
    ascii(&serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned()))
}

/// The same JSON with every character beyond printable ASCII escaped; such characters occur in strings only.
pub(super) fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
