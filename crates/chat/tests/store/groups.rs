//! Tests how groups are run: what those who join may read, who owns a group, slow mode, and frost. An owner decides, as on
//! a chat node.

use std::time::Duration;

use bytes::Bytes;
use tern_chat::store::entries::{self, Item};
use tern_chat::store::history::{Begin, Bounds, Only, Reader};
use tern_chat::store::listing::{self, ChatView};
use tern_chat_core::change::Action;
use tern_chat_core::chat::{Member, Role};
use tern_chat_core::policy::{JoinerHistory, Policy};
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, NewEntry, Outcome, Refusal};
use tern_proto::raw;
use tern_proto::v1::entry_content::Content;
use tern_types::{ChatId, RequestId, Seq, UserId};

use crate::harness::{Store, new_entry};
use crate::owner::Owner;

const NEWEST: Begin = Begin::Below(Seq(i64::MAX as u64));
const BOUNDS: Bounds = Bounds {
    limit: 100,
    bytes: 1 << 20,
};

/// A chat and its owner.
struct World<'a> {
    store: &'a Store,
    owner: Owner<'a>,
    chat: ChatId,
    /// The seqs of the reactions, which only one of the two ways to list history has.
    reactions: Vec<u64>,
}

fn message(sender: UserId) -> NewEntry {
    NewEntry {
        content: raw::message_content(&Bytes::new(), &Bytes::from_static(b"x")),
        ..new_entry(sender, EntryKind::Message, b"")
    }
}

fn reaction(sender: UserId, target: u64) -> NewEntry {
    let reaction = Bytes::from_static(b"+");
    NewEntry {
        content: raw::message_content(&Bytes::new(), &reaction),
        about: Some(About {
            target: Seq(target),
            take_back: false,
            reaction,
        }),
        ..new_entry(sender, EntryKind::Reaction, b"")
    }
}

fn with_history(joiner_history: JoinerHistory) -> Action {
    Action::SetPolicy(Policy {
        joiner_history,
        ..Policy::default()
    })
}

impl<'a> World<'a> {
    fn new(store: &'a Store, chat: ChatId) -> Self {
        Self {
            store,
            owner: Owner::new(store),
            chat,
            reactions: Vec::new(),
        }
    }

    async fn send(&mut self, entry: NewEntry) -> Result<u64, Refusal> {
        let outcome = self.owner.send(self.chat, &entry).await;
        let sent = outcome.sent().expect("an answer to a message");
        let seq = sent?.seq.0;
        if entry.kind == EntryKind::Reaction {
            self.reactions.push(seq);
        }
        Ok(seq)
    }

    async fn say(&mut self, sender: UserId) -> u64 {
        self.send(message(sender)).await.unwrap()
    }

    /// Makes a change on behalf of a user, and returns its seq.
    async fn change(&mut self, actor: UserId, action: Action) -> u64 {
        let request = RequestId::random();
        match self.owner.change(self.chat, actor, request, action).await {
            Outcome::Changed(Ok(Some(place))) => place.seq.0,
            other => panic!("{other:?}"),
        }
    }

    fn reader(&self, user: UserId) -> Reader<'a> {
        let store = self.store;
        Reader {
            pools: &store.pools,
            master: &store.master,
            chat: self.chat,
            user,
        }
    }

    /// Returns the seqs of the messages that a user reads, and the gaps, page by page.
    async fn pages(&self, user: UserId, from: Begin, limit: u32) -> (Vec<u64>, Vec<(u64, u64)>) {
        let (mut seqs, mut gaps, mut begin) = (Vec::new(), Vec::new(), Some(from));
        while let Some(at) = begin {
            let bounds = Bounds { limit, ..BOUNDS };
            let page = self.reader(user).page(Only::All, at, bounds).await.unwrap();
            let entries = page.messages.iter().flat_map(|message| &message.entry);
            seqs.extend(entries.map(|entry| entry.seq));
            gaps.extend(page.gaps.iter().map(|gap| (gap.from_seq, gap.to_seq)));
            begin = page.next.map(|next| match from {
                Begin::Below(_) => Begin::Below(next),
                Begin::Above(_) => Begin::Above(next),
            });
        }
        (seqs, gaps)
    }

    /// Returns the seqs of the messages that a user reads, the newest first. Both ways to list them must agree.
    async fn reads(&self, user: UserId) -> Vec<u64> {
        let (pools, master, chat) = (&self.store.pools, &self.store.master, self.chat);
        let newest = Seq(i64::MAX as u64);
        let sent = entries::history(pools, master, chat, user, newest, 100, 1 << 20).await;
        let mut sent: Vec<u64> = sent.unwrap().messages.iter().map(|entry| entry.seq).collect();
        let folded = self.pages(user, NEWEST, 100).await.0;
        sent.retain(|seq| !self.reactions.contains(seq));
        assert_eq!(sent, folded);
        folded
    }

    async fn view(&self, user: UserId) -> ChatView {
        let (pools, master) = (&self.store.pools, &self.store.master);
        let view = listing::chat(pools, master, user, None, self.chat).await;
        view.unwrap().unwrap()
    }

    /// Returns the members as a load finds them, by the order of `users`.
    async fn members<const N: usize>(&self, users: [UserId; N]) -> [Option<Member>; N] {
        let members = self.store.snapshot(self.chat).await.members;
        users.map(|user| {
            let found = members.iter().find(|(of, ..)| *of == user);
            found.map(|(_, member, _)| member.clone())
        })
    }

    async fn roles<const N: usize>(&self, users: [UserId; N]) -> [Option<Role>; N] {
        self.members(users).await.map(|member| Some(member?.role))
    }

    /// Returns the content of the entry at `seq`, as a user gets it by the stream.
    async fn content(&self, user: UserId, seq: u64) -> Content {
        let (pools, master) = (&self.store.pools, &self.store.master);
        let window = entries::window(pools, master, self.chat, user, Seq(seq), 1, 1 << 20);
        match &window.await.unwrap().items[..] {
            [Item::Entry(entry)] if entry.seq == seq => entry.decoded_content().unwrap().content.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn those_who_join_read_what_the_policy_says() {
    let store = Store::new().await;
    let [a, b, c, d] = [
        store.user().await,
        store.user().await,
        store.user().await,
        store.user().await,
    ];
    let chat = store.group(a, &[]).await.id;
    let mut world = World::new(&store, chat);
    for seq in 2..5 {
        assert_eq!(world.say(a).await, seq);
    }
    world.send(reaction(a, 4)).await.unwrap(); // 5
    world.change(a, Action::Add(vec![b])).await; // 6
    world.say(a).await; // 7
    world.change(a, with_history(JoinerHistory::Last(2))).await; // 8
    world.say(a).await; // 9
    world.change(a, Action::Add(vec![c])).await; // 10
    world.say(a).await; // 11
    world.change(a, with_history(JoinerHistory::All)).await; // 12
    world.change(a, Action::Add(vec![d])).await; // 13

    assert_eq!(world.reads(a).await, [11, 9, 7, 4, 3, 2]);
    assert_eq!(world.reads(b).await, [11, 9, 7]);
    assert_eq!(world.reads(c).await, [11, 9]);
    assert_eq!(world.reads(d).await, [11, 9, 7, 4, 3, 2]);
    for (user, added, first, told) in [(b, 6, 6, 0), (c, 10, 8, 8), (d, 13, 1, 1)] {
        assert_eq!(world.view(user).await.history_from, Seq(first));
        let [member] = world.members([user]).await;
        let member = member.unwrap();
        assert_eq!((member.joined, member.history), (Seq(added), Seq(first)));
        match world.content(a, added).await {
            Content::MembersAdded(content) => assert_eq!(content.history_from_seq, told),
            other => panic!("{other:?}"),
        }
        // A new member's stream begins with the entry that made them one, whatever history they may read.
        let (pools, master) = (&store.pools, &store.master);
        let window = entries::window(pools, master, chat, user, Seq(1), 100, 1 << 20).await;
        let items = window.unwrap().items;
        assert_eq!(items[0].seq(), Seq(added - 1));
        assert!(matches!(items[0], Item::Skipped { .. }));
        assert_eq!(items[1].seq(), Seq(added));
        // A member may react to every message that they may read, also to one from before they joined.
        let reacted = world.send(reaction(user, 4)).await;
        assert_eq!(reacted.is_ok(), first <= 4, "{reacted:?}");
        let found = world.reader(user).message(Seq(4)).await.unwrap();
        assert_eq!(found.is_some(), first <= 4);
        if let Some(found) = found {
            // The reactions are the old one, and the user's own.
            assert_eq!(found.reactions[0].count, 2);
        }
    }
    assert_eq!(world.view(d).await.unread(), 0, "what was before is not unread");
}

#[tokio::test]
async fn who_comes_back_reads_each_message_once_and_is_told_of_the_gaps() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut world = World::new(&store, store.group(a, &[b]).await.id);
    world.say(a).await; // 2
    world.change(a, Action::Remove(b)).await; // 3
    world.say(a).await; // 4
    world.say(a).await; // 5
    world.change(a, Action::Add(vec![b])).await; // 6
    world.say(a).await; // 7
    assert_eq!(world.pages(b, NEWEST, 100).await, (vec![7, 2], vec![(4, 5)]));
    world.change(a, Action::Remove(b)).await; // 8
    world.say(a).await; // 9
    world.say(a).await; // 10
    world.change(a, with_history(JoinerHistory::Last(2))).await; // 11
    world.change(a, Action::Add(vec![b])).await; // 12
    assert_eq!(world.reads(b).await, [10, 7, 2]);
    let up = Begin::Above(Seq(0));
    for limit in [1, 2, 100] {
        let (down, up) = (
            world.pages(b, NEWEST, limit).await,
            world.pages(b, up, limit).await,
        );
        assert_eq!((down.0, up.0), (vec![10, 7, 2], vec![2, 7, 10]), "{limit} a page");
        for mut gaps in [down.1, up.1] {
            gaps.sort_unstable();
            assert_eq!(gaps, [(4, 5), (9, 9)], "each once, {limit} a page");
        }
    }
    // A page that would end before a gap passes it, and one that begins in a gap names the whole of it.
    let one = Bounds { limit: 1, ..BOUNDS };
    let page = world.reader(b).page(Only::All, NEWEST, one).await.unwrap();
    assert_eq!(page.next, Some(Seq(9)));
    let inside = Begin::Below(Seq(5));
    let page = world.reader(b).page(Only::All, inside, one).await.unwrap();
    assert_eq!((page.gaps[0].from_seq, page.gaps[0].to_seq), (4, 5));
    let (pages, gaps) = world.pages(a, NEWEST, 100).await;
    assert_eq!(
        (pages, gaps),
        (vec![10, 9, 7, 5, 4, 2], vec![]),
        "A was always there"
    );

    // The new membership shows a part of what the one before did too.
    world.change(a, Action::Remove(b)).await; // 13
    world.say(a).await; // 14
    world.change(a, Action::Add(vec![b])).await; // 15, from 13 on
    assert_eq!(world.reads(b).await, [14, 10, 7, 2]);
    assert_eq!(world.pages(b, NEWEST, 100).await.1, [(4, 5), (9, 9)]);
    world.change(a, Action::Remove(b)).await; // 16
    world.change(a, with_history(JoinerHistory::Last(8))).await; // 17
    world.change(a, Action::Add(vec![b])).await; // 18, from 10 on
    assert_eq!(world.reads(b).await, [14, 10, 7, 2]);
    world.change(a, Action::Remove(b)).await; // 19
    world.change(a, with_history(JoinerHistory::All)).await; // 20
    world.change(a, Action::Add(vec![b])).await; // 21
    assert_eq!(world.reads(b).await, [14, 10, 9, 7, 5, 4, 2]);
    assert_eq!(world.pages(b, NEWEST, 100).await.1, []);
    assert_eq!(world.view(b).await.history_from, Seq(1));
}

#[tokio::test]
async fn a_group_always_has_an_owner() {
    let store = Store::new().await;
    let people = [store.user().await, store.user().await, store.user().await];
    let [a, b, c] = people;
    let mut world = World::new(&store, store.group(a, &[b, c]).await.id);
    let (plain, admin, owner) = (Some(Role::Member), Some(Role::Admin), Some(Role::Owner));
    world.change(a, Action::SetRole(c, Role::Admin)).await;
    let (from, to) = (a, b);
    let handed = world.change(a, Action::HandOver { from, to }).await;
    assert_eq!(world.roles(people).await, [admin, owner, admin]);
    match world.content(a, handed).await {
        Content::RoleChanged(told) => assert!(told.handed_over && told.user_id == b.to_string()),
        other => panic!("{other:?}"),
    }
    // Both admins were there from the first entry on, so the one with the lower id becomes the owner.
    let left = world.change(b, Action::Remove(b)).await;
    let heir = a.min(c);
    let expected = [a, c].map(|user| if user == heir { owner } else { admin });
    assert_eq!(world.roles([a, c]).await, expected);
    assert_eq!(world.roles([b]).await, [None]);
    match world.content(b, left).await {
        Content::MemberRemoved(told) => {
            assert_eq!((told.new_owner_user_id, told.left), (heir.to_string(), true));
        }
        other => panic!("{other:?}"),
    }
    // Another node that becomes the owner of the chat finds the same.
    let mut world = World::new(&store, world.chat);
    world.change(UserId::SYSTEM, Action::Add(vec![b])).await;
    world.change(UserId::SYSTEM, Action::Remove(heir)).await;
    let last = if heir == a { c } else { a };
    assert_eq!(world.roles([last, b]).await, [owner, plain]);
    world.change(last, Action::Remove(last)).await;
    assert_eq!(world.roles([b]).await, [owner]);
    world.change(b, Action::Remove(b)).await;
    assert_eq!(world.roles(people).await, [None; 3]);
}

#[tokio::test]
async fn how_a_group_is_run_is_stored_and_shown() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut world = World::new(&store, store.group(a, &[b]).await.id);
    let new = world.view(b).await;
    assert_eq!(
        (new.policy, new.frozen, &*new.description),
        (Policy::default(), false, "")
    );
    assert_eq!(new.history_from, Seq(1));
    let policy = Policy {
        send_role: Role::Member,
        add_role: Role::Owner,
        edit_role: Role::Member,
        slow_mode: 7,
        joiner_history: JoinerHistory::Last(9),
    };
    world.change(a, Action::SetPolicy(policy)).await;
    world.change(b, Action::SetDescription("two\nlines".into())).await;
    world.change(UserId::SYSTEM, Action::Freeze(true)).await;
    let view = world.view(b).await;
    assert_eq!(
        (view.policy, view.frozen, &*view.description),
        (policy, true, "two\nlines")
    );
    let loaded = store.snapshot(world.chat).await;
    assert_eq!(
        (loaded.policy, loaded.frozen, &*loaded.description),
        (policy, true, "two\nlines")
    );

    let mut direct = World::new(&store, store.direct(a, b).await.id);
    direct.say(a).await;
    direct.change(UserId::SYSTEM, Action::Freeze(true)).await;
    for world in [&mut world, &mut direct] {
        assert_eq!(world.send(message(a)).await, Err(Refusal::Frozen));
        let mut cold = World::new(&store, world.chat);
        assert_eq!(cold.send(message(b)).await, Err(Refusal::Frozen));
        cold.say(UserId::SYSTEM).await;
        cold.change(UserId::SYSTEM, Action::Freeze(false)).await;
        cold.say(a).await;
    }
}

#[tokio::test]
async fn slow_mode_holds_for_whoever_owns_the_chat() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut world = World::new(&store, store.group(a, &[b]).await.id);
    let slow = Policy {
        slow_mode: 3_600,
        ..Policy::default()
    };
    world.change(a, Action::SetPolicy(slow)).await;
    world.say(b).await;
    let is_slow = |sent: Result<u64, Refusal>| match sent {
        Err(Refusal::SlowMode { retry_after }) => retry_after > Duration::from_secs(3_000),
        _ => false,
    };
    assert!(is_slow(world.send(message(b)).await), "warm");
    let mut cold = World::new(&store, world.chat);
    assert!(is_slow(cold.send(message(b)).await), "among the newest entries");
    // An owner of the group may send as much as they like. B's message is then further back than a load reads by itself.
    for _ in 0..300 {
        cold.say(a).await;
    }
    let mut cold = World::new(&store, world.chat);
    assert!(is_slow(cold.send(message(b)).await), "further back");
    let an_hour_passes = "UPDATE messages SET sent_at = sent_at - interval '1 hour' WHERE chat_id = $1";
    sqlx::query(an_hour_passes)
        .bind(world.chat.0)
        .execute(store.pools.of(world.chat))
        .await
        .unwrap();
    let mut cold = World::new(&store, world.chat);
    assert!(cold.send(message(b)).await.is_ok());
}
