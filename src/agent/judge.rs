//! What the PostgreSQL at hand says of parameters, for those who write or check them.

use std::collections::BTreeMap;

use super::wiring;
use crate::config::{Config, Fault, Given};
use crate::postgres::{self, Setup};

/// Asks the programs of a configuration.
#[derive(Clone)]
pub struct ParameterJudge {
    programs: Setup,
}

impl ParameterJudge {
    /// The one of `config`.
    pub fn of(config: &Config) -> ParameterJudge {
        ParameterJudge { programs: wiring::programs(config) }
    }

    /// Faults of those parameters that no start would take. Blocks nothing and changes nothing.
    ///
    /// # Errors
    /// A sentence: PostgreSQL could not be asked.
    pub async fn faults(&self, given: &[Given]) -> Result<Vec<Fault>, String> {
        let mut left: Vec<&Given> = given.iter().collect();
        let mut faults = Vec::new();
        while !left.is_empty() {
            // One name may be given in two places: they are asked for in turn.
            let mut round = BTreeMap::new();
            let later = left.iter().filter(|given| match round.contains_key(&given.name) {
                true => true,
                false => round.insert(given.name.clone(), given.value.clone()).is_some(),
            });
            let later: Vec<&Given> = later.copied().collect();
            let refused = postgres::refused(&self.programs, &round).await;
            for refused in refused.map_err(|error| error.chain())? {
                let found =
                    left.iter().find(|given| given.name == refused.name && given.value == refused.value);
                faults.extend(found.map(|given| given.fault(&refused.why)));
            }
            left = later;
        }
        Ok(faults)
    }
}
