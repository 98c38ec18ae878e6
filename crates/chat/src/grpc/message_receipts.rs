//! Counts the members who received and read one message, and lists them page by page. It is pure.

use std::collections::HashMap;

use tern_proto::{ApiError, parse, v1};
use tern_types::{Seq, UserId};

use tern_chat_core::receipts::Watermark;

use super::views::merged;

/// The furthest that a message got with one member. The pages list the members in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Reached {
    Read,
    Delivered,
    Nothing,
}

impl Reached {
    const ALL: [Self; 3] = [Self::Read, Self::Delivered, Self::Nothing];
}

/// The last member of a page, after whom the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct After(Reached, UserId);

impl After {
    /// Reads a page token. An empty one gives `None`, for the first page. `Err` if this server never gave such a token.
    pub fn read(token: &str) -> Result<Option<Self>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || ApiError::invalid("page_token", "is none that this server gave");
        let (reached, user) = token.split_once('.').ok_or_else(bad)?;
        let reached: usize = reached.parse().map_err(|_| bad())?;
        let reached = *Reached::ALL.get(reached).ok_or_else(bad)?;
        Ok(Some(Self(reached, parse::id("page_token", user)?)))
    }

    fn token(self) -> String {
        format!("{}.{}", self.0 as u8, self.1)
    }
}

/// Returns a page of the members whom the message at `seq` concerns: the present members who joined at or before it,
/// without its sender. Each page shows them as they are now. A member who gets further between two pages moves in the
/// order, and so may be on both pages or on neither.
pub fn page(
    (sender, seq): (UserId, Seq),
    stored: Vec<(UserId, Seq, Watermark)>,
    live: &[(UserId, Watermark)],
    after: Option<After>,
    size: usize,
) -> v1::GetMessageReceiptsResponse {
    let live: HashMap<UserId, Watermark> = live.iter().copied().collect();
    let mut members: Vec<After> = stored
        .into_iter()
        .filter(|(user, joined, _)| *user != sender && *joined <= seq)
        .map(|(user, _, mark)| After(reached(seq, merged(mark, live.get(&user)).told()), user))
        .collect();
    members.sort_unstable();
    let count = |least: Reached| {
        let reached = members.iter().filter(|member| member.0 <= least).count();
        u32::try_from(reached).unwrap_or(u32::MAX)
    };
    let counts = Reached::ALL.map(count);
    let mut rest = members.into_iter().filter(|member| Some(*member) > after);
    let page: Vec<After> = rest.by_ref().take(size).collect();
    let next = page.last().filter(|_| rest.next().is_some());
    v1::GetMessageReceiptsResponse {
        member_count: counts[Reached::Nothing as usize],
        delivered_count: counts[Reached::Delivered as usize],
        read_count: counts[Reached::Read as usize],
        next_page_token: next.map(|last| last.token()).unwrap_or_default(),
        members: page.into_iter().map(receipt).collect(),
    }
}

/// Decides how far the message got with the member who has this watermark.
fn reached(seq: Seq, told: Watermark) -> Reached {
    if told.read >= seq {
        Reached::Read
    } else if told.delivered >= seq {
        Reached::Delivered
    } else {
        Reached::Nothing
    }
}

fn receipt(After(reached, user): After) -> v1::MemberReceipt {
    v1::MemberReceipt {
        user_id: user.to_string(),
        delivered: reached <= Reached::Delivered,
        read: reached == Reached::Read,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn mark(delivered: u64, read: u64, off: bool) -> Watermark {
        Watermark {
            delivered: Seq(delivered),
            read: Seq(read),
            read_receipts_off: off,
        }
    }

    /// Asks for the receipts of the message at seq 10. User 1 sent it. User 2 has received it, and so has 3, which only
    /// the owner knows. User 4 has read it; 5 has read it with read receipts off; 6 joined later; 7 has nothing.
    fn asked(after: Option<After>, size: usize) -> v1::GetMessageReceiptsResponse {
        let old = Seq(1);
        let stored = vec![
            (user(1), old, mark(10, 10, false)),
            (user(2), old, mark(10, 9, false)),
            (user(3), old, mark(9, 0, false)),
            (user(4), old, mark(12, 11, false)),
            (user(5), old, mark(12, 11, true)),
            (user(6), Seq(11), mark(12, 12, false)),
            (user(7), Seq(10), mark(0, 0, false)),
        ];
        page(
            (user(1), Seq(10)),
            stored,
            &[(user(3), mark(10, 0, false))],
            after,
            size,
        )
    }

    #[test]
    fn whom_a_message_reached_is_counted_and_listed_readers_first() {
        let all = asked(None, 100);
        assert_eq!((all.member_count, all.delivered_count, all.read_count), (5, 4, 1));
        let listed: Vec<_> = all
            .members
            .iter()
            .map(|member| {
                (
                    member.user_id.parse::<UserId>().unwrap(),
                    member.delivered,
                    member.read,
                )
            })
            .collect();
        let expected = [
            (user(4), true, true),
            (user(2), true, false),
            (user(3), true, false),
            (user(5), true, false),
            (user(7), false, false),
        ];
        assert_eq!(
            (listed.as_slice(), all.next_page_token.as_str()),
            (&expected[..], "")
        );
    }

    #[test]
    fn pages_follow_one_another_and_each_counts_all() {
        let (mut users, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = asked(After::read(&token).unwrap(), 2);
            assert_eq!((page.member_count, page.read_count), (5, 1));
            users.extend(page.members.into_iter().map(|member| member.user_id));
            token = page.next_page_token;
            pages += 1;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(users, [4, 2, 3, 5, 7].map(|n| user(n).to_string()));
    }

    #[test]
    fn a_token_that_this_server_never_gave_is_refused() {
        let id = user(1);
        for token in ["nonsense", "7.x", &format!("3.{id}"), &format!("-1.{id}"), "1."] {
            assert!(After::read(token).is_err(), "{token}");
        }
    }
}
