//! The operations of sessions on their way to the chats' owners. A new one has an arm in [`from_session`], which makes
//! its item, and one in [`Manner::of`], which says how the links treat it. The rest of the links names an operation only
//! where it does something of its own with it.

use tern_proto::internal::{AckOp, ReadOp, SendOp, UpItem, up_item};
use tern_types::ChatId;

use tern_gateway_core::session::{Mail, Op, Send};

use crate::registry::Handle;

/// The manner in which the links treat an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner<'a> {
    /// The item overtakes none of its slot that went before it, and is answered. Its session is told if it is lost, and
    /// tells the device that its message was not sent.
    InOrder,
    /// The item is a watermark, so its order does not matter. Its session is told if it is lost, and sends the chat's
    /// watermarks again.
    Watermark {
        /// The id of the chat.
        chat: &'a [u8],
        /// True if the chat node answers the item.
        answered: bool,
    },
    /// The item may be lost, and nobody is told: whoever needs it says it again, or asks again.
    Hint,
}

impl<'a> Manner<'a> {
    /// Returns the manner in which the links treat the item.
    pub fn of(item: &'a UpItem) -> Self {
        match &item.op {
            Some(up_item::Op::Send(_)) => Self::InOrder,
            Some(up_item::Op::Ack(ack)) => Self::Watermark {
                chat: &ack.chat_id,
                answered: ack.write,
            },
            Some(up_item::Op::Read(read)) => Self::Watermark {
                chat: &read.chat_id,
                answered: false,
            },
            Some(up_item::Op::Notice(_) | up_item::Op::WakeDone(_) | up_item::Op::SessionsFound(_))
            | None => Self::Hint,
        }
    }

    /// Returns whether the chat node answers the item. The link keeps it until then.
    pub fn is_answered(self) -> bool {
        match self {
            Self::InOrder => true,
            Self::Watermark { answered, .. } => answered,
            Self::Hint => false,
        }
    }
}

/// Returns what the item's session is told if the item finds no way to the chat's owner, or if its answer will not come.
pub fn lost(item: &UpItem) -> Option<Mail> {
    match Manner::of(item) {
        Manner::InOrder => Some(Mail::SendFailed {
            reference: item.r#ref,
        }),
        Manner::Watermark { chat, .. } => {
            let chat = ChatId::from_slice(chat).ok()?;
            Some(Mail::AckLost { chat })
        }
        Manner::Hint => None,
    }
}

/// Makes the item of a session's operation. Returns the operation's name in metrics, its chat, and the item.
pub fn from_session(from: &Handle, op: Op) -> (&'static str, ChatId, UpItem) {
    match op {
        Op::Send { reference, send } => ("send", send.chat, message(from, reference, send)),
        Op::Ack {
            reference,
            chat,
            seq,
            write,
        } => {
            let op = AckOp {
                chat_id: chat.to_vec().into(),
                seq,
                write,
            };
            ("ack", chat, item(from, reference, up_item::Op::Ack(op)))
        }
        Op::Read { chat, seq, off } => {
            let op = ReadOp {
                chat_id: chat.to_vec().into(),
                seq,
                read_receipts_off: off,
            };
            ("read", chat, item(from, 0, up_item::Op::Read(op)))
        }
    }
}

fn message(from: &Handle, reference: u64, send: Send) -> UpItem {
    let op = SendOp {
        chat_id: send.chat.to_vec().into(),
        peer_user_id: send.peer.map(|peer| peer.to_vec().into()).unwrap_or_default(),
        request_id: send.request_id.to_vec().into(),
        envelope: send.envelope,
        body: send.body,
        read_receipts_off: send.read_receipts_off,
        acked_seq: send.acked,
    };
    UpItem {
        traceparent: send.trace.map(|trace| trace.to_string()).unwrap_or_default(),
        ..item(from, reference, up_item::Op::Send(op))
    }
}

/// Makes an item on behalf of a session. `reference` is the number by which its answer names it, 0 if it gets none.
pub fn item(from: &Handle, reference: u64, op: up_item::Op) -> UpItem {
    UpItem {
        r#ref: reference,
        session: from.id.0,
        user_id: from.user.to_vec().into(),
        device_id: from.device.to_vec().into(),
        traceparent: String::new(),
        op: Some(op),
    }
}
