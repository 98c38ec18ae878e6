//! One end of a device stream over a WebSocket.

use std::collections::VecDeque;

use futures::{SinkExt, StreamExt};
use prost::Message as _;
use tern_proto::v1::{self, client_item::Item, server_event::Event};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{World, soon};

/// A device's client over a WebSocket, with the events that it has not looked at.
pub struct Socket {
    socket: WebSocketStream<TcpStream>,
    events: VecDeque<Event>,
}

impl Socket {
    /// Opens a socket on which nothing is sent yet.
    pub async fn connect(world: &World) -> Self {
        Self::from_origin(world, None).await.expect("a WebSocket")
    }

    /// Opens a socket as a page of `origin` does, or with `None` as a client that is no browser.
    pub async fn from_origin(world: &World, origin: Option<&str>) -> Result<Self, Error> {
        let address = world.url.trim_start_matches("http://");
        let mut request = format!("ws://{address}/v1/stream").into_client_request()?;
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        let tcp = TcpSocket::new_v4().unwrap();
        // The buffer is small, so that the server soon writes more than fits.
        tcp.set_recv_buffer_size(16 << 10).unwrap();
        let tcp = tcp.connect(address.parse().unwrap()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, tcp).await?;
        let events = VecDeque::new();
        Ok(Self { socket, events })
    }

    /// Sends a message as it is. An error is ignored: the end is read from the other side.
    pub async fn message(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    pub async fn frame(&mut self, frame: v1::ClientFrame) {
        self.message(Message::binary(frame.encode_to_vec())).await;
    }

    pub async fn say(&mut self, item: Item) {
        let items = vec![v1::ClientItem { item: Some(item) }];
        self.frame(v1::ClientFrame { items }).await;
    }

    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            match self.next().await {
                Some(Ok(Message::Binary(frame))) => self.take(&frame),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the next event, after the answer to a ping.
    pub async fn pong_then_event(&mut self) -> Event {
        assert!(matches!(self.next().await, Some(Ok(Message::Pong(_)))), "no pong");
        self.event().await
    }

    /// Returns the last event, which must be Closing, and the close frame's code and reason. Then the socket must end.
    pub async fn end(&mut self) -> (v1::Closing, u16, String) {
        let mut last = None;
        loop {
            last = self.events.drain(..).next_back().or(last);
            match self.next().await {
                Some(Ok(Message::Binary(frame))) => self.take(&frame),
                Some(Ok(Message::Close(Some(close)))) => {
                    assert!(self.next().await.is_none_or(|end| end.is_err()), "it goes on");
                    let Some(Event::Closing(closing)) = last else {
                        panic!("the last event was {last:?}")
                    };
                    return (closing, close.code.into(), close.reason.to_string());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Closes the socket. Returns whether the server closes it too, with the same code.
    pub async fn close(&mut self) -> bool {
        let code = CloseCode::Normal;
        let reason = "".into();
        self.message(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        let answer = self.next().await;
        matches!(answer, Some(Ok(Message::Close(Some(close)))) if close.code == code)
            && self.next().await.is_none()
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        soon(self.socket.next()).await
    }

    fn take(&mut self, frame: &[u8]) {
        let frame = v1::ServerFrame::decode(frame).expect("a ServerFrame");
        self.events
            .extend(frame.events.into_iter().filter_map(|event| event.event));
    }
}
