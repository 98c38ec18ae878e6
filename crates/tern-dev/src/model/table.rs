//! Shows the results as text.

use std::fmt::Write as _;

use super::Model;
use super::check::Compared;
use super::constants::{BENCH_SHARDS, Constants};
use super::costs::{Costs, Server};
use super::limits::Limit;
use super::measured::Run;
use super::platform::Platform;
use crate::bench::report::number;

/// The columns of the name of a row.
const NAME: usize = 46;
/// The columns of a value.
const VALUE: usize = 16;

/// Shows everything.
pub fn model(model: &Model) -> String {
    let mut text = String::new();
    constants(&mut text, &model.constants);
    platforms(&mut text, &model.platforms);
    limits(&mut text, model);
    slots(&mut text, model);
    storm(&mut text, model);
    text
}

/// Shows how far the prediction for a run is off.
pub fn compared(run: &Run, compared: &[Compared]) -> String {
    let mut text = String::new();
    let title = format!("{}: us of processor time a message", run.file);
    heading(&mut text, &title);
    let names = ["predicted", "measured", "off"].map(str::to_owned);
    line(&mut text, "", names);
    for one in compared {
        let off = match one.judged {
            true => format!("{:+.0} %", one.off() * 100.0),
            false => "not judged".to_owned(),
        };
        let values = [amount(one.predicted), amount(one.measured), off];
        line(&mut text, one.server, values);
    }
    text
}

fn constants(text: &mut String, constants: &Constants) {
    heading(text, "Constants, and where each is from (us: processor time)");
    let message = |rate: f64| costs(&constants.message(rate, rate / BENCH_SHARDS, 1.0));
    let rows = [
        (
            "message",
            "us a message, 40,000 a second in four shards",
            message(40_000.0),
        ),
        (
            "message",
            "us a message, 100 a second in four shards",
            message(100.0),
        ),
        ("delivery", "us a further delivery", costs(&constants.delivery)),
        ("connect", "us a connect", costs(&constants.connect)),
        ("change", "us a change of presence", costs(&constants.change)),
        (
            "inbox_look",
            "us a look at an inbox in a cell",
            amount(constants.inbox_look),
        ),
        (
            "connects",
            "connects a second of a gateway",
            amount(constants.connects),
        ),
        (
            "stream_kib",
            "KiB of a gateway a stream",
            amount(constants.stream_kib),
        ),
        (
            "shard_messages",
            "messages a second of a shard",
            amount(constants.shard_messages),
        ),
        ("wal_bytes", "bytes of WAL a message", amount(constants.wal_bytes)),
        (
            "row_bytes",
            "bytes on disk a message besides its body",
            amount(constants.row_bytes),
        ),
    ];
    for (constant, name, value) in rows {
        let from = constants.from.get(constant).map_or("", String::as_str);
        put(text, format_args!("  {name:<NAME$} {value}  ({from})"));
    }
}

fn platforms(text: &mut String, platforms: &[Platform]) {
    heading(text, "What users take");
    let columns: Vec<_> = platforms.iter().map(rows).collect();
    let names = columns.first().into_iter().flatten();
    for (index, (name, _)) in names.enumerate() {
        line(text, name, columns.iter().map(|rows| rows[index].1.clone()));
    }
}

/// Returns the names and values of a platform's column. Each platform has the same names.
fn rows(platform: &Platform) -> Vec<(&'static str, String)> {
    let (load, gateways) = (&platform.load, &platform.gateways);
    let (postgres, nodes) = (&platform.postgres, platform.nodes);
    vec![
        ("users", amount(load.users)),
        ("devices with a stream", amount(load.streams)),
        ("messages a second", amount(load.messages)),
        ("deliveries a second", amount(load.deliveries)),
        ("connects a second", amount(load.connects)),
        ("changes of presence a second", amount(load.changes)),
        ("gateways", amount(gateways.nodes)),
        ("  by memory", amount(gateways.by_memory)),
        ("  by file descriptors", amount(gateways.by_descriptors)),
        ("  by processors", amount(gateways.by_processors)),
        ("  bound by", gateways.bound.to_owned()),
        ("chat nodes", amount(platform.chats)),
        ("presence nodes", amount(platform.presences)),
        ("cells", postgres.cells.to_string()),
        ("Postgres machines for cells", amount(postgres.machines)),
        ("  bound by", postgres.bound.to_owned()),
        ("processors busy for cells", amount(postgres.processors)),
        ("processors busy for people", amount(postgres.people_processors)),
        ("looks at an inbox a second", amount(postgres.inbox_reads)),
        ("shards", amount(postgres.shards)),
        ("messages a second of a shard", amount(postgres.shard_messages)),
        ("WAL, MB a second", amount(postgres.wal)),
        ("rows and bodies, TB a year", amount(postgres.disk_a_year)),
        (
            "shards' connections to a machine",
            amount(postgres.shard_connections),
        ),
        (
            "pools' connections to one address",
            amount(postgres.pool_connections),
        ),
        ("etcd: leases, and events of a change", amount(nodes)),
        ("etcd: requests a second", amount(platform.etcd_requests)),
        (
            "etcd: bytes of the list of nodes",
            amount(platform.etcd_list_bytes),
        ),
        (
            "etcd: events of an upgrade",
            amount(platform.etcd_events_of_an_upgrade),
        ),
        ("connections between nodes", amount(platform.connections)),
        (
            "streams of gateways and chat nodes",
            amount(platform.link_streams),
        ),
        ("deliveries a second on a link", amount(platform.link_deliveries)),
    ]
}

fn limits(text: &mut String, model: &Model) {
    heading(text, "Limits of the design: the most, and who needs more");
    for limit in &model.limits {
        let from = match limit.users {
            Some(number) => format!("from {} on", users(number)),
            None => "not below 100 bn users".to_owned(),
        };
        let most = amount(limit.most);
        put(
            text,
            format_args!("  {:<NAME$} {most:>VALUE$}  {from}", limit.what),
        );
        put(text, format_args!("      {}", limit.then));
    }
    text.push('\n');
    for (index, platform) in model.platforms.iter().enumerate() {
        let sentence = sentence(index, platform, &model.limits);
        put(text, format_args!("  {sentence}"));
    }
}

/// Says in a sentence whether a platform exceeds limits.
fn sentence(index: usize, platform: &Platform, limits: &[Limit]) -> String {
    let exceeded = limits.iter().filter(|limit| limit.is_exceeded(index));
    let exceeded: Vec<&str> = exceeded.map(|limit| limit.what).collect();
    let users = users(platform.load.users);
    match exceeded.len() {
        0 => format!("{users} are within all limits."),
        1 => format!("{users} are beyond a limit: {}.", exceeded[0]),
        count => format!("{users} are beyond {count} limits: {}.", exceeded.join("; ")),
    }
}

fn slots(text: &mut String, model: &Model) {
    let moves = &model.slots;
    let title = format!("Slots of {} chat nodes in {} zones", moves.nodes, moves.zones);
    heading(text, &title);
    let held = format!("{} of {}", moves.zone_held, moves.zone_nodes);
    let rows = [
        ("slots of a node, at least", moves.fewest.to_string()),
        ("slots of a node, at most", moves.most.to_string()),
        ("move when a node joins", percent(moves.join)),
        ("move when a node leaves", percent(moves.leave)),
        ("move when a zone's leases end", percent(moves.zone_at_once)),
        ("nodes of the zone held for a lease more", held),
        ("have moved after that lease", percent(moves.zone_later)),
        ("ms in which this machine made a map", amount(moves.map_ms)),
    ];
    for (name, value) in rows {
        line(text, name, [value]);
    }
}

fn storm(text: &mut String, model: &Model) {
    let storm = &model.storm;
    let title = format!("{} devices come back at once", amount(storm.devices));
    heading(text, &title);
    let rows = [
        ("gateways", storm.gateways),
        ("connects a second that gateways take", storm.gateways_take),
        ("connects a second that Postgres takes", storm.people_take),
        ("seconds, for the gateways alone", storm.seconds_by_gateways),
        ("seconds, for gateways and Postgres", storm.seconds),
        ("seconds to the last one, with back-off", storm.last),
    ];
    for (name, value) in rows {
        line(text, name, [amount(value)]);
    }
}

fn heading(text: &mut String, heading: &str) {
    put(text, format_args!("\n{heading}\n"));
}

/// Adds a row with its values.
fn line(text: &mut String, name: &str, values: impl IntoIterator<Item = String>) {
    let values = values.into_iter().map(|value| format!(" {value:>VALUE$}"));
    let values: String = values.collect();
    put(text, format_args!("  {name:<NAME$}{values}"));
}

/// Adds a line.
fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Shows the cost of each server that has one.
fn costs(costs: &Costs) -> String {
    let some = Server::ALL.into_iter().filter(|server| costs.of(*server) >= 0.05);
    let each: Vec<String> = some
        .map(|server| format!("{} {}", server.name(), amount(costs.of(server))))
        .collect();
    each.join(" + ")
}

fn users(users: f64) -> String {
    format!("{} users", amount(users))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Shows a number with the digits that matter, for example `0.083`, `5.2`, `542`, `32.5 M` and `2.0 bn`.
fn amount(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.1} bn", value / 1e9),
        size if size >= 1e6 => format!("{:.1} M", value / 1e6),
        size if size < 1e3 && value.fract() == 0.0 => format!("{value:.0}"),
        _ => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let shown = [0.0, 0.0834, 3.0, 5.25, 541.7, 32.5e6, 2e9, 12_345.0].map(amount);
        assert_eq!(
            shown,
            ["0", "0.083", "3", "5.2", "542", "32.5 M", "2.0 bn", "12,345"]
        );
    }
}
