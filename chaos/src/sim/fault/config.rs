//! The dynamic configuration: another synchronous mode, another TTL, values that nobody can use, a key that is gone.

use std::time::Duration;

use matriarch::core::store::{Evidence, KeyChange, Txn};
use matriarch::model::SyncMode;
use serde_json::{Value, json};

use crate::sim::supervisor::configured::written;
use crate::sim::world::Sim;

/// What is no value of the keys beside it.
const UNUSABLE: [(&str, &str); 6] = [
    ("ttl", "long"),
    ("loop_wait", "abc"),
    ("synchronous_mode", "perhaps"),
    ("synchronous_mode", ""),
    ("synchronous_node_count", "some"),
    ("postgresql", "none"),
];

impl Sim {
    pub(super) fn change_config(&self) {
        let path = self.world().keys.path("config");
        if !self.world().etcd.store.keys.contains_key(&path) {
            return;
        }
        let paused = self.is_paused();
        match self.exec.rng(|rng| rng.below(100)) {
            0..=24 => self.change_mode(paused),
            25..=49 => self.change_ttl(paused),
            50..=54 => self.change_failsafe(paused),
            55..=79 => self.spoil_config(paused),
            _ => {
                self.note(|| "fault: the dynamic configuration is gone".to_owned());
                let mut world = self.world();
                let txn = Txn {
                    when: Vec::new(),
                    then: vec![KeyChange::Delete(path.clone())],
                    path,
                    evidence: Evidence::None,
                };
                let _ = world.etcd.store.txn(&txn);
                world.etcd.changed.give(&self.exec);
            }
        }
    }

    /// Who switches it off takes the loss of what was promised until then.
    fn change_mode(&self, paused: bool) {
        let modes = [SyncMode::Off, SyncMode::Quorum, SyncMode::Quorum, SyncMode::On];
        let mode = self.exec.rng(|rng| rng.pick(&modes)).unwrap_or_default();
        self.note(|| format!("fault: the synchronous mode is to be {mode:?}"));
        let config = {
            let mut world = self.world();
            let world = &mut *world;
            world.options.settings.sync.mode = mode;
            if mode == SyncMode::Off {
                world.ledger.promises.iter_mut().for_each(|promise| promise.released = true);
            }
            written(&world.options.settings, paused)
        };
        self.put("config", config.to_string());
    }

    fn change_ttl(&self, paused: bool) {
        let seconds = self.exec.rng(|rng| rng.pick(&[3, 5, 10, 20, 30])).unwrap_or(10);
        self.note(|| format!("fault: the ttl is to be {seconds} s"));
        let config = {
            let mut world = self.world();
            world.options.settings.ttl = Duration::from_secs(seconds);
            written(&world.options.settings, paused)
        };
        self.put("config", config.to_string());
    }

    fn change_failsafe(&self, paused: bool) {
        let config = {
            let mut world = self.world();
            world.options.settings.failsafe_mode ^= true;
            written(&world.options.settings, paused)
        };
        self.note(|| format!("fault: failsafe_mode is to be {}", config["failsafe_mode"]));
        self.put("config", config.to_string());
    }

    /// What is wanted stays as it was: nobody has said anything else.
    fn spoil_config(&self, paused: bool) {
        let mut config = written(&self.world().options.settings, paused);
        let whole = self.exec.rng(|rng| rng.permille(100));
        let (key, value) = self.exec.rng(|rng| rng.pick(&UNUSABLE)).unwrap_or(UNUSABLE[0]);
        self.note(|| format!("fault: the dynamic configuration says {key}: {value}"));
        config[key] = Value::from(value);
        self.put("config", if whole && !paused { json!([]).to_string() } else { config.to_string() });
    }
}
