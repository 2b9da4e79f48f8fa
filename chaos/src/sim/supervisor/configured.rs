//! The dynamic configuration in force: `src/agent/dynamic.rs` and `src/agent/kept.rs`, with the real reading of it.

use std::time::Duration;

use matriarch::config;
use matriarch::model::{ClusterView, ConfigKey, Settings, SyncMode, SyncSettings};
use serde_json::{Value, json};

use super::Agent;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::disk::Data;
use crate::sim::world::Options;

/// What a supervisor goes by. Its file says nothing of synchronous replication.
pub(crate) struct Configured {
    text: String,
    read: Option<ConfigKey>,
    says_mode: bool,
}

impl Configured {
    /// As it starts: what was kept beside the data.
    pub(crate) fn recalled(kept: Option<String>) -> Configured {
        let text = kept.unwrap_or_else(|| "{}".to_owned());
        Configured { text: config::mended(&text, "{}").text, read: None, says_mode: false }
    }

    /// How long its lease is to last; without a word of it as the file says.
    pub(crate) fn ttl(&self, file: Duration) -> Duration {
        let config: Value = serde_json::from_str(&self.text).unwrap_or_default();
        config["ttl"].as_u64().map_or(file, Duration::from_secs)
    }

    fn take(&mut self, cluster: Option<&ClusterView>, by_default: bool) {
        let Some(key) = cluster.and_then(|cluster| cluster.config.as_ref()) else {
            (self.text, self.says_mode) = match by_default {
                true => ("{}".to_owned(), true),
                false => (std::mem::take(&mut self.text), false),
            };
            return;
        };
        if self.read.as_ref() == Some(key) {
            return;
        }
        let mended = config::mended(&key.text, &self.text);
        self.read = Some(key.clone());
        (self.text, self.says_mode) = match by_default && !mended.warnings.is_empty() {
            true => ("{}".to_owned(), true),
            false => (mended.text, mended.says_mode),
        };
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
        configured.take(cluster, by_default);
        settings.ttl = configured.ttl(file_ttl);
        settings.pause = pauses(configured.text.as_bytes());
        settings.sync = config::sync_settings(&configured.text);
        if !configured.says_mode {
            settings.sync = settings.sync.bound_by(cluster.and_then(|cluster| cluster.sync_record()));
        }
        settings
    }

    /// The text in force over the view as it is now.
    pub(super) fn config_in_force(&self) -> String {
        let _read = self.settings();
        self.shared.configured.borrow().text.clone()
    }

    /// What the leader writes where the key is gone.
    pub(crate) fn restored_config(&self, sync: &SyncSettings) -> String {
        config::restored(&self.shared.configured.borrow().text, sync)
    }

    /// Begins to write what is in force beside the data, unless it lies there.
    pub(crate) fn keep_config(&self) {
        let text = {
            let configured = self.shared.configured.borrow();
            let world = self.sim.world();
            let disk = &world.machines[self.member()].disk;
            let lies = disk.configured.as_ref() == Some(&configured.text);
            if lies || disk.data != Data::Ready || configured.read.is_none() {
                return;
            }
            configured.text.clone()
        };
        if self.shared.keeping.replace(true) {
            return;
        }
        let own = self.clone();
        self.spawn(async move {
            let takes = own.sim.exec.rng(|rng| rng.millis(1, 30));
            own.sleep(takes).await;
            own.sim.world().machines[own.member()].disk.configured = Some(text);
            own.shared.keeping.set(false);
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
    config
}
