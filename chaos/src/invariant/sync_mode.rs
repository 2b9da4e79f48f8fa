//! After the end of all faults the synchronous mode is in force again: commits wait for the standbys that it asks for,
//! and the key `sync` names them.

use std::collections::BTreeSet;

use matriarch::config;
use matriarch::model::{MemberName, SyncMode, SyncNames, SyncRecord, SyncSettings};

use crate::sim::postgres::Server;
use crate::sim::world::{Sim, World, name_of};

/// What is missing; `None` when all is well. Where etcd has no configuration it is not known which mode is wanted.
pub(crate) fn missing(sim: &Sim) -> Option<String> {
    let world = sim.world();
    let view = world.keys.view(&world.etcd.store.keys, world.etcd.store.revision).unwrap_or_default();
    let wanted = config::sync_settings(&view.config.as_ref()?.text);
    let (primary, server) = primary(&world)?;
    let names = SyncNames::parse(server.sync.text()).0;
    let kept = match wanted.mode {
        SyncMode::Off => view.sync.is_none() && names.names.is_empty(),
        SyncMode::On | SyncMode::Quorum => {
            let waits = server.sync.is_defined() && names_enough(&wanted, &names, &standbys(&world, primary));
            let record = view.sync_record().filter(|record| record.is_leader(&name_of(primary)));
            waits && record.is_some_and(|record| vouches(&wanted, record, &names))
        }
    };
    (!kept).then(|| {
        let (text, record) = (server.sync.text(), view.sync_record());
        format!("{wanted:?} is wanted, and {primary} waits for {text:?}, and the key sync says {record:?}")
    })
}

fn primary(world: &World) -> Option<(usize, &Server)> {
    let servers = world.machines.iter().enumerate();
    let mut servers = servers.filter_map(|(index, machine)| Some((index, machine.server.as_ref()?)));
    servers.find(|(_, server)| server.is_writable())
}

fn standbys(world: &World, primary: usize) -> BTreeSet<MemberName> {
    let streams = |index: &usize| {
        let server = world.machines[*index].server.as_ref();
        server.is_some_and(|server| server.streams_from == Some(primary))
    };
    (0..world.machines.len()).filter(streams).map(name_of).collect()
}

/// A standby that lags beyond a limit is not waited for, so that with a limit there may be fewer.
fn names_enough(wanted: &SyncSettings, names: &SyncNames, standbys: &BTreeSet<MemberName>) -> bool {
    let count = wanted.node_count.min(standbys.len());
    let quorum = wanted.mode == SyncMode::Quorum;
    let enough = match (wanted.maximum_lag, quorum) {
        (Some(_), _) => 0 < names.count,
        (None, true) => names.count == count && names.names == *standbys,
        (None, false) => names.count == count && names.names.len() == count,
    };
    standbys.is_empty() || (enough && names.any == quorum && names.names.is_subset(standbys))
}

fn vouches(wanted: &SyncSettings, record: &SyncRecord, names: &SyncNames) -> bool {
    let lacking = names.names.len().saturating_sub(names.count);
    match wanted.maximum_lag {
        Some(_) => names.names.is_empty() || !record.voters.is_empty(),
        None => record.voters == names.names && record.quorum == lacking,
    }
}
