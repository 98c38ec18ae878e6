//! Asks for read receipts and for presence, and tells others of typing.

use std::time::Duration;

use tern_client::{ClientError, Event, Presence, SendState};
use tern_proto::v1::WatchErrorCode;
use tern_types::{ChatId, Clock, Seq, UserId};

use super::{Desk, Update};

/// The shortest time between two requests for presence. A gateway accepts about one per second from a device.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

impl Desk {
    /// Watches the presence of the people that are on the screen now, unless it is watched already.
    pub(super) fn watch(&mut self) {
        let now = Clock::monotonic();
        let watched = self.view.on_screen();
        let due = self.watch_at.is_some_and(|at| at <= now);
        if watched == self.watched && !due {
            return;
        }
        self.watch_at = None;
        self.watched.clone_from(&watched);
        self.spawn(move |client, _| async move { Ok(client.watch_presence(watched).await?) });
    }

    /// Asks for presence again when that is due, and takes away what has disappeared by now. Returns whether something
    /// has. Call it about once a second.
    pub fn tick(&mut self) -> bool {
        if self.watch_at.is_some() {
            self.watch();
        }
        self.view.expire(Clock::wall())
    }

    /// Asks for presence again soon, because the user may now see other people than before.
    pub(super) fn watch_again(&mut self) {
        self.watch_after(WATCH_PAUSE);
    }

    /// Makes [`Self::watch`] ask for presence after this pause, unless it is to do so earlier.
    fn watch_after(&mut self, pause: Duration) {
        self.watch_at.get_or_insert(Clock::monotonic() + pause);
    }

    /// Notes events that may have made a hidden person visible, and then asks for presence again.
    pub(super) fn may_be_seen(&mut self, event: &Event) {
        match event {
            // With the first message in either direction the two people may become visible to each other.
            Event::Entry(entry) if entry.message().is_some() => {
                let own = entry.sender == Some(self.view.me);
                let peer = self.peer(entry.chat);
                let other = if own { peer } else { entry.sender };
                self.wrote(other, own);
            }
            Event::Send {
                chat,
                state: SendState::Sent { .. },
                ..
            } => self.wrote(self.peer(*chat), true),
            // This may be the answer to a question that is older than the message.
            Event::Presence {
                user,
                presence: Presence::Hidden,
            } => {
                for own in [false, true] {
                    if self.wrote_unseen.remove(&(*user, own)) {
                        self.wrote(Some(*user), own);
                    }
                }
            }
            Event::Connected { .. } => {
                self.wrote.clear();
                self.wrote_unseen.clear();
            }
            Event::Watching {
                error, retry_after, ..
            } if !retry_after.is_zero() && *error != WatchErrorCode::Invalid => {
                self.watch_after(*retry_after)
            }
            _ => {}
        }
    }

    fn peer(&self, chat: ChatId) -> Option<UserId> {
        self.view.rooms.get(&chat)?.chat.as_ref()?.peer
    }

    /// Notes a message between the user and `other`, written by the user if `own` is set. If `other` is hidden,
    /// presence is asked for again.
    fn wrote(&mut self, other: Option<UserId>, own: bool) {
        let Some(user) = other else { return };
        if self.view.is_hidden(user) {
            if self.wrote.insert((user, own)) {
                self.watch_again();
            }
        } else if !self.view.knows_presence(user) {
            self.wrote_unseen.insert((user, own));
        }
    }

    /// Tells the others of the open chat that the user is typing, or with `writes` false that the user has stopped.
    /// Call it when a key was pressed.
    pub async fn typed(&self, writes: bool) {
        let Some(chat) = self.view.open else { return };
        let told = if writes {
            self.client.typing(chat).await
        } else {
            self.client.stopped_typing(chat).await
        };
        // An error means that the client has ended, which its next event says anyway.
        drop::<Result<(), ClientError>>(told);
    }

    /// Shows who received and who read one of the user's own messages: the `nth` from the end, counted from 1.
    pub(super) fn info(&self, nth: usize) {
        let Some(chat) = self.view.open else {
            return self.notice("no chat is open".to_owned());
        };
        let Some(seq) = self.view.own_message(chat, nth) else {
            return self.notice("you wrote no such message here".to_owned());
        };
        self.ask_reached(chat, seq);
    }

    fn ask_reached(&self, chat: ChatId, seq: Seq) {
        self.spawn(move |client, updates| async move {
            let receipts = client.message_receipts(chat, seq).await?;
            let everybody = [&receipts.read, &receipts.delivered, &receipts.waiting];
            let names = client.names(everybody.into_iter().flatten().copied()).await;
            let _ = updates.send(Update::Names(names.unwrap_or_default())).await;
            let _ = updates.send(Update::Reached { chat, seq, receipts }).await;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use tern_client::Entry;
    use tern_proto::v1::{self, entry_content::Content};
    use tern_types::{DeviceId, RequestId, Timestamp};

    use super::*;
    use crate::messenger::desk::testing::offline;

    /// Returns a message that this person has written in their direct chat with the user.
    fn message(desk: &Desk, from: UserId, seq: u64) -> Event {
        let message = v1::Message {
            body: "hello".into(),
            ..Default::default()
        };
        Event::Entry(Entry {
            chat: ChatId::direct(desk.view.me, from),
            seq: Seq(seq),
            sent_at: Timestamp(0),
            sender: Some(from),
            device: Some(DeviceId::random()),
            request: Some(RequestId::random()),
            ordinal: seq,
            content: v1::EntryContent {
                content: Some(Content::Message(message)),
                ..Default::default()
            },
            unknown: bytes::Bytes::new(),
        })
    }

    #[tokio::test]
    async fn a_first_message_has_presence_asked_for_again_once_whatever_the_order_of_the_answer() {
        for answered_first in [true, false] {
            let (mut desk, _events) = offline().await;
            let bob = UserId::random();
            let presence = Presence::Hidden;
            let hidden = Event::Presence { user: bob, presence };
            let first = message(&desk, bob, 1);
            let events = if answered_first {
                [&hidden, &first]
            } else {
                [&first, &hidden]
            };
            for event in events {
                desk.may_be_seen_after(event);
            }
            assert!(desk.watch_at.take().is_some(), "{answered_first}");
            let second = message(&desk, bob, 2);
            for event in [&hidden, &second] {
                desk.may_be_seen_after(event);
            }
            assert_eq!(desk.watch_at, None, "{answered_first}");
        }
    }

    impl Desk {
        /// Applies the event to the view, as [`Desk::apply_event`] does, and then as a sign that somebody may be seen.
        fn may_be_seen_after(&mut self, event: &Event) {
            self.view.apply(event, Clock::monotonic());
            self.may_be_seen(event);
        }
    }
}
