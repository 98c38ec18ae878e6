//! The flags of `tern serve`. The one command has the flags of the node and those of every role.
//!
//! Roles know nothing of one another, so two of them may define the same flag (the database's, for instance). The
//! command then has it once, and each role reads it. The flags of a role count only if the node has that role.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use tern_cluster::Role;
use tern_cluster::config::NodeArgs;
use tern_store::postgres::PostgresArgs;

use super::roles::{Roles, add};

/// The name of the argument that lists the node's roles.
const ROLES: &str = "roles";

/// The arguments of `tern serve`: the node's settings, the database's, and those of each role that was named.
#[derive(Clone, Debug)]
pub struct ServeArgs {
    /// The node's own settings.
    pub node: NodeArgs,
    /// The database's settings.
    pub postgres: PostgresArgs,
    /// The settings of the roles that the node has.
    pub roles: Roles,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let roles = Arg::new(ROLES)
            .required(true)
            .value_delimiter(',')
            .value_parser(clap::value_parser!(Role))
            .help("What the node does, comma separated: gateway, chat, presence, accounts, media, push");
        let command = command.about("Run a node with one or several roles").arg(roles);
        let command = add::<NodeArgs>(command, "Node", true);
        Roles::augment(add::<PostgresArgs>(command, "Postgres", true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names: Vec<Role> = matches.get_many(ROLES).into_iter().flatten().copied().collect();
        Ok(Self {
            node: NodeArgs::from_arg_matches(matches)?,
            postgres: PostgresArgs::from_arg_matches(matches)?,
            roles: Roles::from_matches(&names, matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
