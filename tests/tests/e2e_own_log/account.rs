//! Each device of a user is told of what happens to the account, also one that was away.

use tern_proto::v1::{self, AccountChange};
use tern_tests::own::{contents, told_of_account};
use tern_tests::{Phone, World};

#[tokio::test]
async fn devices_are_told_when_one_is_linked_or_revoked() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    tablet.disconnect().await;
    let linked = world.device(&alice).await;
    let id = linked.id.to_string();
    told_of_account(&hers, AccountChange::DeviceLinked, &id).await;
    world.revoke(&linked).await;
    told_of_account(&hers, AccountChange::DeviceRevoked, &id).await;
    tablet.connect().await;
    told_of_account(&tablet, AccountChange::DeviceLinked, &id).await;
    told_of_account(&tablet, AccountChange::DeviceRevoked, &id).await;
    world.revoke(hers.device()).await;
    let id = hers.device().id.to_string();
    told_of_account(&tablet, AccountChange::DeviceRevoked, &id).await;
    world.end().await;
}

#[tokio::test]
async fn devices_are_told_of_blocks_contacts_and_privacy_and_other_people_are_not() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, tablet) = (world.phone(&alice).await, world.phone(&alice).await);
    let his = world.phone(&bob).await;
    tablet.disconnect().await;
    let mut users = hers.api().users();
    let block = v1::BlockRequest {
        user_id: String::new(),
        blocked_user_id: bob.id.to_string(),
    };
    users.block(block).await.unwrap();
    let unblock = v1::UnblockRequest {
        user_id: String::new(),
        blocked_user_id: bob.id.to_string(),
    };
    users.unblock(unblock).await.unwrap();
    let contacts = v1::SetContactsRequest {
        add_user_ids: vec![bob.id.to_string()],
        ..Default::default()
    };
    users.set_contacts(contacts).await.unwrap();
    let settings = v1::GetPrivacyRequest::default();
    let settings = users.get_privacy(settings).await.unwrap().into_inner();
    let mut privacy = settings.privacy.unwrap();
    privacy.read_receipts_off = true;
    let change = v1::SetPrivacyRequest {
        privacy: Some(privacy),
        ..Default::default()
    };
    users.set_privacy(change).await.unwrap();
    quiet_at_night(&world, &hers).await;

    tablet.connect().await;
    for phone in [&hers, &tablet] {
        for (change, subject) in [
            (AccountChange::Blocked, bob.id.to_string()),
            (AccountChange::Unblocked, bob.id.to_string()),
            (AccountChange::Contacts, String::new()),
            (AccountChange::Privacy, String::new()),
            (AccountChange::Notifications, String::new()),
        ] {
            told_of_account(phone, change, &subject).await;
        }
    }
    // His own log has nothing but that his device was linked.
    let sent = hers.say(bob.id, "hello").await;
    his.has(sent.chat_id.parse().unwrap(), sent.seq).await;
    let told = contents(&his);
    assert!(told.len() <= 1, "{told:?}");
    world.end().await;
}

/// Has a back end set quiet hours in the name of a phone's user, who reads them.
async fn quiet_at_night(world: &World, phone: &Phone) {
    let settings = v1::NotificationSettings {
        quiet_hours: Some(v1::QuietHours {
            from_minute: 1_320,
            to_minute: 420,
            time_zone: "Europe/Berlin".to_owned(),
        }),
    };
    let set = v1::SetNotificationSettingsRequest {
        user_id: phone.user().to_string(),
        settings: Some(settings.clone()),
    };
    let mut back_end = world.back_end().await.users();
    back_end.set_notification_settings(set).await.unwrap();
    let get = v1::GetNotificationSettingsRequest::default();
    let read = phone.api().users().get_notification_settings(get).await.unwrap();
    assert_eq!(read.into_inner().settings, Some(settings));
}
