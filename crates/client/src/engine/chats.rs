//! All chats: entries applied and acknowledged, unknown chats looked up, gaps filled, what is unread.

use std::collections::VecDeque;
use std::time::Duration;

use tern_proto::v1::{self, ChatKind, ErrorReason, Role, client_item::Item, entry_content::Content};
use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::cursor::{Cursor, Offered};
use super::{Call, Change, ChatRow, Engine};
use crate::error::CallError;
use crate::model::{Chat, Entry, Event, ListedChat};

/// An entry held for this long is not coming by itself (the server repeats within some seconds): it is read by
/// ListEntries. Needed where this device acknowledged what its store lost, by a restored backup for example.
const GAP_TIMEOUT: Duration = Duration::from_secs(15);
/// A call that failed is made again after this time, or what the server asks.
const CALL_RETRY: Duration = Duration::from_secs(2);
/// Chats that may wait (for missing entries, for a look-up) at a time; what comes for others out of turn is dropped
/// and comes again.
const MAX_WAITING: usize = 64;
/// Unread seqs remembered a chat; a count beyond it is shown as at least this many.
const MAX_UNREAD: usize = 10_000;

/// One chat of this device.
#[derive(Debug)]
pub struct ChatState {
    pub(super) row: ChatRow,
    cursor: Cursor,
    gap_since: Option<Timestamp>,
    look_up: LookUp,
    fill: LookUp,
    unread: VecDeque<Seq>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LookUp {
    Idle,
    Running,
    Again(Timestamp),
}

/// Whether all chats were listed once.
#[derive(Debug)]
pub struct Listing {
    done: bool,
    state: LookUp,
}

impl Listing {
    pub fn new(done: bool) -> Self {
        Self {
            done,
            state: LookUp::Idle,
        }
    }
}

impl ChatState {
    pub fn new(row: ChatRow, unread: Vec<Seq>) -> Self {
        Self {
            cursor: Cursor::new(row.cursor),
            row,
            gap_since: None,
            look_up: LookUp::Idle,
            fill: LookUp::Idle,
            unread: unread.into(),
        }
    }

    fn unknown(chat: ChatId) -> Self {
        let chat = Chat {
            id: chat,
            kind: ChatKind::Unspecified,
            title: String::new(),
            peer: None,
            member_count: 0,
            role: Role::Unspecified,
            head: Seq::ZERO,
            active_at: Timestamp(0),
            read: Seq::ZERO,
            unread: 0,
            left: false,
        };
        let row = ChatRow {
            chat,
            cursor: None,
            known: false,
            confirmed_read: Seq::ZERO,
            listed_head: Seq::ZERO,
            listed_unread: 0,
            own: Seq::ZERO,
        };
        Self::new(row, Vec::new())
    }

    fn direct(&mut self, peer: UserId) {
        let chat = &mut self.row.chat;
        (chat.kind, chat.peer, chat.member_count, chat.role) =
            (ChatKind::Direct, Some(peer), 2, Role::Member);
        self.row.known = true;
    }

    /// What an applied entry says of the chat. `me`: whose chat it is.
    fn absorb(&mut self, entry: &Entry, me: UserId) {
        self.row.chat.head = self.row.chat.head.max(entry.seq);
        self.row.chat.active_at = self.row.chat.active_at.max(entry.sent_at);
        if entry.sender == Some(me) && entry.message().is_some() {
            self.row.own = self.row.own.max(entry.seq);
            self.row.confirmed_read = self.row.confirmed_read.max(entry.seq);
            self.read_up_to(entry.seq);
        }
        // A listing said already what lies below its head.
        if entry.seq <= self.row.listed_head {
            return;
        }
        if entry.counts_as_unread() && entry.seq > self.row.chat.read && self.unread.len() < MAX_UNREAD {
            self.unread.push_back(entry.seq);
        }
        self.absorb_content(entry, me);
    }

    fn absorb_content(&mut self, entry: &Entry, me: UserId) {
        if !self.row.known
            && let Some(sender) = entry.sender
            && sender != me
            && ChatId::direct(me, sender) == entry.chat
        {
            self.direct(sender);
        }
        let my_id = me.to_string();
        let chat = &mut self.row.chat;
        match &entry.content.content {
            Some(Content::ChatCreated(created)) => {
                (chat.kind, chat.title) = (ChatKind::Group, created.title.clone());
                let sender = entry.sender.map(|sender| sender.to_string());
                let others = created
                    .member_user_ids
                    .iter()
                    .filter(|id| Some(*id) != sender.as_ref())
                    .count();
                chat.member_count = u32::try_from(others + usize::from(sender.is_some())).unwrap_or(u32::MAX);
                chat.role = if entry.sender == Some(me) {
                    Role::Owner
                } else {
                    Role::Member
                };
                self.row.known = true;
            }
            Some(Content::ChatUpdated(updated)) => chat.title.clone_from(&updated.title),
            Some(Content::MembersAdded(added)) => {
                let count = u32::try_from(added.user_ids.len()).unwrap_or(u32::MAX);
                chat.member_count = chat.member_count.saturating_add(count);
                chat.left &= !added.user_ids.contains(&my_id);
            }
            Some(Content::MemberRemoved(removed)) => {
                chat.member_count = chat.member_count.saturating_sub(1);
                chat.left |= removed.user_id == my_id;
            }
            Some(Content::RoleChanged(changed)) if changed.user_id == my_id => chat.role = changed.role(),
            _ => {}
        }
    }

    fn read_up_to(&mut self, seq: Seq) {
        self.row.chat.read = self.row.chat.read.max(seq);
        while self.unread.front().is_some_and(|first| *first <= seq) {
            self.unread.pop_front();
        }
        if seq >= self.row.listed_head {
            self.row.listed_unread = 0;
        }
    }

    /// For a look-up, or for entries before those that it holds.
    pub(super) fn waits(&self) -> bool {
        !self.row.known || self.cursor.first_held().is_some()
    }

    pub(super) fn cursor(&self) -> Option<Seq> {
        self.cursor.at()
    }

    fn row(&mut self) -> ChatRow {
        let new = u32::try_from(self.unread.len()).unwrap_or(u32::MAX);
        self.row.chat.unread = self.row.listed_unread.saturating_add(new);
        self.row.cursor = self.cursor.at();
        self.row.clone()
    }

    /// A gap begins anew with each entry that closes a part of it.
    fn watch_gap(&mut self, progress: bool, now: Timestamp) {
        let gap = self.cursor.at().is_some() && self.cursor.first_held().is_some();
        self.gap_since = if gap {
            self.gap_since.filter(|_| !progress).or(Some(now))
        } else {
            None
        };
    }
}

impl Engine {
    pub(super) fn entry_came(&mut self, entry: v1::Entry, now: Timestamp) {
        match Entry::try_from(entry) {
            Ok(entry) => self.offer(entry, now),
            Err(error) => tracing::warn!(%error, "entry ignored"),
        }
    }

    /// An entry, or the result of an own send, which stands for one.
    pub(super) fn offer(&mut self, entry: Entry, now: Timestamp) {
        let chat = entry.chat;
        let crowded = self.waiting.len() >= MAX_WAITING && !self.waiting.contains(&chat);
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        let ahead = entry.seq > state.cursor.at().unwrap_or_default().next();
        if ahead && crowded {
            return;
        }
        match state.cursor.offer(entry) {
            Offered::Applied(entries) => self.applied(chat, entries, now),
            Offered::Repeated => {
                self.acks.insert(chat);
            }
            Offered::Held => {
                state.watch_gap(false, now);
                self.waiting.insert(chat);
                self.begin(chat, now);
            }
        }
    }

    /// A chat that is in no listing begins with its first entry. Before the listing that is not sure: an own message
    /// that was offered again to a restored store may be the first entry of a chat acknowledged long ago.
    fn begin(&mut self, chat: ChatId, now: Timestamp) {
        if let Some(state) = self
            .chats
            .get_mut(&chat)
            .filter(|state| state.cursor.has_the_first())
            && self.listing.done
        {
            let entries = state.cursor.start(Seq::ZERO);
            self.applied(chat, entries, now);
        }
    }

    /// Remembers whether the chat waits for anything, so that nobody has to go through all of them.
    fn watch(&mut self, chat: ChatId) {
        if self.chats.get(&chat).is_some_and(ChatState::waits) {
            self.waiting.insert(chat);
        } else {
            self.waiting.remove(&chat);
        }
    }

    fn applied(&mut self, chat: ChatId, entries: Vec<Entry>, now: Timestamp) {
        let me = self.me.user;
        let progress = !entries.is_empty();
        for entry in entries {
            if let Some(state) = self.chats.get_mut(&chat) {
                state.absorb(&entry, me);
            }
            self.own_entry_applied(&entry);
            self.effects.changes.push(Change::Entry(entry.clone()));
            self.effects.events.push(Event::Entry(entry));
        }
        if let Some(state) = self.chats.get_mut(&chat) {
            state.watch_gap(progress, now);
        }
        self.passed_by(chat);
        self.watch(chat);
        self.acks.insert(chat);
        self.dirty.insert(chat);
    }

    pub(super) fn skipped(&mut self, skipped: &v1::Skipped, now: Timestamp) {
        let Ok(chat) = skipped.chat_id.parse::<ChatId>() else {
            return;
        };
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        let to = Seq(skipped.to_seq);
        let raised = state.cursor.at() < Some(to);
        let entries = state.cursor.skip(to);
        if raised {
            self.effects.events.push(Event::Skipped { chat, to });
        }
        self.applied(chat, entries, now);
    }

    // --- where to begin ---

    pub(super) fn list_chats_if_needed(&mut self, _now: Timestamp) {
        if !self.listing.done && self.listing.state != LookUp::Running {
            self.listing.state = LookUp::Running;
            self.effects.calls.push(Call::ListChats);
        }
    }

    pub(super) fn listed(&mut self, result: Result<Vec<ListedChat>, CallError>, now: Timestamp) {
        match result {
            Ok(chats) => {
                self.listing = Listing::new(true);
                for listed in chats {
                    self.learn(listed, now);
                }
                for chat in self.waiting.clone() {
                    self.begin(chat, now);
                }
                self.effects.changes.push(Change::Listed);
            }
            Err(error) => self.listing.state = LookUp::Again(again(&error, now)),
        }
    }

    /// What the server says of a chat; where its cursor is unknown, it starts at `resume`.
    fn learn(&mut self, listed: ListedChat, now: Timestamp) {
        let (mut chat, resume) = (listed.chat, listed.resume);
        let id = chat.id;
        let state = self.chats.entry(id).or_insert_with(|| ChatState::unknown(id));
        state.look_up = LookUp::Idle;
        let at = state.cursor.at().unwrap_or(resume);
        // What this device has applied already may be ahead of the answer.
        if chat.head >= at {
            let row = &mut state.row;
            (row.listed_head, row.listed_unread) = (chat.head, chat.unread);
            row.confirmed_read = row.confirmed_read.max(chat.read);
            chat.read = chat.read.max(row.chat.read);
            chat.active_at = chat.active_at.max(row.chat.active_at);
            row.chat = chat;
            let read = row.chat.read;
            state.unread.clear();
            state.read_up_to(read);
        }
        state.row.known = true;
        if state.cursor.at().is_none() {
            let entries = state.cursor.start(resume);
            self.applied(id, entries, now);
        }
        self.watch(id);
        self.dirty.insert(id);
    }

    pub(super) fn looked_up(&mut self, chat: ChatId, result: Result<ListedChat, CallError>, now: Timestamp) {
        match result {
            Ok(listed) => self.learn(listed, now),
            Err(error) if error.reason == ErrorReason::ChatNotFound => self.not_a_member(chat, now),
            Err(error) => {
                if let Some(state) = self.chats.get_mut(&chat) {
                    state.look_up = LookUp::Again(again(&error, now));
                }
            }
        }
    }

    /// Not a member any more: what comes of it (the removal at least) is all there will be.
    fn not_a_member(&mut self, chat: ChatId, now: Timestamp) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        state.look_up = LookUp::Idle;
        state.row.known = true;
        state.row.chat.left = true;
        let first = state.cursor.first_held().map_or(Seq::ZERO, Seq::previous);
        let entries = state.cursor.start(first);
        self.applied(chat, entries, now);
    }

    /// Asks for chats that came up without being known. While all are being listed, that listing answers.
    pub(super) fn look_up_unknown(&mut self, now: Timestamp) {
        if !self.listing.done {
            return;
        }
        for chat in &self.waiting {
            let Some(state) = self.chats.get_mut(chat) else {
                continue;
            };
            if !state.row.known && state.look_up == LookUp::Idle {
                state.look_up = LookUp::Running;
                self.effects.calls.push(Call::GetChat(*chat));
            }
            if state.gap_since.is_some_and(|since| since + GAP_TIMEOUT <= now) && state.fill == LookUp::Idle {
                state.fill = LookUp::Running;
                let from = state.cursor.at().unwrap_or_default().next();
                tracing::warn!(%chat, %from, "entries missing, reading them");
                self.effects.calls.push(Call::Fill { chat: *chat, from });
            }
        }
    }

    pub(super) fn filled(&mut self, chat: ChatId, result: Result<Vec<Entry>, CallError>, now: Timestamp) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        match result {
            Ok(entries) => {
                state.fill = LookUp::Idle;
                state.gap_since = None;
                // ListEntries leaves out what this person may not see: the first one given is the next there is.
                if let Some(first) = entries.first() {
                    let before = state.cursor.skip(first.seq.previous());
                    self.applied(chat, before, now);
                }
                for entry in entries {
                    self.offer(entry, now);
                }
                if let Some(state) = self.chats.get_mut(&chat) {
                    state.watch_gap(true, now);
                }
                self.watch(chat);
            }
            Err(error) => state.fill = LookUp::Again(again(&error, now)),
        }
    }

    pub(super) fn nothing_looked_up(&self) -> bool {
        let begun = |chat| {
            self.chats
                .get(chat)
                .is_none_or(|state| state.row.known || state.cursor.at().is_some())
        };
        self.listing.done && self.waiting.iter().all(begun)
    }

    pub(super) fn tick_chats(&mut self, now: Timestamp) {
        if matches!(self.listing.state, LookUp::Again(at) if at <= now) {
            self.list_chats_if_needed(now);
        }
        for chat in &self.waiting {
            let Some(state) = self.chats.get_mut(chat) else {
                continue;
            };
            for look_up in [&mut state.look_up, &mut state.fill] {
                if matches!(look_up, LookUp::Again(at) if *at <= now) {
                    *look_up = LookUp::Idle;
                }
            }
        }
    }

    pub(super) fn chats_wake(&self) -> Option<Timestamp> {
        let again = |look_up: LookUp| {
            if let LookUp::Again(at) = look_up {
                Some(at)
            } else {
                None
            }
        };
        let chats = self
            .waiting
            .iter()
            .filter_map(|chat| self.chats.get(chat))
            .flat_map(|state| {
                let idle = self.listing.done && state.fill == LookUp::Idle;
                let gap = state.gap_since.filter(|_| idle).map(|since| since + GAP_TIMEOUT);
                [again(state.look_up), again(state.fill), gap]
            });
        chats.chain([again(self.listing.state)]).flatten().min()
    }

    pub(super) fn forget_chats(&mut self) {
        self.chats.clear();
        self.waiting.clear();
        self.receipts.clear();
        self.acks.clear();
        self.reads.clear();
        self.dirty.clear();
        self.listing = Listing::new(false);
    }

    // --- reading ---

    pub(super) fn mark_read(&mut self, chat: ChatId, seq: Seq) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        let seq = seq.min(state.row.chat.head);
        if seq > state.row.chat.read {
            state.read_up_to(seq);
            self.reads.insert(chat);
            self.dirty.insert(chat);
        }
    }

    /// Another device of this person read the chat, or the server took this one's word.
    pub(super) fn own_read(&mut self, chat: ChatId, read: Seq) {
        if let Some(state) = self.chats.get_mut(&chat)
            && read > state.row.confirmed_read
        {
            state.row.confirmed_read = read;
            state.read_up_to(read);
            self.dirty.insert(chat);
        }
    }

    pub(super) fn send_reads_again(&mut self) {
        let unconfirmed = self
            .chats
            .values()
            .filter(|state| state.row.chat.read > state.row.confirmed_read);
        self.reads.extend(unconfirmed.map(|state| state.row.chat.id));
    }

    /// Chats with own messages that not everybody has read, and those with messages that this person may have read
    /// elsewhere; most recent first.
    pub(super) fn awaiting_receipts(&self) -> Vec<ChatId> {
        let unread_by_others = |row: &ChatRow| {
            let members = usize::try_from(row.chat.member_count).unwrap_or(0);
            row.own > Seq::ZERO && self.receipts.readers(row.chat.id, row.own) < members.saturating_sub(1)
        };
        let mut rows: Vec<&ChatRow> = self.chats.values().map(|state| &state.row).collect();
        rows.retain(|row| !row.chat.left && (row.chat.unread > 0 || unread_by_others(row)));
        rows.sort_by_key(|row| std::cmp::Reverse(row.chat.active_at));
        rows.iter().map(|row| row.chat.id).collect()
    }

    // --- at the end of an apply ---

    pub(super) fn flush_acks(&mut self) {
        for chat in std::mem::take(&mut self.acks) {
            if let Some(seq) = self
                .chats
                .get(&chat)
                .and_then(|state| state.cursor.at())
                .filter(|seq| seq.0 > 0)
            {
                self.effects.items.push(Item::Ack(v1::Ack {
                    chat_id: chat.to_string(),
                    seq: seq.0,
                }));
            }
        }
    }

    pub(super) fn flush_reads(&mut self) {
        for chat in std::mem::take(&mut self.reads) {
            if let Some(state) = self.chats.get(&chat) {
                let seq = state.row.chat.read.0;
                self.effects.items.push(Item::MarkRead(v1::MarkRead {
                    chat_id: chat.to_string(),
                    seq,
                }));
            }
        }
    }

    pub(super) fn flush_dirty(&mut self) {
        for chat in std::mem::take(&mut self.dirty) {
            if let Some(state) = self.chats.get_mut(&chat) {
                let row = state.row();
                self.effects.events.push(Event::Chat(row.chat.clone()));
                self.effects.changes.push(Change::Chat(row));
            }
        }
    }

    /// The direct chat with `peer` exists from the first message on.
    pub(super) fn know_direct(&mut self, chat: ChatId, peer: UserId) {
        let state = self.chats.entry(chat).or_insert_with(|| ChatState::unknown(chat));
        if !state.row.known {
            state.direct(peer);
        }
    }
}

fn again(error: &CallError, now: Timestamp) -> Timestamp {
    now + error.retry_after.unwrap_or_default().max(CALL_RETRY)
}
