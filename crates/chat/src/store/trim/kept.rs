//! The rules for what of a chat is erased and deleted, and when the chat is looked at again. They are pure.

use std::time::Duration;

use tern_types::limits::DEDUPE_WINDOW_DAYS;
use tern_types::{ChatId, Seq, Timestamp};

use tern_chat_core::retention::Mode;

/// The time after which an entry may be deleted: as long as a repetition of its request is answered (rule 5).
const ROWS_KEPT: Duration = Duration::from_secs(DEDUPE_WINDOW_DAYS as u64 * 86_400);
/// The shortest time to the next look at a chat.
const SOONEST: Duration = Duration::from_secs(60);
/// The longest time to the next look at a chat.
const LATEST: Duration = Duration::from_secs(86_400);
/// The time to the next look at a chat that keeps what is not delivered. The look finds what was delivered if the hint
/// that says so was lost.
const OWED: Duration = Duration::from_secs(3_600);

/// A chat that is being trimmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// The chat.
    pub chat: ChatId,
    /// The mode that holds. It is never [`Mode::Default`].
    pub mode: Mode,
    /// The seq up to which contents that are not kept have been erased.
    pub trimmed: Seq,
    /// The first seq that is there.
    pub first: Seq,
    /// The seq of the last entry.
    pub head: Seq,
    /// The lowest seq that a device may not have acknowledged.
    pub owed_from: Seq,
    /// True if the chat has a time at which it is trimmed next.
    pub is_timed: bool,
    /// The time of the first entry that is kept; `None` if there is none.
    pub oldest: Option<Timestamp>,
    /// True if there is more to be done than fits into a round.
    pub unfinished: bool,
}

impl Kept {
    /// Returns the seq up to which entries may be erased, as far as their times allow it.
    pub fn upto(&self) -> Seq {
        match self.mode {
            Mode::Default | Mode::Forever => Seq::ZERO,
            Mode::ForTime(_) => self.head,
            Mode::UntilDelivered => self.owed_from.previous(),
        }
    }

    /// Returns whether an entry of this time was kept for long enough.
    pub fn is_over(&self, sent_at: Timestamp, now: Timestamp) -> bool {
        match self.mode {
            Mode::Default | Mode::Forever => false,
            Mode::ForTime(seconds) => sent_at + Duration::from_secs(seconds.into()) <= now,
            Mode::UntilDelivered => true,
        }
    }

    /// Returns when the chat is to be trimmed next; `None` if never.
    ///
    /// A chat that keeps messages for a time is looked at when the oldest has been kept for it. One with nothing left
    /// is looked at again after a tenth of the time, because nobody tells the trimmer of a new message: it is found
    /// before its own time has passed.
    pub fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let within = |time: Duration| now + time.clamp(SOONEST, LATEST);
        match (self.mode, self.oldest) {
            (Mode::Default | Mode::Forever, _) => None,
            _ if self.unfinished => Some(now),
            (Mode::ForTime(seconds), Some(oldest)) => {
                let over = oldest + Duration::from_secs(seconds.into());
                Some(within(over.since(now)))
            }
            (Mode::ForTime(seconds), None) => Some(within(Duration::from_secs(u64::from(seconds) / 10))),
            (Mode::UntilDelivered, _) if self.trimmed < self.head => Some(within(OWED)),
            (Mode::UntilDelivered, _) => Some(within(LATEST)),
        }
    }

    /// Returns the seq up to which entries may be deleted, as far as their times allow it: what is erased. A device that
    /// lacks an entry of a chat that keeps messages for a time skips it. The last entry of a chat stays, because the list
    /// of chats is ordered by its time.
    pub fn forgettable(&self) -> Seq {
        let erased = self.upto().min(self.trimmed);
        erased.min(self.head.previous())
    }
}

/// Returns whether an entry of this time is old enough to be deleted.
pub(super) fn is_old(sent_at: Timestamp, now: Timestamp) -> bool {
    sent_at + ROWS_KEPT <= now
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);
    const HOUR: u32 = 3_600;

    fn kept(mode: Mode, trimmed: u64, oldest: Option<u64>) -> Kept {
        Kept {
            chat: ChatId(Uuid::nil()),
            mode,
            trimmed: Seq(trimmed),
            first: Seq(1),
            head: Seq(9),
            owed_from: Seq(6),
            is_timed: true,
            oldest: oldest.map(|ago| NOW - Duration::from_secs(ago)),
            unfinished: false,
        }
    }

    #[test]
    fn a_chat_is_looked_at_when_something_is_due_and_not_too_often() {
        let time = Mode::ForTime(HOUR);
        let cases = [
            (Mode::Forever, 0, None, None),
            (time, 4, Some(3_000), Some(600)),
            (time, 4, Some(3_599), Some(60)),
            (time, 4, Some(9_999), Some(60)),
            (time, 9, None, Some(360)),
            (Mode::ForTime(365 * 24 * HOUR), 4, Some(9), Some(86_400)),
            (Mode::ForTime(365 * 24 * HOUR), 9, None, Some(86_400)),
            (Mode::UntilDelivered, 5, None, Some(3_600)),
            (Mode::UntilDelivered, 9, None, Some(86_400)),
        ];
        for (mode, trimmed, oldest, expected) in cases {
            let next = kept(mode, trimmed, oldest).next_look(NOW);
            let expected = expected.map(|after| NOW + Duration::from_secs(after));
            assert_eq!(next, expected, "{mode:?}, {trimmed}, {oldest:?}");
        }
        let unfinished = Kept {
            unfinished: true,
            ..kept(time, 4, None)
        };
        assert_eq!(unfinished.next_look(NOW), Some(NOW), "the others had their turn");
    }

    #[test]
    fn what_may_be_erased_depends_on_the_mode() {
        let cases = [
            (Mode::Forever, 0, [false, false]),
            (Mode::ForTime(HOUR), 9, [true, false]),
            (Mode::UntilDelivered, 5, [true, true]),
        ];
        for (mode, upto, over) in cases {
            let kept = kept(mode, 0, None);
            assert_eq!(kept.upto(), Seq(upto), "{mode:?}");
            let ago = |seconds| kept.is_over(NOW - Duration::from_secs(seconds), NOW);
            assert_eq!([ago(3_600), ago(3_599)], over, "{mode:?}");
        }
    }

    #[test]
    fn what_is_kept_until_it_is_delivered_and_the_last_entry_are_not_deleted() {
        let cases = [
            (Mode::Forever, 9, 9, 0),
            (Mode::ForTime(HOUR), 9, 10, 8),
            (Mode::ForTime(HOUR), 9, 6, 8),
            (Mode::ForTime(HOUR), 3, 6, 3),
            (Mode::UntilDelivered, 9, 10, 8),
            (Mode::UntilDelivered, 5, 6, 5),
            (Mode::UntilDelivered, 9, 6, 5),
        ];
        for (mode, trimmed, owed_from, expected) in cases {
            let kept = Kept {
                owed_from: Seq(owed_from),
                ..kept(mode, trimmed, None)
            };
            assert_eq!(kept.forgettable(), Seq(expected), "{kept:?}");
        }
        assert!(is_old(NOW, NOW + Duration::from_secs(30 * 86_400)));
        assert!(!is_old(NOW, NOW + Duration::from_secs(30 * 86_400 - 1)));
    }
}
