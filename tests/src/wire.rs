//! One device stream, frame by frame.

use std::collections::VecDeque;
use std::time::Duration;

use tern_proto::v1::messaging_client::MessagingClient;
use tern_proto::v1::{
    Ack, ClientFrame, ClientItem, Envelope, Open, Opened, SendErrorCode, SendMessage, Sent, ServerFrame,
    client_item::Item, send_message, send_result::Outcome, server_event::Event,
};
use tern_types::{ChatId, RequestId, UserId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::Device;
use crate::bounds::{BOUND, PAUSE};

/// The number of frames that may wait for the connection. No test writes more ahead.
const FRAMES: usize = 1024;

/// Returns the time after which a message is sent again, if the server could not take it now. The server says how long
/// that is, and every client waits for it.
pub fn again_after(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Error(error) if error.code() == SendErrorCode::Unavailable => {
            Some(Duration::from_millis(error.retry_after_ms.into()))
        }
        _ => None,
    }
}

/// A stream that sends exactly what a test tells it to.
pub struct Wire {
    up: Option<mpsc::Sender<ClientFrame>>,
    down: Streaming<ServerFrame>,
    waiting: VecDeque<Event>,
}

impl Wire {
    /// Opens a stream without sending anything.
    pub async fn silent(channel: Channel) -> Result<Self, Status> {
        let (up, frames) = mpsc::channel(FRAMES);
        let down = MessagingClient::new(channel)
            .stream(ReceiverStream::new(frames))
            .await?
            .into_inner();
        Ok(Self {
            up: Some(up),
            down,
            waiting: VecDeque::new(),
        })
    }

    /// Opens a stream as [`Wire::try_open`] does, and tries again while the gateway answers UNAVAILABLE: on a busy
    /// machine it may be out of the map for a moment, or may not read the inbox in time.
    pub async fn open(channel: Channel, device: &Device) -> Result<(Self, Opened), Status> {
        let end = Instant::now() + BOUND;
        loop {
            match Self::try_open(channel.clone(), device).await {
                Err(status) if status.code() == Code::Unavailable && Instant::now() < end => {
                    sleep(PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    /// Opens a stream, sends `Open`, and waits for `Opened`.
    pub(crate) async fn try_open(channel: Channel, device: &Device) -> Result<(Self, Opened), Status> {
        let mut wire = Self::silent(channel).await?;
        wire.say(open(&device.access_token)).await;
        match wire.next().await? {
            Some(Event::Opened(opened)) => Ok((wire, opened)),
            // `Closing` announces the end; the status follows.
            Some(Event::Closing(_)) => Err(wire.end().await.1),
            other => Err(Status::internal(format!(
                "the first event is Opened, not {other:?}"
            ))),
        }
    }

    /// Sends one item in its own frame.
    pub async fn say(&self, item: Item) {
        self.frame(vec![item]).await;
    }

    /// Sends items in one frame. If the stream has ended, the frame is dropped: the test sees the end in what it
    /// receives.
    pub async fn frame(&self, items: Vec<Item>) {
        let items = items
            .into_iter()
            .map(|item| ClientItem { item: Some(item) })
            .collect();
        if let Some(up) = &self.up {
            let _ = up.send(ClientFrame { items }).await;
        }
    }

    /// Closes this side of the stream.
    pub fn finish(&mut self) {
        self.up = None;
    }

    /// Waits for the next event. `None`: the server has ended the stream with success.
    pub async fn next(&mut self) -> Result<Option<Event>, Status> {
        tokio::time::timeout(BOUND, self.event())
            .await
            .unwrap_or_else(|_| panic!("nothing came within {BOUND:?}"))
    }

    /// Returns whether all events of the last frame have been taken.
    pub fn drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for the next event, without a bound.
    pub async fn event(&mut self) -> Result<Option<Event>, Status> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.down.message().await? {
                Some(frame) => self
                    .waiting
                    .extend(frame.events.into_iter().filter_map(|event| event.event)),
                None => return Ok(None),
            }
        }
    }

    /// Skips events until `pick` takes one.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Ok(Some(event)) => {
                    if let Some(picked) = pick(event) {
                        return picked;
                    }
                }
                Ok(None) => panic!("the stream ended before what was expected"),
                Err(status) => panic!("the stream ended before what was expected: {status:?}"),
            }
        }
    }

    /// Sends a message, and returns its outcome. It is sent again while that is UNAVAILABLE, as a client does. All other
    /// events are skipped.
    pub async fn outcome(&mut self, send: Item) -> Outcome {
        let Item::Send(message) = &send else {
            panic!("no message: {send:?}")
        };
        let request = message.request_id.clone();
        let end = Instant::now() + BOUND;
        loop {
            self.say(send.clone()).await;
            let outcome = self
                .until(|event| match event {
                    Event::SendResult(result) if result.request_id == request => result.outcome,
                    _ => None,
                })
                .await;
            match again_after(&outcome) {
                Some(wait) if Instant::now() < end => sleep(wait).await,
                _ => return outcome,
            }
        }
    }

    /// Sends a message as [`Wire::outcome`] does, and returns its place. Panics if it is refused.
    pub async fn send(&mut self, message: Item) -> Sent {
        match self.outcome(message).await {
            Outcome::Sent(sent) => sent,
            Outcome::Error(error) => panic!("{error:?}"),
        }
    }

    /// Skips events until the stream ends. Returns the last event and the status.
    pub async fn end(&mut self) -> (Option<Event>, Status) {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(Some(event)) => last = Some(event),
                Ok(None) => return (last, Status::ok("")),
                Err(status) => return (last, status),
            }
        }
    }
}

/// Returns the item that opens a stream.
pub fn open(access_token: &str) -> Item {
    Item::Open(Open {
        access_token: access_token.to_owned(),
        client_version: "tern-tests/1".to_owned(),
        active: true,
    })
}

/// Returns an acknowledgement of a chat up to `seq`.
pub fn ack(chat: ChatId, seq: u64) -> Item {
    Item::Ack(Ack {
        chat_id: chat.to_string(),
        seq,
    })
}

/// Returns the item that sends a message to a chat.
pub fn message(request: RequestId, chat: ChatId, body: impl Into<Vec<u8>>) -> Item {
    message_with(request, chat, &plain(), body)
}

/// Returns the item that sends a message with this envelope to a chat.
pub fn message_with(request: RequestId, chat: ChatId, envelope: &Envelope, body: impl Into<Vec<u8>>) -> Item {
    let to = send_message::To::ChatId(chat.to_string());
    item(request, to, envelope, body.into())
}

/// Returns the item that sends a message to a person.
pub fn message_to(request: RequestId, peer: UserId, body: impl Into<Vec<u8>>) -> Item {
    let to = send_message::To::PeerUserId(peer.to_string());
    item(request, to, &plain(), body.into())
}

/// Returns the item that sends a message with this envelope.
pub(crate) fn item(request: RequestId, to: send_message::To, envelope: &Envelope, body: Vec<u8>) -> Item {
    Item::Send(SendMessage {
        request_id: request.to_string(),
        to: Some(to),
        envelope: envelope.encoded(),
        body: body.into(),
    })
}

/// Returns the envelope of an ordinary message.
pub fn plain() -> Envelope {
    Envelope::default()
}
