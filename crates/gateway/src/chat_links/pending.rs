//! What went up a link and is owed an answer. Bounded: sends and windows are always answered or given back; an
//! acknowledgement may never be (its node says nothing when it could not write it), so there is one of a session and
//! chat at most, and none of a session that is gone.

use std::collections::{BTreeMap, HashMap};

use tern_proto::internal::{UpItem, up_item};
use tern_types::{ChatId, SessionId, Slot};

use super::Refused;

/// Items without an answer at one node: beyond it the node is too slow to be given more.
const MAX_PENDING: usize = 65_536;

/// Something that is owed an answer.
#[derive(Debug)]
pub enum Waiting {
    /// With how often a node gave it back.
    Item {
        slot: Slot,
        item: Box<UpItem>,
        tries: u32,
    },
    Window {
        session: SessionId,
        reference: u64,
        chat: ChatId,
    },
}

impl Waiting {
    /// Whose acknowledgement, and of what, it is.
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

/// See the module.
#[derive(Debug, Default)]
pub struct Pending {
    closed: bool,
    waiting: HashMap<u64, Waiting>,
    /// Which of them are acknowledgements.
    acks: BTreeMap<(SessionId, ChatId), u64>,
}

impl Pending {
    /// Whether one more may be sent.
    pub fn has_room(&self) -> Result<(), Refused> {
        let room = !self.closed && self.waiting.len() < MAX_PENDING;
        room.then_some(()).ok_or(Refused)
    }

    /// Remembers it. An acknowledgement takes the place of the one before: only the newest is waited for.
    pub fn insert(&mut self, reference: u64, waiting: Waiting) {
        let older = waiting.ack().and_then(|ack| self.acks.insert(ack, reference));
        if let Some(older) = older {
            self.waiting.remove(&older);
        }
        self.waiting.insert(reference, waiting);
    }

    /// The answer to `reference` came.
    pub fn answered(&mut self, reference: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&reference)?;
        if let Some(ack) = waiting.ack() {
            self.acks.remove(&ack);
        }
        Some(waiting)
    }

    /// Nobody waits for the session's acknowledgements any more.
    pub fn forget_acks(&mut self, session: SessionId) {
        let first = (session, ChatId(uuid::Uuid::nil()));
        let its = self.acks.range(first..).take_while(|((of, _), _)| *of == session);
        let its: Vec<_> = its.map(|(ack, reference)| (*ack, *reference)).collect();
        for (ack, reference) in its {
            self.acks.remove(&ack);
            self.waiting.remove(&reference);
        }
    }

    /// Takes nothing more, and gives back what has no answer.
    pub fn close(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        self.closed = true;
        self.acks.clear();
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use tern_proto::internal::{AckOp, SendOp};

    use super::*;

    fn slot() -> Slot {
        Slot::of_chat(chat(1))
    }

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
        Waiting::Item {
            slot: slot(),
            item: Box::new(item),
            tries: 0,
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
            assert!(pending.has_room().is_ok(), "{reference}");
            pending.insert(reference, ack(1, reference, chat(1)));
        }
        let last = 2 * MAX_PENDING as u64 - 1;
        assert!(
            pending.answered(last - 1).is_none(),
            "a late answer to an older one"
        );
        assert!(pending.answered(last).is_some());
        assert!(pending.waiting.is_empty() && pending.acks.is_empty());
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
        assert!(pending.has_room().is_err());
    }
}
