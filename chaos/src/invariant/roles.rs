//! After the end of all faults the roles have the newest password, and the supervisors' own role is there. A standby
//! that knows the password in force is let in.

use std::time::Duration;

use crate::sim::fault::secrets::password;
use crate::sim::postgres::roles::Roles;
use crate::sim::postgres::{Phase, Server};
use crate::sim::world::Sim;

/// A standby tries its two passwords in turns. A look and a change of the file come between them.
const LET_IN_WITHIN: Duration = Duration::from_secs(30);

/// What is missing; `None` when all is well.
pub(crate) fn missing(sim: &Sim) -> Option<String> {
    let world = sim.world();
    if world.machines.iter().any(|machine| machine.secret != world.secret) {
        return Some("the newest secret has not reached all members".to_owned());
    }
    let primary = world.machines.iter().find(|it| it.server.as_ref().is_some_and(Server::is_writable))?;
    let roles = primary.roles(&world.role_changes);
    let wanted = Roles { password: Some(password(world.secret)), own_role: true };
    (roles != wanted).then(|| format!("on {} there is {roles:?} instead of {wanted:?}", primary.name))
}

/// In calm.
pub(crate) fn check(sim: &Sim) {
    let refused = {
        let world = sim.world();
        world.machines.iter().find_map(|machine| {
            let (since, source, password) = machine.refused.as_ref()?;
            let server = machine.server.as_ref().filter(|server| server.phase != Phase::Primary)?;
            let follows = server.follow.as_ref()?.0 == *source;
            let is_in_force = world.machines[*source].roles(&world.role_changes).password == *password;
            let knows = machine.supervisor.as_ref()?.shared.password.borrow().tries().contains(password);
            let stays = follows && is_in_force && knows && *since + LET_IN_WITHIN <= sim.now();
            stays.then(|| format!("{} knows {password:?} and has been refused since {since}", machine.name))
        })
    };
    if let Some(refused) = refused {
        sim.world().ledger.break_promise("roles", refused);
    }
}
