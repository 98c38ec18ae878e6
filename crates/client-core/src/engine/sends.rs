//! This module takes own messages from the app into the outbox, from the outbox to the stream, and from a result to
//! their place in the log.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::{self, SendErrorCode, client_item::Item, send_message, send_result::Outcome};
use tern_types::{ChatId, RequestId, Seq, Timestamp};

use super::chat_state::ChatState;
use super::{Change, Engine};
use crate::model::{Entry, Outgoing, QueuedMessage, SendState, To};

/// The pause after UNAVAILABLE and RATE_LIMITED if the server names none.
const DEFAULT_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// Returns the chat of a message. The id of a direct chat is computed from the ids of its two people.
    fn chat_of(&self, to: To) -> ChatId {
        match to {
            To::Chat(chat) => chat,
            To::Peer(peer) => ChatId::direct(self.me.user, peer),
        }
    }

    /// Takes a new message from the app. It is ignored if a message with its request_id has no result yet or waits to
    /// be applied. A refused one with its request_id gives way to it.
    pub(super) fn queue(&mut self, message: Outgoing, now: Timestamp) {
        if self.outbox.contains(message.request) || self.unapplied.contains_key(&message.request) {
            return;
        }
        let chat = self.chat_of(message.to);
        self.own_message(chat, now);
        self.send_event(message.request, chat, SendState::Queued);
        self.effects.changes.push(Change::Queue(QueuedMessage {
            message: message.clone(),
            chat,
            created_at: now,
            state: SendState::Queued,
        }));
        self.outbox.push(chat, message);
    }

    /// Takes the outbox as the store has it. Messages without a result are sent again, and those that were sent wait
    /// for their turn in the log.
    pub(super) fn load_outbox(&mut self, messages: Vec<QueuedMessage>) {
        for queued in messages {
            match queued.state {
                SendState::Queued => self.requeue(queued.chat, queued.message),
                SendState::Sent { seq, sent_at } => {
                    let request = queued.message.request;
                    let entry = self.own_entry(queued.chat, seq, sent_at, queued.message);
                    self.unapplied.insert(request, entry);
                }
                SendState::Failed { .. } => {}
            }
        }
    }

    /// Puts a stored message back into the outbox. An older version may have stored one that is too large: it fails
    /// here, because the server would end the stream on which it came.
    fn requeue(&mut self, chat: ChatId, message: Outgoing) {
        match message.check_size() {
            Ok(()) => self.outbox.push(chat, message),
            Err(why) => self.fail(message.request, chat, SendErrorCode::TooLarge, why, None),
        }
    }

    /// Notes that a message was refused for good, and tells the app.
    fn fail(
        &mut self,
        request: RequestId,
        chat: ChatId,
        code: SendErrorCode,
        message: String,
        retry_at: Option<Timestamp>,
    ) {
        self.effects.changes.push(Change::Failed {
            request,
            code,
            message: message.clone(),
            retry_at,
        });
        let state = SendState::Failed {
            code,
            message,
            retry_at,
        };
        self.send_event(request, chat, state);
    }

    /// Drops all sends. The outbox is then loaded from the store, whose content has changed.
    pub(super) fn forget_sends(&mut self) {
        self.unapplied.clear();
        self.outbox.clear();
    }

    /// Sends the messages that may be sent now.
    pub(super) fn flush_sends(&mut self, now: Timestamp) {
        for message in self.outbox.due(now) {
            let to = match message.to {
                To::Chat(chat) => send_message::To::ChatId(chat.to_string()),
                To::Peer(peer) => send_message::To::PeerUserId(peer.to_string()),
            };
            self.effects.items.push(Item::Send(v1::SendMessage {
                request_id: message.request.to_string(),
                to: Some(to),
                envelope: message.envelope.encoded(),
                body: message.body,
            }));
        }
    }

    /// Takes the server's result of a send.
    pub(super) fn send_result(&mut self, result: v1::SendResult, now: Timestamp) {
        let Ok(request) = result.request_id.parse::<RequestId>() else {
            return;
        };
        match result.outcome {
            Some(Outcome::Sent(sent)) => self.sent(request, &sent, now),
            Some(Outcome::Error(error)) => self.send_failed(request, error, now),
            None => {}
        }
    }

    /// Takes a `Sent` result, which stands for the message's own entry (rule 4 of messaging.proto).
    fn sent(&mut self, request: RequestId, sent: &v1::Sent, now: Timestamp) {
        let Ok(chat) = sent.chat_id.parse::<ChatId>() else {
            return;
        };
        // Without the message there is nothing to store. The entry comes later, since it is not acknowledged.
        let Some((_, message)) = self.outbox.take(request) else {
            return;
        };
        if let To::Peer(peer) = message.to {
            self.know_direct(chat, peer);
        }
        let (seq, sent_at) = (Seq(sent.seq), Timestamp(sent.sent_at_ms));
        self.effects.changes.push(Change::Sent {
            request,
            chat,
            seq,
            sent_at,
        });
        self.send_event(request, chat, SendState::Sent { seq, sent_at });
        let entry = self.own_entry(chat, seq, sent_at, message);
        debug_assert!(
            !self.outbox.contains(request),
            "a message that has its place is not sent again"
        );
        self.unapplied.insert(request, entry.clone());
        self.offer(entry, now);
        self.passed_by(chat);
    }

    /// Makes the entry of an own message from its result.
    fn own_entry(&self, chat: ChatId, seq: Seq, sent_at: Timestamp, message: Outgoing) -> Entry {
        let content = v1::Message {
            envelope: Some(message.envelope),
            body: message.body,
        };
        Entry {
            chat,
            seq,
            sent_at,
            sender: Some(self.me.user),
            device: Some(self.me.device),
            request: Some(message.request),
            ordinal: 0,
            content: v1::EntryContent {
                content: Some(v1::entry_content::Content::Message(content)),
                ..Default::default()
            },
            unknown: Bytes::new(),
        }
    }

    /// Removes the message of an applied entry from the outbox, if this device sent it. Its result may have been lost.
    pub(super) fn own_entry_applied(&mut self, entry: &Entry) {
        let Some(request) = entry.request.filter(|_| entry.device == Some(self.me.device)) else {
            return;
        };
        self.unapplied.remove(&request);
        if let Some((_, message)) = self.outbox.take(request) {
            if let To::Peer(peer) = message.to {
                self.know_direct(entry.chat, peer);
            }
            let state = SendState::Sent {
                seq: entry.seq,
                sent_at: entry.sent_at,
            };
            self.send_event(request, entry.chat, state);
        }
    }

    /// Stores the own messages at or below the chat's cursor that were not applied, because the cursor started or was
    /// raised above them. The server will not send their entries again, so they only belong to the history.
    pub(super) fn passed_by(&mut self, chat: ChatId) {
        let Some(at) = self.chats.get(&chat).and_then(ChatState::cursor) else {
            return;
        };
        let past = self
            .unapplied
            .extract_if(|_, entry| entry.chat == chat && entry.seq <= at);
        let past: Vec<Entry> = past.map(|(_, entry)| entry).collect();
        let retention = self.chats.get(&chat).map(|state| state.row.chat.retention);
        for mut entry in past {
            entry.complete_expiry(retention.unwrap_or_default().disappear_after_s);
            self.expires(&entry);
            self.effects.changes.push(Change::Entry(entry));
        }
    }

    /// Takes a refusal. The message is sent again after a pause if the refusal may pass by itself, and has failed
    /// otherwise. If it has failed and the server names a time, the person may send it again then.
    fn send_failed(&mut self, request: RequestId, error: v1::SendError, now: Timestamp) {
        let after = match error.retry_after_ms {
            0 => DEFAULT_PAUSE,
            millis => Duration::from_millis(millis.into()),
        };
        match error.code() {
            SendErrorCode::Unavailable => self.outbox.pause(request, after, now),
            SendErrorCode::RateLimited => self.outbox.pause_all(request, after, now),
            code => {
                let Some((chat, _)) = self.outbox.take(request) else {
                    return;
                };
                let wait = Duration::from_millis(error.retry_after_ms.into());
                let retry_at = (!wait.is_zero()).then(|| now + wait);
                self.fail(request, chat, code, error.message, retry_at);
            }
        }
    }
}
