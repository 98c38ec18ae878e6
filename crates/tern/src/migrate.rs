//! `tern migrate`: makes the database's schema, or brings it up to date.

use std::time::Duration;

use anyhow::Context;
use tern_cluster::Role;
use tern_cluster::etcd::{Cluster, EtcdArgs};
use tern_store::postgres::PostgresArgs;
use tern_store::schema::{self, Wanted};
use tern_types::Cells;
use tokio::time::timeout;

/// The longest time that etcd may take to say which nodes there are.
const MAP_WITHIN: Duration = Duration::from_secs(5);

/// Make the database's schema, or bring it up to date; safe while nodes of the previous version run, unless it moves tables
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Number of cells of a new store, which cannot be changed later: a power of two from 1 to 256 [default: 4]
    #[arg(long, env = "TERN_CELLS", value_parser = cells)]
    pub cells: Option<Cells>,
    /// Place the store on the Citus cluster whose coordinator the database is. A store that is there stays there without it
    #[arg(long, env = "TERN_CITUS")]
    pub citus: bool,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Do not ask etcd whether nodes run before tables are moved: those of version 0.1, or those that go to Citus
    #[arg(long, env = "TERN_ALL_NODES_ARE_STOPPED")]
    pub all_nodes_are_stopped: bool,
}

fn cells(count: &str) -> Result<Cells, String> {
    let cells = count.parse().ok().and_then(Cells::new);
    cells.ok_or_else(|| format!("must be a power of two from 1 to {}", Cells::MAX))
}

/// Applies the migrations that the database does not have yet.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let wanted = Wanted {
        cells: args.cells,
        citus: args.citus,
    };
    if !args.all_nodes_are_stopped && schema::moves_tables(&args.postgres, wanted).await? {
        refuse_while_nodes_run(&args.etcd).await?;
    }
    schema::migrate(&args.postgres, wanted).await
}

/// Fails if a node is in the cluster map, or if etcd does not answer within [`MAP_WITHIN`].
async fn refuse_while_nodes_run(etcd: &EtcdArgs) -> anyhow::Result<()> {
    let cluster = timeout(MAP_WITHIN, Cluster::connect(etcd)).await.context(
        "the tables are moved, and etcd does not say whether nodes run: \
         give --etcd-endpoints, or stop all nodes and give --all-nodes-are-stopped",
    )??;
    let map = cluster.map().current();
    let nodes: usize = Role::ALL.iter().map(|role| map.nodes(*role).len()).sum();
    anyhow::ensure!(
        nodes == 0,
        "the tables are moved, and {nodes} nodes are in the cluster map: stop all nodes first"
    );
    Ok(())
}
