//! In slow mode members wait between two messages, whichever node owns the group.

use std::time::Duration;

use tern_local::until;
use tern_proto::error::{reason_of, retry_after_of};
use tern_proto::v1::{self, ErrorReason, GroupPolicy, SendErrorCode};
use tern_tests::acts::{By, SLOW_MODE, call, done, edit, is_refused, promote, react, say};
use tern_tests::groups::set_policy;
use tern_tests::world::{BOUND, FAILOVER_GRACE};
use tern_tests::{Phone, World, wire};
use tern_types::{ChatId, RequestId};

/// The longest time that a policy may set.
const HOUR: Duration = Duration::from_secs(3_600);

/// Makes members wait this long between two messages.
async fn slow_down(admin: &Phone, group: ChatId, slow_mode: Duration) -> u64 {
    let policy = GroupPolicy {
        slow_mode_s: u32::try_from(slow_mode.as_secs()).unwrap(),
        ..Default::default()
    };
    set_policy(&admin.api(), group, policy).await.unwrap()
}

#[tokio::test]
async fn a_member_waits_and_is_told_how_long_by_any_owner_of_the_group() {
    let world = World::with(|builder| builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    promote(&hers, group, &carol).await;
    slow_down(&hers, group, HOUR).await;

    let first = his.say(group, "the first of the hour").await.seq;
    is_refused(&his, group, &say("one more"), SLOW_MODE).await;
    waits_for_about_an_hour(&his, group).await;
    // Owners and admins do not wait. Edits and reactions do not either, nor does a back end that sends in Bob's name.
    for phone in [&hers, &carols] {
        phone.say(group, "one").await;
        phone.say(group, "two").await;
    }
    done(&his, By::Stream, group, &edit(first, "the first of this hour")).await;
    done(&his, By::Call, group, &react(first, "+")).await;
    for body in ["from his ticket", "and another"] {
        let in_his_name = v1::SendMessageRequest {
            chat_id: group.to_string(),
            request_id: RequestId::random().to_string(),
            envelope: wire::plain().encoded(),
            body: body.into(),
            acting_user_id: bob.id.to_string(),
            ..Default::default()
        };
        let sent = world.back_end().await.chats().send_message(in_his_name).await;
        sent.unwrap();
    }

    let owner = world.owner_of(group).await;
    world.platform.kill(&owner).await.unwrap();
    is_refused(&his, group, &say("one more"), SLOW_MODE).await;
    waits_for_about_an_hour(&his, group).await;
    // The mode ends, and with it the wait.
    slow_down(&hers, group, Duration::ZERO).await;
    let sent = his.say(group, "at last").await;
    hers.has(group, sent.seq).await;
    world.end().await;
}

/// Checks that stream and call name a time to wait that fits the policy.
async fn waits_for_about_an_hour(phone: &Phone, group: ChatId) {
    let request = phone.send(group, "now?").await;
    let error = phone.refused(request).await;
    let on_stream = Duration::from_millis(error.retry_after_ms.into());
    let refused = call(&phone.api(), group, RequestId::random(), &say("now?")).await;
    let by_call = retry_after_of(&refused.unwrap_err()).unwrap();
    for wait in [on_stream, by_call] {
        assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
    }
}

#[tokio::test]
async fn after_the_wait_a_member_sends_again() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    slow_down(&hers, group, Duration::from_secs(1)).await;
    his.say(group, "one").await;
    let api = his.api();
    let two = until::some("the wait is over", BOUND, || async {
        match call(&api, group, RequestId::random(), &say("two")).await {
            Ok(sent) => Ok(sent),
            Err(status) => {
                assert_eq!(reason_of(&status), Some(ErrorReason::SlowMode), "{status:?}");
                Err(status.into())
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(hers.has(group, two.seq).await.texts(), ["one", "two"]);
    world.end().await;
}

/// A repetition is no second message, so it gets the first result, and a refused one costs nothing.
#[tokio::test]
async fn who_repeats_a_message_in_slow_mode_gets_its_first_result() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    slow_down(&hers, group, HOUR).await;
    let (first, second) = (RequestId::random(), RequestId::random());
    let sent = call(&his.api(), group, first, &say("one")).await.unwrap();
    let again = call(&his.api(), group, first, &say("one")).await.unwrap();
    assert_eq!(again, sent);
    his.send_as(second, group, "two").await;
    let error = his.refused(second).await;
    assert_eq!(error.code(), SendErrorCode::SlowMode, "{error:?}");
    slow_down(&hers, group, Duration::ZERO).await;
    let sent = call(&his.api(), group, second, &say("two")).await.unwrap();
    hers.has(group, sent.seq).await;
    world.end().await;
}
