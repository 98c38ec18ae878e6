//! Words errors for people: each cause once, and without the names that programs use.

use tern_client::{CallError, ClientError, FailureCode, MediaError};
use tern_proto::v1::{ErrorReason, Role};
use tonic::Code;

/// Returns the reason why a message was refused. `message` is the server's text, for codes without words of their own.
pub fn refusal(code: FailureCode, message: &str) -> String {
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
            "you are its only owner: /leave bob makes bob the owner and leaves, /role bob owner only makes him one"
        }
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
    fn every_refusal_has_words() {
        for number in 0..100 {
            let Ok(code) = FailureCode::try_from(number) else {
                continue;
            };
            let words = refusal(code, "it was wrong");
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
