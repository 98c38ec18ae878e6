//! The roles of a node: their settings, and starting them.

use clap::{ArgMatches, Command, FromArgMatches};
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
}

impl Roles {
    pub(super) fn augment(command: Command) -> Command {
        let command = add::<tern_presence::Config>(command, "Presence", false);
        let command = add::<tern_chat::Config>(command, "Chat", false);
        add::<tern_accounts::Config>(command, "Accounts", false)
    }

    pub(super) fn from_matches(names: &[Role], matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            presence: config(Role::Presence, names, matches)?,
            chat: config(Role::Chat, names, matches)?,
            accounts: config(Role::Accounts, names, matches)?,
        })
    }

    pub fn names(&self) -> Vec<Role> {
        let roles = [
            (Role::Presence, self.presence.is_some()),
            (Role::Chat, self.chat.is_some()),
            (Role::Accounts, self.accounts.is_some()),
        ];
        roles
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(role, _)| role)
            .collect()
    }

    /// Whether any of them keeps something in Postgres.
    pub fn need_postgres(&self) -> bool {
        self.chat.is_some() || self.accounts.is_some()
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
        Ok(running)
    }
}

fn config<C: FromArgMatches>(
    role: Role,
    names: &[Role],
    matches: &ArgMatches,
) -> Result<Option<C>, clap::Error> {
    names
        .contains(&role)
        .then(|| C::from_arg_matches(matches))
        .transpose()
}
