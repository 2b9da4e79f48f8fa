//! Checks parameters against the local PostgreSQL, for the configuration and the API.

use std::collections::BTreeSet;

use super::wiring;
use crate::config::{Config, Fault, Given};
use crate::os::error_chain::ErrorChain;
use crate::postgres::{self, Setup};

/// Checks parameters with the PostgreSQL programs of a configuration.
#[derive(Clone)]
pub struct ParameterCheck {
    programs: Setup,
}

impl ParameterCheck {
    /// The one for `config`.
    pub fn of(config: &Config) -> ParameterCheck {
        ParameterCheck { programs: wiring::programs(config) }
    }

    /// Faults of the parameters with which no server would start. It changes nothing and does not block.
    ///
    /// # Errors
    /// A sentence: PostgreSQL could not be asked.
    pub async fn faults(&self, given: &[Given]) -> Result<Vec<Fault>, String> {
        let mut left: Vec<&Given> = given.iter().collect();
        let mut faults = Vec::new();
        while !left.is_empty() {
            // One name may be given in two places: those are checked one after the other.
            let mut names = BTreeSet::new();
            let (round, later): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|given| names.insert(&given.name));
            let asked = round.iter().map(|given| (given.name.clone(), given.value.clone())).collect();
            let refused = postgres::refused(&self.programs, &asked).await;
            for refused in refused.map_err(|error| error.chain())? {
                let found = round.iter().find(|given| given.name == refused.name);
                faults.extend(found.map(|given| given.fault(&refused.why)));
            }
            left = later;
        }
        Ok(faults)
    }
}
