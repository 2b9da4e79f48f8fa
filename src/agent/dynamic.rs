//! The settings in force: the local file, overridden by the key `config`, applied while running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cycle::Cycle;
use super::saved_config::SavedConfig;
use super::{log, wiring};
use crate::config::{self, Address, Config, DynamicInForce, Effective, Sources};
use crate::core::last_written::LastWritten;
use crate::decide::needs_feedback;
use crate::model::{ClusterView, ConfigKey, DataDirectory, ListenAddress, Me, Settings, SettingsRole};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::{Error, Parameters, Postgres};

/// How long Postgres may take to read new parameters before they count as applied.
const APPLY_WITHIN: Duration = Duration::from_secs(5);

/// Local and dynamic configuration, and the settings that follow from both.
pub(super) struct LiveConfig {
    sources: Sources,
    local: Config,
    in_force: DynamicInForce,
    settings: Settings,
    parameters: Parameters,
    /// Of the recovery, for the leader of a standby cluster only.
    leader_recovery: BTreeMap<String, String>,
    major: u32,
    /// The address on which the REST interface has listened since the start.
    rest_listen: Address,
    /// Where PostgreSQL listened when this member was introduced last.
    listen: Option<ListenAddress>,
    local_changed: bool,
    warned: BTreeSet<String>,
    applied: LastWritten<Parameters>,
    pub(super) saved: SavedConfig,
    relist: watch::Sender<Duration>,
    /// Receives the local configuration.
    local_news: watch::Sender<Arc<Config>>,
}

impl LiveConfig {
    pub(super) fn new(
        sources: Sources,
        local: Config,
        effective: Effective,
        major: u32,
        relist: watch::Sender<Duration>,
        local_news: watch::Sender<Arc<Config>>,
    ) -> LiveConfig {
        let parameters = wiring::parameters(&effective);
        let rest_listen = local.restapi.listen.clone();
        let Effective { settings, text, warnings, leader_recovery, .. } = effective;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        LiveConfig {
            sources,
            local,
            in_force: DynamicInForce::new(text),
            settings,
            parameters,
            leader_recovery,
            major,
            rest_listen,
            listen: None,
            local_changed: false,
            warned: warnings.into_iter().collect(),
            applied: LastWritten::default(),
            saved: SavedConfig::default(),
            relist,
            local_news,
        }
    }

    /// Records the parameters that were written, and whether PostgreSQL has them. Access rules that it refuses count as
    /// taken: they are not tried again before the configuration changes.
    pub(super) fn applied(&mut self, parameters: Parameters, taken: bool) {
        self.applied.ended(parameters, taken, clock::now());
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings in force for `cluster`, from which they were read last.
    pub(super) fn settings_over(&self, cluster: Option<&ClusterView>) -> Settings {
        self.in_force.bound(self.settings.clone(), cluster)
    }

    /// The local configuration.
    pub(super) fn local(&self) -> &Config {
        &self.local
    }

    /// The dynamic configuration in force: as last read, else as saved on disk, else as the local file has it for a new
    /// cluster.
    pub(super) fn text(&self) -> &str {
        self.in_force.text()
    }

    /// Reads the local configuration again, as far as it can change at run time. A file with faults changes nothing.
    pub(super) fn reload_local(&mut self) {
        match config::load(&self.sources) {
            Ok(loaded)
                if loaded.config.name == self.local.name && loaded.config.scope == self.local.scope =>
            {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!("the local configuration was reloaded");
                let late = self.local.late_changes(&loaded.config);
                if !late.is_empty() {
                    let keys = late.join("; ");
                    tracing::warn!(keys, "these changes take effect at the next start of this supervisor");
                }
                if self.local.log.level != loaded.config.log.level {
                    log::set_level(&loaded.config.log);
                }
                self.local_news.send_replace(Arc::new(loaded.config.clone()));
                self.local = loaded.config;
                self.local_changed = true;
            }
            Ok(_) => tracing::warn!(
                "scope and name cannot change while running; the old configuration stays in force"
            ),
            Err(faults) => tracing::warn!("the old configuration stays in force:\n{faults}"),
        }
    }

    /// Updates the facts of this member from the local configuration: tags, scripts, and the addresses of listeners
    /// that have it.
    fn introduce(&mut self, me: &mut Me, listen: ListenAddress) {
        let new = wiring::me(&self.local, &listen);
        let scheme = |url: &str| url.split_once(':').map(|(scheme, _)| scheme.to_owned());
        // The server has the certificates of its start, or none.
        if self.rest_listen == self.local.restapi.listen && scheme(&new.api_url) == scheme(&me.api_url) {
            me.api_url = new.api_url;
        }
        let configured = &self.local.postgresql.listen;
        if (&listen.addresses, listen.port) == (&configured.host, configured.port) {
            (me.conn_url, me.proxy_url) = (new.conn_url, new.proxy_url);
        }
        (me.tags, me.scripts) = (new.tags, new.scripts);
        self.listen = Some(listen);
    }

    /// An operator wants PostgreSQL to read its files again, whether or not a parameter has changed: its own files may
    /// have.
    pub(super) fn apply_again(&mut self) {
        self.applied.forget();
    }

    /// The parameters for PostgreSQL, with those of a leader, and with what this member's logical slots need.
    fn parameters_over(&self, cluster: Option<&ClusterView>, me: &Me) -> Parameters {
        let mut parameters = self.parameters.clone();
        let leader = cluster.and_then(|cluster| cluster.leader.as_ref());
        if leader.is_some_and(|leader| leader.name == me.name) {
            parameters.recovery.extend(self.leader_recovery.clone());
        }
        if needs_feedback(&self.settings, me, cluster) {
            let name = "hot_standby_feedback";
            parameters.parameters.insert(name.to_owned(), "on".to_owned());
            parameters.by_role.values_mut().for_each(|own| drop(own.parameters.remove(name)));
        }
        parameters
    }

    /// Recomputes the settings when the key or the local file changed; true if any did.
    fn refresh(&mut self, key: Option<&ConfigKey>) -> bool {
        let news = self.in_force.read(key);
        if !self.local_changed && news.is_none() {
            return false;
        }
        self.local_changed = false;
        let text = match news {
            None => self.in_force.text().to_owned(),
            Some(mended) => {
                mended.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                mended.text
            }
        };
        match config::effective(&self.local, Some(&text), self.major) {
            Ok(effective) => {
                let news = effective.warnings.iter().filter(|warning| !self.warned.contains(*warning));
                news.for_each(|warning| tracing::warn!("{warning}"));
                self.warned = effective.warnings.iter().cloned().collect();
                self.parameters = wiring::parameters(&effective);
                self.settings = effective.settings;
                self.leader_recovery = effective.leader_recovery;
                self.in_force.take(effective.text);
                true
            }
            Err(faults) => {
                tracing::warn!(
                    "the dynamic configuration is invalid, and the old configuration stays in force:\n{faults}"
                );
                false
            }
        }
    }
}

impl Cycle {
    /// Takes over the settings of `cluster`, so that settings and view of a tick have one revision. True if any are
    /// new.
    pub(super) fn take_settings(&mut self, cluster: Option<&ClusterView>) -> bool {
        let news = self.dynamic.refresh(cluster.and_then(|cluster| cluster.config.as_ref()));
        if news {
            let settings = self.dynamic.settings();
            self.dynamic.relist.send_replace(settings.loop_wait);
            if let Some(keeper) = &self.keeper {
                keeper.set_ttl(settings.ttl);
            }
        }
        self.probe.configure(self.dynamic.settings(), cluster.is_some_and(ClusterView::has_voters));
        let listen = self.tools.postgres.listen();
        if news || self.dynamic.listen.as_ref() != Some(&listen) {
            self.dynamic.introduce(self.core.me_mut(), listen);
        }
        news
    }

    /// Updates settings and lease from the newest configuration. Returns the parameters if PostgreSQL has others.
    pub(super) async fn outdated_parameters(&mut self) -> Option<Parameters> {
        let view = self.view.borrow().clone();
        self.take_settings(view.as_ref().map(|view| &view.cluster));
        let busy = self.core.job().is_some();
        let ready = matches!(self.status.borrow().postgres.data, DataDirectory::Ready(_));
        if busy || !ready {
            return None;
        }
        if let Some(text) = self.dynamic.in_force.to_save() {
            self.dynamic.saved.save(&self.tools.postgres, text).await;
        }
        let cluster = view.as_ref().map(|view| &view.cluster);
        let mut wanted = self.dynamic.parameters_over(cluster, self.core.me());
        let postgres = &self.tools.postgres;
        let (written, leads) = (postgres.settings_role(), self.lease().leading_at(clock::now()).is_some());
        wanted.role = match wanted.by_role.is_empty() {
            true => written,
            false => {
                let in_standby_cluster = self.dynamic.settings().standby_cluster.is_some();
                SettingsRole::in_files(written, &postgres.process().borrow(), leads, in_standby_cluster)
            }
        };
        self.dynamic.applied.changed(|applied| applied.role = written);
        self.dynamic.applied.is_due(&wanted, clock::now()).then_some(wanted)
    }
}

/// Applies these parameters to PostgreSQL. False if they were not written as a whole.
pub(super) async fn apply(postgres: &Postgres, parameters: &Parameters) -> bool {
    match tokio::time::timeout(APPLY_WITHIN, postgres.apply(parameters.clone())).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), "some parameters were not applied");
            matches!(error, Error::BrokenAccessRules { .. })
        }
        Err(_) => {
            tracing::warn!("PostgreSQL did not read its new parameters in time");
            false
        }
    }
}
