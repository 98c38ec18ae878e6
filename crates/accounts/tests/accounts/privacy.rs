//! Tests of blocks, contacts and settings: what the calls do, and whom they refuse.

use tern_identity::principal::{Principal, Scope};
use tern_proto::v1::{self, Audience, ErrorReason};
use tern_types::UserId;
use tonic::Status;

use crate::world::{World, admin, by, device, key, reason};

type Answer<T> = Result<T, ErrorReason>;

fn answer<T>(answer: Result<tonic::Response<T>, Status>) -> Answer<T> {
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| reason(&status))
}

impl World {
    pub async fn block(&self, who: &Principal, user: &str, blocked: &str) -> Answer<v1::BlockResponse> {
        let request = v1::BlockRequest {
            user_id: user.to_owned(),
            blocked_user_id: blocked.to_owned(),
        };
        answer(self.users().block(by(who, request)).await)
    }

    async fn unblock(&self, who: &Principal, user: &str, blocked: &str) -> Answer<v1::UnblockResponse> {
        let request = v1::UnblockRequest {
            user_id: user.to_owned(),
            blocked_user_id: blocked.to_owned(),
        };
        answer(self.users().unblock(by(who, request)).await)
    }

    async fn blocked(
        &self,
        who: &Principal,
        user: &str,
        page_size: u32,
        page_token: &str,
    ) -> Answer<v1::ListBlockedResponse> {
        let request = v1::ListBlockedRequest {
            user_id: user.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
        };
        answer(self.users().list_blocked(by(who, request)).await)
    }

    pub async fn set_contacts(
        &self,
        user: UserId,
        add: &[UserId],
        remove: &[UserId],
        replace: bool,
    ) -> Answer<u32> {
        let texts = |ids: &[UserId]| ids.iter().map(ToString::to_string).collect();
        let request = v1::SetContactsRequest {
            user_id: user.to_string(),
            add_user_ids: texts(add),
            remove_user_ids: texts(remove),
            replace,
        };
        let set = answer(self.users().set_contacts(by(&admin(), request)).await)?;
        Ok(set.contact_count)
    }

    async fn contacts(
        &self,
        user: UserId,
        page_size: u32,
        page_token: &str,
    ) -> Answer<v1::ListContactsResponse> {
        let request = v1::ListContactsRequest {
            user_id: user.to_string(),
            page_size,
            page_token: page_token.to_owned(),
        };
        answer(self.users().list_contacts(by(&admin(), request)).await)
    }

    pub async fn set_privacy(
        &self,
        who: &Principal,
        user: &str,
        privacy: Option<v1::PrivacySettings>,
    ) -> Answer<v1::PrivacySettings> {
        let request = v1::SetPrivacyRequest {
            user_id: user.to_owned(),
            privacy,
        };
        let set = answer(self.users().set_privacy(by(who, request)).await)?;
        Ok(set.privacy.unwrap())
    }

    async fn privacy(&self, who: &Principal, user: &str) -> Answer<v1::PrivacySettings> {
        let request = v1::GetPrivacyRequest {
            user_id: user.to_owned(),
        };
        Ok(answer(self.users().get_privacy(by(who, request)).await)?
            .privacy
            .unwrap())
    }

    /// Makes many users at once, without names and devices.
    pub async fn crowd(&self, count: i32) -> Vec<UserId> {
        let insert = "INSERT INTO users (user_id, external_id, display_name)
                      SELECT id, id::text, '' FROM (SELECT gen_random_uuid() id FROM generate_series(1, $1)) ids
                      RETURNING user_id";
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar(insert)
            .bind(count)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        ids.into_iter().map(UserId).collect()
    }
}

fn shared_with(audience: Audience, read_receipts_off: bool) -> v1::PrivacySettings {
    v1::PrivacySettings {
        presence_audience: audience.into(),
        read_receipts_off,
    }
}

#[tokio::test]
async fn people_are_blocked_listed_and_unblocked() {
    let world = World::start().await;
    let (alice, bob, carol) = (
        world.user("alice").await,
        world.user("bob").await,
        world.user("carol").await,
    );
    let phone = device(&world.link(alice).await);
    for other in [bob, carol, bob] {
        world.block(&phone, "", &other.to_string()).await.unwrap();
    }
    // The two blocks may have been made in the same millisecond, so one is moved.
    sqlx::query("UPDATE blocks SET blocked_at = to_timestamp(1700000000.123) WHERE blocked_id = $1")
        .bind(bob.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let all = world.blocked(&phone, "", 0, "").await.unwrap();
    assert_eq!(
        all.user_ids,
        [carol.to_string(), bob.to_string()],
        "the newest first, each once"
    );
    assert_eq!(all.next_page_token, "");
    let first = world.blocked(&admin(), &alice.to_string(), 1, "").await.unwrap();
    assert_eq!(first.user_ids, [carol.to_string()]);
    let second = world
        .blocked(&phone, "", 1, &first.next_page_token)
        .await
        .unwrap();
    assert_eq!(second.user_ids, [bob.to_string()]);
    let last = world
        .blocked(&phone, "", 1, &second.next_page_token)
        .await
        .unwrap();
    assert_eq!((last.user_ids.len(), last.next_page_token.as_str()), (0, ""));

    for _ in 0..2 {
        world
            .unblock(&phone, &alice.to_string(), &carol.to_string())
            .await
            .unwrap();
        let left = world.blocked(&phone, "", 0, "").await.unwrap();
        assert_eq!(left.user_ids, [bob.to_string()]);
    }
    let his = world.blocked(&admin(), &bob.to_string(), 0, "").await.unwrap();
    assert_eq!(his.user_ids, [""; 0], "who is blocked has blocked nobody");
}

#[tokio::test]
async fn a_page_token_is_one_that_the_server_gave() {
    let world = World::start().await;
    let phone = device(&world.link(world.user("alice").await).await);
    let id = UserId::random();
    let bad = [
        "x".to_owned(),
        ".".to_owned(),
        id.to_string(),
        format!("-1.{id}"),
        format!("{}.{id}", i64::MAX),
        "1700000000000.".to_owned(),
        "1700000000000.'; DROP TABLE blocks; --".to_owned(),
    ];
    for token in bad {
        let refused = world.blocked(&phone, "", 0, &token).await.unwrap_err();
        assert_eq!(refused, ErrorReason::InvalidField, "{token}");
    }
    let large = world.blocked(&phone, "", u32::MAX, "").await;
    assert!(large.is_ok(), "as many as a page has: {large:?}");
    let token = world.contacts(world.user("bob").await, 0, "x").await.unwrap_err();
    assert_eq!(token, ErrorReason::InvalidField);
}

#[tokio::test]
async fn each_call_is_for_the_own_user_or_a_key_with_the_scope() {
    let world = World::start().await;
    let (alice, bob) = (
        world.user("alice").await.to_string(),
        world.user("bob").await.to_string(),
    );
    let phone = device(&world.link(alice.parse().unwrap()).await);
    let (reader, writer) = (key(&[Scope::UsersRead]), key(&[Scope::UsersWrite]));
    let nobody = UserId::random().to_string();
    use ErrorReason as R;
    let blocks = [
        (&phone, "", alice.as_str(), R::InvalidField),
        (&phone, "", "", R::InvalidField),
        (&phone, "", "bob", R::InvalidField),
        (&phone, bob.as_str(), alice.as_str(), R::NotForDevices),
        (&phone, "", nobody.as_str(), R::UserNotFound),
        (&writer, nobody.as_str(), alice.as_str(), R::UserNotFound),
        (&writer, "", alice.as_str(), R::InvalidField),
        (&reader, alice.as_str(), bob.as_str(), R::ScopeMissing),
    ];
    for (who, user, blocked, expected) in blocks {
        let refused = world.block(who, user, blocked).await.unwrap_err();
        assert_eq!(refused, expected, "{who:?} {user} {blocked}");
        let refused = world.unblock(who, user, blocked).await.unwrap_err();
        assert_eq!(refused, expected, "{who:?} {user} {blocked}");
    }
    for (who, user, expected) in [
        (&phone, bob.as_str(), R::NotForDevices),
        (&writer, alice.as_str(), R::ScopeMissing),
        (&reader, nobody.as_str(), R::UserNotFound),
        (&reader, "", R::InvalidField),
    ] {
        assert_eq!(
            world.blocked(who, user, 0, "").await.unwrap_err(),
            expected,
            "{who:?}"
        );
        assert_eq!(world.privacy(who, user).await.unwrap_err(), expected, "{who:?}");
    }
    let revoke = v1::RevokeDeviceRequest {
        device_id: world.device_ids(alice.parse().unwrap()).await[0].clone(),
    };
    world.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    assert_eq!(world.block(&phone, "", &bob).await.unwrap_err(), R::DeviceRevoked);
    assert_eq!(world.privacy(&phone, "").await.unwrap_err(), R::DeviceRevoked);
    let none: i64 = sqlx::query_scalar("SELECT count(*) FROM blocks")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(none, 0);
}

#[tokio::test]
async fn a_user_blocks_ten_thousand_people_and_no_more() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let crowd = world.crowd(10_000).await;
    let fill = "INSERT INTO blocks (user_id, blocked_id) SELECT $1, id FROM unnest($2::uuid[]) AS id";
    sqlx::query(fill)
        .bind(alice.0)
        .bind(crowd.iter().map(|user| user.0).collect::<Vec<_>>())
        .execute(&world.pool)
        .await
        .unwrap();
    let alice = alice.to_string();
    let full = world.block(&admin(), &alice, &bob.to_string()).await.unwrap_err();
    assert_eq!(full, ErrorReason::ListFull);
    let page = world.blocked(&admin(), &alice, 1000, "").await.unwrap();
    let one = &page.user_ids[0];
    assert!(
        world.block(&admin(), &alice, one).await.is_ok(),
        "who is blocked may be blocked again"
    );
    world.unblock(&admin(), &alice, one).await.unwrap();
    world.block(&admin(), &alice, &bob.to_string()).await.unwrap();
}

#[tokio::test]
async fn contacts_are_added_removed_and_replaced() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let mut people = world.crowd(5).await;
    people.sort_unstable();
    let texts = |ids: &[UserId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let stranger = UserId::random();
    let set = async |add: &[UserId], remove: &[UserId], replace| {
        let count = world.set_contacts(alice, add, remove, replace).await.unwrap();
        let listed = world.contacts(alice, 0, "").await.unwrap().user_ids;
        assert_eq!(count as usize, listed.len());
        listed
    };
    let some = [people[2], people[0], people[2], stranger, alice];
    assert_eq!(
        set(&some, &[], false).await,
        texts(&[people[0], people[2]]),
        "who is no user is left out"
    );
    let listed = set(&people[1..3], &people[2..4], false).await;
    assert_eq!(listed, texts(&people[..2]), "who is in both is removed");
    assert_eq!(
        set(&people[3..], &[], true).await,
        texts(&people[3..]),
        "replaced"
    );
    assert_eq!(set(&[], &[], false).await.len(), 2, "nothing changes nothing");

    let first = world.contacts(alice, 1, "").await.unwrap();
    assert_eq!(first.user_ids, texts(&people[3..4]));
    let second = world.contacts(alice, 1, &first.next_page_token).await.unwrap();
    assert_eq!(second.user_ids, texts(&people[4..]));
    assert_eq!(set(&[], &[], true).await.len(), 0);

    let many = vec![people[0]; 1001];
    for (add, remove) in [(&many[..], &[][..]), (&[][..], &many[..])] {
        let refused = world.set_contacts(alice, add, remove, false).await.unwrap_err();
        assert_eq!(refused, ErrorReason::InvalidField);
    }
    let nobody = world
        .set_contacts(stranger, &people, &[], false)
        .await
        .unwrap_err();
    assert_eq!(nobody, ErrorReason::UserNotFound);
}

#[tokio::test]
async fn a_list_that_would_have_too_many_contacts_stays_as_it_was() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let crowd = world.crowd(10_000).await;
    let fill = "INSERT INTO contacts (user_id, contact_id) SELECT $1, user_id FROM users WHERE display_name = '' ORDER BY user_id";
    sqlx::query(fill)
        .bind(alice.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let full = world.set_contacts(alice, &[bob], &[], false).await;
    assert_eq!(full, Err(ErrorReason::ListFull));
    assert_eq!(world.set_contacts(alice, &[], &[], false).await, Ok(10_000));
    assert_eq!(
        world.set_contacts(alice, &[bob], &crowd[..1], false).await,
        Ok(10_000)
    );
    assert_eq!(world.set_contacts(alice, &[bob], &[], true).await, Ok(1));
}

#[tokio::test]
async fn settings_have_defaults_and_stay_as_they_are_set() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let phone = device(&world.link(alice).await);
    let defaults = shared_with(Audience::Contacts, false);
    assert_eq!(world.privacy(&phone, "").await, Ok(defaults));
    for audience in [Audience::Everyone, Audience::Nobody, Audience::Contacts] {
        for off in [true, false] {
            let wanted = shared_with(audience, off);
            assert_eq!(world.set_privacy(&phone, "", Some(wanted)).await, Ok(wanted));
            assert_eq!(world.privacy(&admin(), &alice.to_string()).await, Ok(wanted));
        }
    }
    let half = shared_with(Audience::Unspecified, true);
    let set = world.set_privacy(&phone, "", Some(half)).await;
    assert_eq!(
        set,
        Ok(shared_with(Audience::Contacts, true)),
        "what is not set gets its default"
    );
    let wrong = v1::PrivacySettings {
        presence_audience: 9,
        read_receipts_off: false,
    };
    let refused = world.set_privacy(&phone, "", Some(wrong)).await;
    assert_eq!(refused, Err(ErrorReason::InvalidField));
    assert_eq!(world.privacy(&phone, "").await, set, "nothing of it is stored");
    assert_eq!(world.set_privacy(&phone, "", None).await, Ok(defaults));
}
