//! Tests users' own logs: how they are made, what they keep of chats, and lists of chats by it.

use bytes::Bytes;
use sqlx::Connection;
use tern_chat::store::change::own::{MAX_HIDDEN, OUTDATED};
use tern_chat::store::listing;
use tern_chat::store::lists::{self, Asked, Filter, Since};
use tern_chat::store::own::settings::{self, MAX_PINNED};
use tern_chat::store::own::{self, Made, hidden};
use tern_chat_core::change::Action;
use tern_chat_core::change::own::{OwnChange, SettingsChange};
use tern_chat_core::chat::ChatKind;
use tern_chat_core::settings::{Kept, Settings};
use tern_chat_core::{ChangeRefusal, EntryKind, Outcome, Refusal};
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use crate::harness::{Known, Store, new_entry};
use crate::owner::Owner;

impl Store {
    /// Makes a user who has an own log.
    async fn user_with_log(&self) -> UserId {
        let user = self.user().await;
        let made = own::make(&self.pools, &self.master, user).await.unwrap();
        assert_eq!(made, Made::Done);
        user
    }

    /// Returns the settings of a chat.
    async fn kept(&self, user: UserId, chat: ChatId) -> Option<Kept> {
        let kept = settings::of_chats(&self.pools, &self.master, user, [chat]).await;
        kept.unwrap().remove(&chat)
    }

    /// Returns a change of the settings that are kept now.
    async fn change_to(&self, user: UserId, chat: ChatId, settings: Settings) -> SettingsChange {
        SettingsChange {
            chat,
            settings,
            seen: self.kept(user, chat).await.map_or(Seq::ZERO, |kept| kept.seq),
            read: Seq(4),
            is_news: true,
        }
    }

    /// Makes a direct chat of the user with a message in it.
    async fn chat_of(&self, user: UserId) -> Known {
        let mut chat = self.direct(user, self.user().await).await;
        let mut db = self.shard().await;
        self.say(&mut db, &mut chat, user, "hello").await;
        chat
    }

    /// Returns the ids of the chats of all pages, with pages of `size` chats.
    async fn pages(&self, user: UserId, size: u32, filter: Filter, since: Option<Since>) -> Vec<ChatId> {
        let (mut after, mut chats) = (None, Vec::new());
        loop {
            let asked = Asked {
                size,
                max_bytes: 1 << 20,
                after,
                filter,
                since,
            };
            let page = lists::list(&self.pools, &self.master, user, None, &asked)
                .await
                .unwrap();
            assert!(!page.partial && page.chats.len() <= size as usize);
            chats.extend(page.chats.iter().map(|view| view.chat));
            after = page.next;
            if after.is_none() {
                return chats;
            }
        }
    }
}

impl Owner<'_> {
    async fn write_own(&mut self, user: UserId, change: OwnChange) -> Outcome {
        let (own, request) = (ChatId::own(user), RequestId::random());
        self.change(own, user, request, Action::Own(Box::new(change)))
            .await
    }

    async fn hide(&mut self, user: UserId, chat: ChatId, seqs: &[u64]) -> Outcome {
        let seqs = seqs.iter().map(|seq| Seq(*seq)).collect();
        self.write_own(user, OwnChange::Hide { chat, seqs }).await
    }

    async fn keep(&mut self, store: &Store, user: UserId, chat: ChatId, settings: Settings) -> Outcome {
        let change = store.change_to(user, chat, settings).await;
        self.write_own(user, OwnChange::Settings(change)).await
    }
}

/// Returns the seq of the entry; `None` for any other outcome.
fn place(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Changed(Ok(Some(place))) => Some(place.seq.0),
        _ => None,
    }
}

fn pinned_at(at: i64) -> Settings {
    Settings {
        pinned_at: Timestamp(at),
        ..Settings::default()
    }
}

#[tokio::test]
async fn an_own_log_is_made_once_with_the_devices_of_its_user() {
    let store = Store::new().await;
    let nobody = own::make(&store.pools, &store.master, UserId::random()).await;
    assert_eq!(nobody.unwrap(), Made::NobodyFound);
    let user = store.user().await;
    let first = store.device(user).await;
    let own = ChatId::own(user);
    assert_eq!(
        own::make(&store.pools, &store.master, user).await.unwrap(),
        Made::Done
    );
    let made = store.snapshot(own).await;
    assert_eq!(
        (made.kind, made.head, made.members.len()),
        (ChatKind::Own, Seq(0), 1)
    );
    assert_eq!(
        own::make(&store.pools, &store.master, user).await.unwrap(),
        Made::Done
    );
    assert!(store.snapshot(own).await.key == made.key, "it is the same log");
    let second = store.device(user).await;
    let devices: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT devices FROM members WHERE chat_id = $1")
        .bind(own.0)
        .fetch_one(store.pools.of(own))
        .await
        .unwrap();
    assert_eq!(devices, [first.0, second.0]);

    let mut linking = store.stranger().await;
    let mut tx = linking.begin().await.unwrap();
    let other = store.user().await;
    sqlx::query("SELECT FROM people.users WHERE user_id = $1 FOR NO KEY UPDATE")
        .bind(other.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(
        own::make(&store.pools, &store.master, other).await.unwrap(),
        Made::Locked
    );
}

#[tokio::test]
async fn an_own_log_takes_no_messages_and_is_in_no_list() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let (own, mut owner) = (ChatId::own(user), Owner::new(&store));
    for sender in [user, UserId::SYSTEM] {
        let refused = owner
            .send(own, &new_entry(sender, EntryKind::Message, b"x"))
            .await;
        assert_eq!(refused, Outcome::Sent(Err(Refusal::NotAllowed)), "{sender}");
    }
    let stranger = store.user().await;
    let refused = owner
        .send(own, &new_entry(stranger, EntryKind::Message, b"x"))
        .await;
    assert_eq!(
        refused,
        Outcome::Sent(Err(Refusal::NotAMember)),
        "of others it tells nothing"
    );
    let note = || Action::Own(Box::new(OwnChange::Note(Bytes::from_static(b"note"))));
    let request = RequestId::random();
    for _ in 0..2 {
        let noted = owner.change(own, UserId::SYSTEM, request, note()).await;
        assert_eq!(place(&noted), Some(1), "the same request is one entry");
    }
    assert_eq!(store.log(own).await, [1]);
    assert_eq!(store.pages(user, 10, Filter::All, None).await, []);
    let one = listing::chat(&store.pools, &store.master, user, None, own).await;
    let one = one.unwrap().unwrap();
    assert_eq!((one.kind, one.head, one.unread()), (ChatKind::Own, Seq(1), 0));
}

#[tokio::test]
async fn settings_are_kept_as_they_were_set_last() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let (chat, mut owner) = (store.chat_of(user).await.id, Owner::new(&store));
    assert_eq!(store.kept(user, chat).await, None);
    let all = Settings {
        muted_until: Timestamp(i64::MAX),
        archived: true,
        pinned_at: Timestamp(5),
        marked_unread: true,
        draft: Bytes::from_static(b"what I meant to say"),
        mentions_only: true,
    };
    let outdated = store.change_to(user, chat, Settings::default()).await;
    let set = owner.keep(&store, user, chat, all.clone()).await;
    assert_eq!(place(&set), Some(1));
    let kept = Kept {
        settings: all,
        marked_at: Seq(4),
        seq: Seq(1),
    };
    assert_eq!(store.kept(user, chat).await, Some(kept));
    let stored: Vec<u8> = sqlx::query_scalar("SELECT draft FROM public.chat_settings")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert!(!stored.windows(4).any(|part| part == b"what"), "it is sealed");

    let refused = owner.write_own(user, OwnChange::Settings(outdated)).await;
    assert_eq!(refused, Outcome::Changed(Err(OUTDATED)));
    assert_eq!(store.log(ChatId::own(user)).await, [1]);
    let set = owner.keep(&store, user, chat, Settings::default()).await;
    assert_eq!(place(&set), Some(2));
    let kept = store.kept(user, chat).await.unwrap();
    assert_eq!((kept.settings, kept.seq), (Settings::default(), Seq(2)));
}

/// An owner that has the own log in memory decides by what the store has now.
#[tokio::test]
async fn of_two_owners_only_one_changes_the_same_settings() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let chat = store.chat_of(user).await.id;
    let (mut one, mut other) = (Owner::new(&store), Owner::new(&store));
    // Both know the own log as it is before.
    assert_eq!(place(&one.hide(user, chat, &[9]).await), Some(1));
    assert_eq!(place(&other.hide(user, chat, &[8]).await), Some(2));
    let archived = Settings {
        archived: true,
        ..Settings::default()
    };
    let late = store.change_to(user, chat, pinned_at(3)).await;
    assert_eq!(
        place(&other.keep(&store, user, chat, archived.clone()).await),
        Some(3)
    );
    let refused = one.write_own(user, OwnChange::Settings(late)).await;
    assert_eq!(refused, Outcome::Changed(Err(OUTDATED)));
    assert_eq!(store.kept(user, chat).await.unwrap().settings, archived);
}

#[tokio::test]
async fn a_user_has_32_pinned_chats_at_most() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let mut owner = Owner::new(&store);
    let chats: Vec<ChatId> = (0..=MAX_PINNED as u128)
        .map(|n| ChatId(uuid::Uuid::from_u128(n)))
        .collect();
    for chat in &chats[1..] {
        let pinned = owner.keep(&store, user, *chat, pinned_at(1)).await;
        assert!(place(&pinned).is_some(), "{pinned:?}");
    }
    let full = owner.keep(&store, user, chats[0], pinned_at(1)).await;
    let expected = matches!(
        full,
        Outcome::Changed(Err(ChangeRefusal::ListFull { most: MAX_PINNED, .. }))
    );
    assert!(expected, "{full:?}");
    // A pinned chat may be pinned anew although the list is full, and one that is unpinned makes room for another.
    for (chat, at) in [(chats[1], 2), (chats[2], 0), (chats[0], 1)] {
        let pinned = owner.keep(&store, user, chat, pinned_at(at)).await;
        assert!(place(&pinned).is_some(), "{pinned:?}");
    }
}

#[tokio::test]
async fn messages_are_hidden_from_the_user_alone_and_10000_of_a_chat_at_most() {
    let store = Store::new().await;
    let (user, other) = (store.user_with_log().await, store.user_with_log().await);
    let (chat, mut owner) = (store.chat_of(user).await.id, Owner::new(&store));
    assert_eq!(place(&owner.hide(user, chat, &[3, 5]).await), Some(1));
    let of = async |user, chat| {
        let seqs = [1, 3, 4, 5].map(Seq);
        let hidden = hidden::among(&store.pools, user, chat, seqs).await.unwrap();
        let mut hidden: Vec<u64> = hidden.into_iter().map(|seq| seq.0).collect();
        hidden.sort_unstable();
        hidden
    };
    assert_eq!(of(user, chat).await, [3, 5]);
    assert_eq!(of(other, chat).await, [] as [u64; 0]);
    assert_eq!(of(user, ChatId::own(other)).await, [] as [u64; 0]);

    let own = ChatId::own(user);
    sqlx::query(
        "INSERT INTO hidden_messages (chat_id, of_chat, seq) SELECT $1, $2, s FROM generate_series(10, 10006) AS s",
    )
    .bind(own.0)
    .bind(chat.0)
    .execute(store.pools.of(own))
    .await
    .unwrap();
    let full = owner.hide(user, chat, &[20_001, 20_002]).await;
    let expected = matches!(
        full,
        Outcome::Changed(Err(ChangeRefusal::ListFull { most: MAX_HIDDEN, .. }))
    );
    assert!(expected, "{full:?}");
    assert_eq!(place(&owner.hide(user, chat, &[20_001]).await), Some(2));
}

#[tokio::test]
async fn pinned_chats_come_first_whatever_the_size_of_a_page() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let mut owner = Owner::new(&store);
    for _ in 0..6 {
        store.chat_of(user).await;
    }
    let recent = store.pages(user, 10, Filter::All, None).await;
    assert_eq!(recent.len(), 6);
    let (archived, pinned) = (recent[1], [recent[3], recent[5]]);
    for (chat, settings) in [
        (pinned[0], pinned_at(20)),
        (pinned[1], pinned_at(10)),
        (
            archived,
            Settings {
                archived: true,
                ..Settings::default()
            },
        ),
    ] {
        assert!(place(&owner.keep(&store, user, chat, settings).await).is_some());
    }
    let all = [pinned[0], pinned[1], recent[0], recent[1], recent[2], recent[4]];
    let active: Vec<ChatId> = all.into_iter().filter(|chat| *chat != archived).collect();
    for size in 1..=7 {
        assert_eq!(store.pages(user, size, Filter::All, None).await, all, "{size}");
        assert_eq!(
            store.pages(user, size, Filter::Active, None).await,
            active,
            "{size}"
        );
        assert_eq!(
            store.pages(user, size, Filter::Archived, None).await,
            [archived],
            "{size}"
        );
    }

    // A chat that is pinned after the first page is on a later page all the same.
    let asked = |after| Asked {
        size: 3,
        max_bytes: 1 << 20,
        after,
        filter: Filter::All,
        since: None,
    };
    let list = async |after| {
        let page = lists::list(&store.pools, &store.master, user, None, &asked(after)).await;
        page.unwrap()
    };
    let first = list(None).await;
    assert!(place(&owner.keep(&store, user, recent[4], pinned_at(30)).await).is_some());
    let second = list(first.next).await;
    let second: Vec<ChatId> = second.chats.iter().map(|view| view.chat).collect();
    assert_eq!(second, [recent[1], recent[2], recent[4]]);
}

#[tokio::test]
async fn of_all_chats_those_that_changed_since_are_listed() {
    let store = Store::new().await;
    let user = store.user_with_log().await;
    let mut owner = Owner::new(&store);
    let (old, pinned, kept) = (
        store.chat_of(user).await,
        store.chat_of(user).await,
        store.chat_of(user).await,
    );
    assert_eq!(
        place(&owner.keep(&store, user, pinned.id, pinned_at(1)).await),
        Some(1)
    );
    let asked = Asked {
        size: 10,
        max_bytes: 1 << 20,
        after: None,
        filter: Filter::All,
        since: None,
    };
    let head = lists::list(&store.pools, &store.master, user, None, &asked)
        .await
        .unwrap()
        .head;
    assert_eq!(head, Some(Seq(1)));
    let since = |at| {
        Some(Since {
            own: Seq(1),
            at: Timestamp(at),
        })
    };
    let none = store.pages(user, 10, Filter::All, since(i64::MAX)).await;
    assert_eq!(none, [], "no entry is as new as that");
    assert_eq!(store.pages(user, 10, Filter::All, since(0)).await.len(), 3);
    assert_eq!(
        place(&owner.keep(&store, user, kept.id, Settings::default()).await),
        Some(2)
    );
    let changed = store.pages(user, 10, Filter::All, since(i64::MAX)).await;
    assert_eq!(changed, [kept.id], "also if its settings are the defaults again");

    let sent = sqlx::query("UPDATE messages SET sent_at = sent_at + interval '1 hour' WHERE chat_id = $1");
    sent.bind(old.id.0).execute(store.pools.of(old.id)).await.unwrap();
    let newest = listing::chat(&store.pools, &store.master, user, None, old.id).await;
    let at = newest.unwrap().unwrap().last_entry.unwrap().sent_at_ms;
    let mut changed = store.pages(user, 1, Filter::All, since(at)).await;
    changed.sort_unstable();
    let mut expected = [old.id, kept.id];
    expected.sort_unstable();
    assert_eq!(changed, expected);
}

#[tokio::test]
async fn without_an_own_log_all_chats_have_their_defaults() {
    let store = Store::new().await;
    let user = store.user().await;
    let chat = store.chat_of(user).await.id;
    assert_eq!(store.kept(user, chat).await, None);
    for filter in [Filter::All, Filter::Active] {
        assert_eq!(store.pages(user, 1, filter, None).await, [chat]);
    }
    assert_eq!(store.pages(user, 1, Filter::Archived, None).await, []);
}

#[tokio::test]
async fn that_a_device_is_linked_is_noted_once() {
    let store = Store::new().await;
    let user = store.user().await;
    let device = store.device(user).await;
    let noted = async || {
        let count = sqlx::query_scalar("SELECT count(*) FROM own_log_outbox WHERE user_id = $1");
        let count: i64 = count.bind(user.0).fetch_one(&store.pool).await.unwrap();
        count
    };
    assert_eq!(noted().await, 1);
    let again = tern_chat::store::devices::link(&store.pools, user, device).await;
    assert!(again.unwrap());
    assert_eq!(noted().await, 1);
    store.device(user).await;
    assert_eq!(noted().await, 2);
}
