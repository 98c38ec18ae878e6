//! Reads windows of logs for devices that catch up. A cell that is slow or away holds up no window of the others: it
//! gets a share of a link only, and its windows fail soon.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tern_proto::internal::{WindowReplies, WindowReply, WindowRequest, WindowRequests};
use tern_proto::{raw, v1};
use tern_store::Pools;
use tern_types::limits::CATCH_UP_WINDOW;
use tern_types::{ChatId, DeviceId, Seq, UserId};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;
use tracing::Instrument;

use crate::metrics;
use crate::ownership::Ownership;
use crate::shard_loop::turns::Turns;
use crate::store::ReadError;
use crate::store::entries::{self, Item};
use crate::store::seal::MasterKey;

/// The most windows of one link that are being read or wait to be sent.
pub const WINDOWS: usize = 64;
/// The most windows of one link that are being read from one of several cells: a cell that is slow or away leaves the
/// other half to the others. A window beyond that fails, and its session asks again a moment later.
const WINDOWS_OF_CELL: usize = WINDOWS / 2;
/// The bound of one window in bytes: a few of the largest bodies.
const WINDOW_BYTES: usize = 2 << 20;

/// The longest time that the reading of a window may take: more than the waits for a connection (3 s) and for a
/// statement (5 s). So one window that is slow fails alone, and its cell does not count as away.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(9);

/// The sender of the answers on one link.
type Replies = mpsc::Sender<Result<WindowReplies, Status>>;

/// The reader of windows from the store.
pub struct Windows {
    ownership: Ownership,
    pools: Pools,
    master: MasterKey,
    /// The turns at each cell, in the order of the cells. They are half as many as this node's connections to
    /// the cell, so that loads of chats get some too. All gateways share them.
    reads: Vec<Turns>,
}

impl Windows {
    /// Creates a reader that uses these pools.
    pub fn new(ownership: Ownership, pools: Pools, master: MasterKey) -> Self {
        let turns = (pools.cell_connections() / 2).max(1);
        Self {
            reads: pools
                .count()
                .all()
                .map(|_| Turns::new(turns).within(WINDOW_TIMEOUT))
                .collect(),
            ownership,
            pools,
            master,
        }
    }

    /// Answers the requests of one link, beside one another, until the link ends.
    pub async fn serve(
        self: Arc<Self>,
        mut frames: impl Stream<Item = Result<WindowRequests, Status>> + Unpin,
        replies: Replies,
    ) {
        let room = if self.reads.len() > 1 {
            WINDOWS_OF_CELL
        } else {
            WINDOWS
        };
        let shares: Vec<_> = self
            .reads
            .iter()
            .map(|_| Arc::new(Semaphore::new(room)))
            .collect();
        while let Some(Ok(frame)) = frames.next().await {
            for request in frame.requests {
                let Ok(slot) = replies.clone().reserve_owned().await else {
                    return;
                };
                let chat = ChatId::from_slice(&request.chat_id).ok();
                let share = chat.map(|chat| shares[self.pools.number(chat)].clone());
                let share = share.and_then(|share| share.try_acquire_owned().ok());
                let (windows, version) = (self.clone(), frame.map_version);
                let answer = async move {
                    let window = if share.is_some() {
                        windows.read(&request, version).await
                    } else {
                        None
                    };
                    drop(share);
                    slot.send(Ok(windows.reply(request, window)));
                };
                tokio::spawn(answer.in_current_span());
            }
        }
    }

    /// Returns the answer to a request. It has `failed` set if there is no window.
    fn reply(&self, request: WindowRequest, window: Option<(ChatId, entries::Window)>) -> WindowReplies {
        let mut reply = WindowReply {
            r#ref: request.r#ref,
            session: request.session,
            chat_id: request.chat_id,
            next_seq: request.from_seq,
            ..WindowReply::default()
        };
        match window {
            Some((chat, window)) => {
                metrics::window(window.items.len());
                reply.seqs = window.items.iter().map(|item| item.seq().0).collect();
                reply.events = window.items.into_iter().map(|item| event(chat, item)).collect();
                reply.next_seq = window.next.0;
                reply.done = window.done;
            }
            None => reply.failed = true,
        }
        WindowReplies {
            map_version: self.ownership.map_version(),
            replies: vec![reply],
        }
    }

    /// Reads a window. Returns `None` if an id is malformed, this node does not own the chat, or it cannot read it now.
    async fn read(&self, request: &WindowRequest, map_version: i64) -> Option<(ChatId, entries::Window)> {
        let chat = ChatId::from_slice(&request.chat_id).ok()?;
        let user = UserId::from_slice(&request.user_id).ok()?;
        let device = DeviceId::from_slice(&request.device_id).ok()?;
        self.ownership.check(chat, map_version).ok()?;
        let turns = &self.reads[self.pools.number(chat)];
        if turns.is_away() {
            return None;
        }
        let window = self.window(request, chat, user, device);
        Some((chat, turns.take(chat, window).await.ok()?))
    }

    /// Reads the window from `from_seq` or, if that is 0, from the device's place in the chat.
    async fn window(
        &self,
        request: &WindowRequest,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
    ) -> Result<entries::Window, ReadError> {
        let from = match Seq(request.from_seq) {
            Seq::ZERO => entries::place(&self.pools, chat, user, device).await?,
            from => Some(from),
        };
        let (from, limit) = (from.unwrap_or(Seq(1)), request.limit.clamp(1, CATCH_UP_WINDOW));
        entries::window(&self.pools, &self.master, chat, user, from, limit, WINDOW_BYTES).await
    }
}

/// Encodes the server event of an item of a log.
pub fn event(chat: ChatId, item: Item) -> Bytes {
    match item {
        Item::Entry(entry) => raw::entry_event(&entry),
        Item::Skipped { to, reason } => raw::event(v1::server_event::Event::Skipped(v1::Skipped {
            chat_id: chat.to_string(),
            to_seq: to.0,
            reason: reason.into(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tern_cluster::{ClusterMap, MapHandle, NodeContext};
    use tern_types::{Cell, Cells};
    use tokio::net::TcpListener;

    use super::*;

    /// Returns a server that never answers, and the settings of connections to it.
    async fn server() -> (TcpListener, PgConnectOptions) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let connect = format!("postgres://tern@{address}/tern").parse().unwrap();
        (server, connect)
    }

    /// Returns a request for a window of some chat of the cell.
    fn request(cell: Cell, reference: u64) -> WindowRequest {
        let own = std::iter::repeat_with(|| ChatId::own(UserId::random()));
        let mut of_cell = own.filter(|chat| Cells::DEFAULT.of_chat(*chat) == cell);
        let id = |id: Vec<u8>| Bytes::from(id);
        WindowRequest {
            r#ref: reference,
            user_id: id(UserId::random().to_vec()),
            device_id: id(DeviceId::random().to_vec()),
            chat_id: id(of_cell.next().unwrap().to_vec()),
            from_seq: 1,
            limit: 1,
            ..WindowRequest::default()
        }
    }

    /// A window of the second cell is answered in a moment, although more windows of the first one wait than the link
    /// has room for. If they had that room, it would wait for minutes.
    #[tokio::test]
    async fn rule_9_a_cell_that_hangs_holds_up_no_window_of_another() {
        let (silent, hangs) = server().await;
        let (closing, closes) = server().await;
        let closing = tokio::spawn(async move { while closing.accept().await.is_ok() {} });
        let people = PgPoolOptions::new().connect_lazy_with(closes.clone());
        let pools = Pools::new(people, Cells::DEFAULT, 2, |cell| match cell {
            Cell::FIRST => hangs.clone(),
            _ => closes.clone(),
        });
        let ctx = NodeContext::alone("chat-0", 1, MapHandle::fixed(ClusterMap::default()));
        let master = MasterKey::from_hex(&"00".repeat(32)).unwrap();
        let windows = Arc::new(Windows::new(Ownership::new(ctx), pools, master));
        let second = Cells::DEFAULT.all().nth(1).unwrap();
        let first = (0..2 * WINDOWS).map(|_| request(Cell::FIRST, 1));
        let frame = WindowRequests {
            map_version: i64::MAX,
            requests: first.chain([request(second, 2)]).collect(),
        };
        let (replies, mut answers) = mpsc::channel(WINDOWS);
        let serving = tokio::spawn(windows.serve(stream::iter([Ok(frame)]), replies));
        let answered = async {
            while let Some(Ok(answer)) = answers.recv().await {
                if answer.replies[0].r#ref == 2 {
                    return answer.replies[0].failed;
                }
            }
            panic!("no answer")
        };
        let failed = tokio::time::timeout(Duration::from_secs(60), answered).await;
        assert_eq!(failed.ok(), Some(true));
        serving.abort();
        closing.abort();
        drop(silent);
    }
}
