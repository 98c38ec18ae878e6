//! A message that one person deleted for themselves is gone from all of their devices, and stays for the others.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, MessagesHidden};
use tern_tests::acts::{By, done, edit, read, text};
use tern_tests::groups::{view, why};
use tern_tests::own::{hide, told};
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId, UserId};

/// The most messages that one request hides.
const MOST: u64 = 100;

/// Waits until a device was told that these messages are hidden.
async fn is_told(phone: &Phone, chat: ChatId, seqs: &[u64]) {
    let wanted = MessagesHidden {
        chat_id: chat.to_string(),
        seqs: seqs.to_vec(),
    };
    told(phone, "the hidden messages", |content| {
        (content == Content::MessagesHidden(wanted.clone())).then_some(())
    })
    .await;
}

/// Returns the seqs of the history as a user's device sees it or, in the user's name, a back end. The newest comes
/// first.
async fn history(api: &Api, chat: ChatId, acting: Option<UserId>) -> Vec<u64> {
    let list = v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        folded: true,
        acting_user_id: acting.map(|user| user.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    let page = api.chats().list_messages(list).await.unwrap().into_inner();
    let seq = |message: v1::HistoryMessage| message.entry.unwrap().seq;
    page.messages.into_iter().map(seq).collect()
}

/// Returns the seq of the chat's last entry and whether its content is empty, first of the chat and then of the list.
async fn last(api: &Api, chat: ChatId) -> [(u64, bool); 2] {
    let list = v1::ListChatsRequest::default();
    let chats = api.chats().list_chats(list).await.unwrap().into_inner().chats;
    let listed = chats.into_iter().find(|one| one.chat_id == chat.to_string());
    [view(api, chat).await.unwrap(), listed.unwrap()].map(|chat| {
        let entry = chat.last_entry.unwrap();
        (entry.seq, entry.content.is_empty())
    })
}

#[tokio::test]
async fn what_she_hides_is_gone_for_her_on_all_devices_and_for_nobody_else() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let (tablet, laptop) = (world.phone(&alice).await, world.phone(&alice).await);
    let chat: ChatId = his.say(alice.id, "one").await.chat_id.parse().unwrap();
    for body in ["two", "three"] {
        his.say(chat, body).await;
    }
    let own = hers.say(chat, "four").await.seq;
    for phone in [&hers, &tablet, &laptop] {
        phone.has(chat, own).await;
    }
    laptop.disconnect().await;
    let hidden = [2, own];
    let seq = hide(&hers.api(), chat, &hidden).await.unwrap();
    assert!(seq > 0);
    is_told(&hers, chat, &hidden).await;
    is_told(&tablet, chat, &hidden).await;
    laptop.connect().await;
    is_told(&laptop, chat, &hidden).await;

    let new = world.phone(&alice).await;
    for phone in [&hers, &tablet, &new] {
        assert_eq!(history(&phone.api(), chat, None).await, [3, 1]);
        assert_eq!(last(&phone.api(), chat).await, [(own, true); 2]);
        for seq in hidden {
            let found = read(&phone.api(), chat, seq).await;
            assert_eq!(why(found), ErrorReason::MessageNotFound);
        }
    }
    let back_end = world.back_end().await;
    assert_eq!(history(back_end, chat, Some(alice.id)).await, [3, 1]);
    assert_eq!(history(back_end, chat, Some(bob.id)).await, [own, 3, 2, 1]);
    assert_eq!(history(&his.api(), chat, None).await, [own, 3, 2, 1]);
    assert_eq!(last(&his.api(), chat).await, [(own, false); 2]);
    let kept = read(&his.api(), chat, own).await.unwrap();
    assert_eq!(text(&kept).as_deref(), Some("four"));
    // An edit does not bring it back, and to hide it again changes nothing.
    let edited = done(&his, By::Stream, chat, &edit(2, "zwei")).await.seq;
    hers.has(chat, edited).await;
    assert_eq!(history(&hers.api(), chat, None).await, [3, 1]);
    assert_eq!(last(&hers.api(), chat).await, [(edited, true); 2]);
    assert_eq!(last(&his.api(), chat).await, [(edited, false); 2]);
    assert_eq!(hide(&tablet.api(), chat, &[own]).await.unwrap(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_request_to_hide_is_carried_out_once_or_refused() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, carols) = (world.phone(&alice).await, world.phone(&carol).await);
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    let request = v1::HideMessagesRequest {
        request_id: RequestId::random().to_string(),
        chat_id: chat.to_string(),
        seqs: vec![1],
        ..Default::default()
    };
    let first = hers.api().chats().hide_messages(request.clone()).await;
    let again = hers.api().chats().hide_messages(request.clone()).await;
    assert_eq!(first.unwrap().into_inner(), again.unwrap().into_inner());
    let too_many: Vec<u64> = (1..=MOST + 1).collect();
    for wrong in [&too_many[..0], &too_many[..]] {
        let refused = hide(&hers.api(), chat, wrong).await;
        assert_eq!(why(refused), ErrorReason::InvalidField);
    }
    let by_stranger = hide(&carols.api(), chat, &[1]).await;
    assert_eq!(why(by_stranger), ErrorReason::ChatNotFound);
    let for_bob = v1::HideMessagesRequest {
        user_id: bob.id.to_string(),
        request_id: RequestId::random().to_string(),
        ..request
    };
    let by_her = hers.api().chats().hide_messages(for_bob.clone()).await;
    assert_eq!(why(by_her), ErrorReason::NotForDevices);
    let back_end = world.back_end().await;
    let for_him = back_end.chats().hide_messages(for_bob).await;
    assert!(for_him.unwrap().into_inner().own_seq > 0);
    let his = world.phone(&bob).await;
    assert_eq!(history(&his.api(), chat, None).await, [] as [u64; 0]);
    world.end().await;
}
