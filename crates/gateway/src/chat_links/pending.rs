//! Keeps the items and window requests that went to one node, until their answers come. Their number and
//! bytes are bounded. Sends and windows are always answered or given back. An acknowledgement may never be
//! answered, since a node says nothing when it could not write one: so only the newest of each session and
//! chat is kept, and none of a session that has ended.

use std::collections::BTreeMap;

use tern_proto::internal::{UpItem, up_item};
use tern_types::{ChatId, IdMap, SessionId, Slot};

use super::Refused;

/// The most requests that may be without an answer at one node. A node that has more is too slow to be given more.
const MAX_PENDING: usize = 65_536;

/// The most bytes of requests without an answer: 256 of the largest bodies, and what a gateway can spare for each of
/// many nodes.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// The bytes that an item costs besides its body, envelope, trace context and the sessions in it.
const ITEM_BYTES: usize = 512;
/// The bytes that one session costs in a `SessionsFound`: the message, and the allocations of its two ids.
const SESSION_BYTES: usize = 128;

/// The place of an item: its slot, its number in the order of all items, and how often nodes have refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot of the item's chat.
    pub slot: Slot,
    /// The item's number in the order of all items.
    pub order: u64,
    /// The number of times that nodes have refused the item.
    pub tries: u32,
}

/// A request to a chat node that is to be answered.
#[derive(Debug)]
pub enum Waiting {
    /// A send, or an acknowledgement that is to be written.
    Item { place: Place, item: Box<UpItem> },
    /// A request for a window of a chat's log.
    Window {
        session: SessionId,
        reference: u64,
        chat: ChatId,
    },
}

/// Returns the bytes that an item holds in memory.
pub fn size(item: &UpItem) -> usize {
    let own = match &item.op {
        Some(up_item::Op::Send(send)) => send.body.len() + send.envelope.len(),
        Some(up_item::Op::SessionsFound(found)) => found.sessions.len() * SESSION_BYTES,
        _ => 0,
    };
    own + item.traceparent.len() + ITEM_BYTES
}

impl Waiting {
    fn size(&self) -> usize {
        match self {
            Self::Item { item, .. } => size(item),
            Self::Window { .. } => ITEM_BYTES,
        }
    }

    /// Returns the session and chat of an acknowledgement. `None` for anything else.
    fn ack(&self) -> Option<(SessionId, ChatId)> {
        let Self::Item { item, .. } = self else {
            return None;
        };
        let Some(up_item::Op::Ack(ack)) = &item.op else {
            return None;
        };
        let chat = ChatId::from_slice(&ack.chat_id).ok()?;
        Some((SessionId(item.session), chat))
    }
}

/// The requests that one link has sent and that are to be answered.
#[derive(Debug, Default)]
pub struct Pending {
    closed: bool,
    /// The requests by their references.
    waiting: IdMap<u64, Waiting>,
    /// The bytes of `waiting`.
    bytes: usize,
    /// The references of the acknowledgements in `waiting`.
    acks: BTreeMap<(SessionId, ChatId), u64>,
}

impl Pending {
    /// Checks that one more request, of `more` bytes, may be sent. `Err` if the link is closed, or too much has no
    /// answer.
    pub fn has_room(&self, more: usize) -> Result<(), Refused> {
        let room = !self.closed && self.waiting.len() < MAX_PENDING && self.bytes + more <= MAX_PENDING_BYTES;
        room.then_some(()).ok_or(Refused)
    }

    /// Adds a request under its reference. An acknowledgement replaces the older one of its session and chat.
    pub fn insert(&mut self, reference: u64, waiting: Waiting) {
        let older = waiting.ack().and_then(|ack| self.acks.insert(ack, reference));
        if let Some(older) = older {
            self.remove(older);
        }
        self.bytes += waiting.size();
        self.waiting.insert(reference, waiting);
    }

    /// Takes out the request that an answer with `reference` belongs to. `None` if there is none.
    pub fn answered(&mut self, reference: u64) -> Option<Waiting> {
        let waiting = self.remove(reference)?;
        if let Some(ack) = waiting.ack() {
            self.acks.remove(&ack);
        }
        Some(waiting)
    }

    /// Forgets the acknowledgements of a session that has ended.
    pub fn forget_acks(&mut self, session: SessionId) {
        let first = (session, ChatId(uuid::Uuid::nil()));
        let its = self.acks.range(first..).take_while(|((of, _), _)| *of == session);
        let its: Vec<_> = its.map(|(ack, reference)| (*ack, *reference)).collect();
        for (ack, reference) in its {
            self.acks.remove(&ack);
            self.remove(reference);
        }
    }

    fn remove(&mut self, reference: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&reference)?;
        self.bytes -= waiting.size();
        Some(waiting)
    }

    /// Refuses every further request, and returns those without an answer.
    pub fn close(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        self.closed = true;
        self.acks.clear();
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use tern_proto::internal::{AckOp, SendOp};

    use super::*;

    fn chat(number: u128) -> ChatId {
        ChatId(uuid::Uuid::from_u128(number))
    }

    fn item(session: u64, reference: u64, op: up_item::Op) -> Waiting {
        let item = UpItem {
            r#ref: reference,
            session,
            op: Some(op),
            ..Default::default()
        };
        let place = Place {
            slot: Slot::of_chat(chat(1)),
            order: reference,
            tries: 0,
        };
        Waiting::Item {
            place,
            item: Box::new(item),
        }
    }

    fn ack(session: u64, reference: u64, of: ChatId) -> Waiting {
        let op = AckOp {
            chat_id: of.to_vec().into(),
            seq: reference,
            write: true,
        };
        item(session, reference, up_item::Op::Ack(op))
    }

    #[test]
    fn an_acknowledgement_that_is_never_answered_and_repeated_takes_one_place() {
        let mut pending = Pending::default();
        for reference in 0..2 * MAX_PENDING as u64 {
            assert!(pending.has_room(0).is_ok(), "{reference}");
            pending.insert(reference, ack(1, reference, chat(1)));
        }
        let last = 2 * MAX_PENDING as u64 - 1;
        assert!(
            pending.answered(last - 1).is_none(),
            "a late answer to an older one"
        );
        assert!(pending.answered(last).is_some());
        assert!(pending.waiting.is_empty() && pending.acks.is_empty() && pending.bytes == 0);
    }

    #[test]
    fn a_session_that_is_gone_leaves_its_sends_and_no_acknowledgement() {
        let mut pending = Pending::default();
        for (session, reference) in [(1, 10), (2, 20), (2, 21), (3, 30)] {
            pending.insert(reference, ack(session, reference, chat(u128::from(reference))));
        }
        pending.insert(22, item(2, 22, up_item::Op::Send(SendOp::default())));
        pending.forget_acks(SessionId(2));
        assert_eq!((pending.waiting.len(), pending.acks.len()), (3, 2));
        assert!(pending.answered(22).is_some() && pending.answered(21).is_none());
        assert_eq!(pending.close().count(), 2);
        assert!(pending.has_room(0).is_err());
    }

    #[test]
    fn large_bodies_fill_the_table_long_before_their_number_does() {
        let mut pending = Pending::default();
        let large = |reference| {
            let body = vec![0; 256 << 10].into();
            let op = SendOp {
                body,
                ..Default::default()
            };
            item(1, reference, up_item::Op::Send(op))
        };
        let taken = (0..1000).take_while(|reference| {
            let room = pending.has_room(large(*reference).size()).is_ok();
            if room {
                pending.insert(*reference, large(*reference));
            }
            room
        });
        assert_eq!(taken.count(), 255);
        pending.answered(7);
        assert!(pending.has_room(256 << 10).is_ok());
    }
}
