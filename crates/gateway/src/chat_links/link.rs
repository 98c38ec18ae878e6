//! The link to one chat node: its queues, and the requests that went over it without an answer yet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tern_proto::internal::{SessionsFound, UpItem, WakeDone, WindowRequest, up_item};
use tern_types::{ChatId, SessionId};
use tokio::sync::mpsc;

use super::Refused;
use super::ops::{self, Manner};
use super::pending::{Pending, Place, Waiting, size};
use crate::registry::Registry;

/// The most items that wait for one node: about what comes in a second. If the queue is full, sends are
/// answered UNAVAILABLE. [`super::pending`] keeps sends until their answers come, and bounds their bytes.
/// [`FOUND_BYTES`] bounds the bytes of [`SessionsFound`]. Other items are small.
const CONTROL_QUEUE: usize = 16_384;
/// The most bytes of the [`SessionsFound`] that wait in a link's queue: some hundred thousand sessions. These
/// are the answers to a chat node that asks which sessions some users have on this gateway. While none waits,
/// an answer of any size has room.
const FOUND_BYTES: usize = 16 << 20;
/// The number of waiting items from which on notices are refused: a sixteenth of the queue, some 60 ms.
const HINT_BELOW: usize = CONTROL_QUEUE / 16;
/// The most window requests that wait for one node. If the queue is full the window fails, and sessions ask again.
const WINDOW_QUEUE: usize = 4_096;

/// One link, from when its streams are open until one of them breaks. The next link to the same node is another
/// value.
#[derive(Debug)]
pub struct Link {
    /// The name of the chat node.
    pub node: String,
    /// The incarnation of the chat node's process.
    pub incarnation: u64,
    /// A number that no other link of this gateway has.
    pub generation: u64,
    control: mpsc::Sender<UpItem>,
    windows: mpsc::Sender<WindowRequest>,
    found: Found,
    pending: Mutex<Pending>,
}

/// The bytes of the [`SessionsFound`] that wait in a link's queue. Both ends of the queue count them.
#[derive(Debug, Clone, Default)]
pub struct Found(Arc<AtomicUsize>);

impl Found {
    /// Adds the bytes of an answer that is about to be queued. `Err` if too many bytes wait already.
    fn add(&self, more: usize) -> Result<(), Refused> {
        let add = |bytes: usize| {
            let all = bytes.saturating_add(more);
            (bytes == 0 || all <= FOUND_BYTES).then_some(all)
        };
        let added = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        added.map(drop).map_err(|_| Refused)
    }

    /// Subtracts the bytes of the answers among these items, which were taken out of the queue.
    pub fn taken(&self, items: &[UpItem]) {
        let found = items
            .iter()
            .filter(|item| matches!(item.op, Some(up_item::Op::SessionsFound(_))));
        self.remove(found.map(size).sum());
    }

    fn remove(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "more bytes were taken out than put in");
    }
}

/// The receiving ends of a link's queues, which its streams read.
#[derive(Debug)]
pub struct Queues {
    /// The items for the control stream. Whoever takes some passes them to [`Found::taken`] of `found`.
    pub control: mpsc::Receiver<UpItem>,
    /// The bytes of the [`SessionsFound`] that wait in `control`.
    pub found: Found,
    /// The requests for the catch-up stream.
    pub windows: mpsc::Receiver<WindowRequest>,
}

impl Link {
    /// Makes a link, and the ends of its queues that the streams read.
    pub fn new(node: String, incarnation: u64, generation: u64) -> (Self, Queues) {
        let (control, control_out) = mpsc::channel(CONTROL_QUEUE);
        let (windows, windows_out) = mpsc::channel(WINDOW_QUEUE);
        let found = Found::default();
        let link = Self {
            node,
            incarnation,
            generation,
            control,
            windows,
            found: found.clone(),
            pending: Mutex::default(),
        };
        (
            link,
            Queues {
                control: control_out,
                found,
                windows: windows_out,
            },
        )
    }

    /// Queues the item, and keeps it if it is to be answered. `Err` if the queue is full, if too much has no
    /// answer yet, or if the link is closed.
    pub fn give(&self, place: Place, item: UpItem) -> Result<(), Refused> {
        if !Manner::of(&item).is_answered() {
            return self.control.try_send(item).map_err(|_| Refused);
        }
        let mut pending = self.pending();
        pending.has_room(size(&item))?;
        // The item is queued under the lock, so that the answer cannot come before the item is kept.
        self.control.try_send(item.clone()).map_err(|_| Refused)?;
        let item = Box::new(item);
        pending.insert(item.r#ref, Waiting::Item { place, item });
        Ok(())
    }

    /// Queues an item that may be dropped. `Err` if it would have to wait.
    pub fn hint(&self, item: UpItem) -> Result<(), Refused> {
        let waiting = self.control.max_capacity() - self.control.capacity();
        if waiting >= HINT_BELOW {
            return Err(Refused);
        }
        self.control.try_send(item).map_err(|_| Refused)
    }

    /// Queues a request for a window. `Err` if the queue is full, if too much has no answer yet, or if the
    /// link is closed.
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

    /// Confirms a wake. If the queue is full the confirmation is dropped; the chat node settles once more, so nothing
    /// is lost.
    pub fn wake_done(&self, wake: u64) {
        let op = up_item::Op::WakeDone(WakeDone { wake });
        let _ = self.control.try_send(UpItem {
            op: Some(op),
            ..UpItem::default()
        });
    }

    /// Tells the chat node which sessions some users have on this gateway, as it asked. If the queue is full,
    /// or more than [`FOUND_BYTES`] would wait, the answer is dropped; the chat node's look-up fails then,
    /// and it asks again. A part of the answer would not do, since the node takes a user without a session
    /// for offline.
    pub fn sessions_found(&self, found: SessionsFound) {
        let item = UpItem {
            op: Some(up_item::Op::SessionsFound(found)),
            ..UpItem::default()
        };
        let bytes = size(&item);
        if self.found.add(bytes).is_ok() && self.control.try_send(item).is_err() {
            self.found.remove(bytes);
        }
    }

    /// Takes out the request that an answer with `reference` belongs to. `None` if there is none.
    pub fn answered(&self, reference: u64) -> Option<Waiting> {
        self.pending().answered(reference)
    }

    /// Forgets the acknowledgements of a session that has ended.
    pub fn forget_acks(&self, session: SessionId) {
        self.pending().forget_acks(session);
    }

    /// Closes a link that broke: it refuses every further request that is to be answered. Returns the
    /// requests without an answer.
    pub fn close(&self) -> Vec<Waiting> {
        self.pending().close().collect()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the item's session that the item found no way to the chat's owner, or that its answer will not come.
pub fn give_back(registry: &Registry, item: &UpItem) {
    if let Some(mail) = ops::lost(item)
        && let Some(session) = registry.get(SessionId(item.session))
    {
        session.mailbox.push(mail);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use tern_proto::internal::{FoundSession, NoticeOp, ReadOp};
    use tern_types::{DeviceId, Timestamp, UserId};

    use tern_gateway_core::session::Mail;

    use super::*;
    use crate::mailbox::Mailbox;

    fn answer(question: u64, sessions: usize) -> SessionsFound {
        SessionsFound {
            question,
            sessions: vec![FoundSession::default(); sessions],
        }
    }

    /// Takes everything out of the queue, as the control stream does. Returns the questions that were answered.
    fn taken(queues: &mut Queues) -> Vec<u64> {
        let items: Vec<UpItem> = std::iter::from_fn(|| queues.control.try_recv().ok()).collect();
        queues.found.taken(&items);
        let question = |item: &UpItem| match &item.op {
            Some(up_item::Op::SessionsFound(found)) => Some(found.question),
            _ => None,
        };
        items.iter().filter_map(question).collect()
    }

    #[test]
    fn answers_that_wait_have_bounded_bytes_and_one_that_finds_no_room_is_dropped_whole() {
        let (link, mut queues) = Link::new("node".into(), 1, 1);
        (0..1_000).for_each(|question| link.sessions_found(answer(question, 3_000)));
        link.wake_done(7);
        let answered = taken(&mut queues);
        assert_eq!(answered.len(), 43, "16 MiB");
        assert_eq!(answered, (0..43).collect::<Vec<u64>>());
        link.sessions_found(answer(1_000, 200_000));
        link.sessions_found(answer(1_001, 1));
        assert_eq!(taken(&mut queues), [1_000], "one always finds room, alone");
        link.sessions_found(answer(1_002, 1));
        assert_eq!(taken(&mut queues), [1_002]);
    }

    #[test]
    fn answers_for_which_the_queue_has_no_place_take_no_room() {
        let (link, mut queues) = Link::new("node".into(), 1, 1);
        (0..CONTROL_QUEUE as u64).for_each(|wake| link.wake_done(wake));
        (0..1_000).for_each(|question| link.sessions_found(answer(question, 3_000)));
        assert_eq!(taken(&mut queues), [] as [u64; 0]);
        link.sessions_found(answer(1_000, 3_000));
        link.sessions_found(answer(1_001, 3_000));
        assert_eq!(taken(&mut queues), [1_000, 1_001]);
    }

    #[test]
    fn a_read_mark_that_found_no_way_is_given_back_so_that_its_session_sends_it_again() {
        let (registry, mailbox) = (Arc::new(Registry::new(1)), Arc::<Mailbox>::default());
        let chat = ChatId::own(UserId::random());
        let (id, device) = (registry.next_id(), DeviceId::random());
        let (_registration, _) =
            registry.register(id, UserId::random(), device, Timestamp(1), mailbox.clone());
        let read = ReadOp {
            chat_id: chat.to_vec().into(),
            ..ReadOp::default()
        };
        for op in [up_item::Op::Notice(NoticeOp::default()), up_item::Op::Read(read)] {
            let item = UpItem {
                session: id.0,
                op: Some(op),
                ..UpItem::default()
            };
            give_back(&registry, &item);
        }
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(mut waiting) = mailbox.poll_take(&mut cx, true) else {
            panic!("nothing was given back")
        };
        assert!(matches!(waiting.mail.pop_front(), Some(Mail::AckLost { chat: of }) if of == chat));
        assert!(waiting.mail.is_empty(), "a notice is dropped");
    }
}
