//! New members read of the time before what the policy says: by history, and never by the stream.

use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, Gap, GroupPolicy, JoinerHistory, SkipReason};
use tern_tests::acts::{By, TARGET_NOT_FOUND, content, done, is_refused, react, read, say, text, with_file};
use tern_tests::files::{download, upload};
use tern_tests::groups::{add, remove, set_policy, view, why};
use tern_tests::{Api, Phone, User, World};
use tern_types::ChatId;

/// Lets those who join from now on read this part of the history.
async fn joiners_read(admin: &Phone, group: ChatId, history: JoinerHistory, entries: u32) {
    let policy = GroupPolicy {
        joiner_history: history.into(),
        joiner_history_entries: entries,
        ..Default::default()
    };
    let set = set_policy(&admin.api(), group, policy).await;
    assert!(set.unwrap() > 0);
}

/// Returns the seqs of all messages that the caller finds in the history, the oldest first, and its gaps.
async fn history(api: &Api, chat: ChatId) -> (Vec<u64>, Vec<Gap>) {
    let list = v1::ListMessagesRequest {
        chat_id: chat.to_string(),
        page_size: 256,
        folded: true,
        ..Default::default()
    };
    let page = api.chats().list_messages(list).await.unwrap().into_inner();
    assert_eq!(page.next_before_seq, 0, "one page has it all: {page:?}");
    let seq = |message: &v1::HistoryMessage| message.entry.as_ref().unwrap().seq;
    let mut seqs: Vec<u64> = page.messages.iter().map(seq).collect();
    seqs.sort_unstable();
    (seqs, page.gaps)
}

/// Adds a user, whose phone gets the group from that entry on, and checks what they may read from. Returns the seq of the
/// entry.
async fn joins(
    admin: &Phone,
    group: ChatId,
    user: &User,
    phone: &Phone,
    reads_from: impl Fn(u64) -> u64,
) -> u64 {
    let added = add(&admin.api(), group, user.id).await.unwrap();
    let log = phone.has(group, added).await;
    let from = match content(&log.entries[&added]) {
        Content::MembersAdded(added) => added.history_from_seq,
        other => panic!("{other:?}"),
    };
    let from = if from == 0 { added } else { from };
    assert_eq!(from, reads_from(added));
    let shown = view(&phone.api(), group).await.unwrap();
    assert_eq!(shown.history_from_seq, from, "{shown:?}");
    // The stream and the log begin with the membership all the same.
    let first = log.entries.keys().next().copied();
    assert_eq!(
        (first, shown.resume_seq >= added - 1),
        (Some(added), true),
        "{shown:?}"
    );
    let entries = v1::ListEntriesRequest {
        chat_id: group.to_string(),
        ..Default::default()
    };
    let entries = phone.api().chats().list_entries(entries).await;
    let entries = entries.unwrap().into_inner().entries;
    assert_eq!(entries.first().map(|entry| entry.seq), Some(added));
    added
}

#[tokio::test]
async fn who_joins_reads_nothing_the_last_entries_or_all_as_the_policy_says() {
    let world = World::start().await;
    let [alice, bob, carol, dave] = world.users(["alice", "bob", "carol", "dave"]).await;
    let hers = world.phone(&alice).await;
    let group = hers.create_group(&[]).await;
    let mut said = Vec::new();
    for number in 0..6 {
        said.push(hers.say(group, format!("message {number}")).await.seq);
    }
    let (his, carols, daves) = (
        world.phone(&bob).await,
        world.phone(&carol).await,
        world.phone(&dave).await,
    );
    joins(&hers, group, &bob, &his, |added| added).await;
    assert_eq!(history(&his.api(), group).await, (vec![], vec![]));
    assert_eq!(
        why(read(&his.api(), group, said[5]).await),
        ErrorReason::MessageNotFound
    );

    joiners_read(&hers, group, JoinerHistory::Last, 4).await;
    // The four are a message, Bob's addition, the policy, and the message that follows.
    let fresh = hers.say(group, "fresh").await.seq;
    let added = joins(&hers, group, &carol, &carols, |added| added - 4).await;
    let (old, first) = (said[4], said[5]);
    assert_eq!((first, fresh, added), (added - 4, added - 1, fresh + 1));
    assert_eq!(history(&carols.api(), group).await.0, [first, fresh]);
    let shown = read(&carols.api(), group, first).await.unwrap();
    assert_eq!(text(&shown).as_deref(), Some("message 5"));
    assert_eq!(
        why(read(&carols.api(), group, old).await),
        ErrorReason::MessageNotFound
    );
    // She may react to the messages that she may read, and to no others.
    done(&carols, By::Stream, group, &react(first, "+")).await;
    is_refused(&carols, group, &react(old, "+"), TARGET_NOT_FOUND).await;

    joiners_read(&hers, group, JoinerHistory::All, 0).await;
    joins(&hers, group, &dave, &daves, |_| 1).await;
    let all: Vec<u64> = said.iter().copied().chain([fresh]).collect();
    assert_eq!(history(&daves.api(), group).await, (all, vec![]));
    // The policy at the time of joining holds for a member for good: later changes concern only those who join later.
    assert_eq!(history(&his.api(), group).await.0, [fresh]);
    assert_eq!(history(&carols.api(), group).await.0, [first, fresh]);
    world.end().await;
}

#[tokio::test]
async fn who_was_away_for_a_time_has_a_gap_in_the_history_and_is_told_on_the_stream() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let before = hers.say(group, "before").await.seq;
    let removed = remove(&hers.api(), group, bob.id).await.unwrap();
    his.has(group, removed).await;
    let between = hers.say(group, "between").await.seq;
    let added = add(&hers.api(), group, bob.id).await.unwrap();
    let after = hers.say(group, "after").await.seq;
    let log = his.has(group, after).await;
    assert_eq!(log.texts(), ["before", "after"]);
    let skipped = log.skipped.last().unwrap();
    assert_eq!(
        (skipped.reason(), skipped.to_seq),
        (SkipReason::NotAMember, added - 1)
    );
    let gap = Gap {
        from_seq: removed + 1,
        to_seq: added - 1,
    };
    assert_eq!(history(&his.api(), group).await, (vec![before, after], vec![gap]));
    assert_eq!(history(&hers.api(), group).await.1, []);
    assert_eq!(
        why(read(&his.api(), group, between).await),
        ErrorReason::MessageNotFound
    );

    // Under another policy he reads of the time in which he was away, by history only.
    remove(&hers.api(), group, bob.id).await.unwrap();
    let missed = hers.say(group, "missed").await.seq;
    joiners_read(&hers, group, JoinerHistory::All, 0).await;
    let again = add(&hers.api(), group, bob.id).await.unwrap();
    let log = his.has(group, again).await;
    assert_eq!(log.texts(), ["before", "after"]);
    let skipped = log.skipped.last().unwrap();
    assert_eq!(
        (skipped.reason(), skipped.to_seq),
        (SkipReason::NotAMember, again - 1)
    );
    let all = vec![before, between, after, missed];
    assert_eq!(history(&his.api(), group).await, (all, vec![]));
    world.end().await;
}

#[tokio::test]
async fn files_of_before_are_for_those_who_may_read_the_message() {
    let world = World::with(|builder| builder.media(1)).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let hers = world.phone(&alice).await;
    let (his, carols) = (world.phone(&bob).await, world.phone(&carol).await);
    let group = hers.create_group(&[]).await;
    let file = upload(&hers.api(), "a map").await;
    let sent = done(&hers, By::Stream, group, &with_file(say("a map"), &file)).await;
    joins(&hers, group, &bob, &his, |added| added).await;
    assert_eq!(
        why(download(&his.api(), group, &file).await),
        ErrorReason::MediaNotFound
    );
    joiners_read(&hers, group, JoinerHistory::All, 0).await;
    joins(&hers, group, &carol, &carols, |_| 1).await;
    assert_eq!(history(&carols.api(), group).await.0, [sent.seq]);
    download(&carols.api(), group, &file).await.unwrap();
    assert_eq!(
        why(download(&his.api(), group, &file).await),
        ErrorReason::MediaNotFound
    );
    world.end().await;
}
