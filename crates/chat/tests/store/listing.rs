//! Tests how members see their chats.

use bytes::Bytes;
use tern_chat::store::commit;
use tern_chat::store::listing::{self, ChatView};
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, NewEntry, Outcome, Refusal};
use tern_types::{ChatId, Seq, UserId};

use crate::harness::{Known, Store, direct, new_direct, new_entry};
use crate::owner::Owner;

async fn list(store: &Store, user: UserId) -> Vec<ChatView> {
    let page = listing::chats(&store.pools, &store.master, user, None, None, 10, 1 << 20);
    page.await.unwrap().chats
}

#[tokio::test]
async fn a_mark_of_the_owners_is_shown_with_what_is_unread_after_it() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    let reaction = chat.batch(vec![new_entry(b, EntryKind::Reaction, b"+1")]);
    assert_eq!(commit::commit(&mut db, &[reaction]).await.unwrap().len(), 1);
    let cases = [
        (vec![], (0, 3)),
        (vec![2], (2, 1)),
        (vec![2, 1], (2, 1)),
        (vec![9], (4, 0)),
    ];
    for (marks, expected) in cases {
        let mut views = list(&store, b).await;
        let marks = marks.into_iter().map(|mark| (chat.id, Seq(mark), 0));
        let marks = marks.chain([(ChatId::direct(b, UserId::random()), Seq(1), 0)]);
        listing::show_marks(&store.pools, &mut views, marks)
            .await
            .unwrap();
        assert_eq!((views[0].read.0, views[0].unread()), expected);
    }
    sqlx::query("DELETE FROM messages WHERE chat_id = $1 AND seq <= 2")
        .bind(chat.id.0)
        .execute(&store.pool)
        .await
        .unwrap();
    let mut views = list(&store, b).await;
    let trimmed = [(chat.id, Seq(2), 1)];
    listing::show_marks(&store.pools, &mut views, trimmed)
        .await
        .unwrap();
    assert_eq!((views[0].read, views[0].own_unread), (Seq(2), 1));
}

/// The chat is made before its first message is admitted, and stays if that message is refused.
#[tokio::test]
async fn a_direct_chat_without_a_message_is_in_nobodys_list() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await;
    let mut owner = Owner::new(&store);
    let refused = owner
        .send(chat.id, &new_entry(store.user().await, EntryKind::Message, b"x"))
        .await;
    assert_eq!(refused, Outcome::Sent(Err(Refusal::NotAMember)));
    for user in [a, b] {
        assert!(list(&store, user).await.is_empty());
        let one = listing::chat(&store.pools, &store.master, user, None, chat.id).await;
        assert!(one.unwrap().is_none());
    }
    let sent = owner
        .send(new_direct(a, b).chat, &new_entry(a, EntryKind::Message, b"x"))
        .await;
    assert!(matches!(sent, Outcome::Sent(Ok(_))), "{sent:?}");
    for user in [a, b] {
        assert_eq!(list(&store, user).await.len(), 1);
    }
}

#[tokio::test]
async fn a_mention_counts_until_it_is_read_or_its_message_is_deleted() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    let stranger = store.user().await;
    let mut put = async |new: NewEntry, chat: &mut Known| {
        let batch = chat.batch(vec![new]);
        let stored = commit::commit(&mut db, std::slice::from_ref(&batch)).await;
        assert!(stored.unwrap().contains(&chat.id));
        (chat.head, chat.ordinal) = (batch.head(), batch.entries[0].ordinal);
    };
    let mentions = |users: &[UserId]| NewEntry {
        mentions: users.to_vec(),
        ..new_entry(a, EntryKind::Message, b"@")
    };
    for users in [&[b][..], &[], &[stranger, b], &[stranger]] {
        put(mentions(users), &mut chat).await;
    }
    let uncounted = NewEntry {
        counts: false,
        ..mentions(&[b])
    };
    put(uncounted, &mut chat).await;
    let seqs = async || list(&store, b).await[0].mentions.clone();
    assert_eq!(seqs().await, [Seq(1), Seq(3)]);
    assert_eq!(list(&store, a).await[0].mentions, []);
    let deletion = NewEntry {
        about: Some(About {
            target: Seq(3),
            take_back: false,
            reaction: Bytes::new(),
        }),
        ..new_entry(a, EntryKind::Delete, b"")
    };
    put(deletion, &mut chat).await;
    assert_eq!(seqs().await, [Seq(1)]);
    sqlx::query("UPDATE members SET read_seq = 1 WHERE user_id = $1")
        .bind(b.0)
        .execute(store.pools.of(chat.id))
        .await
        .unwrap();
    assert_eq!(seqs().await, []);
    let strangers: i64 = sqlx::query_scalar("SELECT count(*) FROM public.mentions WHERE user_id = $1")
        .bind(stranger.0)
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(strangers, 0, "who is no member is not mentioned");
}
