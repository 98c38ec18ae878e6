//! Nothing of a deleted message is left, nobody misses its place, and who asks again gets the first answer.

use sqlx::PgPool;
use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::{self, Entry, ErrorReason, MessageKind};
use tern_tests::acts::{
    By, act, call, delete, done, edit, erased, has_no_gap, pin, react, read, reply, say, take_back, text,
    with_file,
};
use tern_tests::files::{download, upload};
use tern_tests::wire::message_with;
use tern_tests::world::BOUND;
use tern_tests::{Api, Wire, World};
use tern_types::{ChatId, RequestId};

/// The text that is in a deleted message, its edit, and a reaction to it.
const SECRET: &str = "the launch code";

fn tells(entry: &Entry) -> bool {
    let mut parts = entry.content.windows(SECRET.len());
    parts.any(|part| part == SECRET.as_bytes())
}

#[tokio::test]
async fn a_device_that_was_away_gets_an_erased_entry_in_each_place() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let tablet = world.phone(&bob).await;
    let group = hers.create_group(&[&bob]).await;
    tablet.has(group, 1).await;
    tablet.disconnect().await;
    let message = hers.say(group, SECRET).await.seq;
    let edited = done(&hers, By::Stream, group, &edit(message, SECRET)).await.seq;
    let reacted = done(&his, By::Call, group, &react(message, SECRET)).await.seq;
    let answer = done(&his, By::Stream, group, &reply(message, "I see")).await.seq;
    let deletion = done(&hers, By::Stream, group, &delete(message)).await.seq;

    tablet.connect().await;
    let log = tablet.has(group, deletion).await;
    has_no_gap(&log);
    let places = [message, edited, reacted].map(|seq| erased(&log.entries[&seq]));
    assert_eq!(
        places,
        [
            (MessageKind::Message, 0),
            (MessageKind::Edit, message),
            (MessageKind::Reaction, message),
        ]
    );
    assert_eq!(act(&log.entries[&answer]).body, "I see");
    assert_eq!(act(&log.entries[&deletion]).envelope.target_seq, message);
    let first = &log.entries[&message];
    assert_eq!((&first.sender_user_id, first.ordinal), (&alice.id.to_string(), 1));
    assert!(!log.entries.values().any(tells));

    // Nor does any call tell what it was.
    let api = tablet.api();
    let by_calls = read_by_calls(&api, group).await;
    assert!(by_calls.len() > log.entries.len());
    assert!(!by_calls.iter().any(tells));
    let left = read(&api, group, message).await.unwrap();
    assert_eq!((text(&left), left.deleted_seq), (None, deletion));
    assert!(left.reactions.is_empty());
    assert_eq!(left.reply_count, 1, "the replies stay");
    world.end().await;
}

/// Returns every entry of the chat as often as there are calls that give it.
async fn read_by_calls(api: &Api, chat: ChatId) -> Vec<Entry> {
    let log = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        from_seq: 1,
        ..Default::default()
    };
    let log = api.chats().list_entries(log).await.unwrap().into_inner().entries;
    let as_sent = v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let now = v1::ListMessagesRequest {
        folded: true,
        ..as_sent.clone()
    };
    let as_sent = api.chats().list_messages(as_sent).await.unwrap().into_inner();
    let now = api.chats().list_messages(now).await.unwrap().into_inner();
    let now = now.messages.into_iter().filter_map(|message| message.entry);
    [log, as_sent.entries, now.collect()].concat()
}

#[tokio::test]
async fn nothing_of_a_deleted_message_is_left_in_the_store() {
    let world = World::with(|builder| builder.media(1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let [file, other_file] = [
        upload(&hers.api(), "a picture").await,
        upload(&hers.api(), "another picture").await,
    ];
    let message = with_file(say("look"), &file);
    let message = done(&hers, By::Call, group, &message).await.seq;
    let kept = done(&hers, By::Stream, group, &with_file(say("and here"), &other_file)).await;
    let edited = with_file(edit(message, "look here"), &file);
    let edited = done(&hers, By::Stream, group, &edited).await;
    done(&hers, By::Stream, group, &pin(message)).await;
    let mut gone = vec![message.cast_signed(), edited.seq.cast_signed()];
    for reaction in [
        react(message, "+"),
        react(message, "-"),
        take_back(react(message, "-")),
    ] {
        let sent = done(&his, By::Stream, group, &reaction).await;
        gone.push(sent.seq.cast_signed());
    }
    let too = done(&his, By::Stream, group, &react(kept.seq, "+")).await;
    let kept = [kept.seq, too.seq].map(u64::cast_signed);
    download(&his.api(), group, &file).await.unwrap();
    done(&hers, By::Stream, group, &delete(message)).await;

    // The entries are blank for every reader at once. In the store the last bodies go a moment later.
    let store = world.store().await;
    until::some("nothing left of it in the store", BOUND, || async {
        let left = left(&store, group, &gone).await;
        anyhow::ensure!(left == (0, 0, 0), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(left(&store, group, &kept).await, (2, 1, 1));
    store.close().await;
    download(&his.api(), group, &other_file).await.unwrap();
    let refused = download(&his.api(), group, &file).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::MediaNotFound));
    world.end().await;
}

/// Returns how many of these entries have a body, to how many media they refer, and how many reactions to them there are.
async fn left(store: &PgPool, chat: ChatId, seqs: &[i64]) -> (i64, i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM messages m WHERE m.chat_id = $1 AND m.seq = ANY ($2) AND octet_length(m.body) > 0),
                (SELECT count(*) FROM media_refs m WHERE m.chat_id = $1 AND m.seq = ANY ($2)),
                (SELECT count(*) FROM reactions r WHERE r.chat_id = $1 AND r.target_seq = ANY ($2))",
    )
    .bind(chat.0)
    .bind(seqs.to_vec())
    .fetch_one(store)
    .await
    .unwrap()
}

/// This is rule 5, answered from memory and, by another node, from the log.
#[tokio::test]
async fn who_asks_again_gets_the_first_answer_whatever_was_deleted_since() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let device = world.device(&alice).await;
    let his = world.phone(&bob).await;
    let group = world.group(&[&alice, &bob]).await;
    let api = Api::new(world.channel(0), &device.access_token);
    let (mut wire, _) = Wire::open(world.new_channel(1), &device).await.unwrap();
    let acts = [say("hello"), edit(2, "hallo"), react(2, "+"), delete(2)];
    let acts = acts.map(|act| (RequestId::random(), act));
    let mut first = Vec::new();
    for (id, act) in &acts {
        let item = message_with(*id, group, &act.envelope, act.body.as_bytes());
        first.push(wire.send(item).await);
    }
    assert_eq!(first[0].seq, 2);
    let owner = world.owner_of(group).await;
    for moves in [false, true] {
        if moves {
            world.platform.drain(&owner).unwrap();
            world.platform.drained(&owner).await.unwrap();
        }
        for ((id, act), sent) in acts.iter().zip(&first) {
            let item = message_with(*id, group, &act.envelope, act.body.as_bytes());
            assert_eq!(wire.send(item).await, *sent, "{act:?}");
            let again = call(&api, group, *id, act).await.unwrap();
            assert_eq!(again, *sent, "{act:?}");
        }
        // A new request is about a message that is gone.
        let late = call(&api, group, RequestId::random(), &edit(2, "hallo")).await;
        assert_eq!(reason_of(&late.unwrap_err()), Some(ErrorReason::TargetNotFound));
    }
    his.has(group, 5).await;
    world.end().await;
}
