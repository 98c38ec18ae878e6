//! Tests that a chat node hears when the sessions of a user have changed whom it follows.

use tern_proto::internal::LookupReplies;
use tern_types::{DeviceId, UserId};

use super::{Chat, Gateway, Presence, announcement, map};

impl Chat {
    /// Looks the user up and follows them, once this is possible. Returns the ids of the user's sessions.
    async fn follow(&mut self, map_version: i64, user: UserId) -> Vec<u64> {
        loop {
            self.ask(map_version, vec![user.to_vec().into()], true).await;
            let frame = self.next().await;
            let [reply] = frame.replies.as_slice() else {
                panic!("{frame:?}")
            };
            assert!(!(reply.unsure && reply.followed), "others may be live");
            if reply.followed {
                return reply.sessions.iter().map(|session| session.session).collect();
            }
        }
    }
}

fn changed(map_version: i64, user: UserId) -> LookupReplies {
    LookupReplies {
        map_version,
        changed: vec![user.to_vec().into()],
        ..LookupReplies::default()
    }
}

async fn announce(gateway: &mut Gateway, user: UserId, session: u64) {
    let device = DeviceId::random();
    gateway
        .say(1, vec![announcement(session, user, device, session, 0)])
        .await;
    gateway.next_item().await;
}

#[tokio::test]
async fn a_follower_hears_of_the_first_change_and_of_the_next_when_it_follows_again() {
    let presence = Presence::start(map(1, &["p1"], &["g1"])).await;
    let (user, mut g1) = (UserId::random(), presence.gateway("g1").await);
    let (mut follower, mut other) = (presence.chat("c1").await, presence.chat("c2").await);
    g1.has_said_all(1).await;
    assert!(follower.follow(1, user).await.is_empty());
    announce(&mut g1, user, 10).await;
    assert_eq!(follower.next().await, changed(1, user));
    announce(&mut g1, user, 11).await;
    assert_eq!(
        follower.follow(1, user).await,
        [10, 11],
        "nothing was told in between"
    );

    // The same session again is no change; its end is one.
    g1.say(1, vec![announcement(11, user, DeviceId::random(), 11, 0)])
        .await;
    g1.next_item().await;
    let mut end = announcement(12, user, DeviceId::random(), 10, 0);
    end.ended = true;
    g1.say(1, vec![end]).await;
    assert_eq!(follower.next().await, changed(1, user));
    assert_eq!(follower.follow(1, user).await, [11]);
    assert_eq!(
        other.sessions(1, user).await.len(),
        1,
        "who does not follow hears of nothing"
    );
}

#[tokio::test]
async fn when_slots_move_or_a_gateway_leaves_followers_hear_of_it() {
    let presence = Presence::start(map(1, &["p1"], &["g1", "g2"])).await;
    let (user, mut chat) = (UserId::random(), presence.chat("c1").await);
    let (mut g1, g2) = (presence.gateway("g1").await, presence.gateway("g2").await);
    announce(&mut g1, user, 10).await;
    g1.has_said_all(1).await;
    g2.has_said_all(1).await;
    assert_eq!(chat.follow(1, user).await, [10]);
    presence.follow(map(2, &["p1"], &["g2"]));
    assert_eq!(chat.next().await, changed(2, user));
    assert!(chat.follow(2, user).await.is_empty());
    presence.follow(map(3, &["p1", "p2"], &["g2"]));
    let frame = chat.next().await;
    assert!(frame.all_changed && frame.changed.is_empty(), "{frame:?}");
}

#[tokio::test]
async fn users_who_were_followed_before_a_chat_node_began_anew_are_not_told_of() {
    let presence = Presence::start(map(1, &["p1"], &["g1"])).await;
    let (user, kept) = (UserId::random(), UserId::random());
    let (mut g1, mut chat) = (presence.gateway("g1").await, presence.chat("c1").await);
    g1.has_said_all(1).await;
    chat.follow(1, user).await;
    let frame = tern_proto::internal::LookupRequests {
        map_version: 1,
        unfollow_all: true,
        ..Default::default()
    };
    chat.out.send(frame).await.unwrap();
    chat.follow(1, kept).await;
    announce(&mut g1, user, 10).await;
    announce(&mut g1, kept, 11).await;
    assert_eq!(chat.next().await, changed(1, kept));
}
