//! People who watch each other.

use std::pin::pin;
use std::time::Duration;

use tern_local::{Role, until};
use tern_proto::v1::{PrivacySettings, SetContactsRequest, SetPrivacyRequest};
use tern_tests::world::BOUND;
use tern_tests::{Device, Screen, User, World};
use tern_types::{Clock, Slot, UserId};
use tokio::time::timeout;

/// The time after which a change that had no visible effect is made again. A gateway takes less time to find out who
/// may see whom after a change.
const AGAIN: Duration = Duration::from_secs(10);

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

/// Creates a person whom these watchers may see.
pub async fn seen_by(world: &World, name: &str, watchers: &[&Person]) -> Person {
    let person = person(world, name).await;
    let watchers: Vec<UserId> = watchers.iter().map(|watcher| watcher.id()).collect();
    contacts(world, person.id(), &watchers, &[]).await;
    person
}

/// Does as [`seen_by`] does, for a person whose sessions are kept by this presence node.
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
    let set = until::some("contacts", BOUND, || async {
        let mut users = world.back_end().await.users();
        Ok(users.set_contacts(request.clone()).await?)
    });
    set.await.expect("contacts");
}

/// Sets who may see a person's presence.
pub async fn share_with(world: &World, user: UserId, audience: tern_proto::v1::Audience) {
    let privacy = PrivacySettings {
        presence_audience: audience.into(),
        read_receipts_off: false,
    };
    let request = SetPrivacyRequest {
        user_id: user.to_string(),
        privacy: Some(privacy),
    };
    let set = until::some("a setting", BOUND, || async {
        let mut users = world.back_end().await.users();
        Ok(users.set_privacy(request.clone()).await?)
    });
    set.await.expect("a setting");
}

/// Repeats a change until its effect is seen. This is needed because a gateway that does not answer within 2 s is not
/// told of a change, and finds it out by itself minutes later. Making a change twice has no further effect.
pub async fn until_seen<T>(change: impl AsyncFn(), seen: impl Future<Output = T>) -> T {
    let mut seen = pin!(seen);
    loop {
        change().await;
        if let Ok(seen) = timeout(AGAIN, seen.as_mut()).await {
            return seen;
        }
    }
}

/// Opens a screen at a gateway, with nobody at it.
pub async fn background(world: &World, gateway: usize, person: &Person) -> Screen {
    Screen::open(world.new_channel(gateway), &person.device, false).await
}

/// Opens a screen at a gateway, with its person at it, who stays.
pub async fn foreground(world: &World, gateway: usize, person: &Person) -> Screen {
    let screen = background(world, gateway, person).await;
    screen.active(true).await;
    screen
}

/// The error of rounding in milliseconds: a stream's clock is rounded down where it begins and where it is read.
const ROUNDED: i64 = 2;

/// The times in milliseconds before and after something.
pub struct Around(pub i64, pub i64);

impl Around {
    /// Runs the future, and returns the times before and after it.
    pub async fn the(what: impl Future<Output = ()>) -> Self {
        let before = Clock::wall().0;
        what.await;
        Self(before, Clock::wall().0)
    }

    /// Returns whether `at` lies between the two times, or at most `early` before them.
    pub fn holds(&self, at: i64, early: Duration) -> bool {
        let early = i64::try_from(early.as_millis()).expect("a short time");
        (self.0 - early - ROUNDED..=self.1).contains(&at)
    }
}
