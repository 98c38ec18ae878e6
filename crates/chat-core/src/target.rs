//! The rules for what may be done to a message that is in the log already: to edit it, to delete it for everyone, to
//! react to it, and to pin it.

use std::time::Duration;

use tern_types::{Seq, Timestamp, UserId};

use super::Refusal;
use super::entry::EntryKind;
use super::group::{ChatKind, Member, Role};

pub use super::entry::About;

/// The facts about an entry that decide what may be done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The user who sent the entry, or [`UserId::SYSTEM`].
    pub sender: UserId,
    /// The time of the entry, by the wall clock.
    pub sent_at: Timestamp,
    /// True if the entry is a message ([`EntryKind::Message`]).
    pub is_message: bool,
    /// True if the message was deleted, or has disappeared.
    pub erased: bool,
    /// The seconds after `sent_at` after which the message disappears; 0: it stays.
    pub expires_after_s: u32,
}

/// The shortest time that a message has left while something can be done to it. An edit disappears with its message,
/// and the time that it has left is told in whole seconds.
const LEAST_LEFT: Duration = Duration::from_secs(1);

impl Target {
    /// Returns the time at which the message disappears, by the wall clock; `None` if it stays.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let after = Duration::from_secs(self.expires_after_s.into());
        (self.expires_after_s > 0).then(|| self.sent_at + after)
    }

    /// Returns whether the content is there at the time `wall`, and will be for [`LEAST_LEFT`]. The owner goes by its
    /// clock, because the store may erase what has disappeared a little later.
    fn is_there(&self, wall: Timestamp) -> bool {
        !self.erased && self.expires_at().is_none_or(|at| at.since(wall) >= LEAST_LEFT)
    }
}

/// How long after it was sent a message may be changed by its sender. A back end that acts in nobody's name is not
/// bound by these times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// The time for edits.
    pub edit: Duration,
    /// The time for deletions for everyone.
    pub delete: Duration,
}

impl Default for Windows {
    /// Returns 15 minutes for edits, and 48 hours for deletions.
    fn default() -> Self {
        Self {
            edit: Duration::from_secs(15 * 60),
            delete: Duration::from_secs(48 * 3600),
        }
    }
}

/// The user who wants to do something to a message.
pub(crate) struct Actor<'a> {
    pub user: UserId,
    /// The actor's membership; `None` for the system, which has an owner's rights.
    pub member: Option<&'a Member>,
    /// The kind of the chat.
    pub chat: ChatKind,
    /// The lowest role that may pin messages in a group.
    pub edit_role: Role,
}

impl Actor<'_> {
    fn is_system(&self) -> bool {
        self.user == UserId::SYSTEM
    }

    /// Returns whether the actor runs the chat: the admins and owners of a group do, and nobody does in a direct chat.
    fn runs_chat(&self) -> bool {
        let runs = |member: &Member| self.chat == ChatKind::Group && member.role >= Role::Admin;
        self.is_system() || self.member.is_some_and(runs)
    }

    /// Returns whether the actor may pin messages: both people of a direct chat may, and in a group those with the role.
    fn may_pin(&self) -> bool {
        let may = |member: &Member| self.chat == ChatKind::Direct || member.role >= self.edit_role;
        self.is_system() || self.member.is_some_and(may)
    }

    /// Returns whether the actor may see the entry at `seq` by their present membership. Earlier ones do not count.
    fn sees(&self, seq: Seq) -> bool {
        self.is_system() || self.member.is_some_and(|member| seq >= member.history)
    }
}

/// Decides whether `actor` may do to the message at `seq` what an entry of this kind does. `target` has the facts about
/// the entry at `seq`; `None` if there is none. `wall` is the time, by the wall clock. `Err` says why not.
pub(crate) fn permit(
    kind: EntryKind,
    seq: Seq,
    target: Option<Target>,
    actor: &Actor<'_>,
    wall: Timestamp,
    windows: Windows,
) -> Result<(), Refusal> {
    let target = target
        .filter(|target| target.is_message && target.is_there(wall) && actor.sees(seq))
        .ok_or(Refusal::TargetNotFound)?;
    let own = target.sender == actor.user;
    let within = |window: Duration| {
        let in_time = actor.is_system() || wall.since(target.sent_at) <= window;
        if in_time { Ok(()) } else { Err(Refusal::TooOld) }
    };
    match kind {
        EntryKind::Edit if own => within(windows.edit),
        EntryKind::Delete if actor.runs_chat() => Ok(()),
        EntryKind::Delete if own => within(windows.delete),
        EntryKind::Pin if actor.may_pin() => Ok(()),
        EntryKind::Reaction => Ok(()),
        _ => Err(Refusal::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    /// A message of user 3, sent at time 0.
    const MESSAGE: Target = Target {
        sender: UserId(Uuid::from_u128(3)),
        sent_at: Timestamp(0),
        is_message: true,
        erased: false,
        expires_after_s: 0,
    };

    /// Asks for `kind` at the message with seq 10, as user `by`: 0 is the system, 1 the owner, 2 an admin, 3 and 4 are
    /// members, 5 and 6 joined after the message, of whom 6 may read it, 9 is no member.
    fn asked(
        kind: EntryKind,
        chat: ChatKind,
        by: u128,
        at: i64,
        target: Option<Target>,
    ) -> Result<(), Refusal> {
        let role = match by {
            1 => Role::Owner,
            2 => Role::Admin,
            _ => Role::Member,
        };
        let joined = Member::joined_at(if by == 5 || by == 6 { Seq(11) } else { Seq(1) });
        let member = Member {
            role,
            history: if by == 6 { Seq(10) } else { joined.history },
            ..joined
        };
        let actor = Actor {
            user: if by == 0 { UserId::SYSTEM } else { user(by) },
            member: (by > 0 && by < 9).then_some(&member),
            chat,
            edit_role: Role::Admin,
        };
        permit(kind, Seq(10), target, &actor, Timestamp(at), Windows::default())
    }

    #[test]
    fn who_may_do_what_to_a_message_and_when() {
        use ChatKind::{Direct, Group};
        use EntryKind::{Delete, Edit, Pin, Reaction};
        use Refusal::{NotAllowed, TargetNotFound, TooOld};
        let cases = [
            (Edit, Group, 3, 0, Ok(())),
            (Edit, Group, 3, HOUR / 4, Ok(())),
            (Edit, Group, 3, HOUR / 4 + 1, Err(TooOld)),
            (Edit, Group, 1, 0, Err(NotAllowed)),
            (Edit, Group, 0, 0, Err(NotAllowed)),
            (Edit, Direct, 4, 0, Err(NotAllowed)),
            (Delete, Group, 3, 48 * HOUR, Ok(())),
            (Delete, Group, 3, 48 * HOUR + 1, Err(TooOld)),
            (Delete, Group, 4, 0, Err(NotAllowed)),
            (Delete, Group, 2, 1_000 * HOUR, Ok(())),
            (Delete, Group, 1, 1_000 * HOUR, Ok(())),
            (Delete, Group, 0, 1_000 * HOUR, Ok(())),
            // In a direct chat nobody's role counts, whatever the store says it is.
            (Delete, Direct, 1, 0, Err(NotAllowed)),
            (Reaction, Group, 4, 1_000 * HOUR, Ok(())),
            (Reaction, Group, 5, 0, Err(TargetNotFound)),
            (Delete, Group, 5, 0, Err(TargetNotFound)),
            (Reaction, Group, 6, 0, Ok(())),
            (Delete, Group, 6, 0, Err(NotAllowed)),
            (Pin, Group, 4, 0, Err(NotAllowed)),
            (Pin, Group, 3, 0, Err(NotAllowed)),
            (Pin, Group, 2, 1_000 * HOUR, Ok(())),
            (Pin, Direct, 4, 0, Ok(())),
        ];
        for (kind, chat, by, at, expected) in cases {
            let actual = asked(kind, chat, by, at, Some(MESSAGE));
            assert_eq!(actual, expected, "{kind:?} in a {chat:?} by {by} at {at}");
        }
    }

    #[test]
    fn the_role_that_may_pin_is_that_of_the_policy() {
        use ChatKind::{Direct, Group};
        let cases = [
            (Group, Role::Member, Role::Member, Ok(())),
            (Group, Role::Admin, Role::Member, Err(Refusal::NotAllowed)),
            (Group, Role::Owner, Role::Admin, Err(Refusal::NotAllowed)),
            (Group, Role::Owner, Role::Owner, Ok(())),
            (Direct, Role::Owner, Role::Member, Ok(())),
        ];
        for (chat, edit_role, role, expected) in cases {
            let member = Member {
                role,
                ..Member::joined_at(Seq(1))
            };
            let (user, member) = (user(4), Some(&member));
            let actor = Actor {
                user,
                member,
                chat,
                edit_role,
            };
            let (pin, target, windows) = (EntryKind::Pin, Some(MESSAGE), Windows::default());
            let actual = permit(pin, Seq(10), target, &actor, Timestamp(0), windows);
            assert_eq!(actual, expected, "a {role:?} in a {chat:?}, {edit_role:?} needed");
        }
    }

    #[test]
    fn nothing_is_done_to_what_is_no_message_or_is_gone() {
        let (reaction, erased) = (
            Target {
                is_message: false,
                ..MESSAGE
            },
            Target {
                erased: true,
                ..MESSAGE
            },
        );
        for kind in [
            EntryKind::Edit,
            EntryKind::Delete,
            EntryKind::Reaction,
            EntryKind::Pin,
        ] {
            for target in [None, Some(reaction), Some(erased)] {
                let actual = asked(kind, ChatKind::Direct, 3, 0, target);
                assert_eq!(actual, Err(Refusal::TargetNotFound), "{kind:?} of {target:?}");
            }
        }
    }

    #[test]
    fn nothing_is_done_to_a_message_that_has_disappeared_or_is_about_to() {
        let minute = Target {
            expires_after_s: 60,
            ..MESSAGE
        };
        for kind in [EntryKind::Edit, EntryKind::Delete, EntryKind::Reaction] {
            for (at, there) in [
                (0, true),
                (59_000, true),
                (59_001, false),
                (60_000, false),
                (HOUR, false),
            ] {
                let actual = asked(kind, ChatKind::Direct, 3, at, Some(minute));
                let expected = if there {
                    Ok(())
                } else {
                    Err(Refusal::TargetNotFound)
                };
                assert_eq!(actual, expected, "{kind:?} at {at}");
            }
        }
    }

    #[test]
    fn a_back_end_edits_what_it_sent_whenever_it_likes() {
        let own = Target {
            sender: UserId::SYSTEM,
            ..MESSAGE
        };
        assert_eq!(
            asked(EntryKind::Edit, ChatKind::Group, 0, 1_000 * HOUR, Some(own)),
            Ok(())
        );
    }
}
