//! The ends of streams: replaced, revoked, broken, with a client that takes nothing, drained.

use bytes::Bytes;
use tern_cluster::Role;
use tern_proto::error::reason_of;
use tern_proto::internal::CloseDevicesRequest;
use tern_proto::internal::gateway_node_client::GatewayNodeClient;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, CloseCode, ErrorReason};
use tern_types::{ChatId, DeviceId, UserId};
use tonic::Code;

use crate::calls::get_chat;
use crate::support::items::{self, people};
use crate::support::raw::raw_stream;
use crate::support::{Phone, World, until};

#[tokio::test]
async fn the_newest_stream_of_a_device_wins() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut first = world.open(user, device).await;
    let mut second = world.open(user, device).await;
    let (closing, status) = first.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::SessionReplaced, false)
    );
    let status = status.expect("a status");
    assert_eq!(
        (status.code(), reason_of(&status)),
        (Code::Aborted, Some(ErrorReason::SessionReplaced))
    );
    // Presence says that another gateway's stream replaces it, with the same outcome.
    world.replaced(second.session).await;
    assert_eq!(second.end().await.0.code(), CloseCode::SessionReplaced);
}

/// A phone that changes networks leaves a dead stream behind.
#[tokio::test]
async fn a_device_replaces_its_own_stream_also_where_there_is_no_room_for_another_one() {
    let mut world = World::start(&["--gateway-max-sessions", "1"]).await;
    let (user, device) = people();
    let mut first = world.open(user, device).await;
    let mut other = Phone::connect(world.channel().await).await;
    let token = world.token(user, DeviceId::random());
    other.say(items::open(token)).await;
    let refused = other.event().await;
    assert!(
        matches!(&refused, Event::Closing(closing) if closing.code() == CloseCode::Unavailable),
        "{refused:?}"
    );
    let _second = world.open(user, device).await;
    assert_eq!(first.end().await.0.code(), CloseCode::SessionReplaced);
}

#[tokio::test]
async fn streams_of_a_revoked_device_end_when_a_node_says_so_and_its_token_is_refused() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut phone = world.open(user, device).await;
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let request = CloseDevicesRequest {
        device_ids: vec![device.to_vec().into()],
        code: CloseCode::DeviceRevoked.into(),
    };
    assert_eq!(node.close_devices(request).await.unwrap().into_inner().closed, 1);
    let (closing, status) = phone.end().await;
    assert_eq!(closing.code(), CloseCode::DeviceRevoked);
    assert_eq!(status.map(|status| status.code()), Some(Code::Unauthenticated));
    let refused = get_chat(
        world.channel().await,
        &world.token(user, device),
        ChatId::own(user),
    )
    .await
    .unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::DeviceRevoked));
}

#[tokio::test]
async fn a_replaced_or_revoked_session_is_over_at_once_also_where_its_stream_takes_nothing() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let deaf = world.open_deaf(user, device).await;
    let newer = world.open(user, device).await;
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
    drop(newer);
    assert!(world.announced().await.ended);

    let deaf = world.open_deaf(user, device).await;
    let mut node = GatewayNodeClient::connect(world.internal.clone()).await.unwrap();
    let request = CloseDevicesRequest {
        device_ids: vec![device.to_vec().into()],
        code: CloseCode::DeviceRevoked.into(),
    };
    node.close_devices(request).await.unwrap();
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_cut_off_and_one_that_only_idles_is_not() {
    let mut world = World::start(&["--gateway-stalled-after", "0.6"]).await;
    let (user, device) = people();
    let mut idle = world.open(UserId::random(), DeviceId::random()).await;
    let mut deaf = world.open_deaf(user, device).await;
    let ended = world.announced().await;
    assert_eq!((ended.session, ended.ended), (deaf.session, true));
    assert!(deaf.breaks().await);
    idle.say(Item::Heartbeat(v1::Heartbeat { token: 7 })).await;
    while !matches!(idle.event().await, Event::HeartbeatAck(ack) if ack.token == 7) {}
}

#[tokio::test]
async fn broken_frames_end_the_stream_with_a_reason_and_hurt_nobody_else() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut bystander = world.open(user, device).await;
    let items = |count| v1::ClientFrame {
        items: vec![v1::ClientItem::default(); count],
    };
    let body = Bytes::from(vec![0; 600 << 10]);
    let large = Item::Send(v1::SendMessage {
        body,
        ..Default::default()
    });
    let cases = [
        (items(257), Code::ResourceExhausted, ErrorReason::TooLarge),
        (
            v1::ClientFrame {
                items: vec![v1::ClientItem { item: Some(large) }],
            },
            Code::ResourceExhausted,
            ErrorReason::TooLarge,
        ),
        (items(1), Code::InvalidArgument, ErrorReason::ProtocolError),
    ];
    for (frame, code, reason) in cases {
        let mut phone = Phone::connect(world.channel().await).await;
        phone.frame(frame).await;
        let (closing, status) = phone.end().await;
        let status = status.expect("a status");
        assert_eq!(
            (status.code(), reason_of(&status)),
            (code, Some(reason)),
            "{closing:?}"
        );
    }
    let garbage = raw_stream(world.channel().await, Bytes::from_static(&[0x0f, 0xff, 0xff])).await;
    assert_eq!(
        (garbage.code(), reason_of(&garbage)),
        (Code::InvalidArgument, Some(ErrorReason::ProtocolError))
    );
    bystander.say(Item::Heartbeat(v1::Heartbeat { token: 3 })).await;
    assert!(matches!(bystander.event().await, Event::CaughtUp(_)));
    assert!(matches!(bystander.event().await, Event::HeartbeatAck(ack) if ack.token == 3));
}

#[tokio::test]
async fn a_draining_gateway_asks_its_devices_to_leave_and_takes_no_new_ones() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut stays = world.open(user, device).await;
    assert!(matches!(stays.event().await, Event::CaughtUp(_)));
    world.ctx.drain.start();
    assert!(matches!(stays.event().await, Event::Draining(_)));
    let mut late = Phone::connect(world.channel().await).await;
    let (user, device) = people();
    late.say(items::open(world.token(user, device))).await;
    let (closing, status) = late.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::Draining, true)
    );
    assert!(closing.retry_after_ms > 0);
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    // The client leaves, so the drain is over before its deadline.
    stays.hang_up();
    assert_eq!(stays.end().await.1.map(|status| status.code()), None);
    (&mut world.done).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_is_worse_off_than_others_shuts_its_door_and_sends_its_devices_there() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut stays = world.open(user, device).await;
    assert!(matches!(stays.event().await, Event::CaughtUp(_)));
    world.ctx.reached.said(Role::Gateway, true);
    assert!(matches!(stays.event().await, Event::Draining(_)));
    let why_not = world.ctx.readiness.why_not();
    assert_eq!(why_not, Some("other gateways reach more"), "before it says so");
    let mut late = Phone::connect(world.channel().await).await;
    let (user, device) = people();
    late.say(items::open(world.token(user, device))).await;
    let (closing, status) = late.end().await;
    assert_eq!(
        (closing.code(), closing.may_reconnect),
        (CloseCode::Unavailable, true)
    );
    assert!(closing.retry_after_ms > 0);
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    // The gateway reaches as much as others again, and takes new streams.
    world.ctx.reached.said(Role::Gateway, false);
    until("it is ready", || world.ctx.readiness.is_ready()).await;
    let (user, device) = people();
    let mut comes = world.open(user, device).await;
    assert!(matches!(comes.event().await, Event::CaughtUp(_)));
}

#[tokio::test]
async fn a_gateway_without_a_chat_node_is_not_ready_and_takes_no_new_streams() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    let mut stays = world.open(user, device).await;
    assert!(matches!(stays.event().await, Event::CaughtUp(_)));
    until("it is ready", || world.ctx.readiness.is_ready()).await;
    let nodes = world.nodes.clone();
    world.nodes.retain(|(role, _)| *role != Role::Chat);
    world.follow(2);
    until("it is not ready", || {
        world.ctx.readiness.why_not() == Some("no chat node is linked")
    })
    .await;
    let mut late = Phone::connect(world.channel().await).await;
    let (late_user, late_device) = people();
    late.say(items::open(world.token(late_user, late_device))).await;
    assert_eq!(late.end().await.0.code(), CloseCode::Unavailable);
    world.nodes = nodes;
    world.follow(3);
    until("it is ready again", || world.ctx.readiness.is_ready()).await;
    // The stream that was open before is still open.
    stays.say(Item::Heartbeat(v1::Heartbeat { token: 3 })).await;
    loop {
        if let Event::HeartbeatAck(ack) = stays.event().await {
            assert_eq!(ack.token, 3);
            break;
        }
    }
}
