//! Tests what push nodes are told: who has a live session, and at which of them a person is.

use tern_cluster::standing::Standing;
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{
    ActiveSession, Announcement, Announcements, GetSessionsRequest, GetSessionsResponse,
};
use tern_types::{DeviceId, UserId};
use tonic::{Code, Status};

use super::{Gateway, MAP_WAIT, Presence, THRESHOLD, announcement, map, taken, user_where};

impl Presence {
    async fn active_sessions(
        &self,
        map_version: i64,
        user_ids: Vec<Vec<u8>>,
    ) -> Result<GetSessionsResponse, Status> {
        let request = GetSessionsRequest {
            map_version,
            user_ids: user_ids.into_iter().map(Into::into).collect(),
        };
        let mut client = PresenceClient::new(self.channel.clone());
        let mut answer = client.get_sessions(request).await?.into_inner();
        let key = |session: &ActiveSession| (session.user_id.clone(), session.device_id.clone());
        answer.sessions.sort_by_key(key);
        Ok(answer)
    }
}

impl Gateway {
    /// Announces the session at this time of the gateway's monotonic clock, in milliseconds.
    async fn say_at(&mut self, now_ms: i64, item: Announcement) {
        let r#ref = item.r#ref;
        let frame = Announcements {
            map_version: 3,
            now_ms,
            items: vec![item],
            ..Announcements::default()
        };
        self.out.send(frame).await.unwrap();
        assert_eq!(self.next_item().await, (3, taken(r#ref)));
    }
}

fn ids(users: &[UserId]) -> Vec<Vec<u8>> {
    users.iter().map(|user| user.to_vec()).collect()
}

#[tokio::test]
async fn a_person_is_at_the_sessions_whose_newest_sign_says_so_and_is_not_too_old() {
    let presence = Presence::start(map(3, &["p1"], &["g1"])).await;
    let mut gateway = presence.gateway("g1").await;
    let [alice, bob, offline] = [(); 3].map(|()| UserId::random());
    let empty = presence.active_sessions(3, ids(&[alice])).await.unwrap();
    let expected = GetSessionsResponse {
        map_version: 3,
        unsure: true,
        ..GetSessionsResponse::default()
    };
    assert_eq!(empty, expected, "the gateway has not said its sessions");

    gateway.has_said_all(3).await;
    let threshold = i64::try_from(THRESHOLD.as_millis()).unwrap();
    let now_ms = 2 * threshold;
    let mut expected = Vec::new();
    for (number, user, active, active_at_ms, said_ms, counts) in [
        (1, alice, true, 1, now_ms, true),
        (2, alice, true, 1, now_ms - threshold, false),
        (3, alice, false, 1, now_ms, false),
        (4, bob, false, 0, 0, false),
    ] {
        let device = DeviceId::random();
        let item = Announcement {
            active,
            active_at_ms,
            active_said_ms: said_ms,
            ..announcement(number, user, device, number, 0)
        };
        gateway.say_at(now_ms, item).await;
        expected.push(ActiveSession {
            user_id: user.to_vec().into(),
            device_id: device.to_vec().into(),
            active: counts,
        });
    }
    expected.sort_by_key(|session| (session.user_id.clone(), session.device_id.clone()));
    let found = presence
        .active_sessions(3, ids(&[alice, bob, offline]))
        .await
        .unwrap();
    assert_eq!(found.sessions, expected);
    assert!(!found.unsure && !found.not_owner, "{found:?}");
}

#[tokio::test]
async fn who_owns_not_all_of_the_users_says_nothing_of_any() {
    let shared = map(3, &["p1", "p2"], &["g1"]);
    let (mine, other) = (user_where(&shared, true), user_where(&shared, false));
    let presence = Presence::start(shared).await;
    let mut gateway = presence.gateway("g1").await;
    gateway
        .say_at(0, announcement(1, mine, DeviceId::random(), 10, 0))
        .await;
    let found = presence.active_sessions(3, ids(&[mine])).await.unwrap();
    assert_eq!((found.sessions.len(), found.not_owner), (1, false));
    let both = presence.active_sessions(3, ids(&[mine, other])).await.unwrap();
    assert_eq!((both.sessions.len(), both.not_owner), (0, true));
}

#[tokio::test]
async fn who_has_lost_its_place_is_not_sure() {
    // A node that is not registered has no place.
    let presence = Presence::placed(map(3, &["p1"], &["g1"]), MAP_WAIT, Standing::new).await;
    let (user, mut gateway) = (UserId::random(), presence.gateway("g1").await);
    gateway.has_said_all(3).await;
    gateway
        .say_at(0, announcement(1, user, DeviceId::random(), 10, 0))
        .await;
    let found = presence.active_sessions(3, ids(&[user])).await.unwrap();
    assert_eq!((found.sessions.len(), found.unsure), (1, true));
}

#[tokio::test]
async fn a_call_with_too_many_or_bad_ids_is_refused() {
    let presence = Presence::start(map(3, &["p1"], &["g1"])).await;
    let many = |count: usize| vec![UserId::random().to_vec(); count];
    assert!(presence.active_sessions(3, many(256)).await.is_ok());
    for bad in [many(257), vec![vec![1, 2, 3]]] {
        let refused = presence.active_sessions(3, bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}
