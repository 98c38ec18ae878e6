//! Devices of a user: several at once, linked late, revoked, with a newer stream, and their tokens.

use std::time::Duration;

use tern_identity::token::Signer;
use tern_local::{Role, until};
use tern_proto::error::reason_of;
use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item, server_event::Event};
use tern_tests::phone::agree;
use tern_tests::wire::{self, Wire};
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, Phone, World};
use tern_types::{ChatId, Clock, RequestId};
use tonic::Code;

#[tokio::test]
async fn ten_devices_of_one_user_have_the_same() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let his = world.phone(&bob).await;
    let mut hers = Vec::new();
    for _ in 0..10 {
        hers.push(world.phone(&alice).await);
    }
    let status = world.try_device(&alice).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::TooManyDevices));

    let chat = ChatId::direct(alice.id, bob.id);
    hers[9].disconnect().await;
    let mut texts = Vec::new();
    let mut head = 0;
    // Every device writes, also those of the same user at the same time.
    for round in 0..5 {
        let mut requests = Vec::new();
        for (number, phone) in hers[..9].iter().enumerate() {
            let text = format!("round {round}, device {number}");
            requests.push((phone, phone.send(bob.id, text.as_bytes()).await));
            texts.push(text);
        }
        for (phone, request) in requests {
            head = head.max(phone.sent(request).await.seq);
        }
        let text = format!("answer {round}");
        head = head.max(his.say(chat, text.as_bytes()).await.seq);
        texts.push(text);
    }
    hers[9].connect().await;
    let mut all: Vec<&Phone> = hers.iter().collect();
    all.push(&his);
    agree(&all, chat, head, &texts).await;

    // A chat that is read on one device is read on all.
    hers[3].read(chat, head).await;
    for phone in &hers {
        phone.receipt(chat, alice.id, 0, head).await;
    }
    world.end().await;
}

/// This is fine print 7: a device starts at the head at which it was linked.
#[tokio::test]
async fn a_new_device_starts_where_it_was_linked_and_reads_the_rest_as_history() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, first) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    for number in 0..5 {
        let seq = hers.say(bob.id, format!("old {number}")).await.seq;
        first.has(chat, seq).await;
    }
    // A new device that is linked before they are settled would get them too.
    world.settled().await;
    let second = world.phone(&bob).await;
    let new = hers.say(bob.id, "new").await;
    let log = second.has(chat, new.seq).await;
    assert_eq!((log.texts(), log.base), (vec!["new".to_owned()], new.seq - 1));
    let request = v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let history = second
        .api()
        .chats()
        .list_messages(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(history.entries.len(), 6);
    world.end().await;
}

#[tokio::test]
async fn who_has_no_device_yet_finds_everything_on_the_first_one() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let sent = hers.say(bob.id, "welcome").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    let store = world.store().await;
    // His inbox row is stored for the reserved device of a user without devices.
    until::holds("his inbox row", BOUND, || async {
        let row: Option<i64> = sqlx::query_scalar("SELECT from_seq FROM inbox WHERE user_id = $1")
            .bind(bob.id.0)
            .fetch_optional(&store)
            .await?;
        Ok(row == Some(1))
    })
    .await
    .unwrap();
    let his = world.phone(&bob).await;
    let log = his.has(chat, sent.seq).await;
    assert_eq!(log.texts(), ["welcome"]);
    hers.receipt(chat, bob.id, sent.seq, 0).await;
    world.end().await;
}

/// The first device is linked while the message is being settled, at a different moment in each round.
#[tokio::test]
async fn a_first_device_linked_while_a_message_settles_misses_nothing() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    for round in 0..20_u64 {
        let bob = world.user("bob").await;
        let send = hers.say(bob.id, format!("welcome {round}"));
        let link = async {
            // The moments range from before the commit to after the settle, which follows half a second later.
            tokio::time::sleep(Duration::from_millis(round * 35)).await;
            world.device(&bob).await
        };
        let (sent, device) = tokio::join!(send, link);
        let his = world.phone_of(&device).await;
        let log = his.has(sent.chat_id.parse().unwrap(), sent.seq).await;
        assert_eq!(log.texts(), [format!("welcome {round}")], "round {round}");
    }
    world.end().await;
}

/// A further device is linked between a commit and its settle. Everything after the link is for the new device too.
#[tokio::test]
async fn a_device_linked_between_commit_and_settle_has_all_from_its_base_on() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let first = world.phone(&bob).await;
    let chat = ChatId::direct(alice.id, bob.id);
    hers.say(bob.id, "the first").await;
    // Nobody acknowledges the messages, so that they have to be settled.
    first.acknowledge(false).await;
    for round in 0..8_u64 {
        let before = hers.say(chat, format!("before {round}")).await.seq;
        tokio::time::sleep(Duration::from_millis(round * 80)).await;
        let device = world.device(&bob).await;
        let after = hers.say(chat, format!("after {round}")).await.seq;
        let late = world.phone_of(&device).await;
        let log = late.has(chat, after).await;
        assert!(
            log.base >= before || log.entries.contains_key(&before),
            "round {round}: {log:?}"
        );
        assert!(
            log.texts().contains(&format!("after {round}")),
            "round {round}: {log:?}"
        );
        world.revoke(&device).await;
    }
    first.acknowledge(true).await;
    first.until("all of it", |state| state.cursor(chat) == 17).await;
    world.end().await;
}

#[tokio::test]
async fn a_revoked_device_is_out_at_once_and_for_good() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let (lost, kept) = (world.phone(&bob).await, world.phone(&bob).await);
    let chat = ChatId::direct(alice.id, bob.id);
    let before = hers.say(bob.id, "before").await;
    lost.has(chat, before.seq).await;

    // Another device of the same user revokes it.
    let request = v1::RevokeDeviceRequest {
        device_id: lost.device().id.to_string(),
    };
    kept.api().devices().revoke_device(request.clone()).await.unwrap();
    // A gateway that was unwell may have sent the device away before.
    let revoked = |closing: &v1::Closing| closing.code() == CloseCode::DeviceRevoked;
    let state = lost
        .until("the end", |state| {
            !state.online && state.closings.iter().any(revoked)
        })
        .await;
    let closing = state.closings.last().unwrap();
    assert!(revoked(closing) && !closing.may_reconnect, "{closing:?}");
    assert_eq!(state.ends.last(), Some(&Code::Unauthenticated));

    let after = hers.say(chat, "after").await;
    kept.has(chat, after.seq).await;
    let status = Wire::open(world.new_channel(1), lost.device())
        .await
        .err()
        .unwrap();
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::Unauthenticated, Some(ErrorReason::DeviceRevoked))
    );
    let refresh = v1::RefreshTokenRequest {
        refresh_token: lost.device().refresh_token.clone(),
    };
    let status = Api::anonymous(world.channel(0))
        .auth()
        .refresh_token(refresh)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // Revoking it again changes nothing.
    kept.api().devices().revoke_device(request).await.unwrap();
    // Another user's device cannot be revoked.
    let request = v1::RevokeDeviceRequest {
        device_id: hers.device().id.to_string(),
    };
    let status = kept.api().devices().revoke_device(request).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::NotFound | Code::PermissionDenied),
        "{status:?}"
    );
    let listed = kept
        .api()
        .devices()
        .list_devices(v1::ListDevicesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.devices.len(), 1);
    world.end().await;
}

/// A revocation is known to more than the gateways that were told of it. A gateway that starts later refuses the device
/// too, although its access token has not expired.
#[tokio::test]
async fn a_revoked_device_is_out_on_a_gateway_that_starts_afterwards() {
    let mut world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let (lost, kept) = (world.device(&bob).await, world.device(&bob).await);
    let sent = hers.say(bob.id, "a secret").await;
    world.revoke(&lost).await;

    world.platform.add(Role::Gateway).await.unwrap();
    let added = world.gateways();
    let api = |device: &Device| Api::new(world.new_channel(added), &device.access_token);
    let list = v1::ListMessagesRequest {
        chat_id: sent.chat_id.clone(),
        ..Default::default()
    };
    let send = v1::SendMessageRequest {
        chat_id: sent.chat_id.clone(),
        request_id: RequestId::random().to_string(),
        body: "not his".into(),
        ..Default::default()
    };
    let read = api(&lost).chats().list_messages(list.clone()).await.unwrap_err();
    let wrote = api(&lost).chats().send_message(send).await.unwrap_err();
    let streamed = Wire::open(world.new_channel(added), &lost).await.err().unwrap();
    for refused in [read, wrote, streamed] {
        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (Code::Unauthenticated, Some(ErrorReason::DeviceRevoked))
        );
    }
    api(&kept).chats().list_messages(list).await.unwrap();
    world.end().await;
}

/// Accounts nodes do not reach the gateway, so they cannot tell it. It asks for the list itself, every half minute.
#[tokio::test]
async fn a_gateway_that_was_not_told_of_a_revocation_finds_it_on_the_list() {
    let world = World::with(|builder| builder.cuttable(["gateway-1"])).await;
    let [bob] = world.users(["bob"]).await;
    let lost = world.device(&bob).await;
    let api = Api::new(world.channel(1), &lost.access_token);
    let list = v1::ListChatsRequest::default;
    api.chats().list_chats(list()).await.unwrap();
    let internal = &world.platform.cables("gateway-1").unwrap().internal;
    internal.cut();
    world.revoke(&lost).await;
    until::holds("the gateway refuses the device", BOUND, || async {
        let refused = api.chats().list_chats(list()).await.err();
        Ok(refused.is_some_and(|status| reason_of(&status) == Some(ErrorReason::DeviceRevoked)))
    })
    .await
    .unwrap();
    internal.mend();
    world.end().await;
}

#[tokio::test]
async fn the_newest_stream_of_a_device_wins() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let his = world.phone(&bob).await;
    let device = world.device(&alice).await;
    // The older stream is on the same gateway, or on the other one.
    for (older, newer) in [(0, 0), (0, 1), (1, 0)] {
        let (mut old, _) = Wire::open(world.new_channel(older), &device).await.unwrap();
        let (mut new, _) = Wire::open(world.new_channel(newer), &device).await.unwrap();
        let (last, status) = old.end().await;
        assert_eq!(closing(last), Some((CloseCode::SessionReplaced, false)));
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::Aborted, Some(ErrorReason::SessionReplaced))
        );
        let sent = his.say(alice.id, "for the newest").await;
        let chat = ChatId::direct(alice.id, bob.id);
        new.until(|event| matches!(event, Event::Entry(entry) if entry.seq == sent.seq).then_some(()))
            .await;
        new.say(wire::ack(chat, sent.seq)).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_token_that_is_not_good_opens_nothing() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let device = world.device(&alice).await;
    let ours =
        Signer::from_pem(&std::fs::read_to_string(&world.platform.secrets().token_key).unwrap()).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = tern_local::secrets::Secrets::in_dir(other.path())
        .unwrap()
        .token_key;
    let other = Signer::from_pem(&std::fs::read_to_string(other).unwrap()).unwrap();
    let hour = Duration::from_secs(3600);
    let sign = |signer: &Signer, at| signer.sign(device.user, device.id, at, hour).unwrap();
    let expired = sign(&ours, Clock::wall() - 2 * hour);
    let forged = sign(&other, Clock::wall());
    let mut tampered = device.access_token.clone();
    let flipped = if tampered.ends_with('A') { "B" } else { "A" };
    tampered.replace_range(tampered.len() - 1.., flipped);
    for (token, reason) in [
        (expired.as_str(), ErrorReason::TokenExpired),
        (forged.as_str(), ErrorReason::TokenInvalid),
        (tampered.as_str(), ErrorReason::TokenInvalid),
        ("", ErrorReason::CredentialsMissing),
        ("garbage", ErrorReason::TokenInvalid),
        (world.platform.api_key(), ErrorReason::TokenInvalid),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", ErrorReason::TokenInvalid),
    ] {
        let bad = Device {
            access_token: token.to_owned(),
            ..device.clone()
        };
        let status = Wire::open(world.new_channel(0), &bad)
            .await
            .err()
            .unwrap_or_else(|| panic!("{token:?} opened"));
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::Unauthenticated, Some(reason)),
            "{token:?}"
        );
        if !token.is_empty() && token != world.platform.api_key() {
            let chats = Api::new(world.channel(0), token)
                .chats()
                .list_chats(v1::ListChatsRequest::default())
                .await;
            assert_eq!(chats.unwrap_err().code(), Code::Unauthenticated, "{token:?}");
        }
    }
    let chats = Api::anonymous(world.channel(0))
        .chats()
        .list_chats(v1::ListChatsRequest::default())
        .await;
    let status = chats.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::CredentialsMissing));
    // The right token still opens a stream.
    Wire::open(world.new_channel(0), &device).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_token_is_renewed_on_the_running_stream() {
    let world = World::with(|builder| {
        builder
            .env("TERN_ACCOUNTS_ACCESS_TOKEN_TTL", "6")
            .env("TERN_GATEWAY_TOKEN_WARNING", "3")
    })
    .await;
    let alice = world.user("alice").await;
    let device = world.device(&alice).await;
    let (mut wire, opened) = Wire::open(world.new_channel(0), &device).await.unwrap();
    let expires = wire
        .until(|event| match event {
            Event::TokenExpiring(expiring) => Some(expiring.expires_at_ms),
            _ => None,
        })
        .await;
    assert_eq!(expires, opened.token_expires_at_ms);
    let refresh = v1::RefreshTokenRequest {
        refresh_token: device.refresh_token.clone(),
    };
    let auth = Api::anonymous(world.channel(1));
    let tokens = auth
        .auth()
        .refresh_token(refresh.clone())
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    // The answer may have been lost, so the same request returns the same tokens.
    let again = auth
        .auth()
        .refresh_token(refresh)
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    assert_eq!(tokens.refresh_token, again.refresh_token);
    wire.say(Item::Reauthenticate(v1::Reauthenticate {
        access_token: tokens.access_token,
    }))
    .await;
    let renewed = wire
        .until(|event| match event {
            Event::Reauthenticated(renewed) => Some(renewed.token_expires_at_ms),
            _ => None,
        })
        .await;
    assert!(renewed > expires);

    // A token of another device ends the stream.
    let other = world.device(&world.user("mallory").await).await;
    wire.say(Item::Reauthenticate(v1::Reauthenticate {
        access_token: other.access_token,
    }))
    .await;
    let (last, status) = wire.end().await;
    assert_eq!(closing(last).unwrap().0, CloseCode::Unauthenticated);
    assert_eq!(status.code(), Code::Unauthenticated);
    world.end().await;
}

#[tokio::test]
async fn a_refresh_token_that_was_copied_revokes_the_device() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let phone = world.phone(&alice).await;
    let auth = Api::anonymous(world.channel(0));
    let refresh = |token: &str| v1::RefreshTokenRequest {
        refresh_token: token.to_owned(),
    };
    let first = phone.device().refresh_token.clone();
    let second = auth
        .auth()
        .refresh_token(refresh(&first))
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    // The new pair is used. From now on the old token is spent.
    auth.auth()
        .refresh_token(refresh(&second.refresh_token))
        .await
        .unwrap();
    let status = auth.auth().refresh_token(refresh(&first)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::Unauthenticated, Some(ErrorReason::RefreshTokenReused))
    );
    let state = phone.until("the end", |state| !state.online).await;
    assert_eq!(state.closings[0].code(), CloseCode::DeviceRevoked);
    world.end().await;
}

fn closing(event: Option<Event>) -> Option<(CloseCode, bool)> {
    match event? {
        Event::Closing(closing) => Some((closing.code(), closing.may_reconnect)),
        _ => None,
    }
}
