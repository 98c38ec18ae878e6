//! Receipts: the pushes that tell users that a watermark rose. In a direct chat they are pushed at once, because a
//! person waits for the tick. In a group they are gathered first, because every member acknowledges every message, and
//! only the newest watermark is pushed (rule 10). A receipt goes to the senders of the entries that it newly covers,
//! and a read mark to the user's own devices too.

use std::collections::HashMap;
use std::time::Duration;

use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::ShardState;
use super::event::{Effect, Pushed};
use crate::chat::ChatKind;
use crate::receipts::Watermark;

/// The time from the first watermark that rises in a group to the push of all that rose. A person who watches the ticks
/// hardly sees it, and a member who acknowledges ten messages meanwhile causes one receipt.
pub const GATHER_RECEIPTS: Duration = Duration::from_millis(250);

/// The time by which delivered receipts are put off under load. A read receipt of the chat takes them along earlier.
pub const DEFER_DELIVERED: Duration = Duration::from_secs(10);

/// The one of a watermark's two marks that rose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rose {
    Delivered,
    Read,
}

impl ShardState {
    /// Sets whether delivered receipts are put off because the node is under load. None is lost: watermarks only
    /// rise, and a client that was away asks for them.
    pub fn defer_delivered(&mut self, defer: bool) {
        self.defers_delivered = defer;
    }

    /// Notes that a watermark of the chat rose, and schedules its receipts.
    pub(super) fn rose(&mut self, id: ChatId, what: Rose, now: Timestamp) {
        self.counts.risen += 1;
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let wait = match (what, chat.kind()) {
            (Rose::Delivered, _) if self.defers_delivered => {
                self.counts.deferred += 1;
                DEFER_DELIVERED
            }
            (_, ChatKind::Direct | ChatKind::Own) => {
                self.risen.insert(id);
                return;
            }
            (_, ChatKind::Group) => GATHER_RECEIPTS,
        };
        let at = now + wait;
        if chat.receipts_at.is_none_or(|before| at < before) {
            if let Some(before) = chat.receipts_at.replace(at) {
                self.receipts_due.remove(&(before, id));
            }
            self.receipts_due.insert((at, id));
        }
    }

    /// Pushes the receipts that are due at the monotonic time `now`, the newest watermark of each user.
    pub fn flush_receipts(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for id in std::mem::take(&mut self.risen) {
            self.tell_receipts(id, out);
        }
        while let Some((at, id)) = self.receipts_due.first().copied().filter(|(at, _)| *at <= now) {
            self.receipts_due.remove(&(at, id));
            debug_assert!(
                self.chats
                    .get(&id)
                    .is_some_and(|chat| chat.receipts_at == Some(at)),
                "receipts are gathered once for each chat"
            );
            self.tell_receipts(id, out);
        }
    }

    /// Pushes every receipt of the chat that is gathered.
    pub(super) fn tell_receipts(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if let Some(at) = chat.receipts_at.take() {
            self.receipts_due.remove(&(at, id));
        }
        // Most members acknowledge the same range, so its senders are looked up once.
        let mut senders: HashMap<(Seq, Seq), Vec<UserId>> = HashMap::new();
        // While one has blocked the other, neither is told of the other's receipts.
        let blocked = chat.is_blocked();
        for risen in chat.receipts.take_risen() {
            let user = risen.user;
            let concerned = risen.others.filter(|_| !blocked).map(|(mark, since)| {
                let range = (since, mark.delivered);
                let senders = senders
                    .entry(range)
                    .or_insert_with(|| chat.senders_of(since, mark.delivered));
                let others = senders.iter().copied().filter(|sender| *sender != user);
                (mark, others.collect::<Vec<_>>())
            });
            let own = risen.own.map(|mark| (mark, vec![user]));
            for (mark, users) in together(concerned, own) {
                if users.is_empty() {
                    continue;
                }
                self.counts.receipts += users.len() as u64;
                out.push(Effect::Push {
                    chat: id,
                    users: users.into(),
                    except: Vec::new(),
                    what: Pushed::Receipt { user, mark },
                });
            }
        }
    }
}

/// A watermark, and the users who are told of it.
type Told = (Watermark, Vec<UserId>);

/// Joins the two pushes into one if both carry the same watermark.
fn together(others: Option<Told>, own: Option<Told>) -> impl Iterator<Item = Told> {
    let (first, second) = match (others, own) {
        (Some((mark, mut users)), Some((same, own))) if mark == same => {
            users.extend(own);
            (Some((mark, users)), None)
        }
        both => both,
    };
    first.into_iter().chain(second)
}
