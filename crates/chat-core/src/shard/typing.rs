//! Typing: the pushes that tell the other members that somebody is typing. A sign of typing is never stored, and is
//! dropped rather than delay anything else.

use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, Timestamp, UserId};

use super::ShardState;
use super::event::{Effect, Event, Pushed};
use crate::chat::Stage;

/// The time after its arrival from which a sign of typing is dropped. It comes again every 3 s while the person types.
const STALE: Duration = Duration::from_secs(1);

/// The reason why a sign of typing was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The chat is not loaded, and either another load is under way, which this one would delay, or the person stopped.
    NotLoaded,
    /// The sign waited too long, for example for its chat to be loaded.
    Stale,
    /// The person is not a member, or the chat passes no typing on: it has too many members, or one person has blocked
    /// the other.
    NotTaken,
    /// It was passed on a moment ago that the person is typing; or they stopped, and others do not see them typing.
    Throttled,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::NotLoaded, Self::Stale, Self::NotTaken, Self::Throttled];

    /// Returns the name of the reason in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotLoaded => "not_loaded",
            Self::Stale => "stale",
            Self::NotTaken => "not_taken",
            Self::Throttled => "throttled",
        }
    }
}

/// A sign of typing: the fields of [`Event::Typing`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Typing {
    pub chat: ChatId,
    pub user: UserId,
    pub stopped: bool,
    pub at: Timestamp,
}

impl ShardState {
    /// Passes a sign of typing on, or drops it, and counts that.
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

    /// Returns the push for the other members. `Ok(None)` if there is nobody to tell, or the event waits for the chat
    /// to be loaded; `Err` if the sign is dropped.
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
            // A stop changes nothing here, because nobody is shown typing in a chat that is not loaded. And typing
            // loads a chat only while no other load is under way.
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
        let users: Arc<[UserId]> = others.filter(|member| *member != user).collect();
        Ok((!users.is_empty()).then(|| Effect::Push {
            chat: id,
            users,
            except: Vec::new(),
            what: Pushed::Typing { user, stopped },
        }))
    }
}
