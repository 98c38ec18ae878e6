//! Tests how much one person may do to a message, and how the store keeps what tells a repetition.

use bytes::Bytes;
use tern_chat::store::{commit, load};
use tern_chat_core::chat::{Acts, LookUp};
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, NewEntry, Outcome, Refusal};
use tern_types::limits::MAX_ACTS_PER_PERSON;
use tern_types::{ChatId, Seq, UserId};

use crate::harness::{Store, direct, new_entry};
use crate::owner::Owner;

/// Makes an entry of this kind about the first message. Every second reaction takes one back.
fn act(sender: UserId, kind: EntryKind, number: u32) -> NewEntry {
    let take_back = kind == EntryKind::Reaction && number % 2 == 1;
    let about = About {
        target: Seq(1),
        take_back,
        reaction: Bytes::from_static(b"+"),
    };
    NewEntry {
        about: Some(about),
        ..new_entry(sender, kind, b"+")
    }
}

const TOO_MANY: Outcome = Outcome::Sent(Err(Refusal::TooManyActs));

fn is_placed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent(Ok(_)))
}

#[tokio::test]
async fn one_person_does_so_much_to_a_message_and_no_more() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await.id;
    let mut owner = Owner::new(&store);
    let message = new_entry(a, EntryKind::Message, b"hello");
    assert!(is_placed(&owner.send(chat, &message).await));
    for (user, kind) in [(b, EntryKind::Reaction), (a, EntryKind::Edit)] {
        let mut last = None;
        for number in 0..MAX_ACTS_PER_PERSON {
            let new = act(user, kind, number);
            let outcome = owner.send(chat, &new).await;
            assert!(is_placed(&outcome), "{kind:?} {number}: {outcome:?}");
            last = Some((new, outcome));
        }
        // An owner that has just loaded the chat knows no more than one that has counted.
        let mut cold = Owner::new(&store);
        let (last, outcome) = last.unwrap();
        for owner in [&mut owner, &mut cold] {
            assert_eq!(owner.send(chat, &act(user, kind, 0)).await, TOO_MANY, "{kind:?}");
            assert_eq!(owner.send(chat, &last).await, outcome, "rule 5");
        }
    }
    // Others are not concerned, and what is taken back counts too.
    assert!(is_placed(
        &owner.send(chat, &act(a, EntryKind::Reaction, 0)).await
    ));
    assert!(is_placed(&owner.send(chat, &act(a, EntryKind::Delete, 0)).await));
    let counts: i64 = sqlx::query_scalar("SELECT count(*) FROM act_counts WHERE chat_id = $1")
        .bind(chat.0)
        .fetch_one(store.pools.of(chat))
        .await
        .unwrap();
    assert_eq!(counts, 0, "nobody needs them any more");
}

#[tokio::test]
async fn an_act_too_many_is_left_out_of_its_commit_and_a_load_says_why() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    let other = store.direct(a, store.user().await).await;
    store.say(&mut db, &mut chat, a, "hello").await;
    let most = (0..MAX_ACTS_PER_PERSON).map(|number| act(b, EntryKind::Reaction, number));
    let batch = chat.batch(most.collect());
    let stored = commit::commit(&mut db, std::slice::from_ref(&batch)).await;
    assert!(stored.unwrap().contains(&chat.id));
    chat.head = batch.head();

    let late = chat.batch(vec![act(b, EntryKind::Reaction, 0)]);
    let beside = other.batch(vec![new_entry(a, EntryKind::Message, b"x")]);
    let stored = commit::commit(&mut db, &[late, beside]).await.unwrap();
    assert_eq!(stored.into_iter().collect::<Vec<ChatId>>(), [other.id]);

    let acts = |user, kind| Acts {
        target: Seq(1),
        user,
        kind,
    };
    let asked = vec![
        acts(a, EntryKind::Reaction),
        acts(b, EntryKind::Reaction),
        acts(b, EntryKind::Edit),
    ];
    let look_up = LookUp {
        acts: asked,
        ..LookUp::default()
    };
    let loaded = load::chat(&store.pools, &store.master, chat.id, &look_up).await;
    let counts = loaded.unwrap().unwrap().acts;
    assert_eq!(counts, [(acts(b, EntryKind::Reaction), MAX_ACTS_PER_PERSON)]);
}

/// Which of the few usual reactions it is could otherwise be found out by trying.
#[tokio::test]
async fn the_fingerprint_of_a_reaction_is_stored_under_the_chats_key_and_still_tells_a_repetition() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chats = [
        store.direct(a, b).await.id,
        store.direct(a, store.user().await).await.id,
    ];
    let mut owner = Owner::new(&store);
    let mut stored: Vec<Vec<u8>> = Vec::new();
    for chat in chats {
        let message = new_entry(a, EntryKind::Message, b"hello");
        let reaction = act(a, EntryKind::Reaction, 0);
        assert_eq!(
            message.fingerprint, reaction.fingerprint,
            "as the tests have them"
        );
        for new in [&message, &reaction] {
            let first = owner.send(chat, new).await;
            assert!(is_placed(&first), "{first:?}");
            assert_eq!(Owner::new(&store).send(chat, new).await, first, "rule 5");
        }
        let other = NewEntry {
            fingerprint: [8; 16],
            ..reaction.clone()
        };
        let reused = Outcome::Sent(Err(Refusal::RequestIdReused));
        assert_eq!(Owner::new(&store).send(chat, &other).await, reused);
        let select = "SELECT fingerprint FROM messages WHERE chat_id = $1 AND kind = 4";
        let fingerprint = sqlx::query_scalar(select).bind(chat.0);
        stored.push(fingerprint.fetch_one(store.pools.of(chat)).await.unwrap());
    }
    assert_ne!(stored[0], stored[1], "equal reactions in two chats");
    assert!(stored.iter().all(|stored| stored[..] != [7; 16]));
}
