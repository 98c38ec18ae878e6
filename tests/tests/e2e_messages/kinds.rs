//! Every kind of message arrives, whichever way it is sent, and only messages count as unread.

use tern_proto::v1;
use tern_tests::acts::{
    Act, BOTH, By, act, call, delete, done, edit, pin, promote, react, read, reply, say, take_back, text,
};
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId};

#[tokio::test]
async fn each_kind_arrives_by_the_stream_and_by_a_call() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    for by in BOTH {
        let message = hers.say(group, "helo").await.seq;
        let all = [
            (&hers, edit(message, "hello")),
            (&his, react(message, "+")),
            (&his, react(message, "-")),
            (&his, take_back(react(message, "-"))),
            (&his, take_back(react(message, "never there"))),
            (&hers, pin(message)),
            (&hers, take_back(pin(message))),
            (&his, reply(message, "hello to you")),
            (&hers, edit(message, "hello!")),
            (&hers, delete(message)),
        ];
        for (seq, (from, wanted)) in (message + 1..).zip(&all) {
            let sent = done(from, by, group, wanted).await;
            assert_eq!(sent.seq, seq, "{by:?}: {wanted:?}");
            for phone in [&hers, &his] {
                let log = phone.has(group, seq).await;
                let came = act(&log.entries[&seq]);
                assert_eq!(came.envelope, wanted.envelope, "{by:?}");
                assert_eq!(came.body, wanted.body, "{by:?}: {wanted:?}");
                let sender = &log.entries[&seq].sender_user_id;
                assert_eq!(*sender, from.user().to_string(), "{by:?}: {wanted:?}");
            }
        }
    }
    world.end().await;
}

#[tokio::test]
async fn only_messages_count_as_unread() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let first = hers.say(group, "one").await.seq;
    for by in BOTH {
        for act in [
            edit(first, "eins"),
            react(first, "+"),
            take_back(react(first, "+")),
            pin(first),
            take_back(pin(first)),
        ] {
            done(&hers, by, group, &act).await;
        }
    }
    let second = hers.say(group, "two").await.seq;
    let log = his.has(group, second).await;
    assert_eq!(log.entries[&second].ordinal, 2);
    assert_eq!(view(&his, group).await.unread_count, 2);
    // A deleted message keeps its place in the count.
    let deletion = done(&hers, By::Stream, group, &delete(first)).await;
    let log = his.has(group, deletion.seq).await;
    assert_eq!(log.entries[&deletion.seq].ordinal, 2);
    assert_eq!(view(&his, group).await.unread_count, 2);
    world.end().await;
}

async fn view(phone: &Phone, chat: ChatId) -> v1::Chat {
    let get = v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let view = phone.api().chats().get_chat(get).await.unwrap();
    view.into_inner().chat.unwrap()
}

#[tokio::test]
async fn a_mention_is_unread_until_the_message_is_read_or_deleted() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let mention = |mut act: Act| {
        // The second is no member, and the third mentions herself.
        act.envelope.mentioned_user_ids = [&bob, &carol, &alice].map(|user| user.id.to_string()).to_vec();
        act
    };
    let mut seqs = Vec::new();
    for by in BOTH {
        let sent = done(&hers, by, group, &mention(say("bob, look"))).await;
        hers.say(group, "not for him").await;
        seqs.push(sent.seq);
    }
    // An edit is not unread, so it mentions nobody anew.
    let last = done(&hers, By::Stream, group, &mention(edit(seqs[0], "bob!"))).await;
    his.has(group, last.seq).await;
    let unread = async |phone: &Phone| {
        let view: v1::Chat = view(phone, group).await;
        (view.unread_mention_count, view.first_unread_mention_seq)
    };
    assert_eq!(unread(&his).await, (2, seqs[0]));
    assert_eq!(unread(&hers).await, (0, 0));
    done(&hers, By::Stream, group, &delete(seqs[0])).await;
    assert_eq!(unread(&his).await, (1, seqs[1]));
    let mark = v1::MarkChatReadRequest {
        chat_id: group.to_string(),
        seq: seqs[1],
        ..Default::default()
    };
    his.api().chats().mark_chat_read(mark).await.unwrap();
    assert_eq!(unread(&his).await, (0, 0));
    world.end().await;
}

#[tokio::test]
async fn whoever_runs_a_group_deletes_what_others_wrote_and_is_named() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob, &carol]).await;
    promote(&hers, group, &bob).await;
    for (phone, by) in [(&hers, By::Stream), (&his, By::Call)] {
        let message = carols.say(group, "buy this").await.seq;
        let deletion = done(phone, by, group, &delete(message)).await;
        let who = phone.user().to_string();
        let log = carols.has(group, deletion.seq).await;
        assert_eq!(log.entries[&deletion.seq].sender_user_id, who);
        let left = read(&carols.api(), group, message).await.unwrap();
        assert_eq!(text(&left), None);
        assert_eq!(left.entry.unwrap().sender_user_id, carol.id.to_string());
        assert_eq!(left.deleted_by_user_id, who);
        assert_eq!(
            (left.deleted_seq, left.deleted_at_ms),
            (deletion.seq, deletion.sent_at_ms)
        );
    }
    // The operator's back end has an owner's rights, and no name.
    let message = carols.say(group, "buy this").await.seq;
    let back_end = world.back_end().await;
    let deletion = call(back_end, group, RequestId::random(), &delete(message)).await;
    let deletion = deletion.unwrap().seq;
    carols.has(group, deletion).await;
    let left = read(&carols.api(), group, message).await.unwrap();
    assert_eq!(
        (left.deleted_seq, left.deleted_by_user_id.as_str()),
        (deletion, "")
    );
    world.end().await;
}
