//! Tests how members see their chats.

use tern_chat::store::listing::{self, ChatView};
use tern_chat_core::{EntryKind, Outcome, Refusal};
use tern_types::{ChatId, Seq, UserId};

use crate::harness::{Store, direct, new_direct, new_entry};
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
    assert_eq!(
        tern_chat::store::commit::commit(&mut db, &[reaction])
            .await
            .unwrap()
            .len(),
        1
    );
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
