//! Pinned chats come first, the archive is apart, and a device asks for what has changed.

use tern_local::until;
use tern_proto::v1::{self, ChatFilter, ErrorReason};
use tern_tests::groups::why;
use tern_tests::own::{keep, settings};
use tern_tests::world::BOUND;
use tern_tests::{Api, World};
use tern_types::ChatId;

/// Returns the ids of the chats on all pages, and the token of the first page.
async fn list(api: &Api, mut page: v1::ListChatsRequest) -> (Vec<String>, String) {
    let (mut chats, mut changes) = (Vec::new(), None);
    loop {
        let answer = api.chats().list_chats(page.clone()).await.unwrap().into_inner();
        chats.extend(answer.chats.into_iter().map(|chat| chat.chat_id));
        changes.get_or_insert(answer.changes_token);
        if answer.next_page_token.is_empty() {
            return (chats, changes.unwrap());
        }
        page.page_token = answer.next_page_token;
    }
}

fn ids(chats: &[ChatId]) -> Vec<String> {
    chats.iter().map(ChatId::to_string).collect()
}

async fn pin(api: &Api, chat: ChatId, pinned: bool) {
    let change = v1::SetChatSettingsRequest {
        pinned: Some(pinned),
        ..settings(chat)
    };
    keep(api, change).await.unwrap();
}

async fn archive(api: &Api, chat: ChatId) {
    let change = v1::SetChatSettingsRequest {
        archived: Some(true),
        ..settings(chat)
    };
    keep(api, change).await.unwrap();
}

#[tokio::test]
async fn pinned_chats_come_first_the_last_pinned_before_the_others_on_all_pages_once() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    let mut groups = Vec::new();
    for _ in 0..6 {
        groups.push(hers.create_group(&[]).await);
    }
    for group in &groups {
        hers.say(*group, "hello").await;
    }
    let api = hers.api();
    let [a, b, c, d, e, f]: [ChatId; 6] = groups.try_into().unwrap();
    pin(&api, e, true).await;
    pin(&api, b, true).await;
    pin(&api, a, true).await;
    pin(&api, e, false).await;
    let expected = ids(&[a, b, f, e, d, c]);
    for page_size in [1, 2, 3, 0] {
        let page = v1::ListChatsRequest {
            page_size,
            ..Default::default()
        };
        assert_eq!(list(&api, page).await.0, expected, "{page_size} a page");
    }
    // A message moves a chat among the others, and not above what is pinned.
    hers.say(c, "look").await;
    let all = v1::ListChatsRequest::default();
    assert_eq!(list(&api, all).await.0, ids(&[a, b, c, f, e, d]));

    archive(&api, b).await;
    archive(&api, f).await;
    for (filter, expected) in [
        (ChatFilter::Unspecified, vec![a, b, c, f, e, d]),
        (ChatFilter::Active, vec![a, c, e, d]),
        (ChatFilter::Archived, vec![b, f]),
    ] {
        for page_size in [1, 0] {
            let page = v1::ListChatsRequest {
                page_size,
                filter: filter.into(),
                ..Default::default()
            };
            assert_eq!(
                list(&api, page).await.0,
                ids(&expected),
                "{filter:?}, {page_size} a page"
            );
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_device_lists_what_has_changed_since_it_last_looked() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let mut groups = Vec::new();
    for _ in 0..4 {
        let group = hers.create_group(&[&bob]).await;
        let sent = his.say(group, "hello").await;
        hers.has(group, sent.seq).await;
        groups.push(group);
    }
    let api = hers.api();
    let since = |changed_since: &str| v1::ListChatsRequest {
        changed_since: changed_since.to_owned(),
        ..Default::default()
    };
    let [message, mark, kept, quiet]: [ChatId; 4] = groups.try_into().unwrap();
    let (all, _) = list(&api, since("")).await;
    assert_eq!(all.len(), 4);
    // The server may list once more what changed within the last minute, so these messages are made older.
    let store = world.store().await;
    sqlx::query("UPDATE messages SET sent_at = sent_at - interval '10 minutes'")
        .execute(&store)
        .await
        .unwrap();
    store.close().await;
    let (_, token) = list(&api, since("")).await;
    let (changed, _) = list(&api, since(&token)).await;
    assert!(changed.is_empty(), "{changed:?}");
    his.say(message, "news").await;
    let seen = v1::MarkChatReadRequest {
        chat_id: mark.to_string(),
        seq: 2,
        ..Default::default()
    };
    hers.api().chats().mark_chat_read(seen).await.unwrap();
    archive(&api, kept).await;
    // A mark alone is no change: all devices hear of it on the stream.
    let mut expected = ids(&[message, kept]);
    expected.sort_unstable();
    until::some("two that have changed", BOUND, || async {
        let (mut changed, _) = list(&api, since(&token)).await;
        changed.sort_unstable();
        assert!(!changed.contains(&quiet.to_string()), "{changed:?}");
        anyhow::ensure!(changed == expected, "{changed:?}");
        Ok(())
    })
    .await
    .unwrap();
    let refused = api.chats().list_chats(since("no token")).await;
    assert_eq!(why(refused), ErrorReason::InvalidField);
    world.end().await;
}
