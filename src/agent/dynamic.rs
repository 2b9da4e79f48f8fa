//! The settings in force: the local file under the key `config`, applied while running.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::app::warn_of_access;
use super::certificates::CertificateFiles;
use super::cycle::Cycle;
use super::wiring;
use crate::api::ApiSetup;
use crate::config::{self, Config, Effective, Sources};
use crate::model::{ConfigKey, DataDirectory, Settings};
use crate::postgres::Parameters;

/// How long Postgres may take to read new parameters before the loop goes on without them.
const APPLY_WITHIN: Duration = Duration::from_secs(5);

/// Local and dynamic configuration, and what follows from both.
pub(super) struct Dynamic {
    sources: Sources,
    local: Config,
    text: Option<String>,
    revision: Option<i64>,
    settings: Settings,
    parameters: Parameters,
    major: u32,
    local_changed: bool,
    applied: Option<Parameters>,
    relist: watch::Sender<Duration>,
    api: watch::Sender<Arc<ApiSetup>>,
    certificates: watch::Sender<CertificateFiles>,
}

impl Dynamic {
    pub(super) fn new(
        sources: Sources,
        local: Config,
        effective: Effective,
        major: u32,
        relist: watch::Sender<Duration>,
        api: watch::Sender<Arc<ApiSetup>>,
        certificates: watch::Sender<CertificateFiles>,
    ) -> Dynamic {
        let parameters = wiring::parameters(&effective);
        let settings = effective.settings;
        Dynamic {
            sources,
            local,
            text: None,
            revision: None,
            settings,
            parameters,
            major,
            local_changed: false,
            applied: None,
            relist,
            api,
            certificates,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The local configuration.
    pub(super) fn local(&self) -> &Config {
        &self.local
    }

    /// The dynamic configuration as last read, else what the local file starts a cluster with.
    pub(super) fn text(&self) -> String {
        self.text.clone().unwrap_or_else(|| wiring::first_config(&self.local))
    }

    /// Reads the local configuration again, as far as it can change while running. A broken file changes nothing.
    pub(super) fn reload_local(&mut self) {
        match config::load(&self.sources) {
            Ok(loaded)
                if loaded.config.name == self.local.name && loaded.config.scope == self.local.scope =>
            {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!("the local configuration was read again");
                self.api.send_modify(|setup| {
                    let (tls, client_certificate) = (setup.tls.clone(), setup.client_certificate);
                    let new = wiring::api_setup(&loaded.config);
                    *setup = Arc::new(ApiSetup { tls, client_certificate, ..new });
                });
                let files = CertificateFiles::of(&loaded.config);
                self.certificates.send_modify(|old| *old = files.replacing(old));
                let (old, new) = (&self.local, &loaded.config);
                let sections = [
                    ("watchdog", old.watchdog != new.watchdog),
                    ("kubernetes", old.kubernetes != new.kubernetes),
                ];
                for (section, _) in sections.iter().filter(|(_, changed)| *changed) {
                    tracing::warn!(
                        "the section {section} takes effect when this supervisor is started again"
                    );
                }
                if old.restapi.write_access() != new.restapi.write_access() {
                    warn_of_access(new.restapi.write_access());
                }
                self.local = loaded.config;
                self.local_changed = true;
            }
            Ok(_) => tracing::warn!(
                "scope and name cannot change while running; the old configuration stays in force"
            ),
            Err(faults) => tracing::warn!("the old configuration stays in force:\n{faults}"),
        }
    }

    /// Recomputes what is in force when the key or the local file changed; true if anything did.
    fn refresh(&mut self, key: Option<&ConfigKey>) -> bool {
        let revision = key.map(|key| key.mod_revision);
        if !self.local_changed && (key.is_none() || revision == self.revision) {
            return false;
        }
        let text = key.map(|key| key.text.clone()).or(self.text.clone());
        self.local_changed = false;
        self.revision = revision.or(self.revision);
        match config::effective(&self.local, text.as_deref(), self.major) {
            Ok(effective) => {
                for warning in &effective.warnings {
                    tracing::warn!("{warning}");
                }
                self.parameters = wiring::parameters(&effective);
                self.settings = effective.settings;
                self.text = text;
                true
            }
            Err(faults) => {
                tracing::warn!(
                    "the dynamic configuration is not usable, the old one stays in force:\n{faults}"
                );
                false
            }
        }
    }
}

impl Cycle {
    /// Brings settings, lease, view and Postgres in line with the newest configuration.
    pub(super) async fn follow_settings(&mut self) {
        let key = self.view.borrow().as_ref().and_then(|view| view.cluster.config.clone());
        if self.dynamic.refresh(key.as_ref()) {
            let settings = self.dynamic.settings();
            self.dynamic.relist.send_replace(settings.loop_wait);
            if let Some(keeper) = &self.keeper {
                keeper.set_ttl(settings.ttl);
            }
            self.watch.probe().configure(settings.ttl, settings.pause);
            self.me.tags = self.dynamic.local.tags.clone();
        }
        let busy = self.state.job.running().is_some();
        let ready = matches!(self.status.borrow().postgres.data, DataDirectory::Ready(_));
        if self.dynamic.applied.as_ref() == Some(&self.dynamic.parameters) || busy || !ready {
            return;
        }
        let parameters = self.dynamic.parameters.clone();
        match tokio::time::timeout(APPLY_WITHIN, self.tools.postgres.apply(parameters.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = error.chain(), "some parameters were not applied"),
            Err(_) => tracing::warn!("PostgreSQL did not read its new parameters in time"),
        }
        // A refused file is not tried again before the configuration changes.
        self.dynamic.applied = Some(parameters);
        self.watch.forget_data();
    }
}
