//! The state of a phone: everything that it has stored and heard. This code is pure, and does no I/O.

use std::collections::{BTreeMap, HashMap};

use tern_proto::v1::{
    Closing, Entry, EntryContent, Message, Receipt, SendError, Sent, Skipped, UserTyping,
    entry_content::Content,
};
use tern_types::{ChatId, RequestId, UserId};
use tonic::Code;

/// The most entries above the cursor that are held for each chat. Further ones are dropped, and come again.
const HELD: usize = 512;

/// The state of a phone.
#[derive(Debug, Clone)]
pub struct State {
    me: UserId,
    /// The chats that the phone knows.
    pub logs: HashMap<ChatId, Log>,
    /// The highest delivered and read seqs of each person in each chat.
    pub receipts: HashMap<(ChatId, UserId), (u64, u64)>,
    /// The number of receipts of each person in each chat that came on streams.
    pub receipts_came: HashMap<(ChatId, UserId), u32>,
    /// The typing notices of others, in order.
    pub typing: Vec<UserTyping>,
    /// The result of each send that has one.
    pub results: HashMap<RequestId, Result<Sent, SendError>>,
    /// True if a stream is open.
    pub online: bool,
    /// True if the present stream has brought CaughtUp.
    pub caught_up: bool,
    /// The number of CaughtUps over all streams.
    pub caught_ups: u32,
    /// The number of streams opened so far.
    pub sessions: u32,
    /// The `Closing`s of streams that the server ended.
    pub closings: Vec<Closing>,
    /// The status codes with which streams ended.
    pub ends: Vec<Code>,
    /// The number of `Draining` events.
    pub drainings: u32,
    /// The number of entries that came again.
    pub repeated: u64,
    /// Opened.store_epoch of the newest stream.
    pub store_epoch: String,
    /// The server's first breach of the protocol; `None` if there was none.
    pub broken: Option<String>,
}

/// One chat as the phone has it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The seq up to which everything is stored, was skipped, or is from before the device was linked.
    pub cursor: u64,
    /// The seq at which the cursor began.
    pub base: u64,
    /// The stored entries by seq.
    pub entries: BTreeMap<u64, Entry>,
    /// Each `Skipped` that came, in order.
    pub skipped: Vec<Skipped>,
    /// The entries above the cursor that wait for those before them, by seq.
    held: BTreeMap<u64, Entry>,
}

impl Log {
    /// Returns the messages as text, in order.
    pub fn texts(&self) -> Vec<String> {
        self.entries.values().filter_map(super::text).collect()
    }
}

impl State {
    pub fn new(me: UserId) -> Self {
        Self {
            me,
            logs: HashMap::new(),
            receipts: HashMap::new(),
            receipts_came: HashMap::new(),
            typing: Vec::new(),
            results: HashMap::new(),
            online: false,
            caught_up: false,
            caught_ups: 0,
            sessions: 0,
            closings: Vec::new(),
            ends: Vec::new(),
            drainings: 0,
            repeated: 0,
            store_epoch: String::new(),
            broken: None,
        }
    }

    /// Returns the cursor of a chat; 0 if the phone knows nothing of it.
    pub fn cursor(&self, chat: ChatId) -> u64 {
        self.logs.get(&chat).map_or(0, |log| log.cursor)
    }

    /// Notes a breach of the protocol. Only the first is kept.
    pub fn breach(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert_with(|| what.into());
    }

    /// Sets where this device's cursor begins in a chat.
    pub fn begin(&mut self, chat: ChatId, resume_seq: u64) {
        self.logs.entry(chat).or_insert_with(|| Log {
            cursor: resume_seq,
            base: resume_seq,
            ..Log::default()
        });
    }

    /// Takes an entry: stores, holds or ignores it, as rule 4 of the stream says.
    pub fn entry(&mut self, entry: Entry) {
        let Ok(chat) = entry.chat_id.parse::<ChatId>() else {
            return self.breach(format!("an entry without a chat: {entry:?}"));
        };
        let log = self.logs.entry(chat).or_default();
        if entry.seq <= log.cursor {
            self.repeated += 1;
            let stored = log.entries.get(&entry.seq);
            if stored.is_some_and(|stored| !same(stored, &entry)) {
                let what = format!("two entries at {} of {chat}: {stored:?} and {entry:?}", entry.seq);
                self.breach(what);
            }
            return;
        }
        if entry.seq == log.cursor + 1 || log.held.len() < HELD {
            log.held.insert(entry.seq, entry);
        }
        log.advance();
    }

    /// Takes the result of an own send, which stands for its entry.
    pub fn own(&mut self, request: RequestId, sent: Sent, message: Message) {
        let entry = Entry {
            chat_id: sent.chat_id.clone(),
            seq: sent.seq,
            sent_at_ms: sent.sent_at_ms,
            sender_user_id: self.me.to_string(),
            request_id: request.to_string(),
            content: EntryContent {
                content: Some(Content::Message(message)),
                ..Default::default()
            }
            .encoded(),
            ..Entry::default()
        };
        if let Some(Ok(before)) = self.results.insert(request, Ok(sent.clone()))
            && (before.seq, &before.chat_id) != (sent.seq, &sent.chat_id)
        {
            self.breach(format!("{request} was sent as {before:?} and as {sent:?}"));
        }
        self.entry(entry);
    }

    /// Takes a `Skipped`: the entries up to it will not come.
    pub fn skip(&mut self, skipped: Skipped) {
        let Ok(chat) = skipped.chat_id.parse::<ChatId>() else {
            return self.breach(format!("a Skipped without a chat: {skipped:?}"));
        };
        let log = self.logs.entry(chat).or_default();
        if skipped.to_seq > log.cursor {
            log.cursor = skipped.to_seq;
            log.held = log.held.split_off(&(skipped.to_seq + 1));
        }
        log.skipped.push(skipped);
        log.advance();
    }

    /// Takes a receipt that came on a stream.
    pub fn receipt(&mut self, receipt: &Receipt) {
        if let Some(of) = self.marks(receipt) {
            *self.receipts_came.entry(of).or_default() += 1;
        }
    }

    /// Takes the marks of a receipt, whether it came by itself or was asked for. Returns whose marks they are.
    pub fn marks(&mut self, receipt: &Receipt) -> Option<(ChatId, UserId)> {
        let (Ok(chat), Ok(user)) = (receipt.chat_id.parse(), receipt.user_id.parse()) else {
            self.breach(format!("a receipt without ids: {receipt:?}"));
            return None;
        };
        let have = self.receipts.entry((chat, user)).or_default();
        *have = (have.0.max(receipt.delivered_seq), have.1.max(receipt.read_seq));
        Some((chat, user))
    }
}

impl Log {
    fn advance(&mut self) {
        while let Some(entry) = self.held.remove(&(self.cursor + 1)) {
            self.cursor += 1;
            self.entries.insert(self.cursor, entry);
        }
    }
}

/// Decides whether two entries at one seq are the same message. An entry that was made from the result of an own send
/// has no device, so that is not compared, and neither is the envelope. A message that was deleted meanwhile comes again
/// without its content.
fn same(a: &Entry, b: &Entry) -> bool {
    let content = super::text(a) == super::text(b) || is_erased(a) || is_erased(b);
    a.request_id == b.request_id && a.sender_user_id == b.sender_user_id && content
}

fn is_erased(entry: &Entry) -> bool {
    let content = entry.decoded_content().ok().and_then(|content| content.content);
    matches!(content, Some(Content::Erased(_)))
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::{Erased, SkipReason};
    use uuid::Uuid;

    use super::*;

    const CHAT: ChatId = ChatId(Uuid::from_u128(1));

    fn entry(seq: u64, body: &'static str) -> Entry {
        let message = Message {
            envelope: None,
            body: body.into(),
        };
        Entry {
            chat_id: CHAT.to_string(),
            seq,
            content: EntryContent {
                content: Some(Content::Message(message)),
                ..Default::default()
            }
            .encoded(),
            ..Entry::default()
        }
    }

    fn phone() -> State {
        State::new(UserId(Uuid::nil()))
    }

    #[test]
    fn entries_out_of_order_and_repeated_make_one_log() {
        let mut state = phone();
        for (seq, body) in [(3, "c"), (1, "a"), (1, "a"), (2, "b"), (3, "c"), (5, "e")] {
            state.entry(entry(seq, body));
        }
        assert_eq!(state.logs[&CHAT].texts(), ["a", "b", "c"]);
        assert_eq!((state.cursor(CHAT), state.repeated), (3, 2));
        assert_eq!(state.broken, None);
        state.skip(Skipped {
            chat_id: CHAT.to_string(),
            to_seq: 4,
            reason: SkipReason::NotAMember.into(),
        });
        assert_eq!(state.logs[&CHAT].texts(), ["a", "b", "c", "e"]);
    }

    #[test]
    fn two_entries_at_one_place_break_the_protocol() {
        let mut state = phone();
        state.entry(entry(1, "a"));
        state.entry(entry(1, "b"));
        assert!(state.broken.is_some_and(|what| what.contains("two entries at 1")));
    }

    #[test]
    fn a_message_may_come_again_without_its_content_after_it_was_deleted() {
        let mut state = phone();
        state.entry(entry(1, "a"));
        let erased = EntryContent {
            content: Some(Content::Erased(Erased::default())),
            ..Default::default()
        };
        state.entry(Entry {
            content: erased.encoded(),
            ..entry(1, "")
        });
        assert_eq!(state.broken, None);
    }

    #[test]
    fn one_request_with_two_places_breaks_the_protocol() {
        let mut state = phone();
        let request = RequestId(Uuid::from_u128(7));
        for seq in [1, 2] {
            state.own(
                request,
                Sent {
                    chat_id: CHAT.to_string(),
                    seq,
                    sent_at_ms: 0,
                },
                Message::default(),
            );
        }
        assert!(state.broken.is_some());
    }

    #[test]
    fn what_cannot_be_held_comes_again() {
        let mut state = phone();
        for seq in 2..2000 {
            state.entry(entry(seq, "x"));
        }
        state.entry(entry(1, "x"));
        let held = HELD as u64;
        assert_eq!(state.cursor(CHAT), held + 1);
        state.entry(entry(held + 2, "x"));
        assert_eq!(state.cursor(CHAT), held + 2);
    }
}
