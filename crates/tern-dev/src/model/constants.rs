//! The constants that the model computes with: measured by reports of `tern-dev bench`, or else those of
//! docs/performance.md.

use std::collections::BTreeMap;

use serde::Serialize;

use super::costs::{Costs, Server};
use super::curve::Curve;
use super::measured::{Kind, Run};

/// Shards of a bench's platform: one chat node and 4 cells. Reports of other platforms cannot be used.
pub const BENCH_SHARDS: f64 = 4.0;
/// The origin of a constant that `make bench` measured.
const PAGE: &str = "docs/performance.md";

/// The cost of one message, delivery, connect, stream, row and so on. Processor time is in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Constants {
    /// A message that one device gets, by the messages a second of a platform with one node of each role and
    /// [`BENCH_SHARDS`] shards.
    pub message: Curve,
    /// A further delivery of a message.
    pub delivery: Costs,
    /// A device that connects, with TLS.
    pub connect: Costs,
    /// A change of presence, with what its watchers are told.
    pub change: Costs,
    /// Postgres' time to look for a device's inbox in one cell, and as much for the device in the schema `people`.
    pub inbox_look: f64,
    /// Connects a second that one gateway takes.
    pub connects: f64,
    /// KiB of a gateway's memory that a stream takes.
    pub stream_kib: f64,
    /// Messages a second that one shard commits at most.
    pub shard_messages: f64,
    /// Bytes of WAL of a message.
    pub wal_bytes: f64,
    /// Bytes on disk of a stored message besides its body.
    pub row_bytes: f64,
    /// The origin of each constant, by its name.
    pub from: BTreeMap<&'static str, String>,
}

impl Default for Constants {
    fn default() -> Self {
        let page = |command: &str| format!("{PAGE}, {command}");
        let from = [
            ("message", page("bench direct and direct --rate 100")),
            ("delivery", page("bench group")),
            ("connect", page("bench idle; divided among servers by assumption")),
            (
                "change",
                page("bench presence; divided among servers by assumption"),
            ),
            ("inbox_look", "assumed, no command measures it".to_owned()),
            ("connects", page("bench idle")),
            ("stream_kib", page("bench idle")),
            ("shard_messages", page("bench direct")),
            (
                "wal_bytes",
                "computed from the schema, without page images".to_owned(),
            ),
            ("row_bytes", "computed from the schema".to_owned()),
        ];
        Self {
            message: standard_message(),
            delivery: DELIVERY,
            connect: CONNECT,
            change: CHANGE,
            inbox_look: INBOX_LOOK,
            connects: CONNECTS,
            stream_kib: STREAM_KIB,
            shard_messages: DIRECT_MESSAGES / BENCH_SHARDS,
            wal_bytes: WAL_BYTES,
            row_bytes: ROW_BYTES,
            from: from.into(),
        }
    }
}

/// The rate of `tern-dev bench direct` on the day on which [`DIRECT`] was measured.
const DIRECT_RATE: f64 = 36_000.0;
/// A message of `tern-dev bench direct`. "What a message costs" in docs/performance.md has these figures, as the same
/// load without recording.
const DIRECT: Costs = Costs {
    gateway: 11.0,
    chat: 7.0,
    presence: 1.0,
    postgres: 15.5,
    others: 0.0,
};
/// Postgres' part of a message of `tern-dev bench direct --rate 100`, by the same section. The page does not say what
/// the other servers take at this rate, so their part is that of [`DIRECT`].
const LEISURE_POSTGRES: f64 = 700.0;
/// The rate at which half of what a message takes alone is left. It is an assumption, because the page has no rate
/// between the two. Reports of three rates replace it.
const HALF: f64 = 500.0;
/// "A further recipient costs 4 us, half of it for look-up and fan-out, half in the gateway": `tern-dev bench group`.
/// That the look-up takes as much as the fan-out is an assumption.
const DELIVERY: Costs = Costs {
    gateway: 2.0,
    chat: 1.0,
    presence: 1.0,
    postgres: 0.0,
    others: 0.0,
};
/// At most 740 us together, by "Size" in docs/operations.md: 2,700 connects a second on two processors. How they are
/// divided among the servers is an assumption.
const CONNECT: Costs = Costs {
    gateway: 400.0,
    chat: 80.0,
    presence: 40.0,
    postgres: 150.0,
    others: 70.0,
};
/// 310 us together by `tern-dev bench presence`, each change told to 10 people. How they are divided among the servers
/// is an assumption.
const CHANGE: Costs = Costs {
    gateway: 220.0,
    chat: 0.0,
    presence: 70.0,
    postgres: 20.0,
    others: 0.0,
};
/// An assumption: an index scan of an inbox that has no row. `crates/gateway/src/inbox_reader.rs` takes 64 of them in
/// 4 cells to be well below a millisecond.
const INBOX_LOOK: f64 = 2.0;
/// `tern-dev bench idle`: TLS, all servers and the load generator on two processors.
const CONNECTS: f64 = 2800.0;
/// `tern-dev bench idle`, with TLS.
const STREAM_KIB: f64 = 33.5;
/// The lowest of the rates that docs/performance.md has for `tern-dev bench direct`.
const DIRECT_MESSAGES: f64 = 44_600.0;
/// A row of `messages` with a body of 200 bytes (430), two index entries (180), an unsettled row with two (260) and its
/// end (60), the head (100) and a share of the commit, by the sizes of Postgres' WAL records.
const WAL_BYTES: f64 = 1100.0;
/// A row of `messages` without its body: header and line pointer 28, columns 115, what sealing adds 40; and its two
/// index entries, 96, in pages that are filled to 70 %.
const ROW_BYTES: f64 = 320.0;

/// Returns the curve through the two rates that docs/performance.md has.
fn standard_message() -> Curve {
    let leisure = Costs {
        postgres: LEISURE_POSTGRES,
        ..DIRECT
    };
    let assumed = Curve {
        shared: DIRECT,
        alone: Costs::default(),
        half: HALF,
    };
    assumed.through(&[(DIRECT_RATE, DIRECT), (100.0, leisure)])
}

impl Constants {
    /// Returns the constants that these runs measured. What no run measured is as in [`Self::default`].
    pub fn measured(runs: &[Run]) -> Self {
        let mut constants = Self::default();
        constants.take_direct(&of(runs, Kind::Direct));
        constants.take_groups(&of(runs, Kind::Group));
        constants.take_idle(&of(runs, Kind::Idle));
        let presence = of(runs, Kind::Presence);
        if !presence.is_empty() {
            constants.change = mean(&presence);
            constants.note("change", &presence);
        }
        constants
    }

    /// Returns the microseconds of a message that `deliveries` devices get. `by_node` is the messages a second of a
    /// node, which share frames, and `by_shard` those of a shard, which share statements.
    pub fn message(&self, by_node: f64, by_shard: f64, deliveries: f64) -> Costs {
        let (frames, statements) = (self.message.at(by_node), self.message.at(by_shard * BENCH_SHARDS));
        Costs::by(|server| {
            let first = match server {
                Server::Chat | Server::Postgres => statements.of(server),
                Server::Gateway | Server::Presence | Server::Others => frames.of(server),
            };
            first + self.delivery.of(server) * (deliveries - 1.0)
        })
    }

    /// Returns the microseconds of a message that this run should have measured, by its rate and its deliveries.
    pub fn predict(&self, run: &Run) -> Costs {
        let by_shard = match run.kind {
            // A chat belongs to one shard.
            Kind::Group => run.rate,
            Kind::Direct | Kind::Idle | Kind::Presence => run.rate / BENCH_SHARDS,
        };
        self.message(run.rate, by_shard, run.deliveries)
    }

    fn take_direct(&mut self, runs: &[&Run]) {
        if runs.is_empty() {
            return;
        }
        let points: Vec<(f64, Costs)> = runs.iter().map(|run| (run.rate, run.cpu)).collect();
        self.message = self.message.through(&points);
        self.note("message", runs);
        let fastest = runs.iter().copied();
        let fastest = fastest.max_by(|one, other| one.rate.total_cmp(&other.rate));
        if let Some(run) = fastest {
            self.shard_messages = run.rate / BENCH_SHARDS;
            self.note("shard_messages", &[run]);
            if let Some(bytes) = run.wal_bytes {
                self.wal_bytes = bytes;
                self.note("wal_bytes", &[run]);
            }
        }
    }

    /// Takes what a further delivery costs: what a message of a group costs more than one of a pair, divided by the
    /// further deliveries.
    fn take_groups(&mut self, runs: &[&Run]) {
        let runs: Vec<&Run> = runs.iter().copied().filter(|run| run.deliveries > 1.0).collect();
        if runs.is_empty() {
            return;
        }
        self.delivery = Costs::default();
        let each = |server| {
            let more = runs.iter().map(|run| {
                let first = self.predict(run).of(server);
                (run.cpu.of(server) - first) / (run.deliveries - 1.0)
            });
            (more.sum::<f64>() / runs.len() as f64).max(0.0)
        };
        self.delivery = Costs::by(each);
        self.note("delivery", &runs);
    }

    fn take_idle(&mut self, runs: &[&Run]) {
        if runs.is_empty() {
            return;
        }
        self.connect = mean(runs);
        self.note("connect", runs);
        let rates = runs.iter().map(|run| run.rate);
        self.connects = rates.sum::<f64>() / runs.len() as f64;
        self.note("connects", runs);
        let memory: Vec<f64> = runs.iter().filter_map(|run| run.stream_kib).collect();
        if !memory.is_empty() {
            self.stream_kib = memory.iter().sum::<f64>() / memory.len() as f64;
            self.note("stream_kib", runs);
        }
    }

    /// Notes that these runs measured a constant.
    fn note(&mut self, constant: &'static str, runs: &[&Run]) {
        let files: Vec<&str> = runs.iter().map(|run| run.file.as_str()).collect();
        self.from
            .insert(constant, format!("measured: {}", files.join(", ")));
    }
}

/// Returns the runs of one kind.
fn of(runs: &[Run], kind: Kind) -> Vec<&Run> {
    runs.iter().filter(|run| run.kind == kind).collect()
}

/// Returns the average costs of runs, of which there is at least one.
fn mean(runs: &[&Run]) -> Costs {
    Costs::by(|server| runs.iter().map(|run| run.cpu.of(server)).sum::<f64>() / runs.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: Kind, rate: f64, deliveries: f64, micros: f64) -> Run {
        Run {
            file: format!("{kind:?}-{rate}.json"),
            kind,
            rate,
            deliveries,
            cpu: Costs::by(|_| micros),
            wal_bytes: Some(900.0),
            stream_kib: None,
        }
    }

    #[test]
    fn the_defaults_are_the_figures_of_the_page_at_the_rates_of_the_page() {
        let constants = Constants::default();
        let full = constants.message(DIRECT_RATE, DIRECT_RATE / BENCH_SHARDS, 1.0);
        assert!((full.total() - DIRECT.total()).abs() < 0.1, "{full:?}");
        let leisure = constants.message(100.0, 100.0 / BENCH_SHARDS, 1.0);
        assert!((leisure.postgres - LEISURE_POSTGRES).abs() < 1.0, "{leisure:?}");
        assert!((leisure.gateway - DIRECT.gateway).abs() < 0.1, "{leisure:?}");
        assert_eq!((CONNECT.total(), CHANGE.total()), (740.0, 310.0));
    }

    #[test]
    fn what_runs_measured_takes_the_place_of_the_page_and_says_so() {
        let runs = [
            run(Kind::Direct, 100.0, 1.0, 200.0),
            run(Kind::Direct, 40_000.0, 1.0, 10.0),
            run(Kind::Idle, 1500.0, 1.0, 100.0),
        ];
        let constants = Constants::measured(&runs);
        let cost = |rate: f64| constants.message(rate, rate / BENCH_SHARDS, 1.0).chat;
        assert!((cost(100.0) - 200.0).abs() < 0.1 && (cost(40_000.0) - 10.0).abs() < 0.1);
        assert_eq!((constants.shard_messages, constants.wal_bytes), (10_000.0, 900.0));
        assert_eq!((constants.connects, constants.stream_kib), (1500.0, STREAM_KIB));
        assert_eq!(constants.from["connect"], "measured: Idle-1500.json");
        assert!(constants.from["delivery"].starts_with(PAGE));
    }

    #[test]
    fn a_group_says_what_a_further_delivery_costs() {
        let base = Constants::measured(&[run(Kind::Direct, 8000.0, 1.0, 50.0)]);
        // In a group all messages are one shard's, so that as many share a statement as at four times the rate.
        let first = base.message(2000.0, 2000.0, 1.0);
        let cpu = Costs::by(|server| first.of(server) + 3.0 * 99.0);
        let group = Run {
            cpu,
            ..run(Kind::Group, 2000.0, 100.0, 0.0)
        };
        let constants = Constants::measured(&[run(Kind::Direct, 8000.0, 1.0, 50.0), group.clone()]);
        assert!(
            (constants.delivery.total() - 15.0).abs() < 0.001,
            "{:?}",
            constants.delivery
        );
        let predicted = constants.predict(&group);
        assert!((predicted.total() / cpu.total() - 1.0).abs() < 0.001);
    }
}
