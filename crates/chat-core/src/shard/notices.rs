//! Notices, such as that somebody is typing: the pushes that tell the other members. A notice is never stored, and is
//! dropped rather than delay anything else.

use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, Notice, Timestamp, UserId};

use super::ShardState;
use super::event::{Effect, Event, Pushed};
use crate::chat::{Chat, Stage};

/// The time after its arrival from which a notice is dropped. Typing comes again every 3 s while the person types.
const STALE: Duration = Duration::from_secs(1);

/// The reason why a notice was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The chat is not loaded, and a load for the notice would delay another load that is under way. Or the
    /// notice says that somebody stopped, which is no news in a chat that is not loaded.
    NotLoaded,
    /// The notice waited too long, for example for its chat to be loaded.
    Stale,
    /// The person is not a member, or the chat passes no such notice on: it has too many members, it is frozen, or one
    /// person has blocked the other.
    NotTaken,
    /// The others were told the same a moment ago; or the person stopped something that the others do not see.
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

/// The counts of the notices of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct NoticeCounts {
    /// The number that was passed on.
    pub passed: u64,
    /// The numbers that were dropped, by the number of their [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

/// A notice on its way: the fields of [`Event::Notice`].
#[derive(Debug)]
pub(super) struct Given {
    /// The chat whose other members are to be told.
    pub chat: ChatId,
    /// The person whose device gave the notice.
    pub user: UserId,
    /// The notice.
    pub notice: Notice,
    /// The time at which the notice arrived at this node, by the monotonic clock.
    pub at: Timestamp,
}

impl ShardState {
    /// Passes a notice on, or drops it, and counts that. A notice that waits for its chat to be loaded is
    /// counted when the chat is there, and not at all if the load fails.
    pub(super) fn notice(&mut self, given: Given, now: Timestamp, out: &mut Vec<Effect>) {
        let kind = given.notice.kind();
        let passed = self.pass(given, now, out);
        let counts = &mut self.counts.notices[kind as usize];
        match passed {
            Ok(None) => {}
            Ok(Some(push)) => {
                counts.passed += 1;
                out.push(push);
            }
            Err(reason) => counts.dropped[reason as usize] += 1,
        }
    }

    /// Returns the push for the other members. `Ok(None)` if there is nobody to tell, or the event waits for the chat
    /// to be loaded; `Err` if the notice is dropped.
    fn pass(
        &mut self,
        given: Given,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Effect>, DropReason> {
        let Given {
            chat: id,
            user,
            notice,
            at,
        } = given;
        if now.since(at) > STALE {
            return Err(DropReason::Stale);
        }
        let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.stage == Stage::Ready) else {
            // A notice loads a chat only while no other load is under way.
            if !is_worth_a_load(&notice) || self.loads.under_way > 0 {
                return Err(DropReason::NotLoaded);
            }
            let again = Event::Notice {
                chat: id,
                user,
                notice,
                at,
            };
            self.keep_until_loaded(id, again, now, out);
            return Ok(None);
        };
        if chat.member(user).is_none() || chat.is_blocked() {
            return Err(DropReason::NotTaken);
        }
        take(chat, user, &notice, now)?;
        let others = chat.members().map(|(member, _)| member);
        let users: Arc<[UserId]> = others.filter(|member| *member != user).collect();
        debug_assert_eq!(
            users.len() + 1,
            chat.member_count(),
            "all members are told but the person"
        );
        Ok((!users.is_empty()).then(|| Effect::Push {
            chat: id,
            users,
            except: Vec::new(),
            what: Pushed::Notice { user, notice },
        }))
    }
}

/// Returns whether a notice tells the others anything if its chat is not loaded.
fn is_worth_a_load(notice: &Notice) -> bool {
    match notice {
        // Nobody is shown typing in a chat that is not loaded.
        Notice::Typing { stopped } => !stopped,
    }
}

/// Applies the rules of the notice's kind. Returns the reason if the notice is dropped.
fn take(chat: &mut Chat, user: UserId, notice: &Notice, now: Timestamp) -> Result<(), DropReason> {
    match notice {
        Notice::Typing { .. } if !chat.takes_typing() => Err(DropReason::NotTaken),
        Notice::Typing { stopped } if !chat.typists.take(user, *stopped, now) => Err(DropReason::Throttled),
        Notice::Typing { .. } => Ok(()),
    }
}
