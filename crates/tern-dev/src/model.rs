//! `tern-dev model`: computes what a number of users takes, from constants that `tern-dev bench` measured, and says
//! where the design has its limits.
//!
//! ```text
//!   reports of bench ──> measured ──> constants ──┬──> platform ──> limits ──> table
//!   flags ─────────────> load ────────────────────┤
//!   another report ────> measured ────────────────┴──> check
//! ```
//!
//! - [`measured`]: reads reports of `tern-dev bench`
//! - [`costs`], [`curve`], [`constants`]: what a message, a connect, a stream and a row cost
//! - [`load`]: what a number of users does in the busiest hour
//! - [`platform`]: the nodes, machines and links that this takes
//! - [`limits`]: what bounds a platform however many machines it gets
//! - [`slots`]: how many slots move in a map of many nodes
//! - [`storm`]: how long devices take to come back that lost their streams at once
//! - [`check`]: compares the prediction for a run with the run
//! - [`table`]: shows the results to people
//!
//! Everything but [`run`] and [`measured::read`] is computed from arguments, and starts nothing.

mod check;
mod constants;
mod costs;
mod curve;
mod limits;
mod load;
mod measured;
mod platform;
mod slots;
mod storm;
mod table;

use std::path::{Path, PathBuf};

use serde::Serialize;

use constants::Constants;
use limits::Limit;
use load::Habits;
use measured::Run;
use platform::{Machines, Platform, Sizing};
use slots::{SlotArgs, SlotMoves};
use storm::{Storm, StormArgs};

/// The numbers of users that are computed if none is given.
const USERS: [f64; 3] = [1e6, 100e6, 2e9];

/// Compute what a number of users takes, and where the design has its limits
///
/// The constants are those of docs/performance.md, as far as no report of `tern-dev bench … --json` is given. Nothing
/// is started or measured. docs/scale.md explains the results.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Report of bench direct, group, idle or presence with --json, from which constants are taken; may be given
    /// several times
    #[arg(long, value_name = "FILE")]
    constants: Vec<PathBuf>,
    /// Report of another run of bench direct or group: predict its processor time by the constants of the others, and
    /// fail if that is more than 25 % off
    #[arg(long, value_name = "FILE", requires = "constants")]
    check: Option<PathBuf>,
    /// Users, for example 5e6; may be given several times [default: 1 million, 100 million and 2 billion]
    #[arg(long, value_parser = load::positive)]
    users: Vec<f64>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    habits: Habits,
    #[command(flatten)]
    machines: Machines,
    #[command(flatten)]
    slots: SlotArgs,
    #[command(flatten)]
    storm: StormArgs,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Model {
    constants: Constants,
    habits: Habits,
    machines: Machines,
    platforms: Vec<Platform>,
    limits: Vec<Limit>,
    slots: SlotMoves,
    storm: Storm,
}

/// Computes the model, or checks a prediction with `--check`, and prints the result.
///
/// # Errors
///
/// Returns an error if a report cannot be read or is not understood, or if a checked prediction is too far off.
pub fn run(args: &ModelArgs) -> anyhow::Result<()> {
    let runs = args.constants.iter().map(|file| measured::read(file));
    let runs: Vec<Run> = runs.collect::<anyhow::Result<_>>()?;
    let constants = Constants::measured(&runs);
    if let Some(file) = &args.check {
        return check_run(args, &constants, file);
    }
    let model = Model::of(args, constants);
    print(&model, args.json, table::model)
}

/// Predicts the run in `file` and prints how far that is off. Fails if it is too far off.
fn check_run(args: &ModelArgs, constants: &Constants, file: &Path) -> anyhow::Result<()> {
    let name = file.display();
    anyhow::ensure!(
        args.constants.iter().all(|other| other != file),
        "{name}: the constants are from this run, so it cannot show that they are right"
    );
    let run = measured::read(file)?;
    let compared = check::compare(constants, &run)?;
    print(&compared, args.json, |compared| table::compared(&run, compared))?;
    check::verdict(&run.file, &compared)
}

/// Prints a result on standard output, as JSON or as `table` shows it.
#[allow(clippy::print_stdout, reason = "a command speaks by standard output")]
fn print<T: Serialize>(result: &T, json: bool, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(result)?,
        false => table(result),
    };
    println!("{text}");
    Ok(())
}

impl Model {
    fn of(args: &ModelArgs, constants: Constants) -> Self {
        let sizing = Sizing {
            habits: &args.habits,
            machines: &args.machines,
            constants: &constants,
        };
        let users: &[f64] = if args.users.is_empty() {
            &USERS
        } else {
            &args.users
        };
        let platforms: Vec<Platform> = users.iter().map(|users| sizing.platform(*users)).collect();
        let limits = limits::limits(&sizing, &platforms);
        let storm = storm::storm(&args.storm, &sizing);
        Self {
            constants,
            habits: args.habits,
            machines: args.machines,
            platforms,
            limits,
            slots: slots::simulate(args.slots),
            storm,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        model: ModelArgs,
    }

    fn model(flags: &[&str]) -> Model {
        let flags = ["model", "--nodes", "8"].into_iter().chain(flags.iter().copied());
        Model::of(&Flags::parse_from(flags).model, Constants::default())
    }

    #[test]
    fn tables_and_json_have_a_column_for_each_number_of_users() {
        let shown = table::model(&model(&["--users", "3e6", "--users", "2e9"]));
        for part in ["3.0 M", "2.0 bn", "gateways", "docs/performance.md", "beyond"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let json = serde_json::to_value(model(&[])).unwrap();
        let users = (0..3_usize).map(|at| json["platforms"][at]["load"]["users"].as_f64());
        let users: Vec<Option<f64>> = users.collect();
        assert_eq!(users, USERS.map(Some));
        assert!(json["limits"][0]["users"].is_number() && json["slots"]["join"].is_number());
    }

    #[test]
    fn a_run_is_not_checked_by_itself() {
        let flags = ["model", "--constants", "a.json", "--check", "a.json"];
        let args = Flags::parse_from(flags).model;
        let file = args.check.clone().unwrap();
        let error = check_run(&args, &Constants::default(), &file).unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        assert!(Flags::try_parse_from(["model", "--check", "a.json"]).is_err());
    }
}
