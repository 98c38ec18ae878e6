//! The roles of a node: their settings, and starting them.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command};
use tern_node::serve::Running;
use tern_node::{NodeContext, Role};
use tonic::service::RoutesBuilder;

use super::args::add;

/// The settings of each role that the node has.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    presence: Option<tern_presence::Config>,
    chat: Option<tern_chat::Config>,
    accounts: Option<tern_accounts::Config>,
    media: Option<tern_media::Config>,
    gateway: Option<tern_gateway::Config>,
}

impl Roles {
    pub(super) fn augment(command: Command) -> Command {
        let command = add::<tern_presence::Config>(command, "Presence", false);
        let command = add::<tern_chat::Config>(command, "Chat", false);
        let command = add::<tern_accounts::Config>(command, "Accounts", false);
        let command = add::<tern_media::Config>(command, "Media", false);
        add::<tern_gateway::Config>(command, "Gateway", false)
    }

    pub(super) fn from_matches(names: &[Role], matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            presence: config(Role::Presence, names, matches)?,
            chat: config(Role::Chat, names, matches)?,
            accounts: config(Role::Accounts, names, matches)?,
            media: config(Role::Media, names, matches)?,
            gateway: config(Role::Gateway, names, matches)?,
        })
    }

    pub fn names(&self) -> Vec<Role> {
        let roles = [
            (Role::Presence, self.presence.is_some()),
            (Role::Chat, self.chat.is_some()),
            (Role::Accounts, self.accounts.is_some()),
            (Role::Media, self.media.is_some()),
            (Role::Gateway, self.gateway.is_some()),
        ];
        roles
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(role, _)| role)
            .collect()
    }

    /// Whether any of them does nothing without Postgres. Presence goes on while it is away.
    pub fn need_postgres(&self) -> bool {
        self.chat.is_some() || self.accounts.is_some() || self.media.is_some()
    }

    /// Starts them: who is asked before who asks.
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
        if let Some(config) = self.gateway {
            running.push(tern_gateway::server::start(config, ctx.clone(), routes).await?);
        }
        Ok(running)
    }
}

/// The role's settings, if the node has it. What it requires is required only then.
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
