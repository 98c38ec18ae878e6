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
    Input(Box<Input>),
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
    ///
    /// Only the reader says that a stream is lost. Once the server has ended it, nothing more can be written, but its
    /// last frame may still wait to be read, and that says whether to reconnect.
    pub(super) async fn step(&mut self, reading: bool) -> StreamStep {
        match &mut self.state {
            State::Down => std::future::pending().await,
            State::Opening(opening) => match opening.await {
                Ok(stream) => {
                    self.state = State::Up(Box::new(stream));
                    StreamStep::Nothing
                }
                Err(error) => {
                    self.drop_stream();
                    StreamStep::Input(Box::new(Input::StreamLost(error)))
                }
            },
            State::Up(stream) => {
                let writes = !self.waiting.is_empty() && !stream.writer.is_closed();
                let frame = tokio::select! {
                    frame = stream.frames.message(), if reading => frame,
                    permit = stream.writer.reserve(), if writes => {
                        if let Ok(permit) = permit {
                            permit.send(next_frame(&mut self.waiting));
                        }
                        return StreamStep::Nothing;
                    }
                    else => std::future::pending().await,
                };
                StreamStep::Input(Box::new(self.input(frame)))
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
    use bytes::{BufMut as _, Bytes, BytesMut};
    use tern_proto::v1::server_event::Event;
    use tern_proto::v1::{Ack, CloseCode, Closing, SendMessage, ServerEvent, ServerFrame};
    use tokio::sync::mpsc;
    use tonic::codec::{DecodeBuf, Decoder};
    use tonic::{Status, Streaming};

    use super::*;
    use crate::config::Tls;

    /// Decodes the frames of a stream.
    struct Frames;

    impl Decoder for Frames {
        type Item = ServerFrame;
        type Error = Status;

        fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<ServerFrame>, Status> {
            let frame = ServerFrame::decode(frame);
            frame
                .map(Some)
                .map_err(|error| Status::internal(error.to_string()))
        }
    }

    /// Makes a stream that the server has ended with this event.
    fn ended(event: Event) -> Stream {
        let frame = ServerFrame {
            events: vec![ServerEvent { event: Some(event) }],
        };
        // The prefix of a gRPC message says that it is not compressed, and how long it is.
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(frame.encoded_len()).unwrap());
        body.put(frame.encode_to_vec().as_slice());
        let body = http_body_util::Full::new(Bytes::from(body));
        let frames = Streaming::new_response(Frames, body, hyper::StatusCode::OK, None, None);
        // The connection has dropped its end of the queue.
        let (writer, _) = mpsc::channel(1);
        Stream { writer, frames }
    }

    #[tokio::test]
    async fn the_last_word_of_the_server_is_read_before_the_stream_counts_as_lost() {
        let gateways = Gateways::new(&["http://127.0.0.1:1".into()], &Tls::System).unwrap();
        let replaced = Closing {
            code: CloseCode::SessionReplaced.into(),
            ..Default::default()
        };
        // Chance decides which branch is taken first if both are ready, so this is tried many times.
        for _ in 0..64 {
            let mut stream = ServerStream::new(gateways.clone());
            stream.state = State::Up(Box::new(ended(Event::Closing(replaced.clone()))));
            stream.write(vec![Item::Ack(Ack::default())]);
            let mut inputs = Vec::new();
            while stream.is_up() {
                if let StreamStep::Input(input) = stream.step(true).await {
                    inputs.push(*input);
                }
            }
            let [Input::Frame(last), Input::StreamLost(_)] = &inputs[..] else {
                panic!("{inputs:?}")
            };
            assert_eq!(last.events[0].event, Some(Event::Closing(replaced.clone())));
        }
    }

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
