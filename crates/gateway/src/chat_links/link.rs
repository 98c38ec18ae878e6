//! One node's link: its queues, and what went up it without an answer yet.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tern_proto::internal::{SessionsFound, UpItem, WakeDone, WindowRequest, up_item};
use tern_types::{ChatId, SessionId};
use tokio::sync::mpsc;

use super::Refused;
use super::lanes::{Lanes, Place};
use super::pending::{Pending, Waiting, size};
use crate::registry::Registry;
use crate::session::Mail;

/// Items on their way to one node: a second of them. A full queue gives sends back with UNAVAILABLE. Their bytes are
/// bounded by those of what is pending: every item of more than some dozen bytes is owed an answer.
const CONTROL_QUEUE: usize = 16_384;
/// Typing goes up only while no more than this waits: a sixteenth of the queue, some 60 ms.
const HINT_BELOW: usize = CONTROL_QUEUE / 16;
/// Window requests on their way to one node; sessions ask again when it is full.
const WINDOW_QUEUE: usize = 4_096;

/// One incarnation of a link, from when its streams are open until one of them breaks.
#[derive(Debug)]
pub struct Link {
    pub node: String,
    pub incarnation: u64,
    /// Another number each time the link is made.
    pub generation: u64,
    control: mpsc::Sender<UpItem>,
    windows: mpsc::Sender<WindowRequest>,
    pending: Mutex<Pending>,
}

/// The ends of a link's queues that its streams read.
#[derive(Debug)]
pub struct Queues {
    pub control: mpsc::Receiver<UpItem>,
    pub windows: mpsc::Receiver<WindowRequest>,
}

impl Link {
    pub fn new(node: String, incarnation: u64, generation: u64) -> (Self, Queues) {
        let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
        let (windows, windows_out) = mpsc::channel(WINDOW_QUEUE);
        let link = Self {
            node,
            incarnation,
            generation,
            control,
            windows,
            pending: Mutex::default(),
        };
        (
            link,
            Queues {
                control: control_out,
                windows: windows_out,
            },
        )
    }

    /// Queues the item; remembers it when it will be answered.
    pub fn give(&self, place: Place, item: UpItem) -> Result<(), Refused> {
        if !is_answered(&item) {
            return self.control.try_send(item).map_err(|_| Refused);
        }
        let mut pending = self.pending();
        pending.has_room(size(&item))?;
        // Under the lock: the answer cannot come before the item is remembered.
        self.control.try_send(item.clone()).map_err(|_| Refused)?;
        let item = Box::new(item);
        pending.insert(item.r#ref, Waiting::Item { place, item });
        Ok(())
    }

    /// Queues an item that is dropped where it would have to wait.
    pub fn hint(&self, item: UpItem) -> Result<(), Refused> {
        let waiting = self.control.max_capacity() - self.control.capacity();
        if waiting >= HINT_BELOW {
            return Err(Refused);
        }
        self.control.try_send(item).map_err(|_| Refused)
    }

    /// Queues a request for a window.
    pub fn ask(&self, request: WindowRequest, chat: ChatId) -> Result<(), Refused> {
        let (session, reference) = (SessionId(request.session), request.r#ref);
        let mut pending = self.pending();
        pending.has_room(0)?;
        self.windows.try_send(request).map_err(|_| Refused)?;
        pending.insert(
            reference,
            Waiting::Window {
                session,
                reference,
                chat,
            },
        );
        Ok(())
    }

    /// Confirms a wake. Should the queue be full, the chat node settles once more: nothing is lost.
    pub fn wake_done(&self, wake: u64) {
        let op = up_item::Op::WakeDone(WakeDone { wake });
        let _ = self.control.try_send(UpItem {
            op: Some(op),
            ..UpItem::default()
        });
    }

    /// Answers a question for sessions. Should the queue be full, the chat node's look-up fails, and it asks again.
    pub fn sessions_found(&self, found: SessionsFound) {
        let op = up_item::Op::SessionsFound(found);
        let _ = self.control.try_send(UpItem {
            op: Some(op),
            ..UpItem::default()
        });
    }

    /// The answer to `reference` came.
    pub fn answered(&self, reference: u64) -> Option<Waiting> {
        self.pending().answered(reference)
    }

    /// The session is gone.
    pub fn forget_acks(&self, session: SessionId) {
        self.pending().forget_acks(session);
    }

    /// The link broke: takes nothing more, and gives back what has no answer.
    pub fn close(&self, registry: &Registry, lanes: &Lanes) {
        let waiting = self.pending().close();
        for waiting in waiting {
            match waiting {
                Waiting::Item { place, item } => {
                    lanes.answered(place, &item);
                    give_back(registry, &item);
                }
                Waiting::Window {
                    session,
                    reference,
                    chat,
                } => {
                    if let Some(session) = registry.get(session) {
                        session.mailbox.push(Mail::WindowFailed { reference, chat });
                    }
                }
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_answered(item: &UpItem) -> bool {
    match &item.op {
        Some(up_item::Op::Send(_)) => true,
        Some(up_item::Op::Ack(ack)) => ack.write,
        Some(
            up_item::Op::Read(_)
            | up_item::Op::Typing(_)
            | up_item::Op::WakeDone(_)
            | up_item::Op::SessionsFound(_),
        )
        | None => false,
    }
}

/// Tells the item's session that no answer will come.
pub fn give_back(registry: &Registry, item: &UpItem) {
    let Some(session) = registry.get(SessionId(item.session)) else {
        return;
    };
    match &item.op {
        Some(up_item::Op::Send(_)) => session.mailbox.push(Mail::SendFailed {
            reference: item.r#ref,
        }),
        Some(up_item::Op::Ack(ack)) => {
            if let Ok(chat) = ChatId::from_slice(&ack.chat_id) {
                session.mailbox.push(Mail::AckLost { chat });
            }
        }
        Some(
            up_item::Op::Read(_)
            | up_item::Op::Typing(_)
            | up_item::Op::WakeDone(_)
            | up_item::Op::SessionsFound(_),
        )
        | None => {}
    }
}
