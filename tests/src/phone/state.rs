//! What a phone has stored. Pure.

use std::collections::{BTreeMap, HashMap};

use tern_proto::v1::{
    Closing, Entry, EntryContent, Message, Receipt, SendError, Sent, Skipped, entry_content::Content,
};
use tern_types::{ChatId, RequestId, UserId};
use tonic::Code;

/// Entries ahead of the cursor that a phone keeps for a chat; further ones come again.
const HELD: usize = 512;

#[derive(Debug, Clone)]
pub struct State {
    me: UserId,
    pub logs: HashMap<ChatId, Log>,
    /// Delivered and read, the highest seen.
    pub receipts: HashMap<(ChatId, UserId), (u64, u64)>,
    pub results: HashMap<RequestId, Result<Sent, SendError>>,
    pub online: bool,
    /// The present stream has said CaughtUp.
    pub caught_up: bool,
    /// Streams opened so far.
    pub sessions: u32,
    /// Streams ended by the server: how.
    pub closings: Vec<Closing>,
    pub ends: Vec<Code>,
    /// Announced drains.
    pub drainings: u32,
    /// Entries that came once more.
    pub repeated: u64,
    pub store_epoch: String,
    /// How the server broke the protocol.
    pub broken: Option<String>,
}

/// One chat as the phone has it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Everything up to here is stored, skipped, or lies before the phone's time.
    pub cursor: u64,
    /// Where the cursor began.
    pub base: u64,
    pub entries: BTreeMap<u64, Entry>,
    pub skipped: Vec<Skipped>,
    held: BTreeMap<u64, Entry>,
}

impl Log {
    /// The messages, as text, in order.
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
            results: HashMap::new(),
            online: false,
            caught_up: false,
            sessions: 0,
            closings: Vec::new(),
            ends: Vec::new(),
            drainings: 0,
            repeated: 0,
            store_epoch: String::new(),
            broken: None,
        }
    }

    /// 0 for a chat that it knows nothing of.
    pub fn cursor(&self, chat: ChatId) -> u64 {
        self.logs.get(&chat).map_or(0, |log| log.cursor)
    }

    /// Remembers the first breach.
    pub fn breach(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert_with(|| what.into());
    }

    /// A chat whose first entry was not its first: where this device starts.
    pub fn begin(&mut self, chat: ChatId, resume_seq: u64) {
        self.logs.entry(chat).or_insert_with(|| Log {
            cursor: resume_seq,
            base: resume_seq,
            ..Log::default()
        });
    }

    /// An entry came. Stored, held or ignored as rule 4 of the stream says.
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

    /// An own message has its place: it stands for its entry.
    pub fn own(&mut self, request: RequestId, sent: Sent, body: &[u8]) {
        let message = Message {
            envelope: None,
            body: body.to_vec().into(),
        };
        let entry = Entry {
            chat_id: sent.chat_id.clone(),
            seq: sent.seq,
            sent_at_ms: sent.sent_at_ms,
            sender_user_id: self.me.to_string(),
            request_id: request.to_string(),
            content: Some(EntryContent {
                content: Some(Content::Message(message)),
            }),
            ..Entry::default()
        };
        if let Some(Ok(before)) = self.results.insert(request, Ok(sent.clone()))
            && (before.seq, &before.chat_id) != (sent.seq, &sent.chat_id)
        {
            self.breach(format!("{request} was sent as {before:?} and as {sent:?}"));
        }
        self.entry(entry);
    }

    /// What lies below does not come.
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

    pub fn receipt(&mut self, receipt: &Receipt) {
        let (Ok(chat), Ok(user)) = (receipt.chat_id.parse(), receipt.user_id.parse()) else {
            return self.breach(format!("a receipt without ids: {receipt:?}"));
        };
        let have = self.receipts.entry((chat, user)).or_default();
        *have = (have.0.max(receipt.delivered_seq), have.1.max(receipt.read_seq));
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

/// Whether two entries of one place are the same. A place taken by an own result has no device and envelope.
fn same(a: &Entry, b: &Entry) -> bool {
    a.request_id == b.request_id && a.sender_user_id == b.sender_user_id && super::text(a) == super::text(b)
}
