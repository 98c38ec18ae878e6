//! Runs one device's stream, as cheaply as a client can: it keeps no entries, but only a cursor for each chat.

use std::collections::HashMap;

use anyhow::Context as _;
use bytes::Bytes;
use tern_client::Credentials;
use tern_client::connection::Gateways;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::{
    Ack, ClientFrame, ClientItem, Envelope, MarkRead, Open, PresenceState, SendMessage, SetActive, Typing,
    WatchErrorCode, WatchPresence, send_message,
};
use tern_types::{ChatId, RequestId, UserId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::meter::Clock;
use super::slim::{Event, ServerFrame};

/// The capacity of the queue of frames that HTTP/2 has not written yet.
const WRITE_QUEUE: usize = 64;

/// An open stream of a device. Dropping it closes the stream.
pub struct Line {
    up: mpsc::Sender<ClientFrame>,
    down: Streaming<ServerFrame>,
    /// The items for the next frame.
    items: Vec<ClientItem>,
    /// The id of the user's own log as text. Its entries are acknowledged, and matter to no load.
    own_log: Bytes,
    /// The device's cursors, by chat.
    cursors: Cursors,
    /// The chats to acknowledge after the present frame.
    touched: Vec<Bytes>,
    /// True if acknowledged entries are also marked as read.
    reads: bool,
    /// The number of entries that came more than once.
    pub repeated: u64,
}

/// The cursors of a device, by chat id.
pub type Cursors = HashMap<Bytes, Cursor>;

/// The record of the entries that a device has got in one chat.
#[derive(Debug, Default)]
pub struct Cursor {
    /// The seq up to which every entry has come.
    seq: u64,
    /// The seqs of entries that came above a gap. The missing entries come without being asked for.
    held: std::collections::BTreeSet<u64>,
    /// The highest seq of the device's own messages.
    own: u64,
}

/// An event that matters to a load.
pub enum Heard {
    /// An entry, when it comes for the first time.
    Entry {
        /// The chat's id as text.
        chat: Bytes,
        seq: u64,
        content: Bytes,
    },
    /// The result of a send that was accepted, by its request_id.
    Sent { request: Bytes, seq: u64 },
    /// The result of a send that was refused, by its request_id.
    Refused { request: Bytes, why: String },
    /// A receipt, with the watermark up to which the other person has received the chat.
    Receipt { delivered: u64 },
    /// The end of the entries that waited for the device.
    CaughtUp,
    /// The presence of a watched person.
    Presence {
        /// The user id as text.
        user: Bytes,
        online: bool,
    },
    /// The result of a WatchPresence.
    Watched {
        /// True if some people are not watched, because they are strangers beyond the day's limit.
        limited: bool,
        error: bool,
    },
}

impl Line {
    /// Connects to the gateway with this number, counted round the list, opens the stream and waits for Opened. Fails
    /// if the gateway cannot be reached or refuses the stream.
    pub async fn open(gateways: &Gateways, number: usize, device: &Credentials) -> anyhow::Result<Self> {
        let channel = gateways.endpoint(number).connect().await.context("connect")?;
        let (up, frames) = mpsc::channel(WRITE_QUEUE);
        let open = Open {
            access_token: device.access_token.clone(),
            client_version: "tern-bench".to_owned(),
            active: true,
        };
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.context("connect")?;
        let path = http::uri::PathAndQuery::from_static("/tern.v1.Messaging/Stream");
        let codec: ProstCodec<ClientFrame, ServerFrame> = ProstCodec::default();
        let request = tonic::Request::new(ReceiverStream::new(frames));
        let mut line = Self {
            up,
            down: {
                let call = grpc.streaming(request, path, codec);
                call.await.context("open a stream")?.into_inner()
            },
            items: Vec::new(),
            own_log: ChatId::own(device.user).to_string().into(),
            cursors: HashMap::new(),
            touched: Vec::new(),
            reads: false,
            repeated: 0,
        };
        line.push(Item::Open(open));
        line.flush().await?;
        match line.frame().await?.first().and_then(|event| event.as_ref()) {
            Some(Event::Opened(_)) => Ok(line),
            other => anyhow::bail!("the first event was {other:?}"),
        }
    }

    /// Sets whether entries are marked as read when they are acknowledged.
    pub fn reading(mut self, reads: bool) -> Self {
        self.reads = reads;
        self
    }

    /// Waits for the next frame and adds its events to `heard`. Acknowledgements are queued for the next
    /// [`Self::flush`]. Fails if the stream has ended.
    pub async fn hear(&mut self, heard: &mut Vec<Heard>) -> anyhow::Result<()> {
        for event in self.frame().await?.into_iter().flatten() {
            self.take(event, heard)?;
        }
        for chat in std::mem::take(&mut self.touched) {
            self.acknowledge(&chat);
        }
        Ok(())
    }

    /// Applies an event to the cursors, and adds it to `heard` if it matters to a load.
    fn take(&mut self, event: Event, heard: &mut Vec<Heard>) -> anyhow::Result<()> {
        match event {
            Event::Entry(entry) if entry.chat_id == self.own_log => self.skip(entry.chat_id, entry.seq),
            Event::Entry(entry) => {
                if self.advance(&entry.chat_id, entry.seq, false) {
                    heard.push(Heard::Entry {
                        chat: entry.chat_id,
                        seq: entry.seq,
                        content: entry.content,
                    });
                } else {
                    self.repeated += 1;
                }
            }
            Event::SendResult(result) => {
                let request = result.request_id;
                match (result.sent, result.error) {
                    (Some(sent), _) => {
                        self.advance(&sent.chat_id, sent.seq, true);
                        heard.push(Heard::Sent {
                            request,
                            seq: sent.seq,
                        });
                    }
                    (None, error) => heard.push(Heard::Refused {
                        request,
                        why: error.map(|error| error.message).unwrap_or_default(),
                    }),
                }
            }
            Event::Receipt(receipt) => heard.push(Heard::Receipt {
                delivered: receipt.delivered_seq,
            }),
            Event::Skipped(skipped) => self.skip(skipped.chat_id, skipped.to_seq),
            Event::CaughtUp(_) => heard.push(Heard::CaughtUp),
            Event::Presence(presence) => heard.push(Heard::Presence {
                online: presence.state() == PresenceState::Online,
                user: presence.user_id,
            }),
            Event::WatchResult(result) => heard.push(Heard::Watched {
                limited: !result.limited_user_ids.is_empty(),
                error: result.error() != WatchErrorCode::Unspecified,
            }),
            Event::Closing(closing) => anyhow::bail!("the server closed a stream: {}", closing.reason),
            Event::Opened(_) | Event::Draining(_) => {}
        }
        Ok(())
    }

    /// Raises the cursor of a chat to `seq`, whatever came of it.
    fn skip(&mut self, chat: Bytes, seq: u64) {
        let cursor = self.cursors.entry(chat.clone()).or_default();
        cursor.seq = cursor.seq.max(seq);
        self.touched.push(chat);
    }

    /// Notes that an entry has come. Returns whether it is new.
    fn advance(&mut self, chat: &Bytes, seq: u64, own: bool) -> bool {
        let cursor = match self.cursors.get_mut(chat) {
            Some(cursor) => cursor,
            None => self.cursors.entry(Bytes::copy_from_slice(chat)).or_default(),
        };
        if self.touched.last() != Some(chat) {
            self.touched.push(chat.clone());
        }
        if own {
            cursor.own = cursor.own.max(seq);
        }
        if seq <= cursor.seq || cursor.held.contains(&seq) {
            return false;
        }
        if seq > cursor.seq + 1 {
            return cursor.held.insert(seq);
        }
        cursor.seq = seq;
        while cursor.held.remove(&(cursor.seq + 1)) {
            cursor.seq += 1;
        }
        true
    }

    /// Queues the acknowledgement of a chat, and if wanted the mark that it is read.
    fn acknowledge(&mut self, chat: &Bytes) {
        let Some(cursor) = self.cursors.get(chat) else {
            return;
        };
        let seq = cursor.seq;
        let reads = self.reads && seq > cursor.own && *chat != self.own_log;
        let chat_id = String::from_utf8_lossy(chat).into_owned();
        if reads {
            self.push(Item::MarkRead(MarkRead {
                chat_id: chat_id.clone(),
                seq,
            }));
        }
        self.push(Item::Ack(Ack { chat_id, seq }));
    }

    /// Queues a message for the next [`Self::flush`], and returns its request_id. Its body has `body` bytes and
    /// contains the present time.
    pub fn say(&mut self, to: &send_message::To, body: u32, clock: &Clock) -> RequestId {
        self.send(to, &Envelope::default(), clock.stamp(body))
    }

    /// Queues a message of any kind for the next [`Self::flush`], and returns its request_id.
    pub fn send(&mut self, to: &send_message::To, envelope: &Envelope, body: Bytes) -> RequestId {
        let request = RequestId::random();
        self.push(Item::Send(SendMessage {
            request_id: request.to_string(),
            to: Some(to.clone()),
            envelope: envelope.encoded(),
            body,
        }));
        request
    }

    /// Queues a change of presence: the user has come to the app or left it.
    pub fn set_active(&mut self, active: bool) {
        self.push(Item::SetActive(SetActive { active }));
    }

    /// Queues a typing notice.
    pub fn type_in(&mut self, chat: ChatId) {
        let chat_id = chat.to_string();
        self.push(Item::Typing(Typing {
            chat_id,
            stopped: false,
        }));
    }

    /// Queues a WatchPresence for these users, which replaces the set before.
    pub fn watch(&mut self, users: impl Iterator<Item = UserId>) {
        let user_ids = users.map(|user| user.to_string()).collect();
        self.push(Item::WatchPresence(WatchPresence { user_ids }));
    }

    fn push(&mut self, item: Item) {
        self.items.push(ClientItem { item: Some(item) });
    }

    /// Writes everything that is queued, as one frame. Fails if the stream has ended.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        if self.items.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut self.items);
        let sent = self.up.send(ClientFrame { items }).await;
        sent.ok().context("the stream has ended")
    }

    /// Waits for the next frame, and returns its events.
    async fn frame(&mut self) -> anyhow::Result<Vec<Option<Event>>> {
        let frame = self.down.message().await.map_err(|status: Status| {
            anyhow::anyhow!("the stream ended with {:?}: {}", status.code(), status.message())
        })?;
        let frame = frame.context("the server ended the stream")?;
        Ok(frame.events.into_iter().map(|event| event.event).collect())
    }

    /// Continues with the cursors of an earlier stream of the device.
    pub fn resuming(mut self, cursors: Cursors) -> Self {
        self.cursors = cursors;
        self
    }

    /// Returns the cursors, for the device's next stream.
    pub fn into_cursors(self) -> Cursors {
        self.cursors
    }
}

/// The sends that have no result yet, each with what the load remembers of it, by request_id.
pub struct Sends<T>(HashMap<String, T>);

impl<T> Default for Sends<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Sends<T> {
    /// Notes a send, of which `what` is remembered.
    pub fn sent(&mut self, request: RequestId, what: T) {
        self.0.insert(request.to_string(), what);
    }

    /// Notes that a send has a result, and returns what was remembered of it. `None`: there is no such send, or it has
    /// a result already.
    pub fn answered(&mut self, request: &[u8]) -> Option<T> {
        self.0.remove(std::str::from_utf8(request).ok()?)
    }

    /// Returns the number of sends that have no result yet.
    pub fn unanswered(&self) -> usize {
        self.0.len()
    }
}
