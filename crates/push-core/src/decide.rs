//! Decides what becomes of a push that is due.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tern_types::Timestamp;

use crate::facts::{Announced, Facts, Presence, Reason, Recipient, Row, Settings, Waiting};

/// The time for which a device with a stream may acknowledge by that, before it is pushed to.
pub const LIVE_PATIENCE: Duration = Duration::from_secs(5);
/// The longest time between two looks at a device on which the person is active.
const LONGEST_ACTIVE_WAIT: Duration = Duration::from_secs(60);
/// The time after which a push says nothing that a person still needs to hear: the app shows what waits when it is
/// opened.
pub const POINTLESS_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The most pushes to a device within a minute. Nobody reads more, and a platform throttles an app that sends more.
pub const MAX_PUSHES_A_MINUTE: u32 = 20;
/// The wait of a push beyond that number.
const CROWDED_WAIT: Duration = Duration::from_secs(60);
/// The wait of a push whose settings could not be read, because their part of the store is away.
const UNKNOWN_WAIT: Duration = Duration::from_secs(5);

/// The effect of a push on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Shows a notification.
    Alert,
    /// Changes the badge, and shows nothing.
    Badge,
    /// Removes what is shown.
    Withdraw,
    /// Wakes the app without showing anything.
    Silent,
}

/// A push that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    /// The effect on the device.
    pub class: Class,
    /// The newest entry that is announced; `None` if nothing is.
    pub announced: Option<Announced>,
}

/// The reason why a push waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// The device has a stream, or may have one, and may still acknowledge by it.
    Live,
    /// The person is at the app on this device.
    Active,
    /// The user wants no notifications at this time.
    QuietHours,
    /// The device has had enough pushes for now.
    Crowded,
    /// The user's settings could not be read.
    Unknown,
}

/// The reason why a push ends unsent. The names are labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The device has acknowledged everything, or the row has changed.
    Acknowledged,
    /// The user has read everything.
    Read,
    /// The user never was a member of the chat.
    NotMember,
    /// The device has not said where it gets its pushes.
    NoToken,
    /// The device is revoked, or not known.
    Revoked,
    /// The user is suspended.
    Suspended,
    /// The user has muted the chat.
    Muted,
    /// Everything comes from people whom the user has blocked.
    Blocked,
    /// The user wants to hear only of mentions in the chat, and nothing mentions them.
    MentionsOnly,
    /// Nothing of what waits is announced.
    Nothing,
    /// It was due for too long, and so was everything that it announces.
    Pointless,
    /// The provider does not take the push.
    Refused,
    /// The provider says that the token is not valid any more.
    TokenEnded,
}

impl Why {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::Acknowledged,
        Self::Read,
        Self::NotMember,
        Self::NoToken,
        Self::Revoked,
        Self::Suspended,
        Self::Muted,
        Self::Blocked,
        Self::MentionsOnly,
        Self::Nothing,
        Self::Pointless,
        Self::Refused,
        Self::TokenEnded,
    ];

    /// Returns the name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Read => "read",
            Self::NotMember => "not_member",
            Self::NoToken => "no_token",
            Self::Revoked => "revoked",
            Self::Suspended => "suspended",
            Self::Muted => "muted",
            Self::Blocked => "blocked",
            Self::MentionsOnly => "mentions_only",
            Self::Nothing => "nothing",
            Self::Pointless => "pointless",
            Self::Refused => "refused",
            Self::TokenEnded => "token_ended",
        }
    }

    /// Returns whether another entry in the chat would end the same way, so that the row need not be looked at again
    /// for each. Otherwise an entry that came while the row was being looked at makes its push due again.
    pub fn lasts(self) -> bool {
        match self {
            Self::NoToken
            | Self::Revoked
            | Self::Suspended
            | Self::Muted
            | Self::Refused
            | Self::TokenEnded => true,
            Self::Acknowledged
            | Self::Read
            | Self::NotMember
            | Self::Blocked
            | Self::MentionsOnly
            | Self::Nothing
            | Self::Pointless => false,
        }
    }
}

/// The decision about a push that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is sent.
    Send(Send),
    /// It is looked at again.
    Wait {
        /// The time of that look.
        until: Timestamp,
        /// The reason why it waits.
        hold: Hold,
    },
    /// It ends unsent.
    End(Why),
}

/// Returns why nothing can be pushed to the device at all, whatever waits for it; `None` if something can.
pub fn unreachable(recipient: Recipient) -> Option<Why> {
    if !recipient.active {
        Some(Why::Revoked)
    } else if recipient.suspended {
        Some(Why::Suspended)
    } else if !recipient.has_token {
        Some(Why::NoToken)
    } else {
        None
    }
}

/// Returns whether a push that is due since then, or an entry that was sent then, is old by `now`. An old push is pointless
/// unless it announces an entry that is not old: the row of a chat has one push, however much has come since it was due.
pub fn is_old(now: Timestamp, since: Timestamp) -> bool {
    now.since(since) > POINTLESS_AFTER
}

/// Decides what becomes of a push that is due `now`.
pub fn decide(now: Timestamp, row: Row, facts: &Facts) -> Decision {
    let Some(waiting) = &facts.waiting else {
        return Decision::End(Why::Acknowledged);
    };
    if let Some(why) = unreachable(facts.recipient) {
        return Decision::End(why);
    }
    if !waiting.is_member {
        return Decision::End(Why::NotMember);
    }
    let is_recent = |announced: &Announced| !is_old(now, announced.sent_at);
    if is_old(now, row.since) && !waiting.announced.iter().any(is_recent) {
        return Decision::End(Why::Pointless);
    }
    let Some(settings) = facts.settings else {
        return wait(now + UNKNOWN_WAIT, Hold::Unknown);
    };
    let send = match choose(now, row, waiting, settings) {
        Ok(send) => send,
        Err(why) => return Decision::End(why),
    };
    if let Some(until) = quiet_until(now, send.class, facts) {
        return wait(until, Hold::QuietHours);
    }
    if let Some(held) = hold_for_stream(now, row.since, facts.presence) {
        return held;
    }
    if facts.pushed_lately >= MAX_PUSHES_A_MINUTE {
        return wait(now + CROWDED_WAIT, Hold::Crowded);
    }
    Decision::Send(send)
}

fn wait(until: Timestamp, hold: Hold) -> Decision {
    Decision::Wait { until, hold }
}

/// Chooses what the push does on the device, or why it does nothing. While a notification of the chat is shown, another
/// entry only changes the badge. If nothing that waits is worth a notification any more, because it was read, deleted
/// or taken back, what is shown is withdrawn.
fn choose(now: Timestamp, row: Row, waiting: &Waiting, settings: Settings) -> Result<Send, Why> {
    let newest = |which: &dyn Fn(&Announced) -> bool| {
        let some = waiting
            .announced
            .iter()
            .copied()
            .filter(|announced| which(announced));
        some.max_by_key(|announced| announced.seq)
    };
    let shows = |announced: &Announced| announced.reason != Reason::Silent;
    if newest(&shows).is_none() && row.notified {
        return Ok(Send {
            class: Class::Withdraw,
            announced: None,
        });
    }
    if newest(&|_| true).is_none() {
        return Err(if waiting.unread { Why::Nothing } else { Why::Read });
    }
    if settings.muted_until > now {
        return Err(Why::Muted);
    }
    if newest(&|announced| !announced.blocked).is_none() {
        return Err(Why::Blocked);
    }
    let wanted = |announced: &Announced| {
        !announced.blocked && (!settings.mentions_only || announced.reason == Reason::Mention)
    };
    if let Some(announced) = newest(&|announced| shows(announced) && wanted(announced)) {
        let class = if row.notified { Class::Badge } else { Class::Alert };
        return Ok(Send {
            class,
            announced: Some(announced),
        });
    }
    let silent = newest(&|announced| !announced.blocked && announced.reason == Reason::Silent);
    match silent {
        Some(_) if !row.notified => Ok(Send {
            class: Class::Silent,
            announced: None,
        }),
        Some(_) => Err(Why::Nothing),
        None => Err(Why::MentionsOnly),
    }
}

/// Returns when the quiet hours end in which the push would be seen.
fn quiet_until(now: Timestamp, class: Class, facts: &Facts) -> Option<Timestamp> {
    match class {
        Class::Alert | Class::Badge => facts.quiet.as_ref()?.end(now),
        Class::Withdraw | Class::Silent => None,
    }
}

/// Returns until when the push waits because the device has a stream or may have one. A device with a stream that has
/// not acknowledged for [`LIVE_PATIENCE`] is pushed to, unless the person is at the app there: then it is looked at
/// again after as long as the push has waited so far, which doubles, at most after a minute.
fn hold_for_stream(now: Timestamp, since: Timestamp, presence: Presence) -> Option<Decision> {
    let waited = now.since(since);
    match presence {
        Presence::Offline => None,
        Presence::Live | Presence::Unsure if waited >= LIVE_PATIENCE => None,
        // A row from the future was written before the store's clock was set back, and waits no longer than others.
        Presence::Live | Presence::Unsure => {
            Some(wait((since + LIVE_PATIENCE).min(now + LIVE_PATIENCE), Hold::Live))
        }
        Presence::Active => {
            let wait_for = waited.clamp(LIVE_PATIENCE, LONGEST_ACTIVE_WAIT);
            Some(wait(now + wait_for, Hold::Active))
        }
    }
}
