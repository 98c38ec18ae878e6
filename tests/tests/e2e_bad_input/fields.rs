//! Tries every field of every request, and of every item of a stream, one at a time with each value that it should
//! not hold. The platform has to accept and store it unchanged, or refuse it with a typed error.

use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, SendError, SendErrorCode};
use tern_proto::v1::{client_item::Item, send_result::Outcome, server_event::Event};
use tern_tests::World;
use tern_tests::raw;
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::Whole;
use crate::cast::{Caller, Cast};
use crate::descriptors::{self, Leaf, leaves};
use crate::hostile::{self, Hostile};

/// The pause between two attempts to send an item.
const PAUSE: Duration = Duration::from_millis(100);

/// The fields that only select something, or whose unknown ids are left out. Their values are not found in the
/// platform's data afterwards.
const NOT_STORED: &[&str] = &[
    "chat_id",
    "user_id",
    "user_ids",
    "add_user_ids",
    "remove_user_ids",
    "sender_user_id",
    "acting_user_id",
    "sender_user_id",
    "request_id",
    "page_token",
    "external_ids",
    "client_version",
    "media_id",
    "upload_id",
    "invite_id",
    "token",
    "changed_since",
    // No call returns where a device gets its pushes.
    "app",
    "bundle_id",
    "voip_token",
    "endpoint",
    "p256dh",
    "auth",
    "sealing_key",
];

/// The fields with names and texts that people read. A name is one line, and a description has lines. Neither has other
/// control characters.
const NAMES: &[&str] = &["display_name", "title", "platform", "description"];

/// The items without an answer. If the id in one is invalid, the item is ignored, and the stream goes on.
const WITHOUT_ANSWER: &[&str] = &["ack", "mark_read", "typing"];

/// The methods for which a cast can be used only once: the number of devices is limited, and a user leaves a group
/// once, as a request to join is answered once.
const ONCE: &[&str] = &["LinkDevice", "LeaveChat", "AnswerJoinRequest"];

/// The outcome of a request or an item.
enum Answer {
    Taken(DynamicMessage),
    /// The status of a call or a stream.
    Refused(Status),
    /// A typed outcome of an item.
    NotSent(SendError),
}

/// The number of tests that share the methods and run side by side.
const PARTS: usize = 4;

#[tokio::test]
async fn every_field_of_every_call_is_taken_as_it_is_or_refused_with_a_reason_1() {
    every_field_of_the_calls_of_part(0).await;
}

#[tokio::test]
async fn every_field_of_every_call_is_taken_as_it_is_or_refused_with_a_reason_2() {
    every_field_of_the_calls_of_part(1).await;
}

#[tokio::test]
async fn every_field_of_every_call_is_taken_as_it_is_or_refused_with_a_reason_3() {
    every_field_of_the_calls_of_part(2).await;
}

#[tokio::test]
async fn every_field_of_every_call_is_taken_as_it_is_or_refused_with_a_reason_4() {
    every_field_of_the_calls_of_part(3).await;
}

async fn every_field_of_the_calls_of_part(part: usize) {
    let Whole { world, push } = start().await;
    for method in descriptors::unary_methods().into_iter().skip(part).step_by(PARTS) {
        let mut permitted = false;
        for caller in [Caller::BackEnd, Caller::Device] {
            permitted |= a_call(&world, &method, caller).await;
        }
        let path = descriptors::path(&method);
        assert!(
            permitted,
            "{path}: the request that should be in order was refused"
        );
    }
    world.still_works().await;
    world.end().await;
    drop(push);
}

#[tokio::test]
async fn every_field_of_every_item_is_taken_as_it_is_or_refused_with_a_reason() {
    let Whole { world, push } = start().await;
    for kind in descriptors::message("ClientItem").fields() {
        let below = leaves(&descriptors::message("ClientItem")).into_iter();
        for leaf in below.filter(|leaf| leaf.to_string().starts_with(&format!("{}.", kind.name()))) {
            an_item(&world, kind.name(), &leaf).await;
        }
    }
    world.still_works().await;
    world.end().await;
    drop(push);
}

/// Starts a platform whose rate limits are too high for these calls to reach.
async fn start() -> Whole {
    Whole::start(|builder| {
        builder
            .env("TERN_GATEWAY_CALL_BURST", "100000")
            .env("TERN_GATEWAY_KEY_CALLS_PER_SECOND", "100000")
    })
    .await
}

/// Tries each field of a method. Returns whether this caller may call it.
async fn a_call(world: &World, method: &MethodDescriptor, caller: Caller) -> bool {
    let path = format!("{} by a {caller:?}", descriptors::path(method));
    let permitted = in_order(world, &Cast::of(world, method).await, method, caller, &path).await;
    for leaf in leaves(&method.input()) {
        let mut cast = Cast::of(world, method).await;
        for hostile in hostile::values(&leaf) {
            if ONCE.contains(&method.name()) {
                cast = Cast::of(world, method).await;
            }
            let mut request = cast.request(&method.input(), caller);
            if leaf.name() == "peer_user_id" {
                request.clear_field_by_name("chat_id");
            }
            leaf.put(&mut request, hostile.value.clone());
            let answer = call(world, &cast, method, caller, &request).await;
            let what = format!("{path}, {} in {leaf}", hostile.what);
            judge(world, &cast, &what, &leaf, hostile, answer, permitted).await;
        }
        if ONCE.contains(&method.name()) {
            cast = Cast::of(world, method).await;
        }
        // This shows that the calls before were refused because of the field alone.
        let still = in_order(world, &cast, method, caller, &path).await;
        assert_eq!(still, permitted, "{path}, after {leaf}");
        if !permitted {
            break;
        }
    }
    permitted
}

/// Makes a valid call. Returns whether it succeeded; it may be refused for this caller.
async fn in_order(world: &World, cast: &Cast, method: &MethodDescriptor, caller: Caller, path: &str) -> bool {
    let request = cast.request(&method.input(), caller);
    match call(world, cast, method, caller, &request).await {
        Answer::Taken(_) => true,
        Answer::Refused(status) if status.code() == Code::PermissionDenied => false,
        Answer::Refused(status) => panic!("{path}, in order: {status:?}"),
        Answer::NotSent(error) => panic!("{path}, in order: {error:?}"),
    }
}

async fn call(
    world: &World,
    cast: &Cast,
    method: &MethodDescriptor,
    caller: Caller,
    request: &DynamicMessage,
) -> Answer {
    let bearer = cast.bearer(world, caller);
    let path = descriptors::path(method);
    let body = raw::framed(&request.encode_to_vec());
    let answer = match raw::unary(world.channel(0), &path, Some(bearer), body).await {
        Ok(answer) => answer,
        Err(status) => return Answer::Refused(status),
    };
    Answer::Taken(DynamicMessage::decode(method.output(), answer).expect("the method's answer"))
}

async fn an_item(world: &World, kind: &str, leaf: &Leaf) {
    let cast = Cast::new(world).await;
    let descriptor = descriptors::message("ClientItem");
    let field = descriptor.get_field_by_name(kind).expect("the kind");
    let in_order = || {
        let message = field.kind().as_message().expect("a message").clone();
        let mut item = DynamicMessage::new(descriptor.clone());
        item.set_field(&field, Value::Message(cast.request(&message, Caller::Device)));
        item
    };
    for hostile in hostile::values(leaf) {
        let mut item = in_order();
        leaf.put(&mut item, hostile.value.clone());
        let what = format!("{} in {leaf}", hostile.what);
        let answer = say(world, &cast, &item).await;
        let hostile = Hostile {
            no_id: hostile.no_id && !WITHOUT_ANSWER.contains(&kind),
            ..hostile
        };
        judge(world, &cast, &what, leaf, hostile, answer, true).await;
    }
    let answer = say(world, &cast, &in_order()).await;
    assert!(
        matches!(answer, Answer::Taken(_)),
        "{kind}, in order, after {leaf}"
    );
}

/// Sends an item as [`say_once`] does, and again while the answer is UNAVAILABLE, as a client does.
async fn say(world: &World, cast: &Cast, item: &DynamicMessage) -> Answer {
    let end = Instant::now() + BOUND;
    loop {
        let answer = say_once(world, cast, item).await;
        let away = match &answer {
            Answer::NotSent(error) => error.code() == SendErrorCode::Unavailable,
            Answer::Refused(status) => status.code() == Code::Unavailable,
            Answer::Taken(_) => false,
        };
        if !away || Instant::now() >= end {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

/// Sends an item on a new stream, and waits for its outcome.
async fn say_once(world: &World, cast: &Cast, item: &DynamicMessage) -> Answer {
    const TOKEN: u64 = 7;
    let said: v1::ClientItem = item.transcode_to().expect("an item");
    let said = said.item.expect("a kind");
    let mut wire = Wire::silent(world.channel(0)).await.expect("a stream");
    if !matches!(said, Item::Open(_)) {
        wire.say(wire::open(&cast.device.access_token)).await;
    }
    let mut waits_for_result = matches!(said, Item::Send(_));
    wire.frame(vec![said, Item::Heartbeat(v1::Heartbeat { token: TOKEN })])
        .await;
    let mut heard = false;
    while waits_for_result || !heard {
        match wire.next().await {
            Ok(Some(Event::HeartbeatAck(ack))) if ack.token == TOKEN => heard = true,
            Ok(Some(Event::SendResult(result))) => {
                waits_for_result = false;
                if let Some(Outcome::Error(error)) = result.outcome {
                    return Answer::NotSent(error);
                }
            }
            Ok(Some(Event::WatchResult(result))) if result.error() == v1::WatchErrorCode::Invalid => {
                return Answer::NotSent(SendError {
                    code: v1::SendErrorCode::Invalid.into(),
                    message: result.message,
                    ..SendError::default()
                });
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended with success: {item:?}"),
            Err(status) => return Answer::Refused(status),
        }
    }
    Answer::Taken(item.clone())
}

async fn judge(
    world: &World,
    cast: &Cast,
    what: &str,
    leaf: &Leaf,
    hostile: Hostile,
    answer: Answer,
    permitted: bool,
) {
    let no_id = hostile.no_id && leaf.is_id();
    match answer {
        Answer::Taken(answer) => {
            assert!(!no_id, "{what}: was taken for an id");
            let is_name = NAMES.contains(&leaf.name());
            assert!(
                !is_name || hostile.what != hostile::CONTROL,
                "{what}: was taken for a name"
            );
            let text = matches!(hostile.value, Value::String(_) | Value::Bytes(_));
            let empty = hostile.what == "nothing";
            if text && !empty && !NOT_STORED.contains(&leaf.name()) {
                let stored = cast.has_stored(world, &answer, leaf.name(), &hostile.value).await;
                assert!(stored, "{what}: was taken, but is not to be read again");
            }
        }
        Answer::Refused(status) => {
            let reason = reason_of(&status);
            assert!(reason.is_some(), "{what}: has no reason: {status:?}");
            let clear = matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::FailedPrecondition
            ) || reason == Some(ErrorReason::TooLarge);
            assert!(clear, "{what}: {status:?}");
            if no_id && permitted {
                named(what, leaf, &status);
            }
            if hostile.what == hostile::NOTHING && permitted {
                assert!(not_found(leaf, reason), "{what}: {status:?}");
            }
        }
        Answer::NotSent(error) => {
            let clear = !matches!(
                error.code(),
                SendErrorCode::Unspecified | SendErrorCode::Unavailable | SendErrorCode::RateLimited
            );
            assert!(clear, "{what}: {error:?}");
            assert!(!error.message.is_empty(), "{what}: does not say what is wrong");
            if no_id {
                let code = error.code();
                assert!(
                    matches!(code, SendErrorCode::Invalid | SendErrorCode::TooLarge),
                    "{what}: {error:?}"
                );
            }
        }
    }
}

/// Checks that an error about an invalid id names the field.
fn named(what: &str, leaf: &Leaf, status: &Status) {
    let reason = reason_of(status);
    if reason == Some(ErrorReason::ProtocolError) {
        assert!(status.message().contains(leaf.name()), "{what}: {status:?}");
        return;
    }
    if reason == Some(ErrorReason::TooLarge) {
        assert!(!status.message().is_empty(), "{what}: {status:?}");
        return;
    }
    assert_eq!(
        (status.code(), reason),
        (Code::InvalidArgument, Some(ErrorReason::InvalidField)),
        "{what}: {status:?}"
    );
    let details = status.get_details_bad_request();
    let fields = details
        .map(|details| details.field_violations)
        .unwrap_or_default();
    assert!(
        fields
            .iter()
            .any(|violation| violation.field.split('.').next_back() == Some(leaf.name())),
        "{what}: names {fields:?}"
    );
}

/// Decides whether the reason fits an id that does not exist: it says that there is no such thing, or that the caller
/// may not use it.
fn not_found(leaf: &Leaf, reason: Option<ErrorReason>) -> bool {
    let Some(reason) = reason else { return false };
    match leaf.name() {
        "chat_id" => matches!(
            reason,
            ErrorReason::ChatNotFound
                | ErrorReason::MediaNotFound
                | ErrorReason::MessageNotFound
                | ErrorReason::InviteNotFound
        ),
        // Where a request also has a ticket, the ticket is for other media.
        "media_id" => matches!(reason, ErrorReason::MediaNotFound | ErrorReason::MediaTicket),
        "upload_id" => reason == ErrorReason::UploadNotFound,
        "acting_user_id" => matches!(
            reason,
            ErrorReason::ActingUserNotFound | ErrorReason::NotForDevices
        ),
        "device_id" => reason == ErrorReason::DeviceNotFound,
        "user_id" if matches!(&*leaf.message(), "SetChatSettingsRequest" | "HideMessagesRequest") => {
            matches!(
                reason,
                ErrorReason::ActingUserNotFound | ErrorReason::UserNotFound | ErrorReason::NotForDevices
            )
        }
        // This field may not be set together with chat_id.
        "user_id" if leaf.message() == "GetDownloadRequest" => reason == ErrorReason::InvalidField,
        "user_id" | "user_ids" | "member_user_ids" | "blocked_user_id" => {
            matches!(reason, ErrorReason::UserNotFound | ErrorReason::NotForDevices)
        }
        _ => true,
    }
}
