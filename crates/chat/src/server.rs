//! Wires the chat role: the store, the shards, the links and the services.

use std::sync::Arc;

use anyhow::Context;
use sqlx::PgPool;
use tern_chat_core::target::Windows;
use tern_cluster::context::NodeContext;
use tern_cluster::links::MAX_LINK_MESSAGE_BYTES;
use tern_cluster::map::Role;
use tern_identity::ticket::Tickets;
use tern_proto::internal::chat_admin_server::ChatAdminServer;
use tern_proto::internal::chat_link_server::ChatLinkServer;
use tern_proto::internal::chat_node_server::ChatNodeServer;
use tern_proto::internal::chat_shards_server::ChatShardsServer;
use tern_proto::v1::chats_server::ChatsServer;
use tern_proto::v1::groups_server::GroupsServer;
use tern_proto::v1::inbox_server::InboxServer;
use tern_store::Pools;
use tern_store::postgres::cell_connect_options;
use tern_transport::serve::Running;
use tern_types::ChatId;
use tern_types::limits::MAX_REQUEST_BYTES;
use tokio::sync::mpsc;
use tonic::service::RoutesBuilder;
use tracing::Instrument;

use crate::bell::{self, Bell};
use crate::config::Config;
use crate::epoch::StoreEpoch;
use crate::fanout::Fanout;
use crate::gateways::Gateways;
use crate::grpc::admin::AdminService;
use crate::grpc::chats::ChatsService;
use crate::grpc::gateway_link::{self, LinkService};
use crate::grpc::groups::Groups;
use crate::grpc::groups_service::GroupsService;
use crate::grpc::inbox::InboxService;
use crate::grpc::node::NodeService;
use crate::grpc::own_log::OwnLog;
use crate::grpc::read_marks::ReadMarks;
use crate::grpc::writes::Writes;
use crate::lookup::{Lookup, Patience};
use crate::metrics;
use crate::own::OwnLogs;
use crate::ownership::Ownership;
use crate::shard_loop::Shards;
use crate::shard_loop::effects::{Calls, Effects};
use crate::shard_loop::loader::Loader;
use crate::shard_loop::writer::Connect;
use crate::store::seal::MasterKey;
use crate::trimming::Trims;
use crate::{backlog, erasing, recovery, trimming};

/// Starts the role in this process. The returned future ends after a drain: when this node owns no slots any more and
/// has answered all that was under way, or at the drain's deadline.
///
/// # Errors
///
/// Fails if the master key or the ticket key cannot be read, or Postgres cannot be reached.
pub async fn start(config: Config, ctx: NodeContext, routes: &mut RoutesBuilder) -> anyhow::Result<Running> {
    metrics::describe();
    let mut node = ChatNode::build(&config, ctx).await?;
    node.spawn_tasks();
    node.add_services(routes);
    let ChatNode {
        ctx,
        ownership,
        effects,
        shards,
        ..
    } = node;
    Ok(Running {
        name: "chat",
        done: Box::pin(drained(
            ctx,
            ownership,
            shards,
            (effects.fanout, effects.gateways),
        )),
    })
}

/// The parts that the node's tasks and services share.
struct ChatNode {
    ctx: NodeContext,
    pools: Pools,
    master: MasterKey,
    tickets: Option<Tickets>,
    ownership: Ownership,
    effects: Effects,
    shards: Shards,
    epoch: StoreEpoch,
    new_strangers: usize,
    windows: Windows,
    trims: Trims,
    /// The pool of the bell that wakes the push workers.
    bell_pool: PgPool,
    /// The hints to the trimmer by cell, until it is started.
    hints: Vec<mpsc::Receiver<ChatId>>,
}

impl ChatNode {
    /// Connects to the store, and starts the shards.
    async fn build(config: &Config, ctx: NodeContext) -> anyhow::Result<Self> {
        let master = master_key(config)?;
        let tickets = config.tickets.load()?;
        let pools = Pools::open(&config.postgres).await?;
        let ownership = Ownership::new(ctx.clone());
        let new_strangers = config.chat_new_strangers_a_day as usize;
        let loader = Loader::new(pools.clone(), master.clone(), new_strangers);
        let (trims, hints) = Trims::new(pools.count(), config.chat_retention);
        let bell = Bell::new(pools.count());
        let effects = effects(&ctx, loader, ownership.clone(), trims.clone(), bell);
        let connect = |cell| -> Connect {
            let postgres = config.postgres.clone();
            Arc::new(move || cell_connect_options(&postgres, cell))
        };
        let shards = Shards::start(pools.count(), connect, &effects, config.windows());
        Ok(Self {
            epoch: StoreEpoch::new(pools.clone(), shards.clone()),
            ctx,
            pools,
            master,
            tickets,
            ownership,
            effects,
            shards,
            new_strangers,
            windows: config.windows(),
            trims,
            bell_pool: bell::pool(&config.postgres),
            hints,
        })
    }

    /// Starts the tasks that run beside the shards and the services.
    fn spawn_tasks(&mut self) {
        let recovery = recovery::run(
            self.pools.clone(),
            self.epoch.clone(),
            self.ownership.clone(),
            self.shards.clone(),
            self.ctx.map.clone(),
            self.ctx.drain.clone(),
        );
        tokio::spawn(recovery.instrument(tracing::info_span!("recovery")));
        let backlog = backlog::run(
            self.pools.clone(),
            self.ownership.clone(),
            self.ctx.map.clone(),
            self.ctx.drain.clone(),
        );
        tokio::spawn(backlog.instrument(tracing::info_span!("backlog")));
        let erasing = erasing::run(
            self.pools.clone(),
            self.ownership.clone(),
            self.ctx.map.clone(),
            self.ctx.drain.clone(),
        );
        tokio::spawn(erasing.instrument(tracing::info_span!("erasing")));
        let trimming = trimming::run(
            self.pools.clone(),
            self.ownership.clone(),
            self.ctx.drain.clone(),
            self.trims.default_mode(),
            std::mem::take(&mut self.hints),
        );
        tokio::spawn(trimming.instrument(tracing::info_span!("trimming")));
        let ringing = bell::run(
            self.effects.bell.clone(),
            self.bell_pool.clone(),
            self.ctx.drain.clone(),
        );
        tokio::spawn(ringing.instrument(tracing::info_span!("bell")));
    }

    fn add_services(&self, routes: &mut RoutesBuilder) {
        let (pools, master) = (self.pools.clone(), self.master.clone());
        let inbox = InboxService::new(self.writes(), pools.clone(), master.clone());
        let groups = GroupsService::new(
            self.writes(),
            pools.clone(),
            master.clone(),
            OwnLogs::new(self.ctx.clone()),
        );
        let node = NodeService::new(
            self.writes(),
            self.own_log(),
            pools.clone(),
            self.epoch.clone(),
            self.windows,
        );
        let admin = Arc::new(AdminService {
            ctx: self.ctx.clone(),
            writes: self.writes(),
            lookup: self.effects.fanout.lookup.clone(),
            pools,
            master,
        });
        routes
            .add_service(ChatLinkServer::new(self.link()).max_decoding_message_size(MAX_LINK_MESSAGE_BYTES))
            .add_service(ChatNodeServer::new(node))
            .add_service(ChatAdminServer::from_arc(admin.clone()))
            .add_service(ChatShardsServer::from_arc(admin))
            .add_service(ChatsServer::new(self.chats()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(GroupsServer::new(groups).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(InboxServer::new(inbox).max_decoding_message_size(MAX_REQUEST_BYTES));
    }

    fn link(&self) -> LinkService {
        let parts = gateway_link::Parts {
            shards: self.shards.clone(),
            gateways: self.effects.gateways.clone(),
            ownership: self.ownership.clone(),
            shedding: self.ctx.shedding.clone(),
            epoch: self.epoch.clone(),
            tickets: self.tickets.clone(),
        };
        LinkService::new(parts, self.pools.clone(), self.master.clone())
    }

    fn chats(&self) -> ChatsService {
        let (pools, master) = (self.pools.clone(), self.master.clone());
        let groups = Groups {
            pools: pools.clone(),
            master: master.clone(),
            shards: self.shards.clone(),
            pushes: self.effects.fanout.spawn(self.effects.gateways.clone()),
            new_strangers: self.new_strangers,
        };
        let read_marks = ReadMarks {
            ctx: self.ctx.clone(),
            shards: self.shards.clone(),
            pools: pools.clone(),
        };
        let tickets = self.tickets.clone();
        ChatsService::new(self.own_log(), groups, read_marks, pools, master, tickets)
    }

    fn own_log(&self) -> OwnLog {
        OwnLog {
            ctx: self.ctx.clone(),
            writes: self.writes(),
            pools: self.pools.clone(),
            master: self.master.clone(),
        }
    }

    fn writes(&self) -> Writes {
        Writes {
            shards: self.shards.clone(),
            calls: self.effects.calls.clone(),
            ownership: self.ownership.clone(),
        }
    }
}

/// Builds the parts with which the shards perform effects. It also registers with `ctx.reached` how the gateways that
/// are linked to this node are counted.
fn effects(ctx: &NodeContext, loader: Loader, ownership: Ownership, trims: Trims, bell: Bell) -> Effects {
    let gateways = Gateways::default();
    let linked = gateways.clone();
    ctx.reached.links(Role::Chat, move || {
        u32::try_from(linked.linked().len()).unwrap_or(u32::MAX)
    });
    Effects {
        loader,
        calls: Arc::new(Calls::default()),
        gateways: gateways.clone(),
        fanout: Fanout::new(Lookup::start(ctx, gateways, Patience::default())),
        ownership,
        shedding: ctx.shedding.clone(),
        trims,
        bell,
    }
}

/// Waits until a drain has begun, all slots are handed over, and the shards have answered everything. It gives up at
/// the drain's deadline.
async fn drained(
    ctx: NodeContext,
    ownership: Ownership,
    shards: Shards,
    (fanout, gateways): (Fanout, Gateways),
) {
    ctx.drain.wait().await;
    let mut map = ctx.map.clone();
    let handed_over = async {
        let mut current = map.current();
        // The last node of its role keeps its slots to the end, because there is nobody to take them over.
        while !ownership.slots(&current).is_empty() {
            current = map.changed().await;
        }
        shards.quiet().await;
        fanout.tell_unreached(&gateways).await;
        gateways.end_live();
    };
    if tokio::time::timeout(ctx.drain.deadline(), handed_over)
        .await
        .is_err()
    {
        tracing::warn!("slots were not handed over in time");
    }
}

fn master_key(config: &Config) -> anyhow::Result<MasterKey> {
    let file = config
        .chat_master_key_file
        .as_ref()
        .context("--chat-master-key-file is needed")?;
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    MasterKey::from_hex(&text).with_context(|| format!("no master key in {}", file.display()))
}
