//! The platform that a load needs: nodes, cells, machines of Postgres, links, and what etcd has to do.

use serde::Serialize;
use tern_types::Cells;

use super::constants::Constants;
use super::costs::Server;
use super::load::{Habits, Load, positive, share};
use super::slots::{record_bytes, shards};

/// The fewest nodes of a role, so that two are left when one is lost.
const FEWEST_NODES: f64 = 3.0;
/// The most cells of a store.
pub const MOST_CELLS: u16 = Cells::MAX;
/// The fewest cells for each machine of Postgres, so that machines can be filled evenly.
const CELLS_OF_A_MACHINE: f64 = 2.0;
/// The rounds in which a number of nodes is looked for. More nodes share less, and so a node more may be needed again;
/// a few rounds suffice.
const ROUNDS: u32 = 50;
/// The seconds between two looks of a gateway at the inboxes of its devices, on average: a pause of 30 to 60 s and a
/// sweep that is spread over 30 s (`crates/gateway/src/sweep.rs`, `--gateway-sweep-interval` 60).
const SWEEP_SECONDS: f64 = 75.0;
/// The connections of a chat node besides those of its shards: `--database-pool-size` and a probe.
const CHAT_POOL: f64 = 9.0;
/// The connections of a presence node.
const PRESENCE_POOL: f64 = 8.0;
/// The connections of a shard: two write its cell and, where there are four cells or more, two read it.
const SHARD_CONNECTIONS: f64 = 4.0;
/// The streams of a link between a gateway and a chat node: Control, Live and CatchUp. They share a connection.
const LINK_STREAMS: f64 = 3.0;
/// The writes of a node's record when it is restarted: it drains, it leaves, it is there again.
const WRITES_OF_A_RESTART: f64 = 3.0;
const KIB_OF_A_GIB: f64 = 1024.0 * 1024.0;

/// The machines that a platform is built of. The defaults are assumptions.
#[derive(clap::Args, Clone, Copy, Debug, Serialize)]
#[command(next_help_heading = "Machines")]
pub struct Machines {
    /// Processors of a node of any role
    #[arg(long, default_value_t = 4.0, value_parser = positive)]
    pub node_processors: f64,
    /// Memory of a gateway in GiB
    #[arg(long, default_value_t = 4.0, value_parser = positive)]
    pub gateway_memory: f64,
    /// Streams that a gateway's file descriptors allow
    #[arg(long, default_value_t = 60_000.0, value_parser = positive)]
    pub gateway_streams: f64,
    /// Processors of a Postgres machine
    #[arg(long, default_value_t = 64.0, value_parser = positive)]
    pub postgres_processors: f64,
    /// WAL that a Postgres machine can write, in MB a second
    #[arg(long, default_value_t = 400.0, value_parser = positive)]
    pub postgres_wal: f64,
    /// Disk of a Postgres machine in TB
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    pub postgres_disk: f64,
    /// Connections that a Postgres machine bears
    #[arg(long, default_value_t = 5000.0, value_parser = positive)]
    pub postgres_connections: f64,
    /// Years for which messages are kept
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub years: f64,
    /// Share of processors, memory and WAL that is used at the peak, above 0 and at most 1. Disks are filled
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub busy: f64,
}

/// Everything that decides how large a platform has to be, besides the number of users.
#[derive(Debug, Clone, Copy)]
pub struct Sizing<'a> {
    pub habits: &'a Habits,
    pub machines: &'a Machines,
    pub constants: &'a Constants,
}

/// The platform for a load. Accounts and media nodes are left out.
#[derive(Debug, Clone, Serialize)]
pub struct Platform {
    pub load: Load,
    pub gateways: Gateways,
    /// Chat nodes.
    pub chats: f64,
    /// Presence nodes.
    pub presences: f64,
    /// Gateways, chat nodes and presence nodes. Each has a lease in etcd, and hears of each change of another one.
    pub nodes: f64,
    pub postgres: Postgres,
    /// Renewals of leases and requests for a sign of a watch that etcd gets in a second: one of each from every node.
    pub etcd_requests: f64,
    /// Bytes of the list of all nodes, as etcd sends it to a node that starts.
    pub etcd_list_bytes: f64,
    /// Events that etcd sends while every gateway is restarted once.
    pub etcd_events_of_an_upgrade: f64,
    /// Connections between nodes: each gateway has one to each chat and presence node, each chat node one to each
    /// presence node.
    pub connections: f64,
    /// Streams between gateways and chat nodes.
    pub link_streams: f64,
    /// Deliveries a second from a chat node to a gateway. Where there are few, each takes a frame of its own.
    pub link_deliveries: f64,
}

/// The gateways, as many as the scarcest thing wants.
#[derive(Debug, Clone, Serialize)]
pub struct Gateways {
    pub nodes: f64,
    pub by_memory: f64,
    pub by_descriptors: f64,
    pub by_processors: f64,
    /// The name of the need that decides the number.
    pub bound: &'static str,
}

/// The store: cells, and the machines that they are on.
#[derive(Debug, Clone, Serialize)]
pub struct Postgres {
    pub cells: u16,
    /// Pairs of a chat node and a cell that have slots.
    pub shards: f64,
    /// Messages a second of a shard.
    pub shard_messages: f64,
    /// Processors that all cells take.
    pub processors: f64,
    /// Processors that the schema `people` takes.
    pub people_processors: f64,
    /// Looks at a device's inbox a second. Each asks all cells.
    pub inbox_reads: f64,
    /// Processors that these looks take in one cell.
    pub cell_read_processors: f64,
    /// MB of WAL a second.
    pub wal: f64,
    /// TB of rows and bodies a year.
    pub disk_a_year: f64,
    /// Machines for the cells.
    pub machines: f64,
    /// The name of the need that decides the number of machines.
    pub bound: &'static str,
    /// Machines that one server for cells and people would have to be as strong as.
    pub one_server: f64,
    /// Connections of shards to a machine.
    pub shard_connections: f64,
    /// Connections of the nodes' pools, all to one address.
    pub pool_connections: f64,
}

impl Sizing<'_> {
    /// Returns the platform for this number of users.
    pub fn platform(&self, users: f64) -> Platform {
        let load = self.habits.load(users);
        let gateways = self.gateways(&load);
        let presences = self.presences(&load);
        let mut cells = Cells::DEFAULT.count();
        let (chats, postgres) = loop {
            let chats = self.chats(&load, cells);
            let postgres = self.postgres(&load, cells, chats, presences);
            let enough = f64::from(cells) >= CELLS_OF_A_MACHINE * postgres.machines;
            if enough || cells >= MOST_CELLS {
                break (chats, postgres);
            }
            cells *= 2;
        };
        let nodes = gateways.nodes + chats + presences;
        Platform {
            nodes,
            etcd_requests: 2.0 * nodes,
            etcd_list_bytes: nodes * record_bytes() as f64,
            etcd_events_of_an_upgrade: WRITES_OF_A_RESTART * gateways.nodes * nodes,
            connections: gateways.nodes * (chats + presences) + chats * presences,
            link_streams: LINK_STREAMS * gateways.nodes * chats,
            link_deliveries: load.deliveries / (gateways.nodes * chats),
            load,
            gateways,
            chats,
            presences,
            postgres,
        }
    }

    /// Returns how many gateways hold these streams, by memory and by file descriptors.
    pub fn hold(&self, streams: f64) -> (f64, f64) {
        let memory = self.machines.gateway_memory * KIB_OF_A_GIB * self.machines.busy;
        let by_memory = streams * self.constants.stream_kib / memory;
        (by_memory.ceil(), (streams / self.machines.gateway_streams).ceil())
    }

    fn gateways(&self, load: &Load) -> Gateways {
        let (by_memory, by_descriptors) = self.hold(load.streams);
        let least = FEWEST_NODES.max(by_memory).max(by_descriptors);
        let needed = |nodes: f64| self.nodes(load, Server::Gateway, load.messages / nodes, 0.0);
        let nodes = settled(least, needed);
        let by_processors = needed(nodes);
        let bound = largest(&[
            ("the loss of one", FEWEST_NODES),
            ("memory", by_memory),
            ("file descriptors", by_descriptors),
            ("processors", by_processors),
        ]);
        Gateways {
            nodes,
            by_memory,
            by_descriptors,
            by_processors,
            bound,
        }
    }

    fn presences(&self, load: &Load) -> f64 {
        settled(FEWEST_NODES, |nodes| {
            self.nodes(load, Server::Presence, load.messages / nodes, 0.0)
        })
    }

    fn chats(&self, load: &Load, cells: u16) -> f64 {
        settled(FEWEST_NODES, |nodes| {
            self.nodes(load, Server::Chat, 0.0, load.messages / shards(nodes, cells))
        })
    }

    /// Returns how many nodes the processor time of a role wants, where a node has `by_node` messages a second and a
    /// shard `by_shard`.
    fn nodes(&self, load: &Load, server: Server, by_node: f64, by_shard: f64) -> f64 {
        let constants = self.constants;
        let message = constants.message(by_node, by_shard, self.habits.deliveries());
        let micros = load.messages * message.of(server)
            + load.connects * constants.connect.of(server)
            + load.changes * constants.change.of(server);
        (seconds(micros) / (self.machines.node_processors * self.machines.busy)).ceil()
    }

    fn postgres(&self, load: &Load, cells: u16, chats: f64, presences: f64) -> Postgres {
        let (machines, constants) = (self.machines, self.constants);
        let shards = shards(chats, cells);
        let shard_messages = load.messages / shards;
        let message = constants.message(0.0, shard_messages, self.habits.deliveries());
        let inbox_reads = load.connects + load.streams / SWEEP_SECONDS;
        let cell_read_processors = seconds(inbox_reads * constants.inbox_look);
        let messages = seconds(load.messages * message.postgres);
        let processors = messages + cell_read_processors * f64::from(cells);
        let people_processors = seconds(
            load.connects * constants.connect.postgres
                + load.changes * constants.change.postgres
                + inbox_reads * constants.inbox_look,
        );
        let wal = load.messages * constants.wal_bytes / 1e6;
        let disk_a_year = load.messages_a_year * (constants.row_bytes + self.habits.body) / 1e12;
        let used = machines.postgres_processors * machines.busy;
        let by_wal = wal / (machines.postgres_wal * machines.busy);
        let by_disk = disk_a_year * machines.years / machines.postgres_disk;
        let needs = [
            ("processors", processors / used),
            ("WAL", by_wal),
            ("disk", by_disk),
        ];
        let together = [(processors + people_processors) / used, by_wal, by_disk];
        let count = needs
            .iter()
            .fold(1.0, |most: f64, (_, need)| most.max(need.ceil()));
        Postgres {
            cells,
            shards,
            shard_messages,
            processors,
            people_processors,
            inbox_reads,
            cell_read_processors,
            wal,
            disk_a_year,
            machines: count,
            bound: largest(&needs),
            one_server: together.into_iter().fold(0.0, f64::max),
            shard_connections: SHARD_CONNECTIONS * shards / count,
            pool_connections: CHAT_POOL * chats + PRESENCE_POOL * presences,
        }
    }
}

fn seconds(micros: f64) -> f64 {
    micros / 1e6
}

/// Returns the least number of nodes, at least `least`, that is as many as `needed` says for that number.
fn settled(least: f64, needed: impl Fn(f64) -> f64) -> f64 {
    (0..ROUNDS).fold(least, |nodes, _| nodes.max(needed(nodes)))
}

/// Returns the name of the largest value.
fn largest(named: &[(&'static str, f64)]) -> &'static str {
    let largest = named.iter().max_by(|one, other| one.1.total_cmp(&other.1));
    largest.map_or("", |(name, _)| *name)
}

/// Lets `ask` use a sizing by the default constants and these flags.
#[cfg(test)]
pub fn sized<T>(flags: &[&str], ask: impl FnOnce(&Sizing<'_>) -> T) -> T {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        habits: Habits,
        #[command(flatten)]
        machines: Machines,
    }
    let flags = ["model"].into_iter().chain(flags.iter().copied());
    let flags = <Flags as clap::Parser>::parse_from(flags);
    ask(&Sizing {
        habits: &flags.habits,
        machines: &flags.machines,
        constants: &Constants::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(users: f64, flags: &[&str]) -> Platform {
        sized(flags, |sizing| sizing.platform(users))
    }

    #[test]
    fn the_scarcest_thing_decides_how_many_gateways_there_are() {
        let plain = platform(100e6, &[]);
        // 32.5 million streams of 33.5 KiB in gateways of 2 GiB that are used, or 60,000 in each.
        assert_eq!(
            (plain.gateways.by_memory, plain.gateways.by_descriptors),
            (520.0, 542.0)
        );
        assert_eq!(
            (plain.gateways.nodes, plain.gateways.bound),
            (542.0, "file descriptors")
        );
        let smaller = platform(100e6, &["--gateway-memory", "2"]);
        assert_eq!(
            (smaller.gateways.nodes, smaller.gateways.bound),
            (1039.0, "memory")
        );
        let busy = platform(100e6, &["--connects", "2000"]);
        assert_eq!(busy.gateways.bound, "processors");
    }

    #[test]
    fn a_small_platform_is_three_nodes_of_each_role_and_one_postgres_of_four_cells() {
        let small = platform(10_000.0, &[]);
        assert_eq!(
            (small.gateways.nodes, small.chats, small.presences),
            (3.0, 3.0, 3.0)
        );
        assert_eq!(small.gateways.bound, "the loss of one");
        assert_eq!((small.postgres.cells, small.postgres.machines), (4, 1.0));
        assert_eq!(small.postgres.shards.round(), 12.0);
        assert_eq!((small.connections, small.link_streams), (27.0, 27.0));
        assert_eq!((small.nodes, small.etcd_events_of_an_upgrade), (9.0, 81.0));
    }

    #[test]
    fn there_are_cells_enough_for_the_machines_as_long_as_a_store_can_have_them() {
        for users in [1e6, 30e6, 100e6, 1e9] {
            let postgres = platform(users, &[]).postgres;
            assert!(Cells::new(postgres.cells).is_some());
            let enough = f64::from(postgres.cells) >= CELLS_OF_A_MACHINE * postgres.machines;
            assert!(enough || postgres.cells == MOST_CELLS, "{postgres:?}");
        }
        assert!(Cells::new(MOST_CELLS).is_some() && Cells::new(MOST_CELLS * 2).is_none());
    }

    #[test]
    fn the_more_cells_there_are_the_fewer_messages_share_a_statement() {
        let cost = |cells: u16| {
            sized(&[], |sizing| {
                let load = sizing.habits.load(100e6);
                let postgres = sizing.postgres(&load, cells, 10.0, 10.0);
                let looks = postgres.cell_read_processors * f64::from(cells);
                (postgres.processors - looks, postgres.shard_messages)
            })
        };
        let (few, many) = (cost(4), cost(64));
        assert!(few.0 < many.0 && few.1 > many.1, "{few:?} and {many:?}");
    }
}
