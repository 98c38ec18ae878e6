//! Tests of the store: it keeps its content over a restart, and empties the outbox and the history when it has to.

mod chosen;
mod gone;
mod messages;
mod search;
mod traces;
mod versions;

use std::time::Duration;

use tern_proto::v1::{self, ChatKind, Role};
use tern_types::{ChatId, Seq, UserId};
use uuid::Uuid;

use tern_client_core::engine::{Change, ChatRow, Engine, Input, Stored, StoredChat};
use tern_client_core::model::{Chat, Entry, FailureCode, Mark, Outgoing, QueuedMessage, SendState, To};
use tern_client_core::testing::{NOW, credentials, entry, settings, user};

use super::Store;
use crate::config::StoreLocation;
use crate::error::ClientError;

const CHAT: ChatId = ChatId(Uuid::from_u128(1));

fn memory() -> Store {
    let mut store = Store::open(&StoreLocation::Memory, true).unwrap();
    store.put_credentials(&credentials()).unwrap();
    store
}

fn queued(body: &'static str) -> QueuedMessage {
    let message = Outgoing::new(CHAT, body);
    QueuedMessage {
        message,
        chat: CHAT,
        created_at: NOW,
        state: SendState::Queued,
    }
}

/// Returns the entry that a queued message becomes.
fn own(queued: &QueuedMessage, seq: u64) -> Entry {
    let me = credentials();
    let request = Some(queued.message.request);
    Entry {
        sender: Some(me.user),
        device: Some(me.device),
        request,
        ..entry(CHAT, seq)
    }
}

fn row(peer: Option<UserId>) -> ChatRow {
    let chat = Chat {
        kind: ChatKind::Direct,
        title: "'; drop table chats; --".into(),
        peer,
        member_count: 2,
        role: Role::Member,
        head: Seq(9),
        active_at: NOW,
        read: Seq(4),
        unread: 5,
        description: "'; drop table chats; --".into(),
        policy: v1::GroupPolicy {
            slow_mode_s: 30,
            ..Default::default()
        },
        frozen: true,
        retention: v1::Retention {
            disappear_after_s: 60,
            ..Default::default()
        },
        settings: v1::ChatSettings {
            archived: true,
            draft: "half a sen".into(),
            ..Default::default()
        },
        join_request_count: 7,
        history_from_seq: Seq(2),
        unread_mention_count: 4,
        first_unread_mention_seq: Some(Seq(5)),
        ..Chat::unknown(CHAT)
    };
    ChatRow {
        chat,
        cursor: Some(Seq(9)),
        known: true,
        confirmed_read: Seq(3),
        listed_head: Seq(5),
        listed_unread: 2,
        own: Seq(1),
        listed_mentions: 3,
        listed_first_mention: Seq(5),
        settings_seq: Seq(8),
    }
}

#[test]
fn a_file_is_the_same_after_a_restart_and_belongs_to_one() {
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("sub/device.db"));
    let mark = Mark {
        delivered: Seq(5),
        read: Seq(2),
    };
    let (epoch, message) = (Uuid::from_u128(77), queued("hello"));
    let changes = [
        Change::Epoch(epoch),
        Change::Listed,
        Change::Chat(row(None)),
        Change::Queue(message.clone()),
        Change::Receipt {
            chat: CHAT,
            user: user(2),
            mark,
        },
        Change::Entry(entry(CHAT, 8)),
    ];
    let mut store = Store::open(&location, true).unwrap();
    assert_eq!(store.credentials().unwrap(), None);
    store.put_credentials(&credentials()).unwrap();
    store.commit(&changes).unwrap();
    let other = Store::open(&location, true).unwrap_err();
    assert!(matches!(other, ClientError::InUse), "{other}");
    drop(store);

    let mut store = Store::open(&location, true).unwrap();
    let stored = store.load().unwrap();
    assert_eq!(store.credentials().unwrap(), Some(credentials()));
    assert_eq!((stored.epoch, stored.listed), (Some(epoch), true));
    let chat = StoredChat {
        row: row(None),
        unread: vec![Seq(8)],
        mentions: vec![],
    };
    assert_eq!(stored.chats, [chat]);
    assert_eq!(store.chat(CHAT).unwrap(), Some(row(None).chat));
    assert_eq!(store.chat(ChatId(Uuid::from_u128(2))).unwrap(), None);
    assert_eq!(stored.outbox, [message]);
    assert_eq!(stored.receipts, [(CHAT, user(2), mark)]);
    assert_eq!(store.history(CHAT, None, 10).unwrap(), [entry(CHAT, 8)]);
    let (chat, user) = (CHAT, user(2));
    store.commit(&[Change::NoReceipt { chat, user }]).unwrap();
    assert!(store.load().unwrap().receipts.is_empty());
}

#[test]
fn a_message_leaves_the_outbox_when_its_entry_is_in_the_log() {
    let mut store = memory();
    let (first, second) = (queued("a"), queued("b"));
    store
        .commit(&[Change::Queue(first.clone()), Change::Queue(second.clone())])
        .unwrap();
    let (request, seq) = (first.message.request, Seq(1));
    store
        .commit(&[Change::Sent {
            request,
            chat: CHAT,
            seq,
            sent_at: NOW,
        }])
        .unwrap();
    assert_eq!(
        store.outbox().unwrap()[0].state,
        SendState::Sent { seq, sent_at: NOW }
    );
    store.commit(&[Change::Entry(own(&first, 1))]).unwrap();
    assert_eq!(store.outbox().unwrap(), [second]);
}

#[test]
fn another_devices_request_id_takes_nothing_out_of_the_outbox() {
    let mut store = memory();
    let message = queued("mine");
    let request = Some(message.message.request);
    store
        .commit(&[
            Change::Queue(message.clone()),
            Change::Entry(Entry {
                request,
                ..entry(CHAT, 1)
            }),
        ])
        .unwrap();
    assert_eq!(store.outbox().unwrap(), [message]);
}

#[test]
fn a_refused_message_stays_until_it_is_discarded() {
    let mut store = memory();
    let message = queued("no");
    let request = message.message.request;
    store
        .commit(&[Change::Queue(message), Change::Unqueue(request)])
        .unwrap();
    assert_eq!(
        store.outbox().unwrap().len(),
        1,
        "one that waits is not discarded"
    );
    let (code, text) = (FailureCode::SlowMode, "gone".to_owned());
    let retry_at = Some(NOW + Duration::from_secs(30));
    store
        .commit(&[Change::Failed {
            request,
            code,
            message: text.clone(),
            retry_at,
        }])
        .unwrap();
    assert_eq!(
        store.outbox().unwrap()[0].state,
        SendState::Failed {
            code,
            message: text,
            retry_at,
        }
    );
    store.commit(&[Change::Unqueue(request)]).unwrap();
    assert_eq!(store.outbox().unwrap(), []);
}

#[test]
fn a_message_with_the_request_id_of_a_refused_one_is_kept_in_its_place_until_its_entry_comes() {
    let mut store = memory();
    let (refused, other) = (queued("refused"), queued("other"));
    let mut again = queued("again");
    again.message.request = refused.message.request;
    let failed = Change::Failed {
        request: refused.message.request,
        code: FailureCode::NotAMember,
        message: "no".into(),
        retry_at: None,
    };
    store
        .commit(&[
            Change::Queue(refused),
            failed,
            Change::Queue(other.clone()),
            Change::Queue(again.clone()),
        ])
        .unwrap();
    assert_eq!(store.outbox().unwrap(), [other.clone(), again.clone()]);
    let mut second = again.clone();
    second.message.body = "a second time".into();
    store.commit(&[Change::Queue(second)]).unwrap();
    assert_eq!(store.outbox().unwrap(), [other.clone(), again.clone()]);
    // The result is lost, and the entry comes.
    store.commit(&[Change::Entry(own(&again, 1))]).unwrap();
    assert_eq!(store.outbox().unwrap(), [other]);
}

#[test]
fn history_comes_in_pages_and_the_servers_word_stands_over_a_sends_result() {
    let mut store = memory();
    let changes: Vec<_> = (1..=30).map(|seq| Change::Entry(entry(CHAT, seq))).collect();
    store.commit(&changes).unwrap();
    let page = store.history(CHAT, Some(Seq(21)), 10).unwrap();
    assert_eq!(
        page.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(),
        (11..=20).collect::<Vec<_>>()
    );

    let result = Entry {
        ordinal: 0,
        ..own(&queued("x"), 31)
    };
    let server = Entry {
        ordinal: 31,
        ..result.clone()
    };
    store
        .commit(&[
            Change::Entry(result.clone()),
            Change::Entry(server.clone()),
            Change::Entry(result),
        ])
        .unwrap();
    assert_eq!(store.history(CHAT, None, 1).unwrap(), [server]);
}

#[test]
fn a_new_epoch_forgets_all_and_offers_own_messages_again_before_those_that_wait() {
    let mut store = memory();
    let (sent, waiting) = (queued("sent"), queued("waiting"));
    let recent = own(&sent, 3);
    let old = Entry {
        sent_at: NOW - Duration::from_secs(3600),
        ..own(&queued("long ago"), 2)
    };
    let epoch = Uuid::from_u128(2);
    store
        .commit(&[
            Change::Epoch(Uuid::from_u128(1)),
            Change::Listed,
            Change::Chat(row(Some(user(2)))),
            Change::Queue(waiting.clone()),
            Change::Entry(entry(CHAT, 1)),
            Change::Entry(old),
            Change::Entry(recent),
            Change::Reset {
                epoch,
                since: NOW - Duration::from_secs(60),
            },
        ])
        .unwrap();
    let outbox = store.outbox().unwrap();
    let requests: Vec<_> = outbox.iter().map(|queued| queued.message.request).collect();
    assert_eq!(requests, [sent.message.request, waiting.message.request]);
    assert_eq!(outbox[0].message.to, To::Peer(user(2)));
    let stored = store.load().unwrap();
    assert_eq!(
        (stored.epoch, stored.listed, stored.chats.len()),
        (Some(epoch), false, 0)
    );
    assert_eq!(store.history(CHAT, None, 10).unwrap(), []);
}

#[test]
fn without_history_nothing_is_kept_but_the_outbox_is_emptied_all_the_same() {
    let mut store = Store::open(&StoreLocation::Memory, false).unwrap();
    store.put_credentials(&credentials()).unwrap();
    let message = queued("x");
    store
        .commit(&[Change::Queue(message.clone()), Change::Entry(own(&message, 1))])
        .unwrap();
    assert_eq!(
        (store.outbox().unwrap(), store.history(CHAT, None, 10).unwrap()),
        (vec![], vec![])
    );
}

#[test]
fn without_history_what_was_unread_at_the_last_stop_is_unread_after_the_next_start() {
    let mut store = Store::open(&StoreLocation::Memory, false).unwrap();
    store.put_credentials(&credentials()).unwrap();
    store.commit(&[Change::Chat(row(None))]).unwrap();
    let stored = store.load().unwrap().chats.remove(0);
    let row = &stored.row;
    assert_eq!((row.listed_head, row.listed_unread), (Seq(9), 5));
    assert_eq!((row.listed_mentions, row.listed_first_mention), (4, Seq(5)));
    assert_eq!((stored.unread.len(), stored.mentions.len()), (0, 0));
    let stored = Stored {
        chats: vec![stored],
        listed: true,
        ..Stored::default()
    };
    let mut engine = Engine::new(credentials(), stored, settings());
    let read = |seq| Input::MarkRead { chat: CHAT, seq };
    let effects = engine.apply([Input::Start, read(Seq(7)), read(Seq(9))], NOW);
    assert!(matches!(&effects.changes[..], [Change::Chat(row)] if row.chat.unread == 0));
}

#[test]
fn names_are_remembered() {
    let mut store = memory();
    store.put_names(&[(user(2), "Bob".into())]).unwrap();
    store.put_names(&[(user(2), "Robert".into())]).unwrap();
    assert_eq!(store.names().unwrap(), [(user(2), "Robert".to_owned())].into());
}

/// The person's own log is stored like a chat, and is none to show.
#[test]
fn the_own_log_is_no_chat() {
    let mut store = memory();
    let own = ChatRow {
        chat: Chat::unknown(ChatId::own(user(1))),
        ..row(None)
    };
    store
        .commit(&[Change::Chat(row(None)), Change::Chat(own)])
        .unwrap();
    let chats: Vec<ChatId> = store.chats().unwrap().into_iter().map(|chat| chat.id).collect();
    assert_eq!(chats, [CHAT]);
    assert_eq!(store.load().unwrap().chats.len(), 2, "the engine has its cursor");
}

#[test]
fn unread_mentions_are_known_after_a_restart() {
    let mut store = memory();
    let mentioning = |seq| {
        let mut message = Outgoing::new(CHAT, "hello");
        message.envelope.mentioned_user_ids = vec![user(1).to_string()];
        messages::sent(seq, 2, message)
    };
    let entries = [mentioning(6), entry(CHAT, 7), mentioning(8), mentioning(9)];
    messages::put(&mut store, entries);
    messages::put(&mut store, [messages::deletion(10, 8)]);
    store.commit(&[Change::Chat(row(None))]).unwrap();
    let chat = store.load().unwrap().chats.remove(0);
    let seqs = |seqs: Vec<Seq>| seqs.iter().map(|seq| seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(chat.unread), [6, 7, 8, 9]);
    assert_eq!(seqs(chat.mentions), [6, 9], "one was deleted");
}
