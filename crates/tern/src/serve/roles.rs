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
}

impl Roles {
    pub(super) fn augment(command: Command) -> Command {
        add::<tern_presence::Config>(command, "Presence", false)
    }

    pub(super) fn from_matches(names: &[Role], matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            presence: config(Role::Presence, names, matches)?,
        })
    }

    /// The roles, in the order in which they start.
    pub fn names(&self) -> Vec<Role> {
        let has = [(Role::Presence, self.presence.is_some())];
        has.into_iter()
            .filter(|(_, has)| *has)
            .map(|(role, _)| role)
            .collect()
    }

    /// Whether any of them keeps something in Postgres.
    pub fn need_postgres(&self) -> bool {
        self.names()
            .iter()
            .any(|role| matches!(role, Role::Chat | Role::Accounts))
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
