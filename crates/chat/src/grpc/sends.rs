//! Sends a message by a unary call: from a device, from a back end in a user's name, or from the system.

use tern_identity::ticket::Tickets;
use tern_proto::{ApiError, parse, v1};
use tern_telemetry::trace;
use tern_types::{ChatId, Clock, Seq, UserId};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use tern_chat_core::Outcome;
use tern_chat_core::shard::{ANSWER_WITHIN, Event};

use super::caller::Callers;
use super::message;
use super::too_late;
use super::writes::Writes;
use crate::answer;

/// The sender of the messages of unary calls.
pub struct Sends {
    pub writes: Writes,
    pub callers: Callers,
    /// The keys of media tickets; `None` if this server has no media.
    pub tickets: Option<Tickets>,
}

impl Sends {
    /// Sends the message, and returns once it is committed.
    ///
    /// # Errors
    ///
    /// The caller may not send, a field is not valid, this node does not own the chat, the message is
    /// refused, or the store is away or did not answer in time.
    pub async fn send(&self, request: Request<v1::SendMessageRequest>) -> Result<v1::Sent, Status> {
        let arrived = Clock::monotonic();
        let (metadata, _, send) = request.into_parts();
        let sender = self.callers.sender(&metadata, &send.acting_user_id);
        let sender = timeout(ANSWER_WITHIN, sender).await;
        let (caller, read_receipts_off) = sender.map_err(|_| too_late())??;
        let send = parse::send(caller.user, &send.into())?;
        if caller.is_nobody() && send.peer.is_some() {
            return Err(ApiError::invalid("peer_user_id", "needs an acting_user_id").into());
        }
        let message = message::Message {
            sender: caller.user,
            device: caller.sender_device(),
            request: send.request,
            envelope: &send.envelope,
            body: &send.body,
            read_receipts_off,
            acked: Seq::ZERO,
            trace: trace::context(&tracing::Span::current()),
            arrived,
        };
        self.place(&metadata, (send.chat, send.peer), &message).await
    }

    /// Makes the entry of the message, and has the chat's shard commit it.
    async fn place(
        &self,
        metadata: &MetadataMap,
        (chat, peer): (ChatId, Option<UserId>),
        message: &message::Message<'_>,
    ) -> Result<v1::Sent, Status> {
        self.writes.check_owner(chat, metadata)?;
        let entry = message::entry(message, self.tickets.as_ref());
        let entry = entry.map_err(|refusal| answer::to_error(&refusal))?;
        let event = |origin| Event::Send {
            origin,
            chat,
            peer,
            entry,
        };
        let sent = self.writes.call(chat, event, Outcome::sent).await?;
        Ok(answer::sent(sent)?)
    }
}
