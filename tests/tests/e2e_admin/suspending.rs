//! A user is suspended and resumed.

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, CloseCode, ErrorReason, admin_client::AdminClient};
use tern_tests::api::Caller;
use tern_tests::wire::Wire;
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, World};
use tern_types::{ChatId, UserId};
use tonic::Status;

fn reason(status: &Status) -> ErrorReason {
    reason_of(status).unwrap_or_else(|| panic!("{status:?}"))
}

#[tokio::test]
async fn a_suspended_user_is_out_at_once_and_finds_everything_when_resumed() {
    let mut world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let hers = world.phone(&alice).await;
    let (device, offline) = (world.device(&bob).await, world.device(&bob).await);
    let (mut his, _) = Wire::open(world.new_channel(1), &device).await.unwrap();
    let mut operator = world.back_end().await.admin();
    calls(&world, &device).await.unwrap();

    suspend(&mut operator, bob.id).await;
    is_closed_as_suspended(&mut his).await;
    let refused = calls(&world, &device).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::UserSuspended);
    no_gateway_opens_a_stream(&world, [&device, &offline]).await;
    let refresh = v1::RefreshTokenRequest {
        refresh_token: device.refresh_token.clone(),
    };
    let mut auth = Api::anonymous(world.channel(0)).auth();
    let refused = auth.refresh_token(refresh.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::UserSuspended);
    a_gateway_that_starts_now_knows_it(&mut world, &device).await;

    // Messages for the suspended user are kept.
    let sent = hers.say(bob.id, "while you were out").await;
    resume(&operator, bob.id).await;
    let tokens = auth
        .refresh_token(refresh)
        .await
        .unwrap()
        .into_inner()
        .tokens
        .unwrap();
    assert!(!tokens.access_token.is_empty());
    for device in [&device, &offline] {
        let back = world.phone_of(device).await;
        back.has(ChatId::direct(alice.id, bob.id), sent.seq).await;
        hers.receipt(ChatId::direct(alice.id, bob.id), bob.id, sent.seq, 0)
            .await;
    }
    world.settled().await;
    world.end().await;
}

/// Makes one call of the device through each gateway.
async fn calls(world: &World, device: &Device) -> Result<(), Status> {
    for gateway in 0..world.gateways() {
        let api = Api::new(world.channel(gateway), &device.access_token);
        api.chats().list_chats(v1::ListChatsRequest::default()).await?;
    }
    Ok(())
}

/// Suspends a user with one stream, and waits until all gateways were told.
async fn suspend(operator: &mut AdminClient<Caller>, user: UserId) {
    let request = v1::SuspendUserRequest {
        user_id: user.to_string(),
    };
    let suspended = operator.suspend_user(request.clone()).await.unwrap().into_inner();
    if suspended.gateways_missed.is_empty() {
        // A sweep that read the suspension before the gateway was told has ended the stream itself.
        assert!(suspended.closed <= 1, "{suspended:?}");
        return;
    }
    // Gateways that did not answer in time are told again.
    until::holds("all gateways are told", BOUND, || async {
        let suspended = operator.clone().suspend_user(request.clone()).await?.into_inner();
        Ok(suspended.gateways_missed.is_empty())
    })
    .await
    .unwrap();
}

async fn resume(operator: &AdminClient<Caller>, user: UserId) {
    let request = v1::ResumeUserRequest {
        user_id: user.to_string(),
    };
    until::holds("all gateways are told that he is back", BOUND, || async {
        let resumed = operator.clone().resume_user(request.clone()).await?.into_inner();
        Ok(resumed.gateways_missed.is_empty())
    })
    .await
    .unwrap();
}

async fn is_closed_as_suspended(wire: &mut Wire) {
    let (closing, status) = wire.end().await;
    let Some(v1::server_event::Event::Closing(closing)) = closing else {
        panic!("{closing:?}")
    };
    assert_eq!(closing.code(), CloseCode::UserSuspended);
    assert!(!closing.may_reconnect);
    assert_eq!(reason(&status), ErrorReason::UserSuspended);
}

async fn no_gateway_opens_a_stream(world: &World, devices: [&Device; 2]) {
    for gateway in 0..world.gateways() {
        for device in devices {
            let refused = Wire::open(world.new_channel(gateway), device)
                .await
                .map(|_| ())
                .unwrap_err();
            assert_eq!(reason(&refused), ErrorReason::UserSuspended);
        }
    }
}

/// Starts a gateway anew, so that it was never told of the suspension.
async fn a_gateway_that_starts_now_knows_it(world: &mut World, device: &Device) {
    let name = "gateway-1";
    world.platform.kill(name).await.unwrap();
    world.platform.restart(name).await.unwrap();
    world.platform.linked().await.unwrap();
    let api = Api::new(world.new_channel(1), &device.access_token);
    until::holds("the new gateway knows", BOUND, || async {
        let refused = api.chats().list_chats(v1::ListChatsRequest::default()).await;
        Ok(refused.is_err_and(|status| reason_of(&status) == Some(ErrorReason::UserSuspended)))
    })
    .await
    .unwrap();
}
