//! Reads the settings of a node's roles, and starts the roles.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command};
use tern_cluster::{NodeContext, Role};
use tern_transport::serve::Running;
use tonic::service::RoutesBuilder;

/// The settings of the roles that this node has; `None` for each role that it does not have.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    presence: Option<tern_presence::Config>,
    chat: Option<tern_chat::Config>,
    accounts: Option<tern_accounts::Config>,
    media: Option<tern_media::Config>,
    push: Option<tern_push::Config>,
    gateway: Option<tern_gateway::Config>,
}

impl Roles {
    /// Adds the flags of every role to the command.
    pub(super) fn augment(command: Command) -> Command {
        let command = add::<tern_presence::Config>(command, "Presence", false);
        let command = add::<tern_chat::Config>(command, "Chat", false);
        let command = add::<tern_accounts::Config>(command, "Accounts", false);
        let command = add::<tern_media::Config>(command, "Media", false);
        let command = add::<tern_push::Config>(command, "Push", false);
        add::<tern_gateway::Config>(command, "Gateway", false)
    }

    /// Reads the settings of the roles in `names`. Fails if a flag that one of them requires is missing.
    pub(super) fn from_matches(names: &[Role], matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            presence: config(Role::Presence, names, matches)?,
            chat: config(Role::Chat, names, matches)?,
            accounts: config(Role::Accounts, names, matches)?,
            media: config(Role::Media, names, matches)?,
            push: config(Role::Push, names, matches)?,
            gateway: config(Role::Gateway, names, matches)?,
        })
    }

    /// Returns the roles that this node has.
    pub fn names(&self) -> Vec<Role> {
        let roles = [
            (Role::Presence, self.presence.is_some()),
            (Role::Chat, self.chat.is_some()),
            (Role::Accounts, self.accounts.is_some()),
            (Role::Media, self.media.is_some()),
            (Role::Push, self.push.is_some()),
            (Role::Gateway, self.gateway.is_some()),
        ];
        roles
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(role, _)| role)
            .collect()
    }

    /// Returns whether the node has a role that cannot work without Postgres. A presence node can.
    pub fn need_postgres(&self) -> bool {
        self.chat.is_some() || self.accounts.is_some() || self.media.is_some() || self.push.is_some()
    }

    /// Starts the roles, servers before their clients: the gateway comes last because it calls all the others. Fails
    /// with the first role that cannot start.
    pub(super) async fn start(
        self,
        ctx: &NodeContext,
        routes: &mut RoutesBuilder,
    ) -> anyhow::Result<Vec<Running>> {
        let mut running = Vec::new();
        if let Some(config) = self.presence {
            running.push(tern_presence::server::start(config, ctx.clone(), routes).await?);
        }
        if let Some(config) = self.chat {
            running.push(tern_chat::server::start(config, ctx.clone(), routes).await?);
        }
        if let Some(config) = self.accounts {
            running.push(tern_accounts::server::start(config, ctx.clone(), routes).await?);
        }
        if let Some(config) = self.media {
            running.push(tern_media::server::start(config, ctx.clone(), routes).await?);
        }
        if let Some(config) = self.push {
            running.push(tern_push::server::start(config, ctx.clone(), routes).await?);
        }
        if let Some(config) = self.gateway {
            running.push(tern_gateway::server::start(config, ctx.clone(), routes).await?);
        }
        Ok(running)
    }
}

/// Returns the role's settings, or `None` if the node does not have the role. Flags that the role requires are
/// required only if the node has it; a missing one is an error.
fn config<C: Args>(role: Role, names: &[Role], matches: &ArgMatches) -> Result<Option<C>, clap::Error> {
    if !names.contains(&role) {
        return Ok(None);
    }
    let own = C::augment_args(Command::new(role.as_str()));
    for arg in own.get_arguments().filter(|arg| arg.is_required_set()) {
        if !matches.contains_id(arg.get_id().as_str()) {
            let flag = arg.get_long().unwrap_or_default();
            let words = format!("--{flag} is needed by the role {role}\n");
            return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, words));
        }
    }
    C::from_arg_matches(matches).map(Some)
}

/// Adds the flags of `A` that the command does not have yet, under `heading`. If `always` is false, none of them is
/// required: the flags of a role are needed only by nodes that have the role.
pub(super) fn add<A: Args>(command: Command, heading: &'static str, always: bool) -> Command {
    let own = A::augment_args(Command::new(heading));
    own.get_arguments().fold(command, |command, arg| {
        if command
            .get_arguments()
            .any(|known| known.get_id() == arg.get_id())
        {
            return command;
        }
        let arg = arg.clone().help_heading(heading);
        command.arg(if always { arg } else { arg.required(false) })
    })
}
