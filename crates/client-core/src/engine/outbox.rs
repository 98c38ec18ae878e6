//! The [`Outbox`] has the messages without a result: those that may be sent now, those on their way, and those that
//! have to wait.
//!
//! Within a chat the order is kept: a message is sent only when fewer than `per_chat` earlier ones are on their way,
//! and none of them waits to be sent again. With `per_chat` = 1, messages enter the log in the order in which they were
//! written, whatever is lost in between.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tern_types::{ChatId, RequestId, Timestamp};

use crate::model::Outgoing;

/// The time after which a message without a result is sent again. The gateway answers within a few seconds whatever
/// happens behind it, so the result must have been lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// The most messages without a result: as many as somebody writes in a long absence.
const MAX_MESSAGES: usize = 10_000;
/// The most bytes that the bodies of all messages without a result have together.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The shortest pause before a message is sent again.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// A message without a result.
#[derive(Debug)]
struct Item {
    message: Outgoing,
    /// The message's place in the order of writing over all chats.
    position: u64,
    /// The time at which it was sent. `None`: it waits to be sent.
    sent: Option<Timestamp>,
}

/// The messages of one chat, in the order of writing.
#[derive(Debug, Default)]
struct Line {
    items: VecDeque<Item>,
    /// The time before which the chat may not send. `None`: it may.
    paused_until: Option<Timestamp>,
}

/// All messages without a result, in one line for each chat.
#[derive(Debug)]
pub struct Outbox {
    /// The most messages of one chat that may be on their way at a time.
    per_chat: usize,
    /// The most messages of all chats that may be on their way at a time.
    max_in_flight: usize,
    lines: HashMap<ChatId, Line>,
    /// The chat of each message.
    chat_of: HashMap<RequestId, ChatId>,
    /// The next message of each chat that may send, in the order of writing. A chat is never in `paused` as well.
    ready: BTreeSet<(u64, ChatId)>,
    /// The chats that wait, each with the end of its pause.
    paused: BTreeSet<(Timestamp, ChatId)>,
    /// The time before which no chat may send. `None`: chats may send.
    paused_until: Option<Timestamp>,
    /// The messages on their way, each with the time at which it was sent.
    in_flight: HashMap<RequestId, Timestamp>,
    next_position: u64,
    /// The number of bytes in the bodies of all messages.
    bytes: usize,
}

impl Outbox {
    /// Makes an empty outbox. `per_chat` is the number of messages of one chat that may be on their way at a time; 0
    /// counts as 1.
    pub fn new(per_chat: usize) -> Self {
        Self {
            per_chat: per_chat.max(1),
            max_in_flight: tern_types::limits::MAX_SENDS_IN_FLIGHT,
            lines: HashMap::new(),
            chat_of: HashMap::new(),
            ready: BTreeSet::new(),
            paused: BTreeSet::new(),
            paused_until: None,
            in_flight: HashMap::new(),
            next_position: 0,
            bytes: 0,
        }
    }

    /// Returns whether `messages` more messages fit, whose bodies have `bytes` bytes in all.
    pub fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.chat_of.len() + messages <= MAX_MESSAGES && self.bytes + bytes <= MAX_BYTES
    }

    /// Returns whether a message with this request_id is in the outbox, that is, has no result yet.
    pub fn contains(&self, request: RequestId) -> bool {
        self.chat_of.contains_key(&request)
    }

    /// Appends a message. A second message with the same request_id is ignored. The bounds are not checked here, but
    /// by [`Self::has_room`].
    pub fn push(&mut self, chat: ChatId, message: Outgoing) {
        if self.contains(message.request) {
            return;
        }
        self.bytes += message.body.len();
        self.chat_of.insert(message.request, chat);
        let position = self.next_position;
        self.next_position += 1;
        self.lines.entry(chat).or_default().items.push_back(Item {
            message,
            position,
            sent: None,
        });
        self.refresh(chat);
    }

    /// Removes a message, because its result came. Returns it with its chat, or `None` if it is not in the outbox.
    pub fn take(&mut self, request: RequestId) -> Option<(ChatId, Outgoing)> {
        let chat = self.chat_of.remove(&request)?;
        self.in_flight.remove(&request);
        let line = self.lines.get_mut(&chat)?;
        let index = line
            .items
            .iter()
            .position(|item| item.message.request == request)?;
        self.unready(chat);
        let line = self.lines.get_mut(&chat)?;
        let item = line.items.remove(index)?;
        self.bytes -= item.message.body.len();
        debug_assert!(
            !self.chat_of.is_empty() || self.bytes == 0,
            "bytes are counted of messages that are gone"
        );
        self.refresh(chat);
        Some((chat, item.message))
    }

    /// Makes a chat wait for the time `after`, because the server cannot take the message now. After the pause the same
    /// message is sent before those after it.
    pub fn pause(&mut self, request: RequestId, after: Duration, now: Timestamp) {
        let Some(&chat) = self.chat_of.get(&request) else {
            return;
        };
        self.recall(request, chat);
        let until = now + after.max(MIN_PAUSE);
        self.unready(chat);
        if let Some(line) = self.lines.get_mut(&chat) {
            line.paused_until = Some(line.paused_until.map_or(until, |before| before.max(until)));
        }
        self.refresh(chat);
    }

    /// Makes all chats wait for the time `after`, because the server has had too many sends. The message is sent again
    /// after that.
    pub(super) fn pause_all(&mut self, request: RequestId, after: Duration, now: Timestamp) {
        if let Some(&chat) = self.chat_of.get(&request) {
            self.recall(request, chat);
            self.refresh(chat);
        }
        let until = now + after.max(MIN_PAUSE);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    /// Starts anew on a new stream: every message without a result is to be sent again, in the order of writing. The
    /// pauses of single chats end; a pause of all chats stays.
    pub fn restart(&mut self, max_in_flight: usize) {
        self.max_in_flight = max_in_flight.max(1);
        self.in_flight.clear();
        self.paused.clear();
        let chats: Vec<ChatId> = self.lines.keys().copied().collect();
        for chat in chats {
            self.unready(chat);
            if let Some(line) = self.lines.get_mut(&chat) {
                line.paused_until = None;
                line.items.iter_mut().for_each(|item| item.sent = None);
            }
            self.refresh(chat);
        }
    }

    /// Drops all messages and pauses.
    pub fn clear(&mut self) {
        *self = Self {
            max_in_flight: self.max_in_flight,
            ..Self::new(self.per_chat)
        };
    }

    /// Returns the messages that may be sent now, in the order of writing. From here on they count as on their way.
    pub fn due(&mut self, now: Timestamp) -> Vec<Outgoing> {
        self.wake(now);
        let mut due = Vec::new();
        while self.paused_until.is_none()
            && self.in_flight.len() < self.max_in_flight
            && let Some((position, chat)) = self.ready.pop_first()
        {
            let items = self.lines.get_mut(&chat).map(|line| &mut line.items);
            if let Some(item) =
                items.and_then(|items| items.iter_mut().find(|item| item.position == position))
            {
                item.sent = Some(now);
                self.in_flight.insert(item.message.request, now);
                due.push(item.message.clone());
            }
            self.refresh(chat);
        }
        debug_assert!(
            self.in_flight.len() <= self.max_in_flight.min(self.chat_of.len()),
            "too many messages are on their way, or some that are gone"
        );
        due
    }

    /// Returns the time at which [`Self::due`] has to be called again, or `None` if only another call changes anything.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let resend = self.in_flight.values().min().map(|since| *since + SEND_TIMEOUT);
        let unpause = self.paused.first().map(|(until, _)| *until);
        [resend, unpause, self.paused_until].into_iter().flatten().min()
    }

    /// Ends the pauses that are over, and makes messages whose result is overdue wait to be sent again.
    fn wake(&mut self, now: Timestamp) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        while let Some(&(until, chat)) = self.paused.first()
            && until <= now
        {
            self.paused.pop_first();
            if let Some(line) = self.lines.get_mut(&chat) {
                line.paused_until = None;
            }
            self.refresh(chat);
        }
        let late: Vec<RequestId> = self
            .in_flight
            .iter()
            .filter(|(_, since)| **since + SEND_TIMEOUT <= now)
            .map(|(id, _)| *id)
            .collect();
        for request in late {
            if let Some(&chat) = self.chat_of.get(&request) {
                self.unready(chat);
                self.recall(request, chat);
                self.refresh(chat);
            }
        }
    }

    /// Makes a message that is on its way wait to be sent again. The caller then calls [`Self::refresh`].
    fn recall(&mut self, request: RequestId, chat: ChatId) {
        self.in_flight.remove(&request);
        self.unready(chat);
        if let Some(line) = self.lines.get_mut(&chat)
            && let Some(item) = line.items.iter_mut().find(|item| item.message.request == request)
        {
            item.sent = None;
        }
    }

    /// Takes a chat out of `ready` and `paused` before a change. After the change [`Self::refresh`] puts it back.
    fn unready(&mut self, chat: ChatId) {
        if let Some(line) = self.lines.get(&chat) {
            for item in line.items.iter().take(self.per_chat) {
                self.ready.remove(&(item.position, chat));
            }
            if let Some(until) = line.paused_until {
                self.paused.remove(&(until, chat));
            }
        }
    }

    /// Sorts a chat into `ready` or `paused` after a change: its first message that is not on its way becomes ready
    /// if `per_chat` allows it.
    fn refresh(&mut self, chat: ChatId) {
        let Some(line) = self.lines.get(&chat) else { return };
        if line.items.is_empty() && line.paused_until.is_none() {
            self.lines.remove(&chat);
        } else if let Some(until) = line.paused_until {
            self.paused.insert((until, chat));
        } else if let Some(item) = line
            .items
            .iter()
            .take(self.per_chat)
            .find(|item| item.sent.is_none())
        {
            self.ready.insert((item.position, chat));
        }
        debug_assert!(
            self.ready.len() + self.paused.len() <= self.lines.len(),
            "a chat is ready or paused twice, or without messages"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn chat(number: u128) -> ChatId {
        ChatId(uuid::Uuid::from_u128(number))
    }

    /// Makes an outbox with these messages. Each is the number of its chat and a body by which it is told apart.
    fn outbox(per_chat: usize, messages: &[(u128, &'static str)]) -> (Outbox, Vec<RequestId>) {
        let mut outbox = Outbox::new(per_chat);
        let requests = messages.iter().map(|(number, body)| {
            let message = Outgoing::new(chat(*number), *body);
            let request = message.request;
            outbox.push(chat(*number), message);
            request
        });
        let requests = requests.collect();
        (outbox, requests)
    }

    fn due(outbox: &mut Outbox, now: Timestamp) -> Vec<String> {
        outbox
            .due(now)
            .iter()
            .map(|message| String::from_utf8_lossy(&message.body).into_owned())
            .collect()
    }

    #[test]
    fn one_message_a_chat_is_on_its_way_and_chats_do_not_wait_for_each_other() {
        let (mut outbox, requests) = outbox(1, &[(1, "a"), (1, "b"), (2, "c"), (1, "d")]);
        assert_eq!(due(&mut outbox, NOW), ["a", "c"]);
        assert_eq!(due(&mut outbox, NOW), [""; 0]);
        outbox.take(requests[0]);
        assert_eq!(due(&mut outbox, NOW), ["b"]);
    }

    #[test]
    fn with_more_a_chat_several_are_on_their_way_in_order() {
        let (mut outbox, requests) = outbox(2, &[(1, "a"), (1, "b"), (1, "c"), (1, "d")]);
        assert_eq!(due(&mut outbox, NOW), ["a", "b"]);
        outbox.take(requests[1]);
        assert_eq!(due(&mut outbox, NOW), ["c"]);
    }

    #[test]
    fn a_new_stream_sends_everything_again_in_the_order_of_writing() {
        let (mut outbox, requests) = outbox(8, &[(1, "a"), (2, "b"), (1, "c"), (3, "d")]);
        due(&mut outbox, NOW);
        outbox.take(requests[1]);
        outbox.pause(requests[3], Duration::from_secs(60), NOW);
        outbox.restart(128);
        assert_eq!(due(&mut outbox, NOW), ["a", "c", "d"]);
    }

    #[test]
    fn what_the_server_cannot_take_now_is_sent_again_after_the_time_given_and_nothing_overtakes_it() {
        let (mut outbox, requests) = outbox(1, &[(1, "a"), (1, "b"), (2, "c")]);
        due(&mut outbox, NOW);
        outbox.pause(requests[0], Duration::from_millis(500), NOW);
        assert_eq!(due(&mut outbox, NOW), [""; 0]);
        assert_eq!(outbox.next_wake(), Some(NOW + Duration::from_millis(500)));
        assert_eq!(due(&mut outbox, NOW + Duration::from_millis(500)), ["a"]);
        outbox.take(requests[0]);
        assert_eq!(due(&mut outbox, NOW + Duration::from_millis(501)), ["b"]);
    }

    #[test]
    fn too_many_sends_pause_everything() {
        let (mut outbox, requests) = outbox(1, &[(1, "a"), (2, "b"), (3, "c")]);
        outbox.restart(2);
        assert_eq!(due(&mut outbox, NOW), ["a", "b"]);
        outbox.pause_all(requests[0], Duration::from_secs(1), NOW);
        outbox.take(requests[1]);
        assert_eq!(due(&mut outbox, NOW), [""; 0]);
        assert_eq!(due(&mut outbox, NOW + Duration::from_secs(1)), ["a", "c"]);
    }

    #[test]
    fn a_lost_result_is_asked_for_again() {
        let (mut outbox, _) = outbox(1, &[(1, "a")]);
        due(&mut outbox, NOW);
        assert_eq!(outbox.next_wake(), Some(NOW + SEND_TIMEOUT));
        assert_eq!(due(&mut outbox, NOW + SEND_TIMEOUT), ["a"]);
    }

    #[test]
    fn the_outbox_is_bounded() {
        let (mut outbox, _) = outbox(1, &[]);
        assert!(outbox.has_room(1, MAX_BYTES));
        assert!(!outbox.has_room(1, MAX_BYTES + 1));
        assert!(!outbox.has_room(MAX_MESSAGES + 1, 0));
        for _ in 0..MAX_MESSAGES {
            outbox.push(chat(1), Outgoing::new(chat(1), "x"));
        }
        assert!(!outbox.has_room(1, 1));
    }

    #[test]
    fn results_in_any_order_leave_nothing_behind() {
        let (mut outbox, requests) = outbox(3, &[(1, "a"), (1, "b"), (1, "c"), (2, "d")]);
        due(&mut outbox, NOW);
        for request in requests.iter().rev() {
            assert!(outbox.take(*request).is_some());
            assert!(outbox.take(*request).is_none());
        }
        assert!(outbox.lines.is_empty() && outbox.ready.is_empty() && outbox.in_flight.is_empty());
        assert_eq!((outbox.bytes, outbox.next_wake()), (0, None));
    }
}
