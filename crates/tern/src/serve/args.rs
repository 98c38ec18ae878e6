//! The flags of `tern serve`: those of the node and those of every role, on one command.
//!
//! Roles know nothing of one another, so two of them may bring the same flag (the database's): it is there once, and
//! each role reads it. A role's own flags count only when the node has that role.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use tern_node::Role;
use tern_node::config::NodeArgs;
use tern_node::postgres::PostgresArgs;

use super::roles::Roles;

const ROLES: &str = "roles";

/// Run a node with one or several roles
#[derive(Clone, Debug)]
pub struct ServeArgs {
    pub node: NodeArgs,
    pub postgres: PostgresArgs,
    pub roles: Roles,
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let roles = Arg::new(ROLES)
            .required(true)
            .value_delimiter(',')
            .value_parser(clap::value_parser!(Role))
            .help("What the node does, comma separated: gateway, chat, presence, accounts, media");
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

/// Adds the flags of `A` that are not there yet; `always`: they may be required.
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
