//! The things that people of a test do to messages, by a stream or by a call.

use tern_proto::error::reason_of;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, Entry, Envelope, ErrorReason, MessageKind, SendErrorCode, Sent};
use tern_types::{ChatId, RequestId};
use tonic::{Code, Status};

use crate::phone::Log;
use crate::{Api, Phone, User};

/// A way to send something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Stream,
    /// Chats/SendMessage.
    Call,
}

pub const BOTH: [By; 2] = [By::Stream, By::Call];

/// Something that is sent to a chat: a message, or what is done to one.
#[derive(Debug, Clone)]
pub struct Act {
    pub envelope: Envelope,
    pub body: String,
}

/// Returns an ordinary message.
pub fn say(text: &str) -> Act {
    Act {
        envelope: Envelope::default(),
        body: text.to_owned(),
    }
}

fn about(kind: MessageKind, target_seq: u64, body: &str) -> Act {
    let envelope = Envelope {
        kind: kind.into(),
        target_seq,
        ..Envelope::default()
    };
    Act {
        envelope,
        body: body.to_owned(),
    }
}

pub fn edit(target: u64, text: &str) -> Act {
    about(MessageKind::Edit, target, text)
}

pub fn delete(target: u64) -> Act {
    about(MessageKind::Delete, target, "")
}

pub fn react(target: u64, reaction: &str) -> Act {
    about(MessageKind::Reaction, target, reaction)
}

pub fn pin(target: u64) -> Act {
    about(MessageKind::Pin, target, "")
}

/// Returns a reply in the thread that begins with the message `root`.
pub fn reply(root: u64, text: &str) -> Act {
    let mut act = say(text);
    act.envelope.reply_to_seq = root;
    act.envelope.thread_root_seq = root;
    act
}

/// Returns the act that takes a reaction or a pin back.
pub fn take_back(mut act: Act) -> Act {
    act.envelope.take_back = true;
    act
}

/// Returns the act with a file.
pub fn with_file(mut act: Act, file: &v1::Attachment) -> Act {
    act.envelope.attachments.push(file.clone());
    act
}

fn request(chat: ChatId, request: RequestId, act: &Act) -> v1::SendMessageRequest {
    v1::SendMessageRequest {
        chat_id: chat.to_string(),
        request_id: request.to_string(),
        envelope: act.envelope.encoded(),
        body: act.body.clone().into(),
        ..Default::default()
    }
}

/// Carries an act out by a call.
pub async fn call(api: &Api, chat: ChatId, id: RequestId, act: &Act) -> Result<Sent, Status> {
    let answer = api.chats().send_message(request(chat, id, act)).await?;
    Ok(answer.into_inner().sent.expect("a place in the log"))
}

/// Carries an act out, and returns its place.
pub async fn done(phone: &Phone, by: By, chat: ChatId, act: &Act) -> Sent {
    let id = RequestId::random();
    match by {
        By::Stream => {
            let (envelope, body) = (act.envelope.clone(), act.body.as_bytes());
            phone.send_with(id, chat, envelope, body).await;
            phone.sent(id).await
        }
        By::Call => {
            let sent = call(&phone.api(), chat, id, act).await;
            sent.unwrap_or_else(|status| panic!("{act:?}: {status:?}"))
        }
    }
}

/// A refusal: its code on the stream, and the status and the reason of a call.
pub type Refusal = (SendErrorCode, Code, ErrorReason);

pub const TARGET_NOT_FOUND: Refusal = (
    SendErrorCode::TargetNotFound,
    Code::NotFound,
    ErrorReason::TargetNotFound,
);
pub const NOT_ALLOWED: Refusal = (
    SendErrorCode::NotAllowed,
    Code::PermissionDenied,
    ErrorReason::NotAllowed,
);
pub const TOO_LATE: Refusal = (
    SendErrorCode::TooLate,
    Code::FailedPrecondition,
    ErrorReason::TooLate,
);
pub const NOT_A_MEMBER: Refusal = (
    SendErrorCode::NotAMember,
    Code::NotFound,
    ErrorReason::ChatNotFound,
);
pub const ROLE_TOO_LOW: Refusal = (
    SendErrorCode::RoleTooLow,
    Code::PermissionDenied,
    ErrorReason::RoleTooLow,
);
pub const CHAT_FROZEN: Refusal = (
    SendErrorCode::ChatFrozen,
    Code::PermissionDenied,
    ErrorReason::ChatFrozen,
);
pub const SLOW_MODE: Refusal = (
    SendErrorCode::SlowMode,
    Code::ResourceExhausted,
    ErrorReason::SlowMode,
);
pub const TOO_MANY_ACTS: Refusal = (
    SendErrorCode::TooManyActs,
    Code::FailedPrecondition,
    ErrorReason::TooManyActs,
);

/// Checks that an act is refused, on the stream and by a call.
pub async fn is_refused(phone: &Phone, chat: ChatId, act: &Act, (code, status, reason): Refusal) {
    let id = RequestId::random();
    let (envelope, body) = (act.envelope.clone(), act.body.as_bytes());
    phone.send_with(id, chat, envelope, body).await;
    let error = phone.refused(id).await;
    assert_eq!(error.code(), code, "{act:?}: {error:?}");
    assert!(!error.message.is_empty(), "{act:?}: says what is wrong");
    let refused = call(&phone.api(), chat, RequestId::random(), act).await;
    let refused = refused.expect_err("a refusal");
    assert_eq!(
        (refused.code(), reason_of(&refused)),
        (status, Some(reason)),
        "{act:?}: {refused:?}"
    );
}

/// Returns what an entry says.
pub fn content(entry: &Entry) -> Content {
    entry
        .decoded_content()
        .expect("a content")
        .content
        .expect("a content")
}

/// Returns the act that an entry records.
pub fn act(entry: &Entry) -> Act {
    match content(entry) {
        Content::Message(message) => Act {
            envelope: message.envelope.unwrap_or_default(),
            body: String::from_utf8(message.body.to_vec()).expect("text"),
        },
        other => panic!("no message: {other:?}"),
    }
}

/// Returns the kind and the target of an erased entry.
pub fn erased(entry: &Entry) -> (MessageKind, u64) {
    match content(entry) {
        Content::Erased(erased) => (erased.kind(), erased.target_seq),
        other => panic!("not erased: {other:?}"),
    }
}

/// Checks that a log lacks no seq after the one at which it began.
pub fn has_no_gap(log: &Log) {
    let seqs: Vec<u64> = log.entries.keys().copied().collect();
    let whole: Vec<u64> = (log.base + 1..=log.cursor).collect();
    assert_eq!(seqs, whole);
}

/// Adds a member to a group, and returns the seq of that entry.
pub async fn add(admin: &Phone, group: ChatId, user: &User) -> u64 {
    let add = v1::AddMembersRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_ids: vec![user.id.to_string()],
        ..Default::default()
    };
    let added = admin.api().chats().add_members(add).await.expect("an addition");
    added.into_inner().seq
}

/// Makes a member of a group an admin.
pub async fn promote(owner: &Phone, group: ChatId, user: &User) {
    let role = v1::SetRoleRequest {
        chat_id: group.to_string(),
        request_id: RequestId::random().to_string(),
        user_id: user.id.to_string(),
        role: v1::Role::Admin.into(),
        ..Default::default()
    };
    owner.api().chats().set_role(role).await.expect("a role");
}

/// Reads a message as this person's device may see it.
pub async fn read(api: &Api, chat: ChatId, seq: u64) -> Result<v1::HistoryMessage, Status> {
    let get = v1::GetMessageRequest {
        chat_id: chat.to_string(),
        by: Some(v1::get_message_request::By::Seq(seq)),
        ..Default::default()
    };
    let answer = api.chats().get_message(get).await?;
    Ok(answer.into_inner().message.expect("a message"))
}

/// Returns the text of a message as it is now; `None` if it was erased.
pub fn text(message: &v1::HistoryMessage) -> Option<String> {
    let entry = message.entry.as_ref().expect("an entry");
    match content(entry) {
        Content::Message(message) => Some(String::from_utf8(message.body.to_vec()).expect("text")),
        Content::Erased(_) => None,
        other => panic!("no message: {other:?}"),
    }
}
