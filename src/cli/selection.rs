//! The target members of a command, and their answers.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::context::Context;
use super::error::{CliError, CliResult};
use super::exit::Exit;
use super::rows::{Detail, is_leader, members};
use crate::api::wire;
use crate::client::{Client, ORDER_WITHIN, RestAnswer};
use crate::model::{ClusterView, MemberKey, MemberName, Role};

/// A cluster, some of its members, and the option for consent.
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// The cluster.
    pub cluster: String,
    /// Members; default: all members.
    pub members: Vec<String>,
    /// Select only members with this role.
    #[arg(short, long, value_enum, default_value_t = RoleFilter::Any)]
    pub role: RoleFilter,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub force: bool,
}

/// The roles for a selection of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "their names are what they mean")]
pub enum RoleFilter {
    Leader,
    Primary,
    StandbyLeader,
    Replica,
    Standby,
    Any,
}

impl RoleFilter {
    fn admits(self, view: &ClusterView, name: &MemberName, member: &MemberKey) -> bool {
        let leads = is_leader(view, name);
        match self {
            RoleFilter::Leader => leads,
            RoleFilter::Primary => leads && member.record.role != Role::StandbyLeader,
            RoleFilter::StandbyLeader => leads && member.record.role == Role::StandbyLeader,
            RoleFilter::Replica | RoleFilter::Standby => !leads,
            RoleFilter::Any => true,
        }
    }
}

/// One member, by name or role.
#[derive(Debug, Args)]
pub struct OneMemberArgs {
    /// Select a member with this role; default: the leader.
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Select this member.
    #[arg(short, long, conflicts_with = "role")]
    pub member: Option<String>,
}

impl OneMemberArgs {
    /// Host and port of the PostgreSQL of the first member that fits.
    pub fn address(&self, view: &ClusterView) -> Result<(MemberName, String, u16), CliError> {
        let role = match (&self.member, self.role) {
            (Some(_), _) => RoleFilter::Any,
            (None, role) => role.unwrap_or(RoleFilter::Leader),
        };
        let fits = |(name, member): &(&MemberName, &MemberKey)| {
            let named = self.member.as_ref().is_none_or(|wanted| wanted == name.as_str());
            named && role.admits(view, name, member)
        };
        let Some((name, member)) = view.members.iter().find(fits) else {
            return Err(CliError::failed("no member of this cluster has that name or role")
                .hint(format!("its members are: {}", member_names(view))));
        };
        let address = member.record.conn_url.as_deref().and_then(wire::address);
        let (host, port) = address
            .ok_or_else(|| CliError::failed(format!("{name} publishes no address of its PostgreSQL")))?;
        Ok((name.clone(), host, port))
    }
}

/// A selected member.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Its name.
    pub name: MemberName,
    /// Its REST address.
    pub api_url: String,
    /// A restart is scheduled on it.
    pub has_scheduled_restart: bool,
    /// A restart is pending on it.
    pub pending_restart: bool,
    /// It leads.
    pub leads: bool,
}

/// The members that match `names` (empty: all) and `role`. An unknown name is an error.
pub fn choose(view: &ClusterView, names: &[String], role: RoleFilter) -> Result<Vec<Chosen>, CliError> {
    for name in names {
        if !view.members.keys().any(|member| member.as_str() == name) {
            return Err(CliError::failed(format!("there is no member {name} in this cluster"))
                .hint(format!("its members are: {}", member_names(view))));
        }
    }
    let wanted = |name: &MemberName| names.is_empty() || names.iter().any(|wanted| wanted == name.as_str());
    let mut chosen = Vec::new();
    for (name, member) in view.members.iter().filter(|(name, _)| wanted(name)) {
        if !role.admits(view, name, member) {
            continue;
        }
        let Some(api_url) = member.record.api_url.clone() else {
            return Err(CliError::failed(format!("{name} publishes no REST address")).exit(Exit::Unreachable));
        };
        chosen.push(Chosen {
            name: name.clone(),
            api_url,
            has_scheduled_restart: member.record.scheduled_restart.is_some(),
            pending_restart: member.record.pending_restart == Some(true),
            leads: view.leader.as_ref().is_some_and(|leader| leader.name == *name),
        });
    }
    if chosen.is_empty() {
        return Err(CliError::failed("no member of this cluster has that role")
            .hint(format!("its members are: {}", member_names(view))));
    }
    Ok(chosen)
}

/// The names of all members, for a sentence.
pub fn member_names(view: &ClusterView) -> String {
    view.members.keys().map(MemberName::as_str).collect::<Vec<_>>().join(", ")
}

/// The names of `chosen`, for a sentence.
pub fn chosen_names(chosen: &[Chosen]) -> String {
    chosen.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Prints the cluster to standard error, before or after a change.
pub fn show(context: &Context, client: &Client, view: &ClusterView) -> Result<(), CliError> {
    let detail = Detail { extended: false, tree: true };
    let text = members(&client.scope, view, detail).render(super::output::Format::Table)?;
    context.ui.say(text.trim_end());
    Ok(())
}

/// A request to each member.
#[derive(Debug)]
pub struct MemberRequest<'a> {
    /// The word for reports, such as "restart".
    pub word: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// The endpoint, such as `/restart`.
    pub endpoint: &'a str,
    /// JSON body.
    pub body: Option<Value>,
}

/// Sends `order` to `member`.
pub async fn send(
    client: &Client,
    member: &Chosen,
    order: &MemberRequest<'_>,
) -> Result<RestAnswer, CliError> {
    let within: Duration = ORDER_WITHIN;
    Ok(client.call(order.method, &member.api_url, order.endpoint, order.body.as_ref(), within).await?)
}

/// Sends `order` to all members, one after the other, and reports each. Fails when one refused.
pub async fn send_each(
    context: &Context,
    client: &Client,
    chosen: &[Chosen],
    order: &MemberRequest<'_>,
) -> CliResult {
    let mut exit = Exit::Done;
    for member in chosen {
        match send(client, member, order).await {
            Ok(answer) if answer.is_accepted() => {
                context.ui.say(&format!("{}: {}", member.name, answer.text()));
            }
            Ok(answer) => {
                let (word, name) = (order.word, &member.name);
                context.ui.say(&format!("{name}: {word} refused ({}): {}", answer.status, answer.text()));
                exit = Exit::Failed;
            }
            Err(error) => {
                context.ui.say(&format!("{}: {}", member.name, error.render().trim_end()));
                exit = error.exit;
            }
        }
    }
    Ok(exit)
}

/// A member's name from the command line.
pub fn member_name(text: &str) -> Result<MemberName, CliError> {
    MemberName::new(text).map_err(|error| CliError::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::sample;

    #[test]
    fn one_member_is_the_leader_or_the_first_that_fits() {
        let view = sample();
        let address = |role, member: Option<&str>| {
            let args = OneMemberArgs { role, member: member.map(str::to_owned) };
            args.address(&view).map(|(name, _, _)| name.to_string()).map_err(|error| error.message)
        };
        assert_eq!(address(None, None).as_deref(), Ok("m1"));
        assert_eq!(address(Some(RoleFilter::Standby), None).as_deref(), Ok("m2"));
        assert_eq!(address(None, Some("m3")).as_deref(), Ok("m3"));
        assert!(address(Some(RoleFilter::StandbyLeader), None).is_err());
        assert!(address(None, Some("m9")).is_err());
    }

    #[test]
    fn chooses_by_name_and_role() {
        let mut view = sample();
        for member in view.members.values_mut() {
            member.record.api_url = Some("http://127.0.0.1:1/patroni".into());
        }
        let names = |role| chosen_names(&choose(&view, &[], role).expect("some members"));
        assert_eq!(names(RoleFilter::Leader), "m1");
        assert_eq!(names(RoleFilter::Replica), "m2, m3");
        assert_eq!(names(RoleFilter::Any), "m1, m2, m3");
        assert!(choose(&view, &["m9".into()], RoleFilter::Any).is_err());
        assert!(choose(&view, &["m2".into()], RoleFilter::Leader).is_err());
    }
}
