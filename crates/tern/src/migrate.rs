//! `tern migrate`: makes the database's schema, or brings it up to date.

use std::time::Duration;

use anyhow::Context;
use tern_cluster::Role;
use tern_cluster::etcd::{Cluster, EtcdArgs};
use tern_store::postgres::PostgresArgs;
use tern_store::schema;
use tern_types::Cells;
use tokio::time::timeout;

/// The longest time that etcd may take to say which nodes there are.
const MAP_WITHIN: Duration = Duration::from_secs(5);

/// Make the database's schema, or bring it up to date; safe while nodes of the previous version run, but for version 0.1
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Number of cells of a new store, which cannot be changed later: a power of two from 1 to 256 [default: 4]
    #[arg(long, env = "TERN_CELLS", value_parser = cells)]
    pub cells: Option<Cells>,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Do not ask etcd whether nodes run before the tables of version 0.1 are moved
    #[arg(long, env = "TERN_ALL_NODES_ARE_STOPPED")]
    pub all_nodes_are_stopped: bool,
}

fn cells(count: &str) -> Result<Cells, String> {
    let cells = count.parse().ok().and_then(Cells::new);
    cells.ok_or_else(|| "must be a power of two from 1 to 256".to_owned())
}

/// Applies the migrations that the database does not have yet.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    if !args.all_nodes_are_stopped && schema::is_of_0_1(&args.postgres).await? {
        refuse_while_nodes_run(&args.etcd).await?;
    }
    schema::migrate(&args.postgres, args.cells).await
}

/// Fails if a node is in the cluster map, or if etcd does not say.
async fn refuse_while_nodes_run(etcd: &EtcdArgs) -> anyhow::Result<()> {
    let cluster = timeout(MAP_WITHIN, Cluster::connect(etcd)).await.context(
        "the tables of version 0.1 are moved, and etcd does not say whether nodes run: \
         give --etcd-endpoints, or stop all nodes and give --all-nodes-are-stopped",
    )??;
    let map = cluster.map().current();
    let nodes: usize = Role::ALL.iter().map(|role| map.nodes(*role).len()).sum();
    anyhow::ensure!(
        nodes == 0,
        "the tables of version 0.1 are moved, and {nodes} nodes are in the cluster map: stop all nodes first"
    );
    Ok(())
}
