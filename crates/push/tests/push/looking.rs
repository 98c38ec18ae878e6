//! Tests of what a look finds: which entries announce something, and the badge.

use tern_push::store::look::{self, Badge};
use tern_push_core::facts::Reason;
use tern_types::{ChatId, DeviceId, UserId};

use crate::world::{MEMBERS_ADDED, MESSAGE, OWN, REACTION, World};

/// A group with this phone, in which nothing has been said. Its first entry made it.
async fn quiet_group(world: &World, phone: (UserId, DeviceId)) -> (ChatId, UserId) {
    let (chat, ann) = (world.group().await, world.user("Ann").await);
    world.join(chat, phone.0, 1).await;
    world.entry(chat, 10, phone.0).await;
    (chat, ann)
}

/// Returns the seqs that announce something to the phone, which lacks the chat from `from` on, and why, in the order of
/// the seqs.
async fn announced(world: &World, chat: ChatId, phone: (UserId, DeviceId), from: i64) -> Vec<(u64, Reason)> {
    world.due(chat, phone, from).await;
    let batch = tern_push::store::claim::claim(world.pools.of(chat), 256)
        .await
        .unwrap();
    let row = batch
        .unwrap()
        .rows
        .into_iter()
        .find(|row| row.chat == chat)
        .unwrap();
    let looked = world.look(row).await.unwrap();
    let announced = looked.waiting.announced.iter();
    let mut announced: Vec<_> = announced.map(|one| (one.seq.0, one.reason)).collect();
    announced.sort_by_key(|(seq, _)| *seq);
    announced
}

#[tokio::test]
async fn a_message_announces_by_its_hint_and_whom_it_mentions() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    for (hint, mentioned, expected) in [
        (None, false, Some(Reason::Message)),
        (None, true, Some(Reason::Mention)),
        (Some(1), false, Some(Reason::Message)),
        (Some(2), false, Some(Reason::Silent)),
        (Some(2), true, Some(Reason::Silent)),
        (Some(3), false, None),
        (Some(3), true, None),
    ] {
        let (chat, ann) = quiet_group(&world, phone).await;
        let seq = world.entry(chat, MESSAGE, ann).await;
        if let Some(hint) = hint {
            world.hint(chat, seq, hint).await;
        }
        if mentioned {
            world.mentions(chat, seq, phone.0).await;
        }
        let expected: Vec<_> = expected.map(|reason| (2, reason)).into_iter().collect();
        assert_eq!(
            announced(&world, chat, phone, 2).await,
            expected,
            "{hint:?}, {mentioned}"
        );
    }
}

#[tokio::test]
async fn who_is_mentioned_hears_of_it_however_much_was_said_since() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ann) = quiet_group(&world, phone).await;
    let mention = world.entry(chat, MESSAGE, ann).await;
    world.mentions(chat, mention, phone.0).await;
    let insert =
        "INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body,
                               sent_at)
         SELECT $1, n, n, 1, $2, $2, gen_random_uuid(), '', 'body', now() FROM generate_series($3::int8, $4::int8) AS n";
    world.run_about(chat, ann.0, insert, &[3, 303]).await;
    let head = "UPDATE chat_heads SET head_seq = $2 WHERE chat_id = $1";
    world.run(chat, head, &[303]).await;
    let expected: [(u64, Reason); 2] = [(2, Reason::Mention), (303, Reason::Message)];
    assert_eq!(announced(&world, chat, phone, 2).await, expected);
    world.reads(chat, phone.0, 2).await;
    assert_eq!(announced(&world, chat, phone, 2).await, expected[1..]);
}

#[tokio::test]
async fn what_is_read_own_deleted_or_not_a_message_announces_nothing() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ann) = quiet_group(&world, phone).await;
    for seq in 2..=6 {
        let sender = if seq == 5 { phone.0 } else { ann };
        // Ann's two first messages, a pin of hers, a message of the phone's own user, and one that is deleted.
        let kind = if seq == 4 { 5 } else { MESSAGE };
        assert_eq!(world.entry(chat, kind, sender).await, seq);
    }
    world
        .run(
            chat,
            "UPDATE messages SET body = '' WHERE chat_id = $1 AND seq = 6",
            &[],
        )
        .await;
    // The newest entry of each person and reason counts.
    assert_eq!(announced(&world, chat, phone, 2).await, [(3, Reason::Message)]);
    world.reads(chat, phone.0, 3).await;
    assert!(announced(&world, chat, phone, 2).await.is_empty());
    world.reads(chat, phone.0, 2).await;
    assert_eq!(announced(&world, chat, phone, 2).await, [(3, Reason::Message)]);
    assert!(
        announced(&world, chat, phone, 4).await.is_empty(),
        "the device has it"
    );
}

#[tokio::test]
async fn a_reaction_is_announced_to_the_sender_of_the_message_until_it_is_taken_back() {
    let world = World::start().await;
    let (bob, cid) = (world.phone("Bob").await, world.phone("Cid").await);
    let (chat, ann) = quiet_group(&world, bob).await;
    world.join(chat, cid.0, 1).await;
    let message = world.entry(chat, MESSAGE, bob.0).await;
    let reaction = world.entry(chat, REACTION, ann).await;
    world.reacts(chat, reaction, message, ann).await;
    assert_eq!(announced(&world, chat, bob, 2).await, [(3, Reason::Reaction)]);
    assert_eq!(announced(&world, chat, cid, 2).await, [(2, Reason::Message)]);
    world
        .run(chat, "DELETE FROM reactions WHERE chat_id = $1", &[])
        .await;
    assert!(announced(&world, chat, bob, 2).await.is_empty());
}

#[tokio::test]
async fn who_is_added_hears_of_it_and_who_left_hears_of_what_was_before() {
    let world = World::start().await;
    let (bob, cid) = (world.phone("Bob").await, world.phone("Cid").await);
    let (chat, ann) = quiet_group(&world, bob).await;
    assert_eq!(world.entry(chat, MEMBERS_ADDED, ann).await, 2);
    world.join(chat, cid.0, 2).await;
    assert_eq!(announced(&world, chat, cid, 2).await, [(2, Reason::Added)]);
    assert!(
        announced(&world, chat, bob, 2).await.is_empty(),
        "others were added"
    );
    for seq in 3..=5 {
        assert_eq!(world.entry(chat, MESSAGE, ann).await, seq);
    }
    world
        .run_about(
            chat,
            bob.0.0,
            "UPDATE members SET left_seq = 4 WHERE chat_id = $1 AND user_id = $2",
            &[],
        )
        .await;
    assert_eq!(announced(&world, chat, bob, 2).await, [(4, Reason::Message)]);
}

#[tokio::test]
async fn of_an_own_log_only_what_is_to_alert_is_announced() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let own = ChatId::own(phone.0);
    world.chat(own, 3).await;
    world.join(own, phone.0, 1).await;
    for _ in 0..3 {
        world.entry(own, OWN, UserId::SYSTEM).await;
    }
    world.hint(own, 2, 1).await;
    assert_eq!(announced(&world, own, phone, 1).await, [(2, Reason::OwnLog)]);
}

#[tokio::test]
async fn a_row_that_has_changed_is_not_looked_at() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let (row, _) = world.claim_one().await;
    assert!(world.look(row).await.is_some());
    world.due(chat, phone, 1).await;
    assert_eq!(world.look(row).await, None);
    world.run(chat, "DELETE FROM inbox WHERE chat_id = $1", &[]).await;
    assert_eq!(world.look(row).await, None);
}

#[tokio::test]
async fn a_badge_counts_the_unread_chats_of_all_cells() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let devices = [(phone.1, phone.0)];
    let badge = async || {
        let badges = look::badges(&world.pools, &devices).await.unwrap();
        badges.get(&phone.1).copied().unwrap_or_default()
    };
    assert_eq!(badge().await, Badge::default());
    let (first, _, seq) = world.group_with_message(phone).await;
    let (second, ..) = world.group_with_message(phone).await;
    let direct = ChatId::direct(phone.0, UserId::SYSTEM);
    world.chat(direct, 1).await;
    world.join(direct, phone.0, 1).await;
    world.entry(direct, MESSAGE, UserId::SYSTEM).await;
    world.due(direct, phone, 1).await;
    let own = ChatId::own(phone.0);
    world.chat(own, 3).await;
    world.join(own, phone.0, 1).await;
    world.entry(own, OWN, UserId::SYSTEM).await;
    world.due(own, phone, 1).await;
    assert_eq!(
        badge().await,
        Badge {
            chats: 3,
            pushed_lately: 0
        },
        "the own log does not count"
    );
    world.reads(first, phone.0, seq).await;
    let set = "UPDATE inbox SET pushed_at = now(), notified_at = now() WHERE chat_id = $1";
    world.run(second, set, &[]).await;
    world
        .run(
            direct,
            "UPDATE inbox SET pushed_at = now() WHERE chat_id = $1",
            &[],
        )
        .await;
    assert_eq!(
        badge().await,
        Badge {
            chats: 2,
            pushed_lately: 1
        }
    );
}
