//! The stream, and the items that wait to be written to it.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message;
use tern_proto::v1::{ClientFrame, ClientItem, client_item::Item};
use tern_types::limits::{MAX_FRAME_BYTES, MAX_FRAME_ITEMS};

use tern_client_core::CallError;
use tern_client_core::engine::{Input, StreamOrder};

use crate::connection::{Gateways, Stream, open_stream};

/// The time that the server has to read the last items and to end the stream when the client ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The bytes that a frame adds to each item for a tag and a length, at most.
const ITEM_OVERHEAD: usize = 8;

enum State {
    Down,
    Opening(BoxFuture<'static, Result<Stream, CallError>>),
    Up(Box<Stream>),
}

/// The stream to a gateway; there is at most one. Each attempt to open a stream uses the next gateway of the list.
pub(super) struct ServerStream {
    gateways: Gateways,
    /// The number of the present attempt, or of the next one while there is no stream.
    attempt: usize,
    state: State,
    /// The items that wait to be written: the sends in flight, one acknowledgement per chat and batch, and
    /// what the app asks for, such as read marks. The server bounds the first two; the others have no limit.
    /// All are dropped with the stream.
    waiting: VecDeque<Item>,
}

/// The result of [`ServerStream::step`].
pub(super) enum StreamStep {
    /// An input for the engine.
    Input(Input),
    /// The stream has made progress that the engine need not know of.
    Nothing,
}

impl ServerStream {
    pub(super) fn new(gateways: Gateways) -> Self {
        Self {
            gateways,
            attempt: 0,
            state: State::Down,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Returns the address of the present stream's gateway. Without a stream it is the address for the next attempt.
    pub(super) fn gateway(&self) -> String {
        self.gateways.endpoint(self.attempt).uri().to_string()
    }

    /// Drops the present stream, and begins to open a new one if the order says so.
    pub(super) fn order(&mut self, order: StreamOrder) {
        self.drop_stream();
        if let StreamOrder::Open(open) = order {
            let endpoint = self.gateways.endpoint(self.attempt);
            self.state = State::Opening(Box::pin(open_stream(endpoint, open)));
        }
    }

    /// Drops the stream and the items that wait for it. The next attempt uses the next gateway.
    pub(super) fn drop_stream(&mut self) {
        if !matches!(self.state, State::Down) {
            self.state = State::Down;
            self.attempt = self.attempt.wrapping_add(1);
        }
        self.waiting.clear();
    }

    /// Queues items, and writes as many frames as the stream takes now.
    pub(super) fn write(&mut self, items: Vec<Item>) {
        self.waiting.extend(items);
        self.flush();
    }

    fn flush(&mut self) {
        let State::Up(stream) = &self.state else { return };
        while !self.waiting.is_empty() {
            let Ok(permit) = stream.writer.try_reserve() else {
                return;
            };
            permit.send(next_frame(&mut self.waiting));
        }
    }

    /// Waits for the next step of the stream: a stream is opened or lost, a frame comes, or a waiting frame is written.
    /// Reads frames only if `reading` is set. It is safe to drop this future at any point.
    pub(super) async fn step(&mut self, reading: bool) -> StreamStep {
        let blocked = !self.waiting.is_empty();
        match &mut self.state {
            State::Down => std::future::pending().await,
            State::Opening(opening) => match opening.await {
                Ok(stream) => {
                    self.state = State::Up(Box::new(stream));
                    StreamStep::Nothing
                }
                Err(error) => {
                    self.drop_stream();
                    StreamStep::Input(Input::StreamLost(error))
                }
            },
            State::Up(stream) => {
                let frame = tokio::select! {
                    frame = stream.frames.message(), if reading => frame,
                    permit = stream.writer.reserve(), if blocked => match permit {
                        Ok(permit) => {
                            permit.send(next_frame(&mut self.waiting));
                            return StreamStep::Nothing;
                        }
                        // The connection is gone.
                        Err(_) => Ok(None),
                    },
                    else => std::future::pending().await,
                };
                StreamStep::Input(self.input(frame))
            }
        }
    }

    /// Waits for the next frame of an open stream; never returns if there is none.
    pub(super) async fn frame(&mut self) -> Input {
        let State::Up(stream) = &mut self.state else {
            return std::future::pending().await;
        };
        let frame = stream.frames.message().await;
        self.input(frame)
    }

    fn input(&mut self, frame: Result<Option<tern_proto::v1::ServerFrame>, tonic::Status>) -> Input {
        let error = match frame {
            Ok(Some(frame)) => return Input::Frame(frame),
            Ok(None) => CallError::unavailable("the stream ended"),
            Err(status) => CallError::from(status),
        };
        self.drop_stream();
        Input::StreamLost(error)
    }

    /// Writes the items that still wait, half-closes the stream, and waits for the server to end it; all of this takes
    /// at most [`LAST_WORDS`].
    pub(super) async fn close(&mut self) {
        let State::Up(stream) = std::mem::replace(&mut self.state, State::Down) else {
            return;
        };
        let Stream { writer, mut frames } = *stream;
        let waiting = &mut self.waiting;
        let last_words = async {
            while !waiting.is_empty() && writer.send(next_frame(waiting)).await.is_ok() {}
            // Half-closes the stream.
            drop(writer);
            while let Ok(Some(_)) = frames.message().await {}
        };
        // If the server takes longer, the stream is dropped.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }
}

/// Takes as many waiting items as fit into one frame; the first item always fits.
fn next_frame(waiting: &mut VecDeque<Item>) -> ClientFrame {
    let mut items = Vec::new();
    let mut bytes = 0;
    while let Some(item) = waiting.pop_front() {
        let item = ClientItem { item: Some(item) };
        let size = item.encoded_len() + ITEM_OVERHEAD;
        if !items.is_empty() && (bytes + size > MAX_FRAME_BYTES || items.len() == MAX_FRAME_ITEMS) {
            waiting.extend(item.item);
            waiting.rotate_right(1);
            break;
        }
        bytes += size;
        items.push(item);
    }
    ClientFrame { items }
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::{Ack, SendMessage};

    use super::*;

    #[test]
    fn frames_keep_the_order_and_the_limits() {
        let ack = |seq| {
            Item::Ack(Ack {
                chat_id: String::new(),
                seq,
            })
        };
        let mut waiting: VecDeque<Item> = (0..600).map(ack).collect();
        let body = vec![0; 200 * 1024].into();
        waiting.insert(
            300,
            Item::Send(SendMessage {
                body,
                ..Default::default()
            }),
        );
        waiting.insert(301, waiting[300].clone());
        waiting.insert(302, waiting[300].clone());
        let expected: Vec<Item> = waiting.iter().cloned().collect();
        let mut got = Vec::new();
        while !waiting.is_empty() {
            let frame = next_frame(&mut waiting);
            assert!(frame.items.len() <= MAX_FRAME_ITEMS && frame.encoded_len() <= MAX_FRAME_BYTES);
            got.extend(frame.items.into_iter().filter_map(|item| item.item));
        }
        assert_eq!(got, expected);
    }
}
