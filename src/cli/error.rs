//! An error as the user reads it: what failed, the chain of causes, a hint, and the exit code.

use std::error::Error;

use super::exit::Exit;
use crate::client::{ClientError, SqlError};
use crate::os::error_chain;

/// The failure of a command.
#[derive(Debug)]
pub struct CliError {
    /// The failure.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// The remedy.
    pub hint: Option<String>,
    /// The exit code.
    pub exit: Exit,
}

impl CliError {
    /// A refusal or failure.
    pub fn failed(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), causes: Vec::new(), hint: None, exit: Exit::Failed }
    }

    /// The failure and the causes of `error`.
    pub fn of(error: &dyn Error) -> CliError {
        let mut messages = error_chain::messages(error).into_iter();
        let message = messages.next().unwrap_or_default();
        CliError { causes: messages.collect(), ..CliError::failed(message) }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> CliError {
        CliError::failed(message).exit(Exit::Usage)
    }

    /// Adds the chain of causes from `cause` on.
    pub fn because(mut self, cause: &(dyn Error + 'static)) -> CliError {
        self.causes.extend(error_chain::messages(cause));
        self
    }

    /// Adds the remedy.
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    pub fn exit(mut self, exit: Exit) -> CliError {
        self.exit = exit;
        self
    }

    /// The text for stderr.
    pub fn render(&self) -> String {
        let mut text = format!("Error: {}\n", self.message);
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("Hint: {hint}\n"));
        }
        text
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> CliError {
        CliError::failed("failed to read or write").because(&error)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let explained = CliError::of(&error).exit(exit_of(&error));
        match hint_of(&error) {
            Some(hint) => explained.hint(hint),
            None => explained,
        }
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::NoCluster | ClientError::UnknownStore(_) => Exit::Usage,
        ClientError::File { .. }
        | ClientError::NoEtcd
        | ClientError::EtcdSetup(_)
        | ClientError::Certificates(_) => Exit::Configuration,
        ClientError::Read { .. }
        | ClientError::WriteConfig(_)
        | ClientError::Request(_)
        | ClientError::Withdraw(_)
        | ClientError::Remove(_) => Exit::Etcd,
        ClientError::Silent(_) | ClientError::NoMembers => Exit::Unreachable,
    }
}

fn hint_of(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NoCluster => Some("give its name, or give a configuration file with -c FILE"),
        ClientError::UnknownStore(_) => Some("write etcd3://HOST:PORT/NAMESPACE"),
        ClientError::NoEtcd => Some(
            "give a configuration file with -c FILE or MATRIARCH_CONFIG_FILE, or an etcd address with -d etcd3://HOST:PORT",
        ),
        ClientError::Read { .. } => {
            Some("is etcd running, and are its address and credentials right in the configuration?")
        }
        ClientError::WriteConfig(_) => {
            Some("the write may have succeeded: check with `matriarch show-config`")
        }
        ClientError::Request(_) | ClientError::Withdraw(_) | ClientError::Remove(_) => {
            Some("the write may have succeeded: check with `matriarch list`")
        }
        ClientError::Silent(_) => {
            Some("is the member running, and is its REST address (`restapi.connect_address`) correct?")
        }
        ClientError::File { .. }
        | ClientError::EtcdSetup(_)
        | ClientError::Certificates(_)
        | ClientError::NoMembers => None,
    }
}

impl From<SqlError> for CliError {
    fn from(error: SqlError) -> CliError {
        CliError::of(&error)
    }
}

/// The result of a command.
pub type CliResult = Result<Exit, CliError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_failure_cause_and_remedy() {
        let cause = std::io::Error::other("connection refused");
        let error = CliError::failed("failed to read the cluster").because(&cause).hint("is etcd running?");
        assert_eq!(
            error.render(),
            "Error: failed to read the cluster\n  caused by: connection refused\nHint: is etcd running?\n"
        );
    }
}
