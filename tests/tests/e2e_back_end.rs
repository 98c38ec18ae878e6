//! Messages that a back end sends in a user's name or for the system, and the errors that it gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_update,
    reason = "tests, and some requests have no other fields"
)]

use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason};
use tern_tests::world::tern;
use tern_tests::{Api, Phone, User, World, groups, wire};
use tern_types::{ChatId, RequestId};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Returns a message to a chat, which comes from the system unless the caller sets `acting_user_id`.
fn message(chat: ChatId, body: &'static str) -> v1::SendMessageRequest {
    v1::SendMessageRequest {
        chat_id: chat.to_string(),
        request_id: RequestId::random().to_string(),
        envelope: wire::plain().encoded(),
        body: body.into(),
        ..Default::default()
    }
}

async fn send(api: &Api, message: &v1::SendMessageRequest) -> Result<v1::Sent, Status> {
    let answer = api.chats().send_message(message.clone()).await?;
    Ok(answer.into_inner().sent.expect("a place in the log"))
}

fn why(status: &Status) -> (Code, Option<ErrorReason>) {
    (status.code(), reason_of(status))
}

/// Returns a back end whose key has only these scopes.
async fn with_scopes(world: &World, scopes: &str) -> Api {
    let made = tokio::process::Command::new(tern())
        .args(["admin", "keys", "create", "--name", "scoped", "--scopes", scopes])
        .args(["--database-url", world.platform.database_url()])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let key = String::from_utf8(made.stdout).unwrap();
    Api::new(world.channel(0), key.trim())
}

#[tokio::test]
async fn a_back_end_writes_in_a_users_name() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let back_end = world.back_end().await;
    let request = v1::SendMessageRequest {
        chat_id: String::new(),
        peer_user_id: bob.id.to_string(),
        acting_user_id: alice.id.to_string(),
        ..message(ChatId::direct(alice.id, bob.id), "your parcel is here")
    };
    let first = send(back_end, &request).await.unwrap();
    assert_eq!(send(back_end, &request).await.unwrap(), first);
    let chat = ChatId::direct(alice.id, bob.id);
    for phone in [&hers, &his] {
        let log = phone.has_text(chat, "your parcel is here").await;
        let entry = &log.entries[&first.seq];
        assert_eq!(entry.sender_user_id, alice.id.to_string());
        assert_eq!(entry.sender_device_id, "", "it came from no device");
    }
    // A device can send for its own user only.
    let status = send(&hers.api(), &request).await.unwrap_err();
    assert_eq!(
        why(&status),
        (Code::PermissionDenied, Some(ErrorReason::NotForDevices))
    );
    world.end().await;
}

#[tokio::test]
async fn a_message_of_the_system_has_no_sender_and_reaches_the_members_of_any_chat() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let direct: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    let group = world.group(&[&alice, &bob]).await;
    let block = v1::BlockRequest {
        user_id: String::new(),
        blocked_user_id: bob.id.to_string(),
    };
    hers.api().users().block(block).await.unwrap();
    let system = with_scopes(&world, "messages:system").await;
    for chat in [direct, group] {
        let notice = message(chat, "we are closed on Monday");
        let sent = send(&system, &notice).await.unwrap();
        assert_eq!(send(&system, &notice).await.unwrap(), sent, "rule 5");
        let other = v1::SendMessageRequest {
            body: "something else".into(),
            ..notice.clone()
        };
        let reused = send(&system, &other).await.unwrap_err();
        assert_eq!(
            why(&reused),
            (Code::AlreadyExists, Some(ErrorReason::RequestIdReused))
        );
        for phone in [&hers, &his] {
            has_it_without_a_sender(phone, chat, &notice, sent.seq).await;
        }
        only_back_ends_ask_who_read_it(&world, &hers, chat, sent.seq).await;
    }
    let texts = his.texts(direct);
    assert_eq!(texts, ["hello", "we are closed on Monday"], "each once");
    each_scope_allows_its_own_messages_only(&world, &system, group, &alice).await;
    world.end().await;
}

async fn has_it_without_a_sender(phone: &Phone, chat: ChatId, notice: &v1::SendMessageRequest, seq: u64) {
    let log = phone.has_text(chat, "we are closed on Monday").await;
    let entry = &log.entries[&seq];
    assert_eq!((&*entry.sender_user_id, &*entry.sender_device_id), ("", ""));
    assert_eq!(entry.request_id, notice.request_id);
    let view = v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let view = phone.api().chats().get_chat(view).await.unwrap().into_inner();
    let view = view.chat.unwrap();
    assert!(view.unread_count >= 1, "it counts, for both: {view:?}");
    assert_eq!(view.last_entry.unwrap().sender_user_id, "", "as it is stored");
}

/// Checks that only back ends may ask who read a message of the system, which has no sender.
async fn only_back_ends_ask_who_read_it(world: &World, phone: &Phone, chat: ChatId, seq: u64) {
    let asked = v1::GetMessageReceiptsRequest {
        chat_id: chat.to_string(),
        seq,
        ..Default::default()
    };
    let receipts = phone.api().chats().get_message_receipts(asked).await;
    assert_eq!(reason_of(&receipts.unwrap_err()), Some(ErrorReason::NotTheSender));
    let asked = v1::GetMessageReceiptsRequest {
        chat_id: chat.to_string(),
        seq,
        acting_user_id: phone.user().to_string(),
        ..Default::default()
    };
    let receipts = world.back_end().await.chats().get_message_receipts(asked).await;
    assert_eq!(receipts.unwrap().into_inner().member_count, 2);
}

/// Checks that a key that may send in users' names may not send for the system, and the other way round.
async fn each_scope_allows_its_own_messages_only(world: &World, system: &Api, chat: ChatId, user: &User) {
    let notice = message(chat, "no");
    let in_a_name = v1::SendMessageRequest {
        acting_user_id: user.id.to_string(),
        ..notice.clone()
    };
    let sender = &with_scopes(world, "messages:send").await;
    for (api, message, scope) in [
        (sender, &notice, "messages:system"),
        (system, &in_a_name, "messages:send"),
    ] {
        let status = send(api, message).await.unwrap_err();
        assert_eq!(
            why(&status),
            (Code::PermissionDenied, Some(ErrorReason::ScopeMissing))
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("scope").map(String::as_str), Some(scope));
    }
}

/// A message that is refused: what is wrong with it, the message, and the reason and the field that the status names.
type Case = (
    &'static str,
    v1::SendMessageRequest,
    ErrorReason,
    Option<&'static str>,
);

/// A correct message. Each case spoils it in one way.
struct Good(v1::SendMessageRequest);

impl Good {
    fn with(&self, change: impl FnOnce(&mut v1::SendMessageRequest)) -> v1::SendMessageRequest {
        let mut message = self.0.clone();
        change(&mut message);
        message
    }

    /// Returns the message, to a person instead of a chat.
    fn to(&self, user: String) -> v1::SendMessageRequest {
        v1::SendMessageRequest {
            chat_id: String::new(),
            peer_user_id: user,
            ..self.0.clone()
        }
    }
}

/// Returns messages with a wrong sender or recipient. The sender may write to `friend`, and `blocker` has blocked the
/// sender.
fn wrongly_addressed(good: &Good, friend: &User, blocker: &User) -> Vec<Case> {
    use ErrorReason as R;
    let unknown = || RequestId::random().to_string();
    vec![
        (
            "a chat of others",
            good.with(|m| m.acting_user_id = blocker.id.to_string()),
            R::ChatNotFound,
            None,
        ),
        (
            "no such chat",
            good.with(|m| m.chat_id = unknown()),
            R::ChatNotFound,
            None,
        ),
        ("no such person", good.to(unknown()), R::UserNotFound, None),
        (
            "nobody there to send it",
            good.with(|m| m.acting_user_id = unknown()),
            R::ActingUserNotFound,
            None,
        ),
        (
            "nor to a person",
            v1::SendMessageRequest {
                acting_user_id: unknown(),
                ..good.to(friend.id.to_string())
            },
            R::ActingUserNotFound,
            None,
        ),
        (
            "somebody who blocked the sender",
            good.to(blocker.id.to_string()),
            R::NotAccepted,
            None,
        ),
        (
            "the system to a person",
            v1::SendMessageRequest {
                acting_user_id: String::new(),
                ..good.to(friend.id.to_string())
            },
            R::InvalidField,
            Some("peer_user_id"),
        ),
        (
            "the id of nobody",
            good.with(|m| m.acting_user_id = uuid::Uuid::nil().to_string()),
            R::InvalidField,
            Some("acting_user_id"),
        ),
    ]
}

/// Returns messages with a content that is not allowed.
fn wrongly_filled(good: &Good) -> Vec<Case> {
    use ErrorReason as R;
    vec![
        (
            "an empty body",
            good.with(|m| m.body.clear()),
            R::InvalidField,
            Some("body"),
        ),
        (
            "an empty reaction",
            good.with(|m| {
                m.body.clear();
                m.envelope = v1::Envelope {
                    kind: v1::MessageKind::Reaction.into(),
                    target_seq: 1,
                    ..wire::plain()
                }
                .encoded()
            }),
            R::InvalidField,
            Some("body"),
        ),
        (
            "a kind of the future",
            good.with(|m| {
                m.envelope = v1::Envelope {
                    kind: 99,
                    ..wire::plain()
                }
                .encoded()
            }),
            R::InvalidField,
            Some("envelope.kind"),
        ),
        (
            "a body that is too large",
            good.with(|m| m.body = vec![0; 262_145].into()),
            R::TooLarge,
            None,
        ),
        (
            "an envelope that is too large by what the server does not know",
            // Field 1000, with 9,000 bytes.
            good.with(|m| m.envelope = [&[0xc2, 0x3e, 0xa8, 0x46][..], &[7; 9000]].concat().into()),
            R::TooLarge,
            None,
        ),
        (
            "an attachment of nobody",
            good.with(|m| {
                m.envelope = v1::Envelope {
                    attachments: vec![v1::Attachment::default()],
                    ..wire::plain()
                }
                .encoded()
            }),
            R::InvalidField,
            Some("envelope.attachments.media_id"),
        ),
    ]
}

/// Returns messages that would do something to an earlier message, and do not say what or to which.
fn wrongly_done(good: &Good) -> Vec<Case> {
    use v1::MessageKind as K;
    let about = |kind: K, target_seq, body: &'static str| {
        good.with(|m| {
            m.body = body.into();
            m.envelope = v1::Envelope {
                kind: kind.into(),
                target_seq,
                ..wire::plain()
            }
            .encoded();
        })
    };
    let cases = [
        (
            "an edit of nothing",
            about(K::Edit, 0, "x"),
            "envelope.target_seq",
        ),
        (
            "a deletion of nothing",
            about(K::Delete, 0, ""),
            "envelope.target_seq",
        ),
        ("a pin on nothing", about(K::Pin, 0, ""), "envelope.target_seq"),
        ("an edit to nothing", about(K::Edit, 1, ""), "body"),
        ("a deletion that says something", about(K::Delete, 1, "x"), "body"),
        ("a pin that says something", about(K::Pin, 1, "x"), "body"),
    ];
    let case = |(what, message, field)| (what, message, ErrorReason::InvalidField, Some(field));
    cases.map(case).into()
}

#[tokio::test]
async fn what_is_not_sent_ends_the_call_with_a_status_and_its_reason() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let hers = world.phone(&alice).await;
    let group = world.group(&[&alice, &bob]).await;
    let block = v1::BlockRequest {
        user_id: carol.id.to_string(),
        blocked_user_id: alice.id.to_string(),
    };
    world.back_end().await.users().block(block).await.unwrap();
    let good = Good(v1::SendMessageRequest {
        acting_user_id: alice.id.to_string(),
        ..message(group, "hello")
    });
    let cases = [
        wrongly_addressed(&good, &bob, &carol),
        wrongly_filled(&good),
        wrongly_done(&good),
    ]
    .concat();
    for (what, message, reason, field) in cases {
        let status = send(world.back_end().await, &message).await.expect_err(what);
        assert_eq!(reason_of(&status), Some(reason), "{what}: {status:?}");
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
        let named = violations.and_then(|violations| Some(violations.first()?.field.clone()));
        assert_eq!(named.as_deref(), field, "{what}: {status:?}");
        assert!(!status.message().is_empty(), "{what}");
    }
    // A device gets the same error on its stream.
    let request = hers.send(group, "").await;
    let error = hers.refused(request).await;
    assert_eq!(error.code(), v1::SendErrorCode::Invalid, "{error:?}");
    world.end().await;
}

#[tokio::test]
async fn an_acting_user_who_is_not_there_is_named_as_such_by_every_call() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let group = world.group(&[&alice]).await;
    let invite = groups::invite(world.back_end().await, groups::link(group)).await;
    let (group, invite) = (group.to_string(), invite.unwrap());
    let (nobody, id) = (RequestId::random().to_string(), || {
        RequestId::random().to_string()
    });
    let (mut chats, mut groups) = (world.back_end().await.chats(), world.back_end().await.groups());
    let mut statuses = Vec::new();
    macro_rules! refused {
        ($client:ident; $($method:ident($request:ident { $($field:ident: $value:expr),* });)*) => {
            $(
                let request = v1::$request {
                    acting_user_id: nobody.clone(),
                    $($field: $value,)*
                    ..Default::default()
                };
                let status = $client.$method(request).await.expect_err(stringify!($method));
                statuses.push((stringify!($method), status));
            )*
        };
    }
    refused! {
        chats;
        send_message(SendMessageRequest { chat_id: group.clone(), request_id: id(), body: "x".into() });
        create_group(CreateGroupRequest { request_id: id() });
        get_chat(GetChatRequest { chat_id: group.clone() });
        list_chats(ListChatsRequest {});
        update_chat(UpdateChatRequest { chat_id: group.clone(), request_id: id(), title: "x".to_owned() });
        set_chat_picture(SetChatPictureRequest { chat_id: group.clone(), request_id: id() });
        add_members(AddMembersRequest { chat_id: group.clone(), request_id: id() });
        remove_member(RemoveMemberRequest { chat_id: group.clone(), request_id: id(), user_id: alice.id.to_string() });
        leave_chat(LeaveChatRequest { chat_id: group.clone(), request_id: id() });
        set_role(SetRoleRequest { chat_id: group.clone(), request_id: id(), user_id: alice.id.to_string(), role: 2 });
        list_members(ListMembersRequest { chat_id: group.clone() });
        list_entries(ListEntriesRequest { chat_id: group.clone() });
        list_messages(ListMessagesRequest { chat_id: group.clone() });
        get_message(GetMessageRequest { chat_id: group.clone(), by: Some(v1::get_message_request::By::Seq(1)) });
        list_edits(ListEditsRequest { chat_id: group.clone(), seq: 1 });
        list_undelivered(ListUndeliveredRequest { chat_id: group.clone() });
        list_user_messages(ListUserMessagesRequest {});
        get_receipts(GetReceiptsRequest { chat_id: group.clone() });
        get_message_receipts(GetMessageReceiptsRequest { chat_id: group.clone(), seq: 1 });
        mark_chat_read(MarkChatReadRequest { chat_id: group.clone(), seq: 1 });
        set_retention(SetRetentionRequest { chat_id: group.clone(), request_id: id(), retention: Some(v1::Retention::default()) });
    }
    refused! {
        groups;
        set_description(SetDescriptionRequest { chat_id: group.clone(), request_id: id(), description: "x".to_owned() });
        set_policy(SetPolicyRequest { chat_id: group.clone(), request_id: id(), policy: Some(v1::GroupPolicy::default()) });
        create_invite(CreateInviteRequest { chat_id: group.clone(), request_id: id() });
        list_invites(ListInvitesRequest { chat_id: group.clone() });
        revoke_invite(RevokeInviteRequest { chat_id: group.clone(), invite_id: invite.invite_id.clone() });
        look_up_invite(LookUpInviteRequest { chat_id: group.clone(), token: invite.token.clone() });
        join_by_invite(JoinByInviteRequest { chat_id: group.clone(), request_id: id(), token: invite.token.clone() });
        list_join_requests(ListJoinRequestsRequest { chat_id: group.clone() });
        answer_join_request(AnswerJoinRequestRequest { chat_id: group.clone(), request_id: id(), user_id: alice.id.to_string() });
        withdraw_join_request(WithdrawJoinRequestRequest { chat_id: group.clone() });
    }
    for (method, status) in statuses {
        let expected = (Code::NotFound, Some(ErrorReason::ActingUserNotFound));
        assert_eq!(why(&status), expected, "{method}: {status:?}");
    }
    world.end().await;
}
