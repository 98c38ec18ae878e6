//! Tests rule 5: the same request_id gives the same result, however late the retry is. Owners are warm (they have had
//! the chat in memory since the first send) or cold (they load it from the store).

use tern_chat_core::change::Action;
use tern_chat_core::{EntryKind, NewEntry, Outcome, Refusal};
use tern_types::{ChatId, RequestId, Seq, UserId};

use crate::harness::{Store, new_entry};
use crate::owner::Owner;

/// A number of requests that is larger than a chat remembers.
const MANY: usize = 300;

fn message(sender: UserId) -> NewEntry {
    new_entry(sender, EntryKind::Message, b"x")
}

/// Returns the seq of an entry that was committed; `None` for any other outcome.
fn place(outcome: &Outcome) -> Option<Seq> {
    match outcome {
        Outcome::Sent(Ok(place)) | Outcome::Changed(Ok(Some(place))) => Some(place.seq),
        _ => None,
    }
}

/// Sends so many messages that the chat remembers no earlier request.
async fn say_much(owner: &mut Owner<'_>, chat: ChatId, sender: UserId) {
    for _ in 0..MANY {
        let outcome = owner.send(chat, &message(sender)).await;
        assert!(place(&outcome).is_some(), "{outcome:?}");
    }
}

#[tokio::test]
async fn rule_5_a_request_older_than_what_is_remembered_gets_its_result_and_holds_nobody_up() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await.id;
    let mut warm = Owner::new(&store);
    let old = message(a);
    let first = warm.send(chat, &old).await;
    assert_eq!(place(&first), Some(Seq(1)));
    say_much(&mut warm, chat, b).await;

    let [again, other] = warm.send_both(chat, [&old, &message(b)]).await;
    assert_eq!(again, first, "warm");
    assert_eq!(place(&other), Some(Seq(MANY as u64 + 2)));

    let mut cold = Owner::new(&store);
    let [again, other] = cold.send_both(chat, [&old, &message(b)]).await;
    assert_eq!(again, first, "cold");
    assert_eq!(place(&other), Some(Seq(MANY as u64 + 3)));

    let mut reused = old.clone();
    reused.fingerprint = [8; 16];
    let outcome = cold.send(chat, &reused).await;
    assert_eq!(outcome, Outcome::Sent(Err(Refusal::RequestIdReused)));
}

#[tokio::test]
async fn rule_5_who_was_removed_since_gets_the_result_of_what_they_sent_before() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.group(a, &[b]).await.id;
    let mut warm = Owner::new(&store);
    let (said, leave) = (message(b), RequestId::random());
    let first = warm.send(chat, &said).await;
    let left = warm.change(chat, b, leave, Action::Remove(b)).await;
    assert_eq!((place(&first), place(&left)), (Some(Seq(2)), Some(Seq(3))));
    say_much(&mut warm, chat, a).await;

    let mut cold = Owner::new(&store);
    for (owner, name) in [(&mut warm, "warm"), (&mut cold, "cold")] {
        assert_eq!(owner.send(chat, &said).await, first, "{name}");
        let again = owner.change(chat, b, leave, Action::Remove(b)).await;
        assert_eq!(again, left, "{name}");
        let new = owner.send(chat, &message(b)).await;
        assert_eq!(new, Outcome::Sent(Err(Refusal::NotAMember)), "{name}");
    }
}

#[tokio::test]
async fn rule_5_a_change_that_is_made_already_gets_its_place_again() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.group(a, &[]).await.id;
    let mut warm = Owner::new(&store);
    let add = RequestId::random();
    let added = warm.change(chat, a, add, Action::Add(vec![b])).await;
    assert_eq!(place(&added), Some(Seq(2)));
    say_much(&mut warm, chat, a).await;
    let again = warm.change(chat, a, add, Action::Add(vec![b])).await;
    assert_eq!(again, added);
}

#[tokio::test]
async fn a_request_that_changed_nothing_changes_nothing_later() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.group(a, &[b]).await.id;
    let mut owner = Owner::new(&store);
    let add = RequestId::random();
    let outcome = owner.change(chat, a, add, Action::Add(vec![b])).await;
    assert_eq!(outcome, Outcome::Changed(Ok(None)));
    owner
        .change(chat, a, RequestId::random(), Action::Remove(b))
        .await;
    let again = owner.change(chat, a, add, Action::Add(vec![b])).await;
    assert_eq!(again, Outcome::Changed(Ok(None)), "they are not added after all");
}
