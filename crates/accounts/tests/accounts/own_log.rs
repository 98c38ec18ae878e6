//! Tests of what users' own logs are told of accounts: everything that has changed, in order, once, and also if the node
//! that changed it could not tell.

use tern_identity::principal::Principal;
use tern_proto::v1::{self, AccountChange, Audience, ErrorReason};
use tern_types::UserId;

use crate::device_id;
use crate::world::{World, admin, by, device};

impl World {
    /// Returns the number of changes that own logs were not told of.
    async fn untold(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM own_log_outbox")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Makes what was not told old enough for any node to tell it.
    async fn wait_for_a_minute(&self) {
        sqlx::query("UPDATE own_log_outbox SET since = since - interval '1 minute'")
            .execute(&self.pool)
            .await
            .unwrap();
    }

    async fn set_audience(&self, who: &Principal, audience: Audience) {
        let settings = v1::PrivacySettings {
            presence_audience: audience.into(),
            read_receipts_off: false,
        };
        self.set_privacy(who, "", Some(settings)).await.unwrap();
    }

    async fn revoke(&self, linked: &v1::LinkDeviceResponse) {
        let revoke = v1::RevokeDeviceRequest {
            device_id: device_id(linked).to_string(),
        };
        self.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    }
}

/// Returns the changes without their subjects.
fn changes(world: &World, user: UserId) -> Vec<AccountChange> {
    world
        .chat
        .own_log(user)
        .into_iter()
        .map(|(change, _)| change)
        .collect()
}

#[tokio::test]
async fn each_change_of_an_account_is_an_entry_of_the_users_own_log() {
    use AccountChange::{Blocked, Contacts, DeviceLinked, DeviceRevoked, Privacy, Unblocked};
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (linked, tablet) = (world.link(alice).await, world.link(alice).await);
    let (phone, him) = (device(&linked), bob.to_string());
    // A repeated call, and one that asks for what is so already, changes nothing, so nothing is noted.
    for _ in 0..2 {
        world.block(&phone, "", &him).await.unwrap();
    }
    let unblock = v1::UnblockRequest {
        user_id: String::new(),
        blocked_user_id: him.clone(),
    };
    for _ in 0..2 {
        world.users().unblock(by(&phone, unblock.clone())).await.unwrap();
    }
    for (add, remove) in [
        (&[bob][..], &[][..]),
        (&[bob][..], &[][..]),
        (&[][..], &[][..]),
        (&[][..], &[bob][..]),
    ] {
        world.set_contacts(alice, add, remove, false).await.unwrap();
    }
    for audience in [Audience::Nobody, Audience::Nobody] {
        world.set_audience(&phone, audience).await;
    }
    for _ in 0..2 {
        world.revoke(&tablet).await;
    }
    let (one, other) = (device_id(&linked).to_string(), device_id(&tablet).to_string());
    let expected = [
        (DeviceLinked, one),
        (DeviceLinked, other.clone()),
        (Blocked, him.clone()),
        (Unblocked, him),
        (Contacts, String::new()),
        (Contacts, String::new()),
        (Privacy, String::new()),
        (DeviceRevoked, other),
    ];
    assert_eq!(world.chat.own_log(alice), expected);
    assert_eq!(world.chat.own_log(bob), [], "others are told nothing");
    assert_eq!(world.untold().await, 0);
}

#[tokio::test]
async fn what_could_not_be_told_is_told_later_in_order_and_once() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (phone, him) = (device(&world.link(alice).await), bob.to_string());
    world.chat.refuse_own(Some(ErrorReason::Unavailable));
    world.block(&phone, "", &him).await.unwrap();
    world.set_audience(&phone, Audience::Nobody).await;
    assert_eq!(world.untold().await, 2, "the calls succeed all the same");
    world.wait_for_a_minute().await;
    world.accounts.tell_own_logs().await.unwrap_err();
    assert_eq!(world.untold().await, 2);

    world.chat.refuse_own(None);
    world.accounts.tell_own_logs().await.unwrap();
    assert_eq!(world.untold().await, 2, "another node may be at it");
    world.wait_for_a_minute().await;
    world.accounts.tell_own_logs().await.unwrap();
    let expected = [
        AccountChange::DeviceLinked,
        AccountChange::Blocked,
        AccountChange::Privacy,
    ];
    assert_eq!(changes(&world, alice), expected);
    assert_eq!(world.untold().await, 0);
}

#[tokio::test]
async fn the_next_change_takes_along_what_was_not_told() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let phone = device(&world.link(alice).await);
    world.chat.refuse_own(Some(ErrorReason::Unavailable));
    world.block(&phone, "", &bob.to_string()).await.unwrap();
    world.chat.refuse_own(None);
    world.set_audience(&phone, Audience::Nobody).await;
    let expected = [
        AccountChange::DeviceLinked,
        AccountChange::Blocked,
        AccountChange::Privacy,
    ];
    assert_eq!(changes(&world, alice), expected);
}

#[tokio::test]
async fn an_entry_that_would_never_be_taken_holds_nothing_up() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let phone = device(&world.link(alice).await);
    world.chat.refuse_own(Some(ErrorReason::UserNotFound));
    world.set_audience(&phone, Audience::Nobody).await;
    assert_eq!(world.untold().await, 0, "it is given up");
    world.chat.refuse_own(None);
    world.set_audience(&phone, Audience::Everyone).await;
    assert_eq!(
        changes(&world, alice),
        [AccountChange::DeviceLinked, AccountChange::Privacy]
    );
}

#[tokio::test]
async fn a_user_of_whom_very_much_waits_changes_nothing_but_may_lose_devices() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let linked = world.link(alice).await;
    let phone = device(&linked);
    let fill = "INSERT INTO own_log_outbox (user_id, request_id, number, content)
                SELECT $1, gen_random_uuid(), n, '' FROM generate_series(1, 1000) AS n";
    sqlx::query(fill)
        .bind(alice.0)
        .execute(&world.pool)
        .await
        .unwrap();
    world.chat.refuse_own(Some(ErrorReason::Unavailable));
    let refused = world.block(&phone, "", &bob.to_string()).await.unwrap_err();
    assert_eq!(refused, ErrorReason::Unavailable);
    let blocks: i64 = sqlx::query_scalar("SELECT count(*) FROM blocks")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(blocks, 0);
    world.revoke(&linked).await;
    assert_eq!(world.untold().await, 1001);
    assert_eq!(world.device_ids(alice).await.len(), 0);
}
