//! Pages of messages, single messages and edits, each as it is now.

use tern_proto::error::reason_of;
use tern_proto::v1::list_messages_request::Only;
use tern_proto::v1::{self, ErrorReason, HistoryMessage, get_message_request};
use tern_tests::acts::{
    By, act, add, call, delete, done, edit, pin, react, read, reply, say, take_back, text, with_file,
};
use tern_tests::files::upload;
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId};
use tonic::Code;
use tonic_types::StatusExt as _;

fn seq(message: &HistoryMessage) -> u64 {
    message.entry.as_ref().unwrap().seq
}

fn seqs(messages: &[HistoryMessage]) -> Vec<u64> {
    messages.iter().map(seq).collect()
}

/// Returns the request for the first page of a chat's history.
fn history(chat: ChatId) -> v1::ListMessagesRequest {
    v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        folded: true,
        ..Default::default()
    }
}

async fn list(api: &Api, request: v1::ListMessagesRequest) -> v1::ListMessagesResponse {
    let answer = api.chats().list_messages(request).await;
    answer.unwrap().into_inner()
}

/// Reads downwards, page by page, until the oldest message has come.
async fn down(api: &Api, mut page: v1::ListMessagesRequest) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let answer = list(api, page.clone()).await;
        found.extend(seqs(&answer.messages));
        assert!(answer.entries.is_empty(), "{answer:?}");
        if answer.next_before_seq == 0 {
            return found;
        }
        page.before_seq = answer.next_before_seq;
    }
}

/// Reads upwards, page by page, until the newest message has come.
async fn up(api: &Api, mut page: v1::ListMessagesRequest) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let answer = list(api, page.clone()).await;
        found.extend(seqs(&answer.messages));
        if answer.next_after_seq == 0 {
            return found;
        }
        page.after_seq = answer.next_after_seq;
    }
}

/// Returns all messages of a kind, the newest first.
async fn only(api: &Api, chat: ChatId, only: Only) -> Vec<u64> {
    let page = v1::ListMessagesRequest {
        only: Some(only),
        page_size: 2,
        ..history(chat)
    };
    down(api, page).await
}

fn newest_first(seqs: &[u64]) -> Vec<u64> {
    seqs.iter().rev().copied().collect()
}

#[tokio::test]
async fn pages_go_up_down_and_around_and_have_each_message_once() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let mut said = Vec::new();
    for number in 0..11 {
        let sent = [&hers, &his][number % 2]
            .say(group, format!("message {number}"))
            .await;
        done(&his, By::Call, group, &react(sent.seq, "+")).await;
        said.push(sent.seq);
    }
    let api = his.api();
    let pages_of_three = v1::ListMessagesRequest {
        page_size: 3,
        ..history(group)
    };
    assert_eq!(down(&api, pages_of_three.clone()).await, newest_first(&said));
    let upwards = v1::ListMessagesRequest {
        after_seq: 1,
        ..pages_of_three.clone()
    };
    assert_eq!(up(&api, upwards).await, said);
    let below = v1::ListMessagesRequest {
        before_seq: said[4],
        ..pages_of_three.clone()
    };
    assert_eq!(down(&api, below).await, newest_first(&said[..4]));

    let around = v1::ListMessagesRequest {
        around_seq: said[5],
        page_size: 5,
        ..history(group)
    };
    let answer = list(&api, around).await;
    assert_eq!(seqs(&answer.messages), newest_first(&said[3..8]));
    let older = v1::ListMessagesRequest {
        before_seq: answer.next_before_seq,
        ..history(group)
    };
    assert_eq!(down(&api, older).await, newest_first(&said[..3]));
    let newer = v1::ListMessagesRequest {
        after_seq: answer.next_after_seq,
        ..history(group)
    };
    assert_eq!(up(&api, newer).await, said[8..]);

    let both = v1::ListMessagesRequest {
        before_seq: 5,
        after_seq: 5,
        ..history(group)
    };
    let status = api.chats().list_messages(both).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(ErrorReason::InvalidField));
    let named = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(named[0].field, "after_seq");
    as_sent_it_is_another_list(&api, group, &said).await;
    world.end().await;
}

/// Checks that a client of the version before still gets everything as it was sent, reactions too.
async fn as_sent_it_is_another_list(api: &Api, group: ChatId, said: &[u64]) {
    let as_sent = v1::ListMessagesRequest {
        folded: false,
        only: Some(Only::Pinned(true)),
        ..history(group)
    };
    let answer = list(api, as_sent).await;
    assert_eq!(answer.entries.len(), 2 * said.len());
    assert!(answer.messages.is_empty() && answer.next_after_seq == 0);
}

#[tokio::test]
async fn messages_are_found_by_thread_sender_attachments_and_pins() {
    let world = World::with(|builder| builder.media(1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let root = hers.say(group, "who comes?").await.seq;
    let other = his.say(group, "something else").await.seq;
    let mut replies = Vec::new();
    for (number, phone) in [&his, &hers, &his].into_iter().enumerate() {
        let by = if number == 0 { By::Call } else { By::Stream };
        let answer = reply(root, &format!("answer {number}"));
        replies.push(done(phone, by, group, &answer).await.seq);
    }
    let file = upload(&hers.api(), "a map").await;
    let map = done(&hers, By::Stream, group, &with_file(say("a map"), &file))
        .await
        .seq;
    done(&hers, By::Stream, group, &pin(other)).await;
    done(&hers, By::Stream, group, &pin(root)).await;

    let api = his.api();
    let by_bob = Only::SenderUserId(bob.id.to_string());
    assert_eq!(only(&api, group, by_bob).await, [replies[2], replies[0], other]);
    let thread = Only::ThreadRootSeq(root);
    assert_eq!(only(&api, group, thread.clone()).await, newest_first(&replies));
    let oldest_first = v1::ListMessagesRequest {
        only: Some(thread),
        after_seq: root,
        page_size: 2,
        ..history(group)
    };
    assert_eq!(up(&api, oldest_first).await, replies);
    assert_eq!(read(&api, group, root).await.unwrap().reply_count, 3);
    assert_eq!(only(&api, group, Only::WithAttachments(true)).await, [map]);
    assert_eq!(only(&api, group, Only::Pinned(true)).await, [other, root]);

    // What is unpinned or deleted is found no more.
    done(&hers, By::Stream, group, &take_back(pin(root))).await;
    for gone in [other, map] {
        done(&hers, By::Stream, group, &delete(gone)).await;
    }
    assert_eq!(only(&api, group, Only::Pinned(true)).await, [] as [u64; 0]);
    assert_eq!(
        only(&api, group, Only::WithAttachments(true)).await,
        [] as [u64; 0]
    );
    world.end().await;
}

#[tokio::test]
async fn a_message_is_read_as_it_is_now_by_its_seq_and_by_its_request() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let id = RequestId::random();
    let message = call(&hers.api(), group, id, &say("helo")).await.unwrap().seq;
    let mut edits = Vec::new();
    for text in ["hello", "hello!", "hello, all"] {
        edits.push(done(&hers, By::Stream, group, &edit(message, text)).await);
    }
    for (phone, reaction) in [(&hers, "+"), (&hers, "!"), (&his, "!"), (&his, "!")] {
        done(phone, By::Call, group, &react(message, reaction)).await;
    }
    let pinned = done(&hers, By::Stream, group, &pin(message)).await.seq;

    let now = read(&his.api(), group, message).await.unwrap();
    assert_eq!(text(&now).as_deref(), Some("hello, all"));
    let shown = act(now.entry.as_ref().unwrap()).envelope;
    assert_eq!((shown.kind(), shown.target_seq), (v1::MessageKind::Edit, message));
    let last = edits.last().unwrap();
    assert_eq!((now.edited_seq, now.edited_at_ms), (last.seq, last.sent_at_ms));
    assert_eq!((now.pinned_seq, now.deleted_seq), (pinned, 0));
    let reactions = now.reactions.iter();
    let reactions: Vec<_> = reactions
        .map(|one| (&one.reaction[..], one.count, one.own))
        .collect();
    assert_eq!(reactions, [(&b"!"[..], 2, true), (&b"+"[..], 1, false)]);
    let listed = list(&his.api(), history(group)).await.messages;
    assert_eq!(listed, [now], "a page has the same");

    let mine = by_request(&hers, group, id).await;
    assert_eq!(mine.as_ref().map(seq), Ok(message));
    let unknown = by_request(&hers, group, RequestId::random()).await;
    let of_another = by_request(&his, group, id).await;
    for none in [unknown, of_another] {
        assert_eq!(none, Err(Some(ErrorReason::MessageNotFound)));
    }
    let neither = v1::GetMessageRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    let neither = his.api().chats().get_message(neither).await.unwrap_err();
    assert_eq!(reason_of(&neither), Some(ErrorReason::InvalidField));
    edits_are_listed_in_pages(&his.api(), group, message, &edits).await;

    // An edit is no message, and what was before her time is not hers.
    let carols = world.phone(&carol).await;
    let added = add(&hers, group, &carol).await;
    carols.has(group, added).await;
    for (phone, seq) in [(&his, last.seq), (&his, 9_999), (&carols, message)] {
        let refused = read(&phone.api(), group, seq).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(reason_of(&refused), Some(ErrorReason::MessageNotFound));
    }
    assert_eq!(down(&carols.api(), history(group)).await, [] as [u64; 0]);
    done(&hers, By::Stream, group, &delete(message)).await;
    edits_are_listed_in_pages(&his.api(), group, message, &[]).await;
    world.end().await;
}

/// Reads a message by the request that it came from. `Err` has the reason of the refusal.
async fn by_request(
    phone: &Phone,
    chat: ChatId,
    id: RequestId,
) -> Result<HistoryMessage, Option<ErrorReason>> {
    let get = v1::GetMessageRequest {
        chat_id: chat.to_string(),
        by: Some(get_message_request::By::RequestId(id.to_string())),
        ..Default::default()
    };
    let answer = phone.api().chats().get_message(get).await;
    let answer = answer.map_err(|status| reason_of(&status))?;
    Ok(answer.into_inner().message.unwrap())
}

/// Checks that the edits of a message are listed, the oldest first.
async fn edits_are_listed_in_pages(api: &Api, chat: ChatId, message: u64, edits: &[v1::Sent]) {
    let mut page = v1::ListEditsRequest {
        chat_id: chat.to_string(),
        seq: message,
        page_size: 2,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let answer = api.chats().list_edits(page.clone()).await.unwrap().into_inner();
        found.extend(answer.edits.iter().map(|edit| (edit.seq, edit.sent_at_ms)));
        if answer.next_after_seq == 0 {
            break;
        }
        page.after_seq = answer.next_after_seq;
    }
    let expected: Vec<_> = edits.iter().map(|edit| (edit.seq, edit.sent_at_ms)).collect();
    assert_eq!(found, expected);
}
