//! People who look at each other.

use std::time::Duration;

use tern_local::Role;
use tern_proto::v1::{PrivacySettings, SetContactsRequest, SetPrivacyRequest};
use tern_tests::{Device, Screen, User, World};
use tern_types::{Clock, Slot, UserId};

/// After the map has changed, everybody's state is right within this.
pub const RIGHT_WITHIN: Duration = Duration::from_secs(5);

/// A person with a phone.
pub struct Person {
    pub user: User,
    pub device: Device,
}

impl Person {
    pub fn id(&self) -> UserId {
        self.user.id
    }
}

pub async fn person(world: &World, name: &str) -> Person {
    let user = world.user(name).await;
    let device = world.device(&user).await;
    Person { user, device }
}

/// Someone whom these others may see.
pub async fn seen_by(world: &World, name: &str, watchers: &[&Person]) -> Person {
    let person = person(world, name).await;
    let watchers: Vec<UserId> = watchers.iter().map(|watcher| watcher.id()).collect();
    contacts(world, person.id(), &watchers, &[]).await;
    person
}

/// The same, all of whose sessions one presence node knows.
pub async fn seen_by_on(world: &World, node: &str, watchers: &[&Person]) -> Person {
    loop {
        let user = world.user("someone").await;
        let slot = Slot::of_user(user.id);
        if world
            .platform
            .owner(Role::Presence, slot)
            .await
            .expect("an owner")
            == node
        {
            let device = world.device(&user).await;
            let watchers: Vec<UserId> = watchers.iter().map(|watcher| watcher.id()).collect();
            contacts(world, user.id, &watchers, &[]).await;
            return Person { user, device };
        }
    }
}

pub async fn contacts(world: &World, user: UserId, add: &[UserId], remove: &[UserId]) {
    let ids = |users: &[UserId]| users.iter().map(ToString::to_string).collect();
    let request = SetContactsRequest {
        user_id: user.to_string(),
        add_user_ids: ids(add),
        remove_user_ids: ids(remove),
        replace: false,
    };
    let set = world.back_end().await.users().set_contacts(request).await;
    set.expect("contacts");
}

/// Says with whom a person shares when they are there.
pub async fn share_with(world: &World, user: UserId, audience: tern_proto::v1::Audience) {
    let privacy = PrivacySettings {
        presence_audience: audience.into(),
        read_receipts_off: false,
    };
    let request = SetPrivacyRequest {
        user_id: user.to_string(),
        privacy: Some(privacy),
    };
    let set = world.back_end().await.users().set_privacy(request).await;
    set.expect("a setting");
}

/// A screen at a gateway, with nobody at it.
pub async fn background(world: &World, gateway: usize, person: &Person) -> Screen {
    Screen::open(world.new_channel(gateway), &person.device, false).await
}

/// A screen with its person at it, who stays.
pub async fn foreground(world: &World, gateway: usize, person: &Person) -> Screen {
    let screen = background(world, gateway, person).await;
    screen.active(true).await;
    screen
}

/// A stream's clock is rounded down to milliseconds where it begins, and where it is read.
const ROUNDED: i64 = 2;

/// Milliseconds before and after something.
pub struct Around(pub i64, pub i64);

impl Around {
    pub async fn the(what: impl Future<Output = ()>) -> Self {
        let before = Clock::wall().0;
        what.await;
        Self(before, Clock::wall().0)
    }

    /// Between the two, or earlier by `early`.
    pub fn holds(&self, at: i64, early: Duration) -> bool {
        let early = i64::try_from(early.as_millis()).expect("a short time");
        (self.0 - early - ROUNDED..=self.1).contains(&at)
    }
}
