//! Decides which members of a chat are told of a notice, such as typing: those who may see the presence of
//! the person who gives it. While it is not known whether a member may, the member is not told. An accounts
//! node decides who may, and the table of [`tern_gateway_core::audience`] keeps its answers for a while.
//!
//! Notices are hints. One that finds no room, here or in a session's mailbox, is dropped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tern_cluster::{NodeContext, Role};
use tern_proto::internal::MaySeeRequest;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_types::{ChatId, NoticeKind, SessionId, UserId};
use tokio::time::timeout;
use tonic::Status;
use tracing::Instrument;

use tern_gateway_core::audience::{Said, Sorted, Table};

use crate::registry::Registry;
use crate::{metrics, nodes};

/// The longest time that accounts may take to answer. A notice that waited longer is out of date.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The part of the gateway that passes notices on to the sessions whose users may see them.
pub struct Audience {
    ctx: NodeContext,
    registry: Arc<Registry>,
    table: Mutex<Table>,
}

impl std::fmt::Debug for Audience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").finish_non_exhaustive()
    }
}

impl Audience {
    /// Makes an audience that knows nothing yet.
    pub fn new(ctx: NodeContext, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            ctx,
            registry,
            table: Mutex::default(),
        })
    }

    /// Passes a notice of `giver` on to those of the sessions whose users may see it. `event` is the encoded
    /// notice. If it is not known of some users whether they may, accounts are asked first.
    pub fn tell(
        self: &Arc<Self>,
        chat: ChatId,
        giver: UserId,
        kind: NoticeKind,
        event: Bytes,
        sessions: &[u64],
    ) {
        let sessions = sessions.iter().filter_map(|id| self.registry.get(SessionId(*id)));
        let said = Said {
            chat,
            giver,
            kind,
            event,
            to: sessions.map(|session| (session.id, session.user)).collect(),
        };
        let sorted = self.table().sort(said.clone(), Instant::now());
        if !sorted.ask.is_empty() {
            let (audience, ask) = (self.clone(), sorted.ask.clone());
            tokio::spawn(async move { audience.look_up(giver, ask).await }.in_current_span());
        }
        self.perform(&said, sorted);
    }

    /// Forgets what is known of these users, since their settings, contacts or blocks have changed.
    pub fn privacy_changed(&self, users: &HashSet<UserId>) {
        self.table().privacy_changed(users);
    }

    /// Asks accounts which of the watchers may see the giver, and passes on the notices that waited for the answer.
    async fn look_up(&self, giver: UserId, watchers: Vec<UserId>) {
        let answer = timeout(ANSWER_WITHIN, self.ask(giver, &watchers)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        if let Err(status) = &answer {
            tracing::debug!(code = ?status.code(), message = status.message(), "who may see a notice is not known");
        }
        let answered = self.table().answered(giver, answer.ok().as_ref(), Instant::now());
        for (said, sorted) in answered {
            self.perform(&said, sorted);
        }
    }

    async fn ask(&self, giver: UserId, watchers: &[UserId]) -> Result<HashSet<UserId>, Status> {
        let (node, _) = nodes::find(&self.ctx.map, |map| map.any(Role::Accounts)).await?;
        let mut client = AccountsNodeClient::new(self.ctx.channels.get(&node.address)?);
        let request = MaySeeRequest {
            user_id: giver.to_vec().into(),
            watcher_ids: watchers.iter().map(|user| user.to_vec().into()).collect(),
        };
        let answer = client.may_see(request).await?.into_inner();
        let seeing = answer.watcher_ids.iter();
        Ok(seeing.filter_map(|id| UserId::from_slice(id).ok()).collect())
    }

    fn perform(&self, said: &Said, sorted: Sorted) {
        for session in sorted.tell.iter().filter_map(|id| self.registry.get(*id)) {
            let mailbox = &session.mailbox;
            if !mailbox.push_notice(said.chat, said.giver, said.kind, said.event.clone()) {
                metrics::notice_dropped(said.kind, "mailbox");
            }
        }
        if sorted.hidden > 0 {
            metrics::notice_dropped(said.kind, "hidden");
        }
        if sorted.unknown > 0 {
            metrics::notice_dropped(said.kind, "audience");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
