//! Which dynamic configuration is in force: the text of the key `config` that was read last, without its faults.

use super::mend::{self, Mended};
use crate::model::{ClusterView, ConfigKey, Settings};

/// The dynamic configuration of one member. It begins with the copy that lies beside the data.
#[derive(Clone, Debug)]
pub struct DynamicInForce {
    /// The text, without faults.
    text: String,
    /// The key that was read last. Its revision alone says nothing: in a restored etcd revisions repeat.
    read: Option<ConfigKey>,
    /// The newest view has a configuration that sets the synchronous mode.
    says_mode: bool,
}

impl DynamicInForce {
    /// Begins with a text without faults.
    pub fn new(text: String) -> DynamicInForce {
        DynamicInForce { text, read: None, says_mode: false }
    }

    /// Reads the key, as a view of the cluster shows it. The result is its usable part, if this key was not read
    /// before; [`DynamicInForce::take`] puts it in force.
    pub fn read(&mut self, key: Option<&ConfigKey>) -> Option<Mended> {
        let Some(key) = key else {
            self.says_mode = false;
            return None;
        };
        if self.read.as_ref() == Some(key) {
            return None;
        }
        let mended = mend::mended(&key.text, &self.text);
        (self.read, self.says_mode) = (Some(key.clone()), mended.says_mode);
        Some(mended)
    }

    /// Puts a text without faults in force.
    pub fn take(&mut self, text: String) {
        self.text = text;
    }

    /// The text in force.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text to save beside the data: nothing before a key was read.
    pub fn to_save(&self) -> Option<&str> {
        self.read.is_some().then_some(&*self.text)
    }

    /// `settings`, which follow from the text, over the view from which it was read. While no configuration decides
    /// about the synchronous mode, a key `sync` that is in force does.
    #[must_use]
    pub fn bound(&self, mut settings: Settings, cluster: Option<&ClusterView>) -> Settings {
        if !self.says_mode && settings.standby_cluster.is_none() {
            settings.sync = settings.sync.bound_by(cluster.and_then(|cluster| cluster.sync_record()));
        }
        settings
    }
}
