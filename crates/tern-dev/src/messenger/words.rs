//! Words errors for people: each cause once, and without the names that programs use.

use tern_client::{CallError, ClientError, FailureCode, MediaError};
use tern_proto::v1::{ErrorReason, GroupPolicy, JoinerHistory, Retention, RetentionMode, Role};
use tern_types::Timestamp;
use tonic::Code;

use super::clock;

/// Returns the reason why a message was refused. `message` is the server's text, for codes without words of their own.
/// `retry_at` is the time from which on it may be sent again, if the server named one.
pub fn refusal(code: FailureCode, message: &str, retry_at: Option<Timestamp>) -> String {
    let why = refused(code, message);
    match retry_at {
        Some(at) => format!("{why} (again from {})", clock::time(at)),
        None => why,
    }
}

fn refused(code: FailureCode, message: &str) -> String {
    let words = match code {
        FailureCode::NotAMember => "you are not in this chat any more",
        FailureCode::PeerNotFound => "there is no such person",
        FailureCode::TooLarge => "it is too long",
        FailureCode::RateLimited => "too many at once",
        FailureCode::Unavailable => "the server cannot take it now",
        FailureCode::NotAllowed => "that is not for you to do here",
        FailureCode::NotAccepted => "no messages pass between the two of you",
        FailureCode::StrangersLimited => "you have written to as many new people today as one may",
        FailureCode::TargetNotFound => "there is no such message any more",
        FailureCode::TooLate => "it is too late for that",
        FailureCode::MediaTicket => "the file has to be sent anew",
        FailureCode::ChatFrozen => "the operator froze this chat",
        FailureCode::RoleTooLow => "your role here does not allow it",
        FailureCode::SlowMode => "this group is in slow mode",
        FailureCode::TooManyActs => "you have done as much to this message as one may",
        FailureCode::RequestIdReused => "it was sent before, with another text",
        FailureCode::Invalid | FailureCode::Unspecified => return clean(message),
    };
    words.to_owned()
}

/// Returns the reason why a call failed.
pub fn call(error: &CallError) -> String {
    let words = match (error.reason, error.code) {
        (ErrorReason::RoleTooLow, _) => "your role here does not allow it",
        (ErrorReason::NotAllowed, _) => "that is not for you to do here",
        (ErrorReason::TargetNotFound, _) => "there is no such message any more",
        (ErrorReason::TooLate, _) => "it is too late for that",
        (ErrorReason::ChatNotFound, _) => "you are not in this chat, or nobody wrote in it yet",
        (ErrorReason::UserNotFound, _) => "there is no such person",
        (ErrorReason::GroupFull, _) => "the group is full",
        (ErrorReason::NotAGroup, _) => "that is for groups",
        (ErrorReason::LastOwner, _) => {
            "a group has an owner: /owner bob makes bob the owner, /role bob owner makes him one beside you"
        }
        (ErrorReason::ChatFrozen, _) => "the operator froze this chat",
        (ErrorReason::SlowMode, _) => "this group is in slow mode: wait a little before the next message",
        (ErrorReason::InviteNotFound, _) => "this link leads nowhere, or not for you",
        (ErrorReason::TooManyActs, _) => "you have done as much to this message as one may",
        (ErrorReason::TooManyDevices, _) => "this person has as many devices as there may be",
        (ErrorReason::ListFull, _) => "the list is full",
        (ErrorReason::NotTheSender, _) => "only who wrote it is told",
        (ErrorReason::MessageNotFound, _) => "there is no such message",
        (ErrorReason::MediaNotFound, _) => "the file is not there any more, or not for you",
        (ErrorReason::NotAccepted, _) => "no messages pass between the two of you",
        (ErrorReason::StrangersLimited, _) => {
            "you have written to, or added, as many new people today as one may"
        }
        (ErrorReason::QuotaExceeded, _) => "you have uploaded as much as you may today",
        (ErrorReason::TooLarge, _) => "it is too large",
        (ErrorReason::RateLimited, _) => "too much at once: try again in a moment",
        (ErrorReason::UserSuspended, _) => "the operator keeps you out for now",
        (ErrorReason::MethodUnknown, _) => "the server is too old for that",
        (ErrorReason::ApiKeyInvalid, _) => "the server does not know this API key",
        (ErrorReason::ScopeMissing, _) => "this API key is not allowed to do that",
        (ErrorReason::Unspecified, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        | (ErrorReason::Unavailable | ErrorReason::Draining | ErrorReason::TimedOut, _) => {
            "the server does not answer"
        }
        _ => return clean(&error.message),
    };
    words.to_owned()
}

/// Returns an error with its causes, as in `a.png: the server does not answer`. A cause that says nothing new is left
/// out.
pub fn fault(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = match (called(cause), cause.downcast_ref()) {
            (Some(error), _) => call(error),
            (None, Some(ClientError::Stopped)) => "there is no connection: /connect begins anew".to_owned(),
            _ => clean(&cause.to_string()),
        };
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
    }
    said.join(": ")
}

/// Returns the [`CallError`] that an error is or wraps, or `None` if it has none.
fn called<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a CallError> {
    let client = |error: &'a ClientError| match error {
        ClientError::Call(call) => Some(call),
        _ => None,
    };
    if let Some(MediaError::Call(call)) = cause.downcast_ref() {
        return Some(call);
    }
    if let Some(MediaError::Client(error)) = cause.downcast_ref() {
        return client(error);
    }
    let direct = cause.downcast_ref::<CallError>();
    direct.or_else(|| cause.downcast_ref().and_then(client))
}

/// Returns the reason why there is no connection. It looks for known words in `reason`, the client's own text, because
/// the rest of that text tells a person nothing.
pub fn lost(reason: &str) -> String {
    let known = [
        ("drain", "this gateway is stopping"),
        ("no sign of life", "the server has fallen silent"),
        ("no answer to open", "the server does not answer"),
        ("suspended", "the operator keeps you out for now"),
        (
            "certificate",
            "the server's certificate is not one that is trusted here",
        ),
    ];
    let reason = reason.to_lowercase();
    let found = known.into_iter().find(|(part, _)| reason.contains(part));
    found
        .map_or("the server cannot be reached", |(_, words)| words)
        .to_owned()
}

/// Returns the name of a role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member | Role::Unspecified => "member",
    }
}

/// Formats a time in seconds, in the largest unit that divides it: "30 s", "5 min", "8 h", "1 day", "2 weeks".
pub fn span(seconds: u32) -> String {
    const UNITS: [(u32, &str, &str); 4] = [
        (7 * 24 * 3600, "week", "weeks"),
        (24 * 3600, "day", "days"),
        (3600, "h", "h"),
        (60, "min", "min"),
    ];
    let divides = |unit: u32| seconds > 0 && seconds.is_multiple_of(unit);
    match UNITS.into_iter().find(|(unit, ..)| divides(*unit)) {
        Some((unit, one, _)) if unit == seconds => format!("1 {one}"),
        Some((unit, _, many)) => format!("{} {many}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

/// Says how long messages stay, as in "they disappear after 1 h".
pub fn retention(retention: &Retention) -> String {
    let stay = match retention.disappear_after_s {
        0 => "they do not disappear".to_owned(),
        after => format!("they disappear after {}", span(after)),
    };
    let kept = match retention.mode() {
        RetentionMode::Unspecified => return stay,
        RetentionMode::Forever => "for ever".to_owned(),
        RetentionMode::ForTime => format!("for {}", span(retention.keep_s)),
        RetentionMode::UntilDelivered => "until every device has them".to_owned(),
    };
    format!("{stay}, and the server keeps them {kept}")
}

/// Says the rules of a group, as in "all may write, admins may add members".
pub fn policy(policy: &GroupPolicy) -> String {
    let who = |role, default| match role {
        Role::Unspecified => default,
        Role::Member => "all",
        Role::Admin => "admins",
        Role::Owner => "owners",
    };
    let slow = match policy.slow_mode_s {
        0 => String::new(),
        seconds => format!(", members wait {} between messages", span(seconds)),
    };
    let history = match policy.joiner_history() {
        JoinerHistory::Unspecified | JoinerHistory::None => "nothing".to_owned(),
        JoinerHistory::Last => format!("the last {} entries", policy.joiner_history_entries),
        JoinerHistory::All => "all".to_owned(),
    };
    format!(
        "{} may write, {} may add members, {} may edit{slow}; new members read {history} of what was before",
        who(policy.send_role(), "all"),
        who(policy.add_role(), "admins"),
        who(policy.edit_role(), "admins"),
    )
}

/// Removes control characters and changes of writing direction, so that others' texts cannot steer this terminal.
pub fn clean(text: &str) -> String {
    let steers = |c: &char| {
        c.is_control() && *c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !steers(c))
        .collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn refused(reason: ErrorReason, code: Code) -> CallError {
        CallError {
            code,
            reason,
            message: "chat_id: see AddMembersRequest".to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn no_fault_is_told_twice_or_by_a_programs_name() {
        let not_found = || std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let cases: [(anyhow::Error, &str); 5] = [
            (
                refused(ErrorReason::RoleTooLow, Code::PermissionDenied).into(),
                "your role here does not allow it",
            ),
            (
                ClientError::from(refused(ErrorReason::Unspecified, Code::Unavailable)).into(),
                "the server does not answer",
            ),
            (
                anyhow::Error::from(MediaError::from(refused(
                    ErrorReason::QuotaExceeded,
                    Code::ResourceExhausted,
                )))
                .context("a.png"),
                "a.png: you have uploaded as much as you may today",
            ),
            (
                anyhow::Error::from(MediaError::from(not_found())).context("b.png"),
                "b.png: no such file",
            ),
            (
                Err::<(), _>(not_found())
                    .context("read it")
                    .context("open c.png")
                    .unwrap_err(),
                "open c.png: read it: no such file",
            ),
        ];
        for (error, words) in cases {
            assert_eq!(fault(&error), words);
        }
    }

    #[test]
    fn times_have_their_largest_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (90, "90 s"),
            (3600, "1 h"),
            (8 * 3600, "8 h"),
            (86_400, "1 day"),
            (2 * 86_400, "2 days"),
            (7 * 86_400, "1 week"),
            (14 * 86_400, "2 weeks"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn rules_are_told_with_their_defaults() {
        let told = policy(&GroupPolicy::default());
        let usual = "all may write, admins may add members, admins may edit; new members read nothing of what was before";
        assert_eq!(told, usual);
        let strict = GroupPolicy {
            send_role: Role::Admin.into(),
            add_role: Role::Member.into(),
            edit_role: Role::Owner.into(),
            slow_mode_s: 30,
            joiner_history: JoinerHistory::Last.into(),
            joiner_history_entries: 9,
        };
        let told = policy(&strict);
        let expected = "admins may write, all may add members, owners may edit, members wait 30 s between messages; \
                        new members read the last 9 entries of what was before";
        assert_eq!(told, expected);
        let kept = |mode: RetentionMode, keep_s, disappear_after_s| {
            retention(&Retention {
                mode: mode.into(),
                keep_s,
                disappear_after_s,
            })
        };
        for (told, expected) in [
            (kept(RetentionMode::Unspecified, 0, 0), "they do not disappear"),
            (
                kept(RetentionMode::Unspecified, 0, 3600),
                "they disappear after 1 h",
            ),
            (
                kept(RetentionMode::ForTime, 86_400, 0),
                "they do not disappear, and the server keeps them for 1 day",
            ),
            (
                kept(RetentionMode::UntilDelivered, 0, 60),
                "they disappear after 1 min, and the server keeps them until every device has them",
            ),
        ] {
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn every_refusal_has_words() {
        for number in 0..100 {
            let Ok(code) = FailureCode::try_from(number) else {
                continue;
            };
            let words = refusal(code, "it was wrong", None);
            assert!(!words.contains('_') && !words.is_empty(), "{words}");
            assert!(!words.contains("SEND"), "{words}");
        }
        for number in 0..100 {
            let Ok(reason) = ErrorReason::try_from(number) else {
                continue;
            };
            let words = call(&refused(reason, Code::Internal));
            assert!(!words.contains(reason.as_str_name()), "{words}");
            assert!(!words.contains(&format!("{reason:?}")), "{words}");
        }
    }
}
