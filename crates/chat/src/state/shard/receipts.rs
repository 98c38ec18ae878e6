//! Watermarks that rose, and who is told of them when. In a direct chat at once: a person waits for the tick. In a group
//! they are gathered first, for every member acknowledges every message, and only the newest is told (rule 10).

use std::collections::HashMap;
use std::time::Duration;

use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::ShardState;
use super::event::{Effect, Pushed};
use crate::state::chat::ChatKind;
use crate::state::receipts::Watermark;

/// From the first watermark that rises in a group to telling all that rose: hardly seen by a person who watches ticks, and
/// a member who acknowledges ten messages meanwhile is told of once.
pub const GATHER_RECEIPTS: Duration = Duration::from_millis(250);

/// Under load what was delivered is told of this much later; what was read takes it along.
pub const DEFER_DELIVERED: Duration = Duration::from_secs(10);

/// What a watermark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rose {
    Delivered,
    Read,
}

impl ShardState {
    /// Whether delivered receipts are put off for load. They are not lost by it: watermarks only rise, and are asked for
    /// by who was away.
    pub fn defer_delivered(&mut self, defer: bool) {
        self.defers_delivered = defer;
    }

    /// A watermark of the chat rose.
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
            (_, ChatKind::Direct) => {
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

    /// Tells what rose and is due, each user's once.
    pub fn flush_receipts(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for id in std::mem::take(&mut self.risen) {
            self.tell_receipts(id, out);
        }
        while let Some((at, id)) = self.receipts_due.first().copied().filter(|(at, _)| *at <= now) {
            self.receipts_due.remove(&(at, id));
            self.tell_receipts(id, out);
        }
    }

    /// Tells all that rose in the chat.
    pub(super) fn tell_receipts(&mut self, id: ChatId, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if let Some(at) = chat.receipts_at.take() {
            self.receipts_due.remove(&(at, id));
        }
        // Most members acknowledge the same.
        let mut senders: HashMap<(Seq, Seq), Vec<UserId>> = HashMap::new();
        // Nothing crosses a block but what was said before it.
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
                    users,
                    except: Vec::new(),
                    what: Pushed::Receipt { user, mark },
                });
            }
        }
    }
}

type Told = (Watermark, Vec<UserId>);

/// One push where all are told the same.
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
