//! One end of a device stream by gRPC.

use std::collections::VecDeque;

use futures::StreamExt;
use tern_proto::v1::messaging_client::MessagingClient;
use tern_proto::v1::{self, client_item::Item, server_event::Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::soon;

/// A device's client by gRPC, with the events that it has not looked at.
pub struct Phone {
    pub session: u64,
    out: Option<mpsc::Sender<v1::ClientFrame>>,
    events: VecDeque<Event>,
    frames: Streaming<v1::ServerFrame>,
}

impl Phone {
    pub async fn connect(channel: Channel) -> Self {
        let (out, frames_out) = mpsc::channel(16);
        let frames = MessagingClient::new(channel)
            .stream(ReceiverStream::new(frames_out))
            .await
            .unwrap()
            .into_inner();
        Self {
            session: 0,
            out: Some(out),
            events: Default::default(),
            frames,
        }
    }

    pub async fn say(&self, item: Item) {
        self.frame(v1::ClientFrame {
            items: vec![v1::ClientItem { item: Some(item) }],
        })
        .await;
    }

    pub async fn frame(&self, frame: v1::ClientFrame) {
        self.out.as_ref().expect("not hung up").send(frame).await.unwrap();
    }

    /// Closes the client's side of the stream.
    pub fn hang_up(&mut self) {
        self.out = None;
    }

    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let frame = soon(self.frames.next()).await;
            let frame = frame.expect("the stream goes on").expect("no status");
            self.events
                .extend(frame.events.into_iter().filter_map(|event| event.event));
        }
    }

    /// Returns whether the stream ends without a Closing before it.
    pub async fn breaks(&mut self) -> bool {
        let end = soon(self.frames.next()).await;
        end.is_none_or(|frame| frame.is_err())
    }

    /// Returns the last event, which must be Closing, and the status after it.
    pub async fn end(&mut self) -> (v1::Closing, Option<Status>) {
        let mut last = None;
        loop {
            last = self.events.drain(..).next_back().or(last);
            match soon(self.frames.next()).await {
                Some(Ok(frame)) => self
                    .events
                    .extend(frame.events.into_iter().filter_map(|event| event.event)),
                Some(Err(status)) => return (closing(last), Some(status)),
                None => return (last.map(|last| closing(Some(last))).unwrap_or_default(), None),
            }
        }
    }
}

fn closing(event: Option<Event>) -> v1::Closing {
    match event {
        Some(Event::Closing(closing)) => closing,
        other => panic!("the last event was {other:?}"),
    }
}
