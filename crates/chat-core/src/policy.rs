//! The policy of a group: who may do what in it, and what those who join may read of the time before.

use std::time::Duration;

use tern_proto::v1;
use tern_types::Seq;

use crate::content::role_to_wire;
use crate::role::Role;

/// The longest time of slow mode, in seconds: an hour. A group in which people may write less often is one in which only
/// admins send.
pub const MAX_SLOW_MODE_S: u32 = 3_600;
/// The most entries from before they joined that members may read by [`JoinerHistory::Last`]. A group that wants more
/// shows everything.
pub const MAX_JOINER_ENTRIES: u32 = 10_000;

/// The policy of a group, as `tern.v1.GroupPolicy`. A direct chat has the default, which allows its people everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The lowest role that may send messages and edit its own.
    pub send_role: Role,
    /// The lowest role that may add members, and make invite links.
    pub add_role: Role,
    /// The lowest role that may change title, description and picture, pin messages and set the retention.
    pub edit_role: Role,
    /// The time in seconds that a member of the role [`Role::Member`] waits after a message before the next one, at most
    /// [`MAX_SLOW_MODE_S`]. 0: there is no slow mode.
    pub slow_mode: u32,
    /// The part of the history that new members may read.
    pub joiner_history: JoinerHistory,
}

/// The part of a group's history that new members may read, beside what comes after they joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinerHistory {
    /// New members read nothing from before they joined.
    #[default]
    None,
    /// This number of entries before the one that made them members, 1 to [`MAX_JOINER_ENTRIES`].
    Last(u32),
    /// Everything, also from a time in which they had been removed.
    All,
}

impl Default for Policy {
    /// Returns the policy with which a group begins.
    fn default() -> Self {
        Self {
            send_role: Role::Member,
            add_role: Role::Admin,
            edit_role: Role::Admin,
            slow_mode: 0,
            joiner_history: JoinerHistory::None,
        }
    }
}

impl Policy {
    /// Returns the time that a member waits after a message before the next one; `None` if there is no slow mode.
    pub fn wait(self) -> Option<Duration> {
        (self.slow_mode > 0).then(|| Duration::from_secs(self.slow_mode.into()))
    }

    /// Returns the policy as the public API has it, with all fields set.
    pub fn to_wire(self) -> v1::GroupPolicy {
        let (joiner_history, joiner_history_entries) = match self.joiner_history {
            JoinerHistory::None => (v1::JoinerHistory::None, 0),
            JoinerHistory::Last(entries) => (v1::JoinerHistory::Last, entries),
            JoinerHistory::All => (v1::JoinerHistory::All, 0),
        };
        v1::GroupPolicy {
            send_role: role_to_wire(self.send_role).into(),
            add_role: role_to_wire(self.add_role).into(),
            edit_role: role_to_wire(self.edit_role).into(),
            slow_mode_s: self.slow_mode,
            joiner_history: joiner_history.into(),
            joiner_history_entries,
        }
    }
}

impl JoinerHistory {
    /// Returns the first seq that those may read whom the entry at `joined` makes members. For example, of the last 10
    /// entries, somebody who joins by entry 15 may read those from 5 on.
    pub fn first(self, joined: Seq) -> Seq {
        match self {
            Self::None => joined,
            Self::Last(entries) => Seq(joined.0.saturating_sub(entries.into()).max(1)),
            Self::All => Seq(1),
        }
    }

    /// Returns the number as it is stored: 0 for nothing, -1 for everything, else the number of entries.
    pub fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Last(entries) => i32::try_from(entries).unwrap_or(i32::MAX),
            Self::All => -1,
        }
    }

    /// Reads the number that is stored. Every negative one counts as -1.
    pub fn from_number(number: i32) -> Self {
        match u32::try_from(number) {
            Ok(0) => Self::None,
            Ok(entries) => Self::Last(entries),
            Err(_) => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_join_may_read_from_a_seq_on_that_there_is() {
        let cases = [
            (JoinerHistory::None, 15, 15),
            (JoinerHistory::None, 1, 1),
            (JoinerHistory::Last(1), 15, 14),
            (JoinerHistory::Last(10), 15, 5),
            (JoinerHistory::Last(14), 15, 1),
            (JoinerHistory::Last(15), 15, 1),
            (JoinerHistory::Last(MAX_JOINER_ENTRIES), 15, 1),
            (JoinerHistory::All, 15, 1),
            (JoinerHistory::All, 1, 1),
        ];
        for (history, joined, first) in cases {
            assert_eq!(history.first(Seq(joined)), Seq(first), "{history:?} at {joined}");
        }
    }

    #[test]
    fn the_stored_number_stands_for_the_same_history() {
        let all = [
            (JoinerHistory::None, 0),
            (JoinerHistory::Last(1), 1),
            (JoinerHistory::Last(MAX_JOINER_ENTRIES), 10_000),
            (JoinerHistory::All, -1),
        ];
        for (history, number) in all {
            assert_eq!(history.number(), number);
            assert_eq!(JoinerHistory::from_number(number), history);
        }
    }

    #[test]
    fn the_policy_is_told_whole() {
        let told = Policy::default().to_wire();
        let roles = [told.send_role(), told.add_role(), told.edit_role()];
        assert_eq!(roles, [v1::Role::Member, v1::Role::Admin, v1::Role::Admin]);
        assert_eq!(told.joiner_history(), v1::JoinerHistory::None);
        let policy = Policy {
            send_role: Role::Owner,
            slow_mode: 30,
            joiner_history: JoinerHistory::Last(7),
            ..Policy::default()
        };
        let told = policy.to_wire();
        assert_eq!((told.send_role(), told.slow_mode_s), (v1::Role::Owner, 30));
        assert_eq!(
            (told.joiner_history(), told.joiner_history_entries),
            (v1::JoinerHistory::Last, 7)
        );
        assert_eq!(policy.wait(), Some(Duration::from_secs(30)));
        assert_eq!(Policy::default().wait(), None);
    }
}
