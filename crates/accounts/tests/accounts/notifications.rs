//! Tests of the settings of when users are notified.

use tern_identity::principal::{Principal, Scope};
use tern_proto::v1::{self, AccountChange, ErrorReason};
use tern_types::UserId;
use tonic_types::StatusExt;

use crate::world::{World, admin, by, device, key, reason};

impl World {
    async fn notifications(
        &self,
        who: &Principal,
        user: &str,
    ) -> Result<v1::NotificationSettings, ErrorReason> {
        let request = v1::GetNotificationSettingsRequest {
            user_id: user.to_owned(),
        };
        let answer = self.users().get_notification_settings(by(who, request)).await;
        answer
            .map(|answer| answer.into_inner().settings.unwrap())
            .map_err(|status| reason(&status))
    }

    async fn set_notifications(
        &self,
        who: &Principal,
        user: &str,
        settings: Option<v1::NotificationSettings>,
    ) -> Result<v1::NotificationSettings, ErrorReason> {
        let request = v1::SetNotificationSettingsRequest {
            user_id: user.to_owned(),
            settings,
        };
        let answer = self.users().set_notification_settings(by(who, request)).await;
        answer
            .map(|answer| answer.into_inner().settings.unwrap())
            .map_err(|status| reason(&status))
    }
}

fn quiet(from_minute: u32, to_minute: u32, time_zone: &str) -> v1::NotificationSettings {
    v1::NotificationSettings {
        quiet_hours: Some(v1::QuietHours {
            from_minute,
            to_minute,
            time_zone: time_zone.to_owned(),
        }),
    }
}

#[tokio::test]
async fn settings_are_kept_and_each_change_is_told() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let phone = device(&world.link(alice).await);
    let none = v1::NotificationSettings::default();
    assert_eq!(world.notifications(&phone, "").await.unwrap(), none);

    let night = quiet(1320, 420, "Europe/Berlin");
    // The second of two equal calls changes nothing.
    for (settings, changes) in [
        (Some(none.clone()), 0),
        (Some(night.clone()), 1),
        (Some(night.clone()), 1),
        (Some(quiet(1321, 420, "Europe/Berlin")), 2),
        (Some(quiet(1321, 421, "Europe/Berlin")), 3),
        (Some(quiet(1321, 421, "America/Lima")), 4),
        (None, 5),
        (None, 5),
        (Some(night.clone()), 6),
    ] {
        let expected = settings.clone().unwrap_or_default();
        let set = world.set_notifications(&phone, "", settings).await.unwrap();
        assert_eq!(set, expected);
        assert_eq!(world.notifications(&phone, "").await.unwrap(), expected);
        let told = world.chat.own_log(alice).into_iter();
        let told = told.filter(|told| *told == (AccountChange::Notifications, String::new()));
        assert_eq!(told.count(), changes, "{expected:?}");
    }

    let by_back_end = world.notifications(&admin(), &alice.to_string()).await.unwrap();
    assert_eq!(by_back_end, night);
    let bobs = bob.to_string();
    assert_eq!(world.notifications(&admin(), &bobs).await.unwrap(), none);
    world
        .set_notifications(&admin(), &bobs, Some(quiet(0, 1439, "UTC")))
        .await
        .unwrap();
    assert_eq!(world.notifications(&phone, "").await.unwrap(), night);
}

#[tokio::test]
async fn who_may_not_see_or_change_settings_is_told_why() {
    use ErrorReason as R;
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let phone = device(&world.link(alice).await);
    let [alice, bob, nobody] = [alice, bob, UserId::random()].map(|user| user.to_string());
    let (reader, writer) = (key(&[Scope::UsersRead]), key(&[Scope::UsersWrite]));
    for (who, user, expected) in [
        (&phone, bob.as_str(), R::NotForDevices),
        (&writer, alice.as_str(), R::ScopeMissing),
        (&reader, nobody.as_str(), R::UserNotFound),
        (&reader, "", R::InvalidField),
    ] {
        let refused = world.notifications(who, user).await.unwrap_err();
        assert_eq!(refused, expected, "{who:?} reads {user}");
    }
    for (who, user, expected) in [
        (&phone, bob.as_str(), R::NotForDevices),
        (&reader, alice.as_str(), R::ScopeMissing),
        (&writer, nobody.as_str(), R::UserNotFound),
        (&writer, "", R::InvalidField),
    ] {
        for settings in [None, Some(quiet(1320, 420, "Europe/Berlin"))] {
            let refused = world.set_notifications(who, user, settings).await.unwrap_err();
            assert_eq!(refused, expected, "{who:?} writes {user}");
        }
    }
}

#[tokio::test]
async fn a_time_zone_that_is_not_known_is_named_and_nothing_is_stored() {
    let world = World::start().await;
    let alice = world.user("alice").await.to_string();
    let request = v1::SetNotificationSettingsRequest {
        user_id: alice.clone(),
        settings: Some(quiet(1320, 420, "Europe/Atlantis")),
    };
    let refused = world
        .users()
        .set_notification_settings(by(&admin(), request))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::InvalidField);
    let details = refused.get_error_details();
    let fields = &details.bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "settings.quiet_hours.time_zone");
    let stored = world.notifications(&admin(), &alice).await.unwrap();
    assert_eq!(stored, v1::NotificationSettings::default());
}
