//! A whole cluster: etcd, members, and waits for states that they show.

use std::time::Duration;

use serde_json::{Value, json};

use super::member::merge;
use super::{Etcd, Member, Place, logs, query, until};

/// Long enough for a bootstrap or a clone on a busy machine of two cores.
pub(crate) const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The configuration of a cluster to build.
pub(crate) struct Plan {
    etcd: usize,
    etcd_quota: Option<u64>,
    dynamic: Value,
    all: Value,
    each: Vec<Value>,
}

impl Plan {
    /// That many members named `m1`, `m2`, …; one etcd; a short TTL.
    pub(crate) fn new(members: usize) -> Plan {
        let dynamic = json!({
            "ttl": 5, "loop_wait": 2, "retry_timeout": 3, "postgresql": { "use_pg_rewind": true },
        });
        Plan { etcd: 1, etcd_quota: None, dynamic, all: json!({}), each: vec![json!({}); members] }
    }

    /// With that many etcd servers.
    pub(crate) fn etcd(mut self, size: usize) -> Plan {
        self.etcd = size;
        self
    }

    /// The limit of etcd's database, in bytes.
    pub(crate) fn etcd_quota(mut self, bytes: u64) -> Plan {
        self.etcd_quota = Some(bytes);
        self
    }

    /// Merged into `bootstrap.dcs`.
    pub(crate) fn dynamic(mut self, over: Value) -> Plan {
        merge(&mut self.dynamic, &over);
        self
    }

    /// Merged into every member's configuration.
    pub(crate) fn all(mut self, over: Value) -> Plan {
        merge(&mut self.all, &over);
        self
    }

    /// Merged into one member's configuration, counted from zero.
    pub(crate) fn member(mut self, index: usize, over: Value) -> Plan {
        merge(&mut self.each[index], &over);
        self
    }

    /// Starts etcd and prepares the members; none is started.
    pub(crate) async fn prepare(self) -> Cluster {
        let place = Place::new();
        let etcd = Etcd::start_within(&place, self.etcd, self.etcd_quota).await;
        let mut settings = json!({
            "scope": "herd",
            "etcd3": { "hosts": etcd.hosts() },
            "bootstrap": {
                "dcs": self.dynamic,
                "initdb": [{ "encoding": "UTF8" }, "data-checksums", "no-sync"],
                "wait_for_members": 0,
            },
        });
        merge(&mut settings, &self.all);
        let members = self
            .each
            .iter()
            .enumerate()
            .map(|(index, over)| Member::prepare(&place, &format!("m{}", index + 1), &settings, over))
            .collect();
        Cluster { members, etcd, settings, first_timeline: 0, place }
    }

    /// Starts everything, `m1` first, so that it leads; waits until all are healthy.
    pub(crate) async fn start(self) -> Cluster {
        let mut cluster = self.prepare().await;
        cluster.start().await;
        cluster
    }
}

/// A cluster under test.
pub(crate) struct Cluster {
    /// In order of their names.
    pub(crate) members: Vec<Member>,
    /// Its etcd.
    pub(crate) etcd: Etcd,
    /// The common part of every member's configuration.
    pub(crate) settings: Value,
    /// The leader's timeline when all were healthy for the first time.
    pub(crate) first_timeline: i64,
    /// The last field, so that it is dropped last.
    pub(crate) place: Place,
}

/// The content of a member's `/cluster`.
#[derive(Clone, Debug)]
pub(crate) struct Seen(pub(crate) Value);

impl Seen {
    /// All members.
    pub(crate) fn members(&self) -> &[Value] {
        self.0["members"].as_array().map_or(&[], Vec::as_slice)
    }

    /// One member; `Null` when it does not exist.
    pub(crate) fn member(&self, name: &str) -> &Value {
        self.members().iter().find(|member| member["name"] == name).unwrap_or(&Value::Null)
    }

    /// Name of the running leader.
    pub(crate) fn leader(&self) -> Option<&str> {
        let leader = self.members().iter().find(|member| member["role"] == "leader")?;
        (leader["state"] == "running").then(|| leader["name"].as_str()).flatten()
    }

    /// The leader's timeline; zero when there is no leader.
    pub(crate) fn timeline(&self) -> i64 {
        self.leader().and_then(|leader| self.member(leader)["timeline"].as_i64()).unwrap_or(0)
    }

    /// Whether this member streams on the leader's timeline.
    pub(crate) fn streams(&self, name: &str) -> bool {
        let timeline = self.leader().map(|leader| &self.member(leader)["timeline"]);
        let member = self.member(name);
        member["state"] == "streaming" && Some(&member["timeline"]) == timeline
    }

    /// Whether there is a running leader and `size - 1` others that stream from it.
    pub(crate) fn is_well(&self, size: usize) -> bool {
        let streaming = self.members().iter().filter_map(|member| member["name"].as_str());
        self.leader().is_some()
            && self.members().len() == size
            && streaming.filter(|name| self.streams(name)).count() == size - 1
    }
}

impl Cluster {
    /// Starts all members, `m1` first, so that it leads; waits until all are healthy.
    pub(crate) async fn start(&mut self) {
        self.members[0].start();
        self.wait_for(STARTS_WITHIN, "m1 leads", |seen| seen.leader() == Some("m1")).await;
        for member in &mut self.members[1..] {
            member.start();
        }
        self.first_timeline = self.wait_until_well().await.timeline();
    }

    /// The state that the cluster shows: the first member's answer that contains one.
    pub(crate) async fn seen(&self) -> Option<Seen> {
        for member in &self.members {
            if let Some(answer) = member.get("/cluster").await
                && answer.status == 200
            {
                return Some(Seen(answer.json()));
            }
        }
        None
    }

    /// Waits until the shown state fulfils this condition; fails with a full report otherwise.
    pub(crate) async fn wait_for(&self, within: Duration, what: &str, level: impl Fn(&Seen) -> bool) -> Seen {
        let mut last = None;
        let found = until(within, async || {
            last = self.seen().await;
            last.clone().filter(|seen| level(seen))
        });
        match found.await {
            Some(seen) => seen,
            None => panic!("not within {within:?}: {what}\nlast seen: {last:#?}\n{}", self.story()),
        }
    }

    /// Waits for any condition, with the same failure report.
    pub(crate) async fn wait_until(
        &self,
        within: Duration,
        what: &str,
        mut level: impl AsyncFnMut() -> bool,
    ) {
        let held = until(within, async || level().await.then_some(())).await;
        assert!(held.is_some(), "not within {within:?}: {what}\n{}", self.story());
    }

    /// Fails if `level` does not hold at any time within `span`: for events that must not happen.
    pub(crate) async fn stays(&self, span: Duration, what: &str, mut level: impl AsyncFnMut() -> bool) {
        let broken = until(span, async || (!level().await).then_some(())).await;
        assert!(broken.is_none(), "did not stay so for {span:?}: {what}\n{}", self.story());
    }

    /// Waits until there is a leader that answers as primary, and all others stream.
    pub(crate) async fn wait_until_well(&self) -> Seen {
        let size = self.members.len();
        let mut well = None;
        self.wait_until(STARTS_WITHIN, "a leader that is primary, and all others stream", async || {
            well = self.seen().await.filter(|seen| seen.is_well(size));
            let leader = well.as_ref().and_then(Seen::leader).map(|name| self.index(name));
            match leader {
                Some(leader) => self.members[leader].status("/primary").await == 200,
                None => false,
            }
        })
        .await;
        well.expect("the level says so")
    }

    /// Waits until a member other than `old` leads and accepts writes; returns its index.
    pub(crate) async fn wait_for_successor(&self, old: usize, within: Duration) -> usize {
        let old_name = self.members[old].name.clone();
        let what = format!("another member than {old_name} leads");
        let another = |seen: &Seen| seen.leader().is_some_and(|leader| leader != old_name);
        let seen = self.wait_for(within, &what, another).await;
        let index = self.index(seen.leader().expect("the level says so"));
        self.wait_until_writable(index, within).await;
        index
    }

    /// Waits until this member's Postgres accepts writes and its supervisor has seen that: until then it refuses
    /// requests, because a start is under way.
    pub(crate) async fn wait_until_writable(&self, index: usize, within: Duration) {
        let member = &self.members[index];
        let what = format!("{} takes writes", member.name);
        self.wait_until(within, &what, async || {
            member.sql("CREATE TABLE IF NOT EXISTS writable ()").await.is_ok()
                && member.status("/primary").await == 200
        })
        .await;
    }

    /// Waits until a query at this port has a row.
    pub(crate) async fn wait_for_row(&self, within: Duration, what: &str, port: u16, sql: &str) {
        self.wait_until(within, what, async || query(port, sql).await.is_ok_and(|rows| !rows.is_empty()))
            .await;
    }

    /// The leader's index.
    pub(crate) async fn leader(&self) -> usize {
        let seen = self.wait_for(STARTS_WITHIN, "somebody leads", |seen| seen.leader().is_some()).await;
        self.index(seen.leader().expect("the level says so"))
    }

    /// The index of the member of this name.
    pub(crate) fn index(&self, name: &str) -> usize {
        self.members.iter().position(|member| member.name == name).expect("a member of this cluster")
    }

    /// Postgres ports of all members.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.postgres).collect()
    }

    /// The information for a failure report: the members' processes and the ends of their logs.
    pub(crate) fn story(&self) -> String {
        let member = |member: &Member| {
            let postmaster = member.postmaster();
            let log = logs::tail(&member.log(), 40);
            format!("{} (postmaster {postmaster:?}), its log ends:\n{log}", member.name)
        };
        self.members.iter().map(member).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for member in &self.members {
            let errors = logs::unexpected_errors(&member.log(), &member.expected_errors);
            assert!(errors.is_empty(), "{} logged errors: {errors:#?}\n{}", member.name, self.story());
        }
    }
}
