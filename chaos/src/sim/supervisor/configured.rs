//! The dynamic configuration in force: the driver of the product's own machines, as `src/agent/dynamic.rs` and
//! `src/agent/saved_config.rs` are.

use std::time::Duration;

use matriarch::config::{self, DynamicInForce};
use matriarch::core::last_written::LastWritten;
use matriarch::model::{FailoverBy, Settings, SyncMode, SyncSettings};
use serde_json::{Value, json};

use super::Agent;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::disk::Data;
use crate::sim::world::Options;

/// What a supervisor goes by. Its file says nothing of synchronous replication.
pub(crate) struct Configured {
    in_force: DynamicInForce,
    /// The text in force as it was last read.
    read: Option<(String, Values)>,
    /// The copy beside the data.
    file: LastWritten<String>,
    is_writing: bool,
    /// The parameters of PostgreSQL; the whole text stands for them.
    pub(super) applied: LastWritten<String>,
}

/// What the simulation reads of the dynamic configuration.
#[derive(Clone, Debug)]
struct Values {
    ttl: Option<Duration>,
    pause: bool,
    failsafe_mode: bool,
    failover: FailoverBy,
    sync: SyncSettings,
}

impl Values {
    fn of(text: &str) -> Values {
        let config: Value = serde_json::from_str(text).unwrap_or_default();
        Values {
            ttl: config["ttl"].as_u64().map(Duration::from_secs),
            pause: config["pause"] == true,
            failsafe_mode: config["failsafe_mode"] == true,
            failover: match config["failover"] == "lease" {
                true => FailoverBy::Lease,
                false => FailoverBy::Recruit,
            },
            sync: config::sync_settings(text),
        }
    }
}

impl Configured {
    /// As it starts: what was saved beside the data.
    pub(crate) fn recalled(saved: Option<String>) -> Configured {
        let text = config::mended(&saved.unwrap_or_default(), "{}").text;
        Configured {
            in_force: DynamicInForce::new(text),
            read: None,
            file: LastWritten::default(),
            is_writing: false,
            applied: LastWritten::default(),
        }
    }

    /// How long its lease is to last; without a word of it as the file says.
    pub(crate) fn ttl(&mut self, file: Duration) -> Duration {
        self.values().ttl.unwrap_or(file)
    }

    fn values(&mut self) -> &Values {
        let text = self.in_force.text();
        let read = self.read.take_if(|(of, _)| of == text);
        &self.read.insert(read.unwrap_or_else(|| (text.to_owned(), Values::of(text)))).1
    }

    /// The data directory is another than before.
    pub(super) fn forget_copy(&mut self) {
        self.file.forget();
    }
}

impl Agent {
    /// The settings in force over the view as it is now.
    pub(crate) fn settings(&self) -> Settings {
        let Options { mut settings, file_ttl, mutation, .. } = self.sim.world().options.clone();
        let by_default = mutation == Some(Mutation::SettingsByDefault);
        let view = self.shared.view.borrow();
        let cluster = view.as_ref().map(|view| &view.cluster);
        let mut configured = self.shared.configured.borrow_mut();
        let key = cluster.and_then(|cluster| cluster.config.as_ref());
        if let Some(read) = configured.in_force.read(key) {
            let is_default = by_default && !read.warnings.is_empty();
            configured.in_force.take(if is_default { "{}".to_owned() } else { read.text });
        }
        let Values { ttl, pause, failsafe_mode, failover, sync } = configured.values().clone();
        settings =
            Settings { ttl: ttl.unwrap_or(file_ttl), pause, failsafe_mode, failover, sync, ..settings };
        if by_default {
            return settings;
        }
        configured.in_force.bound(settings, cluster)
    }

    /// The text in force over the view as it is now.
    pub(super) fn config_in_force(&self) -> String {
        let _read = self.settings();
        self.shared.configured.borrow().in_force.text().to_owned()
    }

    /// What the leader writes where the key is gone.
    pub(crate) fn restored_config(&self, sync: &SyncSettings) -> String {
        config::restored(self.shared.configured.borrow().in_force.text(), sync)
    }

    /// Begins to save what is in force beside the data, unless the copy has it.
    pub(crate) fn save_config(&self) {
        let text = {
            let mut configured = self.shared.configured.borrow_mut();
            let Some(text) = configured.in_force.to_save().map(str::to_owned) else { return };
            let is_ready = self.sim.world().machines[self.member()].disk.data == Data::Ready;
            if configured.is_writing || !is_ready || !configured.file.is_due(&text, self.now()) {
                return;
            }
            configured.is_writing = true;
            text
        };
        let own = self.clone();
        self.spawn(async move {
            let takes = own.sim.exec.rng(|rng| rng.millis(1, 30));
            own.sleep(takes).await;
            let written = own.write_file().await;
            if written.is_ok() {
                own.sim.world().machines[own.member()].disk.configured = Some(text.clone());
            }
            let mut configured = own.shared.configured.borrow_mut();
            configured.is_writing = false;
            configured.file.ended(text, written.is_ok(), own.now());
        });
    }
}

/// Whether this text of the key `config` asks for a pause.
pub(crate) fn pauses(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|config| config["pause"] == true)
}

/// The key `config` as an operator writes it.
pub(crate) fn written(settings: &Settings, pause: bool) -> Value {
    let sync = &settings.sync;
    let mode = match sync.mode {
        SyncMode::Off => json!(false),
        SyncMode::On => json!(true),
        SyncMode::Quorum => json!("quorum"),
    };
    let mut config = json!({
        "ttl": settings.ttl.as_secs(),
        "synchronous_mode": mode,
        "synchronous_mode_strict": sync.strict,
        "synchronous_node_count": sync.node_count,
        "maximum_lag_on_syncnode": sync.maximum_lag.map_or(json!(-1), |bytes| json!(bytes)),
    });
    if pause {
        config["pause"] = json!(true);
    }
    if settings.failsafe_mode {
        config["failsafe_mode"] = json!(true);
    }
    if settings.failover == FailoverBy::Lease {
        config["failover"] = json!("lease");
    }
    config
}
