//! Tests of push nodes and stores that die: a push is repeated at most once, and none is lost.

use std::time::Duration;

use sqlx::Connection as _;
use tern_local::push::Answer;
use tern_local::{Role, until};
use tern_tests::world::BOUND;
use tern_tests::{Phone, World};
use tern_types::ChatId;

use crate::scene::{Away, PUSH, Scene};
use crate::services::Service;

/// The number of people to whom a test writes at once.
const PEOPLE: usize = 8;
/// The time for which a push service thinks, so that a node can be killed meanwhile.
const THINKS: Duration = Duration::from_secs(8);

/// Alice, and people who are away.
struct Crowd {
    hers: Phone,
    people: Vec<(Away, ChatId)>,
}

impl Crowd {
    async fn begin(scene: &Scene, answer: &Answer) -> Self {
        let alice = scene.world.user("alice").await;
        let hers = scene.world.phone(&alice).await;
        let mut people = Vec::new();
        for number in 0..PEOPLE {
            let person = scene.world.user("person").await;
            let service = [Service::Apns, Service::Fcm, Service::WebPush][number % 3];
            let away = scene.away(&person, service).await;
            scene.services.answer(&away.address, answer.clone());
            people.push((away, ChatId::direct(alice.id, person.id)));
        }
        Self { hers, people }
    }

    async fn write(&self) {
        for (away, _) in &self.people {
            self.hers.say(away.device.user, "hello").await;
        }
    }

    /// Waits until a push service has got a push.
    async fn first_arrives(&self, scene: &Scene) {
        let arrived = || async { Ok(self.people.iter().any(|(away, _)| !scene.taken(away).is_empty())) };
        until::holds("a push arrives", BOUND, arrived).await.unwrap();
    }

    /// Checks that everybody gets one push, and at most `most`.
    async fn are_reached(&self, scene: &Scene, most: usize) {
        for (away, chat) in &self.people {
            scene.reached(away, *chat, most).await;
        }
    }
}

/// The push services have the pushes, and the node dies before they answer.
#[tokio::test]
async fn a_push_node_that_dies_while_it_sends_repeats_a_push_at_most_once() {
    let mut scene = Scene::start().await;
    let crowd = Crowd::begin(&scene, &Answer::Slow(THINKS)).await;
    crowd.write().await;
    crowd.first_arrives(&scene).await;
    scene.world.platform.kill(PUSH).await.unwrap();
    for (away, _) in &crowd.people {
        scene.services.answer(&away.address, Answer::Ok);
    }
    scene.world.platform.restart(PUSH).await.unwrap();
    crowd.are_reached(&scene, 2).await;
    scene.end().await;
}

/// The node asks presence who is online after it has claimed, and before it sends.
#[tokio::test]
async fn a_push_node_that_dies_after_it_has_claimed_drops_nothing() {
    let mut scene = Scene::start().await;
    let crowd = Crowd::begin(&scene, &Answer::Ok).await;
    scene.world.platform.freeze("presence-0").unwrap();
    crowd.write().await;
    let claimed = "SELECT count(*) FROM inbox WHERE push_at > now() + interval '20 s'";
    until::holds("a push is claimed", BOUND, || async {
        let claimed: i64 = sqlx::query_scalar(claimed).fetch_one(&scene.store).await?;
        Ok(claimed > 0)
    })
    .await
    .unwrap();
    scene.world.platform.kill(PUSH).await.unwrap();
    scene.world.platform.thaw("presence-0").unwrap();
    scene.world.platform.restart(PUSH).await.unwrap();
    crowd.are_reached(&scene, 2).await;
    scene.end().await;
}

/// The push services have answered, and the node dies before it has written so: the rows are locked, as by an
/// acknowledgement that takes long, and a node waits for no lock.
#[tokio::test]
async fn a_push_node_that_dies_after_a_provider_has_answered_repeats_a_push_once() {
    const ANSWERS_AFTER: Duration = Duration::from_secs(4);
    let mut scene = Scene::start().await;
    let crowd = Crowd::begin(&scene, &Answer::Slow(ANSWERS_AFTER)).await;
    crowd.write().await;
    crowd.first_arrives(&scene).await;
    let mut db = scene.store.acquire().await.unwrap().detach();
    let mut lock = db.begin().await.unwrap();
    sqlx::query("SELECT FROM inbox WHERE notified_at IS NULL FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    until::holds("a provider has answered", BOUND, || async {
        let sent = scene.world.platform.metric(PUSH, "tern_push_sent_total", &[]);
        Ok(sent.await? >= 1.0)
    })
    .await
    .unwrap();
    scene.world.platform.kill(PUSH).await.unwrap();
    lock.rollback().await.unwrap();
    for (away, _) in &crowd.people {
        scene.services.answer(&away.address, Answer::Ok);
    }
    scene.world.platform.restart(PUSH).await.unwrap();
    crowd.are_reached(&scene, 2).await;
    let repeated = |(away, _): &&(Away, ChatId)| scene.taken(away).len() == 2;
    assert!(crowd.people.iter().filter(repeated).count() >= 1);
    scene.end().await;
}

#[tokio::test]
async fn a_push_node_that_drains_leaves_nothing_undone_and_repeats_nothing() {
    let mut scene = Scene::start().await;
    let crowd = Crowd::begin(&scene, &Answer::Ok).await;
    crowd.write().await;
    scene.world.platform.drain(PUSH).unwrap();
    scene.world.platform.drained(PUSH).await.unwrap();
    scene.world.platform.restart(PUSH).await.unwrap();
    crowd.are_reached(&scene, 1).await;
    scene.end().await;
}

#[tokio::test]
async fn two_push_nodes_send_each_push_once() {
    let mut scene = Scene::start().await;
    scene.world.platform.add(Role::Push).await.unwrap();
    let crowd = Crowd::begin(&scene, &Answer::Ok).await;
    for round in 1..=3 {
        // Each round is about another chat.
        let others = crowd.people.iter().map(|(away, _)| away.device.user.to_string());
        let group = group_of(&scene.world, &crowd.hers, others.collect()).await;
        for (away, _) in &crowd.people {
            scene.pushes(away, round).await;
        }
        scene.world.settled().await;
        for (away, _) in &crowd.people {
            scene.decided(away, group).await;
            assert_eq!(scene.taken(away).len(), round);
        }
    }
    scene.end().await;
}

/// Makes a group of the owner and these users, to which they are told to belong.
async fn group_of(world: &World, owner: &Phone, others: Vec<String>) -> ChatId {
    let create = tern_proto::v1::CreateGroupRequest {
        request_id: tern_tests::groups::fresh(),
        title: "a group".to_owned(),
        member_user_ids: others,
        acting_user_id: owner.user().to_string(),
    };
    let made = world.back_end().await.chats().create_group(create).await.unwrap();
    made.into_inner().chat.unwrap().chat_id.parse().unwrap()
}

#[tokio::test]
async fn messages_flow_without_a_push_node_and_one_that_comes_sends_what_is_due() {
    let mut scene = Scene::start().await;
    let crowd = Crowd::begin(&scene, &Answer::Ok).await;
    scene.world.platform.kill(PUSH).await.unwrap();
    crowd.write().await;
    scene.world.settled().await;
    scene.world.still_works().await;
    for (away, _) in &crowd.people {
        assert_eq!(scene.taken(away).len(), 0);
    }
    scene.world.platform.restart(PUSH).await.unwrap();
    crowd.are_reached(&scene, 1).await;
    scene.end().await;
}

#[tokio::test]
async fn a_store_that_crashes_and_comes_back_loses_no_push() {
    let mut scene = Scene::with_own_servers().await;
    let crowd = Crowd::begin(&scene, &Answer::Ok).await;
    crowd.write().await;
    crowd.first_arrives(&scene).await;
    let (postgres, _) = scene.world.platform.private_servers().unwrap();
    postgres.crash().await.unwrap();
    postgres.restart().await.unwrap();
    crowd.are_reached(&scene, 2).await;
    scene.end().await;
}
