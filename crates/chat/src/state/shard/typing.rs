//! Somebody writes: told to the other members, never stored, and dropped wherever it would cost anything.

use std::time::Duration;

use tern_types::{ChatId, Timestamp, UserId};

use super::ShardState;
use super::event::{Effect, Event, Pushed};
use crate::state::chat::Stage;

/// What waited longer for its chat is no news: it is said again every 3 s while it goes on.
const STALE: Duration = Duration::from_secs(1);

/// Why typing was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its chat is not in memory, and loading it would hold up something else.
    NotLoaded,
    /// It waited too long for its chat.
    Stale,
    /// Its sender is no member, or the chat takes none: too many members, or one has blocked the other.
    NotTaken,
    /// Its sender has just said so, or never did.
    Throttled,
}

impl DropReason {
    pub const ALL: [Self; 4] = [Self::NotLoaded, Self::Stale, Self::NotTaken, Self::Throttled];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotLoaded => "not_loaded",
            Self::Stale => "stale",
            Self::NotTaken => "not_taken",
            Self::Throttled => "throttled",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Typing {
    pub chat: ChatId,
    pub user: UserId,
    pub stopped: bool,
    pub at: Timestamp,
}

impl ShardState {
    pub(super) fn typing(&mut self, typing: Typing, now: Timestamp, out: &mut Vec<Effect>) {
        match self.pass(typing, now, out) {
            Ok(None) => {}
            Ok(Some(push)) => {
                self.counts.typing += 1;
                out.push(push);
            }
            Err(reason) => self.counts.typing_dropped[reason as usize] += 1,
        }
    }

    /// What is pushed; nothing yet where the chat is loaded first.
    fn pass(
        &mut self,
        typing: Typing,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Effect>, DropReason> {
        let Typing {
            chat: id,
            user,
            stopped,
            at,
        } = typing;
        if now.since(at) > STALE {
            return Err(DropReason::Stale);
        }
        let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.stage == Stage::Ready) else {
            // Nothing to stop in a chat that nobody wrote in; and one load at a time, when nobody else has one.
            if stopped || self.loads.under_way > 0 {
                return Err(DropReason::NotLoaded);
            }
            let again = Event::Typing {
                chat: id,
                user,
                stopped,
                at,
            };
            self.hold(id, again, now, out);
            return Ok(None);
        };
        if chat.member(user).is_none() || chat.is_blocked() || !chat.takes_typing() {
            return Err(DropReason::NotTaken);
        }
        if !chat.typists.take(user, stopped, now) {
            return Err(DropReason::Throttled);
        }
        let others = chat.members().map(|(member, _)| member);
        let users: Vec<UserId> = others.filter(|member| *member != user).collect();
        Ok((!users.is_empty()).then(|| Effect::Push {
            chat: id,
            users,
            except: Vec::new(),
            what: Pushed::Typing { user, stopped },
        }))
    }
}
