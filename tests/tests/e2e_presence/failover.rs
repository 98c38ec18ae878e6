//! Presence nodes and gateways die, drain and come back. Soon afterwards every state is right. Nobody has to
//! reconnect, and nobody who stayed seems to leave and come back.

use std::time::Duration;

use sqlx::PgPool;
use tern_local::{Role, until};
use tern_tests::world::BOUND;
use tern_tests::{Screen, Shown, World};
use tern_types::UserId;

use crate::cast::{Around, Person, background, foreground, person, seen_by, seen_by_on};

const NODES: [&str; 2] = ["presence-0", "presence-1"];

/// Starts a platform with two presence nodes. They wait longer than usual for gateways to announce their sessions, so
/// that nobody seems to leave because a gateway stands still for some seconds. Nobody becomes offline for lack of a
/// sign, and nobody is cut off for silence, however long the test takes: a person is offline only after they have
/// said so.
async fn world() -> World {
    World::with(|builder| {
        builder
            .presences(2)
            .env("TERN_PRESENCE_HOLD_OFFLINE", "10")
            .env("TERN_ONLINE_THRESHOLD", "3600")
            .env("TERN_GATEWAY_HEARTBEAT_ACTIVE", "3600")
    })
    .await
}

/// Two people at two gateways watch the same others. Each presence node keeps some of these.
struct Room {
    watchers: Vec<Screen>,
    /// The people who are online all the time.
    stay: Vec<(UserId, Screen)>,
    /// The people who are offline all the time.
    away: Vec<(UserId, Screen)>,
    /// The people who leave while something happens.
    leave: Vec<(UserId, Screen)>,
    /// The people who come while something happens.
    come: Vec<(UserId, Screen)>,
    /// The people who come and go all the time, to make load.
    busy: Vec<(UserId, Screen)>,
}

impl Room {
    async fn new(world: &World) -> Self {
        let [alice, bob] = [person(world, "alice").await, person(world, "bob").await];
        let them = [&alice, &bob];
        let mut room = Self {
            watchers: Vec::new(),
            stay: people(world, &them, true).await,
            away: people(world, &them, true).await,
            leave: people(world, &them, true).await,
            come: people(world, &them, false).await,
            busy: people(world, &them, true).await,
        };
        for (gateway, watcher) in them.into_iter().enumerate() {
            let screen = background(world, gateway, watcher).await;
            screen.watch(&room.all()).await;
            room.watchers.push(screen);
        }
        for watcher in &room.watchers {
            for (user, _) in [&room.stay, &room.away, &room.leave, &room.busy]
                .into_iter()
                .flatten()
            {
                watcher.sees_online(*user).await;
            }
        }
        for (_, screen) in &room.away {
            screen.active(false).await;
        }
        for watcher in &room.watchers {
            for (user, _) in room.away.iter().chain(&room.come) {
                watcher.sees_offline(*user).await;
            }
        }
        room
    }

    fn all(&self) -> Vec<UserId> {
        let groups = [&self.stay, &self.away, &self.leave, &self.come, &self.busy];
        groups.into_iter().flatten().map(|(user, _)| *user).collect()
    }

    /// Checks that the watchers were told nothing of the people whose state never changes. A gateway that stood still
    /// for longer than its lease has left the map, and its people really seemed to leave.
    async fn the_steady_are_steady(&self, world: &World, before: &[Vec<Shown>]) {
        let lost = world
            .platform
            .metric_of(Role::Gateway, "tern_node_leases_lost_total", &[]);
        if lost.await.unwrap() == 0.0 {
            assert_eq!(self.told_of_the_steady(), before, "nobody seemed to come or go");
        }
    }

    /// Returns every presence that the watchers were told so far of the people whose state never changes.
    fn told_of_the_steady(&self) -> Vec<Vec<Shown>> {
        let steady = self.stay.iter().chain(&self.away);
        steady
            .flat_map(|(user, _)| self.watchers.iter().map(|watcher| watcher.said().all_of(*user)))
            .collect()
    }

    /// Makes some people come and go until `happens` is over.
    async fn under_load<T>(&self, happens: impl Future<Output = T>) -> T {
        let load = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            for round in 0u64.. {
                for (_, screen) in &self.busy {
                    screen.active(round % 2 == 0).await;
                }
                pace.tick().await;
            }
        };
        let happened = tokio::select! {
            happened = happens => happened,
            () = load => unreachable!("it goes on for ever"),
        };
        for (_, screen) in &self.busy {
            screen.active(true).await;
        }
        happened
    }

    /// Lets the people in `leave` leave, and the people in `come` come.
    async fn change(&self) {
        for (_, screen) in &self.leave {
            screen.active(false).await;
        }
        for (_, screen) in &self.come {
            screen.active(true).await;
        }
    }

    async fn change_back(&self) {
        for (_, screen) in &self.leave {
            screen.active(true).await;
        }
        for (_, screen) in &self.come {
            screen.active(false).await;
        }
    }

    /// Waits until everybody is shown as they are.
    async fn is_right(&self, changed: bool) {
        let (there, not_there) = if changed {
            (&self.come, &self.leave)
        } else {
            (&self.leave, &self.come)
        };
        for watcher in &self.watchers {
            for (user, _) in self.stay.iter().chain(&self.busy).chain(there) {
                watcher.sees_online(*user).await;
            }
            for (user, _) in self.away.iter().chain(not_there) {
                assert!(watcher.sees_offline(*user).await > 0, "when is known");
            }
        }
    }

    fn nobody_was_cut_off(&self) {
        let groups = [&self.stay, &self.away, &self.leave, &self.come, &self.busy];
        let screens = groups.into_iter().flatten().map(|(_, screen)| screen);
        for screen in screens.chain(&self.watchers) {
            assert_eq!(screen.said().end, None, "{}", screen.user);
        }
    }
}

/// Creates two people for each presence node, one at each gateway.
async fn people(world: &World, watchers: &[&Person], active: bool) -> Vec<(UserId, Screen)> {
    let mut people = Vec::new();
    for node in NODES {
        for gateway in 0..2 {
            let someone = seen_by_on(world, node, watchers).await;
            let screen = background(world, gateway, &someone).await;
            screen.active(active).await;
            people.push((someone.id(), screen));
        }
    }
    people
}

#[tokio::test]
async fn a_presence_node_is_killed_under_load_and_comes_back() {
    let mut world = world().await;
    let room = Room::new(&world).await;
    let before = room.told_of_the_steady();
    room.under_load(async {
        world.platform.kill(NODES[0]).await.unwrap();
        // At this moment no node knows that it is dead.
        room.change().await;
        let_go(&world, 1).await;
    })
    .await;
    room.is_right(true).await;
    room.the_steady_are_steady(&world, &before).await;

    room.under_load(async {
        world.platform.restart(NODES[0]).await.unwrap();
        room.change_back().await;
    })
    .await;
    room.is_right(false).await;
    room.the_steady_are_steady(&world, &before).await;
    room.nobody_was_cut_off();
    world.end().await;
}

/// Waits until every node's own map has `presences` presence nodes. If half of a role's nodes vanish at once, the
/// others keep them in their maps for a lease longer than etcd does.
async fn let_go(world: &World, presences: usize) {
    for name in ["gateway-0", "gateway-1", NODES[1]] {
        let what = format!("the map of {name} has {presences} presence nodes");
        until::holds(&what, BOUND, || async {
            let labels = [("role", Role::Presence.as_str())];
            let count = world
                .platform
                .metric(name, "tern_node_map_nodes", &labels)
                .await?;
            Ok(count == presences as f64)
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_draining_presence_node_leaves_nothing_unwritten_and_nobody_notices() {
    let world = world().await;
    let room = Room::new(&world).await;
    let before = room.told_of_the_steady();
    let store = world.store().await;
    world.platform.drain(NODES[1]).unwrap();
    world.platform.drained(NODES[1]).await.unwrap();
    for (user, _) in &room.stay {
        let owner = world
            .platform
            .owner(Role::Presence, tern_types::Slot::of_user(*user))
            .await
            .unwrap();
        assert_eq!(owner, NODES[0]);
    }
    // The drained node kept these people. They are still online, and nothing else would have written about them yet.
    for (user, _) in &room.stay[2..] {
        assert!(written(&store, *user).await.is_some(), "{user}");
    }
    room.change().await;
    room.is_right(true).await;
    room.the_steady_are_steady(&world, &before).await;
    room.nobody_was_cut_off();
    store.close().await;
    world.end().await;
}

#[tokio::test]
async fn the_people_of_a_killed_gateway_are_offline_and_last_seen_at_their_last_sign() {
    // The threshold is longer than the test, so that nobody becomes offline for lack of a sign of activity.
    let world = World::with(|builder| builder.presences(2).env("TERN_ONLINE_THRESHOLD", "600")).await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id()]).await;
    let his = background(&world, 1, &bob).await;
    let sign = Around::the(async {
        his.say(tern_proto::v1::client_item::Item::SetActive(
            tern_proto::v1::SetActive { active: true },
        ))
        .await;
        his.settled(1).await;
    })
    .await;
    hers.sees_online(bob.id()).await;
    world.platform.kill("gateway-1").await.unwrap();
    let seen = hers.sees_offline(bob.id()).await;
    assert!(sign.holds(seen, Duration::ZERO), "{seen}");
    assert_eq!(hers.said().end, None);
    world.end().await;
}

#[tokio::test]
async fn last_seen_outlives_every_presence_node() {
    let mut world = World::with(|builder| builder.presences(2)).await;
    let alice = person(&world, "alice").await;
    let mut people = Vec::new();
    for node in NODES {
        people.push(seen_by_on(&world, node, &[&alice]).await);
    }
    let ids: Vec<UserId> = people.iter().map(Person::id).collect();
    let hers = background(&world, 0, &alice).await;
    hers.watch(&ids).await;
    for user in &ids {
        assert_eq!(hers.sees_offline(*user).await, 0, "never seen");
    }
    let store = world.store().await;
    let mut seen = Vec::new();
    for someone in &people {
        let screen = foreground(&world, 1, someone).await;
        hers.sees_online(someone.id()).await;
        drop(screen);
        let at = hers.sees_offline(someone.id()).await;
        let what = format!("{at} of {} is written", someone.id());
        let is_written = until::holds(&what, BOUND, || async {
            Ok(written(&store, someone.id()).await == Some(at))
        });
        is_written.await.unwrap();
        seen.push(at);
    }
    for node in NODES {
        world.platform.kill(node).await.unwrap();
    }
    for node in NODES {
        world.platform.restart(node).await.unwrap();
    }
    let again = background(&world, 1, &alice_again(&world, &alice).await).await;
    again.watch(&ids).await;
    for (user, at) in ids.iter().zip(&seen) {
        again.sees(*user, |shown| shown == Shown::LastSeen(*at)).await;
    }
    // The new nodes, which had to read the times from the store, told the first screen nothing else either.
    let told: Vec<usize> = ids.iter().map(|user| hers.said().all_of(*user).len()).collect();
    assert_eq!(told, [3, 3], "{:?}", hers.said());
    store.close().await;
    world.end().await;
}

/// Links another device of hers, because a second stream of the first device would replace the first stream.
async fn alice_again(world: &World, alice: &Person) -> Person {
    Person {
        user: alice.user.clone(),
        device: world.device(&alice.user).await,
    }
}

#[tokio::test]
async fn while_postgres_is_away_people_come_and_go_as_before_and_last_seen_is_written_later() {
    let mut world = World::with_own_servers(|builder| builder).await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id()]).await;
    let his = background(&world, 1, &bob).await;
    world.platform.private_servers().unwrap().0.crash().await.unwrap();
    let mut seen = 0;
    for _ in 0..3 {
        his.active(true).await;
        hers.sees_online(bob.id()).await;
        his.active(false).await;
        seen = hers.sees_offline(bob.id()).await;
    }
    let (postgres, _) = world.platform.private_servers().unwrap();
    postgres.restart().await.unwrap();
    let store = world.store().await;
    let what = "the newest is written";
    until::holds(what, BOUND, || async {
        Ok(written(&store, bob.id()).await == Some(seen))
    })
    .await
    .unwrap();
    store.close().await;
    world.end().await;
}

/// Returns the stored time at which the person was last seen, in milliseconds.
async fn written(store: &PgPool, user: UserId) -> Option<i64> {
    let select = "SELECT (extract(epoch FROM at) * 1000)::int8 FROM last_seen WHERE user_id = $1";
    let at = sqlx::query_scalar(select)
        .bind(user.0)
        .fetch_optional(store)
        .await;
    at.expect("a query")
}
