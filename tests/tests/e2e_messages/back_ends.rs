//! Back ends ask about the messages of all chats of a user: which were sent, and which were not received.

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, ErrorReason, HistoryMessage, Sent};
use tern_tests::acts::{By, add, delete, done, edit, react, text};
use tern_tests::world::BOUND;
use tern_tests::{Api, User, World};
use tern_types::ChatId;

/// The time, the chat and the seq of a message, by which lists are ordered.
type Place = (i64, String, u64);

fn place(sent: &Sent) -> Place {
    (sent.sent_at_ms, sent.chat_id.clone(), sent.seq)
}

fn places(messages: &[HistoryMessage]) -> Vec<Place> {
    let place = |message: &HistoryMessage| {
        let entry = message.entry.as_ref().unwrap();
        (entry.sent_at_ms, entry.chat_id.clone(), entry.seq)
    };
    messages.iter().map(place).collect()
}

/// Returns what no device of the user has acknowledged, in this chat or in all.
async fn undelivered(api: &Api, user: &User, chat: Option<ChatId>) -> Vec<HistoryMessage> {
    let mut page = v1::ListUndeliveredRequest {
        chat_id: chat.map(|chat| chat.to_string()).unwrap_or_default(),
        page_size: 2,
        acting_user_id: user.id.to_string(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let answer = api.chats().list_undelivered(page.clone()).await;
        let answer = answer.unwrap().into_inner();
        found.extend(answer.messages);
        if answer.next_page_token.is_empty() {
            return found;
        }
        page.page_token = answer.next_page_token;
    }
}

/// Returns the messages that were sent in the user's chats in a span of time.
async fn sent(api: &Api, user: &User, since_ms: i64, before_ms: i64) -> Vec<HistoryMessage> {
    let mut page = v1::ListUserMessagesRequest {
        since_ms,
        before_ms,
        page_size: 2,
        acting_user_id: user.id.to_string(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let answer = api.chats().list_user_messages(page.clone()).await;
        let answer = answer.unwrap().into_inner();
        found.extend(answer.messages);
        if answer.next_page_token.is_empty() {
            return found;
        }
        page.page_token = answer.next_page_token;
    }
}

#[tokio::test]
async fn a_back_end_is_told_what_bob_has_not_received() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.device(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let first = hers.say(group, "helo").await;
    done(&hers, By::Stream, group, &edit(first.seq, "hello")).await;
    done(&hers, By::Stream, group, &react(first.seq, "+")).await;
    let gone = hers.say(group, "gone").await;
    done(&hers, By::Stream, group, &delete(gone.seq)).await;
    let direct = hers.say(bob.id, "hello").await;
    let direct_chat: ChatId = direct.chat_id.parse().unwrap();

    let api = world.back_end().await;
    let mut all = [&first, &gone, &direct].map(place);
    all.sort_unstable();
    let listed = undelivered(api, &bob, None).await;
    assert_eq!(places(&listed), all, "the oldest first");
    let of_group = undelivered(api, &bob, Some(group)).await;
    assert_eq!(places(&of_group), [&first, &gone].map(place));
    let texts: Vec<_> = of_group.iter().map(text).collect();
    assert_eq!(texts, [Some("hello".to_owned()), None], "as they are now");
    assert!(of_group[0].edited_seq > 0 && of_group[1].deleted_seq > 0);
    assert_eq!(undelivered(api, &alice, None).await, [], "her own");
    // It stays so when everything is settled.
    world.settled().await;
    assert_eq!(places(&undelivered(api, &bob, None).await), all);

    let his = world.phone_of(&his).await;
    his.has(direct_chat, direct.seq).await;
    his.has(group, gone.seq).await;
    until::some("nothing that he lacks", BOUND, || async {
        let left = undelivered(api, &bob, None).await;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_back_end_reads_what_was_sent_in_all_chats_of_a_user() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let mut said = Vec::new();
    for number in 0..4 {
        let body = format!("message {number}");
        said.push(hers.say(group, body.clone()).await);
        said.push(his.say(alice.id, body.clone()).await);
        said.push(hers.say(carol.id, body).await);
    }
    add(&hers, group, &carol).await;
    said.push(his.say(group, "hello, carol").await);
    let with = |left_out: &str| {
        let of_user = said.iter().filter(|sent| sent.chat_id != left_out);
        let mut places: Vec<Place> = of_user.map(place).collect();
        places.sort_unstable();
        places
    };
    let api = world.back_end().await;
    let carols = ChatId::direct(alice.id, carol.id).to_string();
    assert_eq!(places(&sent(api, &alice, 0, 0).await), with(""));
    let of_bob = with(&carols);
    assert_eq!(places(&sent(api, &bob, 0, 0).await), of_bob);
    let (since, before) = (of_bob[2].0, of_bob[6].0);
    let between = of_bob.iter().filter(|place| (since..before).contains(&place.0));
    let between: Vec<Place> = between.cloned().collect();
    assert_eq!(places(&sent(api, &bob, since, before).await), between);
    // What was said in the group before she came is not hers.
    let of_carol = places(&sent(api, &carol, 0, 0).await);
    assert_eq!(of_carol.len(), 5);
    assert_eq!(of_carol.last(), said.last().map(place).as_ref());

    let own = v1::ListUserMessagesRequest::default();
    let refused = his.api().chats().list_user_messages(own).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::NotForDevices));
    let of_others = v1::ListUndeliveredRequest {
        chat_id: carols,
        acting_user_id: bob.id.to_string(),
        ..Default::default()
    };
    let refused = api.chats().list_undelivered(of_others).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::ChatNotFound));
    world.end().await;
}
