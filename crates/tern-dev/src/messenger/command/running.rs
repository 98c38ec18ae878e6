//! The commands about how the open chat is run: its description and policy, invite links, who asks to join, and how
//! long its messages stay.

use tern_proto::v1::{JoinerHistory, Role};
use tern_types::ChatId;

use super::parts::{nth, seconds, unquote, words};

/// The time after which messages may disappear, in seconds: from 5 s to a year.
const DISAPPEAR: std::ops::RangeInclusive<u32> = 5..=31_536_000;
/// The longest time of the slow mode in seconds.
const MAX_SLOW: u32 = 3600;
/// The number of entries that new members may read, if it is neither none nor all.
const HISTORY: std::ops::RangeInclusive<u32> = 1..=10_000;

/// A command about how the open chat is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// Sets after how many seconds new messages disappear; 0 is never. Without a number it shows that.
    Disappear(Option<u32>),
    /// Changes the group's description; without a text it shows it.
    Description(Option<String>),
    /// Changes these rules of the group; without rules it shows them.
    Policy(Vec<Rule>),
    /// Makes this person the group's owner, and the user an admin.
    Owner(String),
    /// Makes an invite link. With `once` one person may join by it; with `approval` who comes by it has to be accepted.
    Invite { once: bool, approval: bool },
    /// Shows the invite links of the group.
    Invites,
    /// Ends the invite link with this number in the list of those, from 1 on.
    Revoke(usize),
    /// Joins a group by an invite link, whichever chat is open.
    Join { chat: ChatId, token: String },
    /// Shows who asks to join the group.
    Requests,
    /// Accepts or refuses a person who asks to join the group.
    Answer { who: String, accept: bool },
}

/// A rule of a group. A role is the lowest one that may do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The role that may write.
    Send(Role),
    /// The role that may add members and make invite links.
    Add(Role),
    /// The role that may change title, description, picture and pins.
    Edit(Role),
    /// The seconds that a member waits between two messages; 0 is none.
    Slow(u32),
    /// The part of the history that new members may read; the number counts entries, and is 0 unless it is a part.
    History(JoinerHistory, u32),
}

impl Running {
    /// Returns the command that begins with `word` and goes on with `rest`. `None` if there is no such command, or if
    /// `rest` does not fit it.
    pub(super) fn of_word(word: &str, rest: &str) -> Option<Self> {
        let all = || (!rest.is_empty()).then(|| unquote(rest));
        Some(match word {
            "disappear" => Self::Disappear(disappear(rest)?),
            "description" => Self::Description(all()),
            "policy" => Self::Policy(rules(&words(rest))?),
            "owner" => Self::Owner(all()?),
            "invite" => invite(&words(rest))?,
            "invites" if rest.is_empty() => Self::Invites,
            "revoke" => Self::Revoke(nth(rest)?),
            "join" => join(rest)?,
            "requests" if rest.is_empty() => Self::Requests,
            "accept" => Self::Answer {
                who: all()?,
                accept: true,
            },
            "refuse" => Self::Answer {
                who: all()?,
                accept: false,
            },
            _ => return None,
        })
    }
}

fn disappear(rest: &str) -> Option<Option<u32>> {
    match rest {
        "" => Some(None),
        "off" => Some(Some(0)),
        time => {
            let after = seconds(time).filter(|after| DISAPPEAR.contains(after))?;
            Some(Some(after))
        }
    }
}

fn invite(words: &[String]) -> Option<Running> {
    let (mut once, mut approval) = (false, false);
    for word in words {
        match word.as_str() {
            "once" => once = true,
            "approval" => approval = true,
            _ => return None,
        }
    }
    Some(Running::Invite { once, approval })
}

/// Parses an invite link, as in `tern:<chat_id>/<token>`. The two may also end a web address.
fn join(link: &str) -> Option<Running> {
    let (before, token) = link.rsplit_once('/')?;
    let chat = before.rsplit([':', '/']).next()?.parse().ok()?;
    (!token.is_empty()).then(|| Running::Join {
        chat,
        token: token.to_owned(),
    })
}

/// Parses rules, as in `send admins slow 30s history all`. `None` if a word is not understood.
fn rules(words: &[String]) -> Option<Vec<Rule>> {
    let mut words = words.iter().map(String::as_str);
    let mut rules = Vec::new();
    while let Some(word) = words.next() {
        let value = words.next()?;
        rules.push(match word {
            "send" => Rule::Send(who(value)?),
            "add" => Rule::Add(who(value)?),
            "edit" => Rule::Edit(who(value)?),
            "slow" => Rule::Slow(slow(value)?),
            "history" => history(value)?,
            _ => return None,
        });
    }
    Some(rules)
}

/// Parses the lowest role that may do something.
fn who(word: &str) -> Option<Role> {
    match word {
        "all" => Some(Role::Member),
        "admins" => Some(Role::Admin),
        "owners" => Some(Role::Owner),
        _ => None,
    }
}

fn slow(word: &str) -> Option<u32> {
    if word == "off" {
        return Some(0);
    }
    seconds(word).filter(|seconds| *seconds <= MAX_SLOW)
}

fn history(word: &str) -> Option<Rule> {
    Some(match word {
        "none" => Rule::History(JoinerHistory::None, 0),
        "all" => Rule::History(JoinerHistory::All, 0),
        number => {
            let entries = number
                .parse::<u32>()
                .ok()
                .filter(|entries| HISTORY.contains(entries))?;
            Rule::History(JoinerHistory::Last, entries)
        }
    })
}
