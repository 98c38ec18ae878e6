//! The way of the events from the driver to the app.

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use tern_client_core::model::{Event, StopReason};

/// The number of events that the channel to the app holds; further events wait in the driver.
pub(crate) const EVENTS: usize = 256;

/// The events of one client, in the order in which they happened.
///
/// An app may be a slow consumer. While it takes no events, up to about 4,000 wait in memory, and the client then stops
/// reading the stream. After 10 s it gives the stream up, and it does so again after each reconnect, until the app
/// takes events. No message is lost: the server sends again what was not acknowledged. Dropping the `EventStream` drops
/// the events only; the client goes on.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
    last: oneshot::Receiver<StopReason>,
}

/// The driver's end of an [`EventStream`].
#[derive(Debug)]
pub(crate) struct ToApp {
    /// The sender of all events but the last.
    pub(crate) events: mpsc::Sender<Event>,
    /// The sender of the reason for which the client has ended, which becomes the last event. It has a place of its
    /// own, so that an app that reads late learns that it has to erase its data, say.
    pub(crate) last: oneshot::Sender<StopReason>,
}

/// Makes an event stream and the driver's end of it.
pub(crate) fn channel() -> (ToApp, EventStream) {
    let (events, queue) = mpsc::channel(EVENTS);
    let (last, reason) = oneshot::channel();
    let stream = EventStream {
        events: queue,
        last: reason,
    };
    (ToApp { events, last }, stream)
}

impl EventStream {
    /// Waits for the next event. The last one is [`Event::Stopped`], whenever the app reads it. After it this returns
    /// `None`. If the app left events waiting at the end for more than 1 s, those that still wait are dropped, except
    /// for the last: what they told is in the store.
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Some(event) => Some(event),
            None => self.stopped(),
        }
    }

    /// Returns an event that is ready, or `None` if there is none now.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.stopped(),
        }
    }

    /// Returns the last event, once. The driver has sent the reason before it dropped its end.
    fn stopped(&mut self) -> Option<Event> {
        self.last.try_recv().ok().map(Event::Stopped)
    }
}
