//! Rate limits of unary calls.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tern_proto::error::reason_of;
use tern_proto::v1::auth_client::AuthClient;
use tern_proto::v1::{ErrorReason, RefreshTokenRequest};
use tern_types::{ChatId, DeviceId, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::calls::get_chat;
use crate::support::World;
use crate::support::items::people;

#[tokio::test]
async fn a_device_that_calls_too_often_is_told_when_to_come_back() {
    let world = World::start(&["--gateway-calls-per-second", "1", "--gateway-call-burst", "3"]).await;
    let (user, device) = people();
    let (channel, token) = (world.channel().await, world.token(user, device));
    let refused = until_limited((1, 3), async || {
        get_chat(channel.clone(), &token, ChatId::own(user)).await.err()
    })
    .await;
    assert_rate_limited(&refused);
    let other = world.token(UserId::random(), DeviceId::random());
    get_chat(channel.clone(), &other, ChatId::own(user))
        .await
        .unwrap();
}

#[tokio::test]
async fn keys_that_are_guessed_cost_accounts_little_and_hinder_no_back_end() {
    let world = World::start(&[]).await;
    let channel = world.channel().await;
    let call = |key: String| {
        let channel = channel.clone();
        async move { get_chat(channel, &key, ChatId::own(UserId::SYSTEM)).await }
    };
    let asked = || world.chat.key_lookups.load(Ordering::Relaxed);
    call("tern_good".into()).await.unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        let refused = call("tern_bad".into()).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(ErrorReason::ApiKeyInvalid));
    }
    let bad = asked() - 1;
    assert!(
        bad as u64 <= 1 + began.elapsed().as_secs() / 5,
        "a key that was refused is not asked for again for 5 s: {bad}"
    );
    let began = Instant::now();
    let (mut limited, mut guesses) = (0, 0);
    // A machine that makes fewer than 50 calls a second never meets the limit, so the test gives up after a while.
    while limited < 100 && began.elapsed() < Duration::from_secs(60) {
        let some = (0..100).map(|number| call(format!("tern_{}", guesses + number)));
        let refused = join_all(some).await.into_iter().map(Result::unwrap_err);
        limited += refused
            .filter(|refused| reason_of(refused) == Some(ErrorReason::RateLimited))
            .count();
        guesses += 100;
    }
    assert_eq!(asked(), 1 + bad + guesses - limited);
    let allowed = 500.0 + 50.0 * began.elapsed().as_secs_f64();
    assert!(
        (guesses - limited) as f64 <= allowed,
        "{} asked, {allowed} allowed",
        asked()
    );
    call("tern_good".into()).await.unwrap();
}

/// The code of a node that does not know the method: the call has passed the limits.
const PASSED: Code = Code::Unimplemented;

async fn refresh(channel: Channel) -> Status {
    let answer = AuthClient::new(channel)
        .refresh_token(RefreshTokenRequest::default())
        .await;
    answer.expect_err("a fake refreshes nothing")
}

/// Makes a call by gRPC-Web from the address `from`. Returns whether it passed.
async fn refresh_from(world: &World, from: Ipv4Addr) -> bool {
    let address: std::net::SocketAddr = world.url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    let request = "POST /tern.v1.Auth/RefreshToken HTTP/1.1\r\nhost: x\r\n\
                   x-forwarded-for: 203.0.113.7\r\nconnection: close\r\n\
                   content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let code = |code: Code| answer.contains(&format!("grpc-status: {}\r\n", code as i32));
    assert!(code(PASSED) || code(Code::ResourceExhausted), "{answer}");
    code(PASSED)
}

#[tokio::test]
async fn an_address_that_asks_for_tokens_too_often_is_told_when_to_come_back_and_others_are_let_through() {
    let flags = [
        "--gateway-auth-calls-per-second",
        "1",
        "--gateway-auth-call-burst",
        "3",
    ];
    let world = World::start(&flags).await;
    let channel = world.channel().await;
    let began = Instant::now();
    let refused = until_limited((1, 3), async || {
        let status = refresh(channel.clone()).await;
        (status.code() != PASSED).then_some(status)
    })
    .await;
    assert_rate_limited(&refused);
    // Over another connection and by another protocol the limit is the same, whatever the client says of itself: no
    // more calls pass than the time since the start allows.
    let mut passed = 0.0;
    while refresh_from(&world, Ipv4Addr::LOCALHOST).await {
        passed += 1.0;
    }
    assert!(passed <= began.elapsed().as_secs_f64() + 1.0, "{passed} passed");
    assert!(refresh_from(&world, Ipv4Addr::new(127, 0, 0, 2)).await);
    // A call with credentials is counted by them.
    let (user, device) = people();
    let token = world.token(user, device);
    get_chat(world.channel().await, &token, ChatId::own(user))
        .await
        .unwrap();
}

#[tokio::test]
async fn behind_a_load_balancer_the_limit_of_addresses_is_off() {
    let world = World::start(&[
        "--gateway-auth-calls-per-second",
        "0",
        "--gateway-auth-call-burst",
        "1",
    ])
    .await;
    let channel = world.channel().await;
    for _ in 0..50 {
        assert_eq!(refresh(channel.clone()).await.code(), PASSED);
    }
}

/// Calls again and again until one is refused, and returns that refusal. Asserts that no more calls passed than the
/// rate and burst allow in the time that it took.
async fn until_limited((rate, burst): (u32, u32), call: impl AsyncFn() -> Option<Status>) -> Status {
    let began = Instant::now();
    let mut passed = 0;
    loop {
        if let Some(refused) = call().await {
            assert!(passed >= burst, "only {passed} passed");
            return refused;
        }
        passed += 1;
        let allowed = f64::from(burst) + f64::from(rate) * began.elapsed().as_secs_f64();
        assert!(f64::from(passed) <= allowed, "{passed} passed, {allowed} allowed");
    }
}

/// Asserts that the status says RATE_LIMITED and when to try again.
fn assert_rate_limited(refused: &Status) {
    assert_eq!(
        (refused.code(), reason_of(refused)),
        (Code::ResourceExhausted, Some(ErrorReason::RateLimited))
    );
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(
        wait.is_some_and(|wait| wait <= Duration::from_secs(1)),
        "{wait:?}"
    );
}
