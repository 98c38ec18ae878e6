//! Answers, edits and deletes messages, reacts to them and pins them. All of it goes through the outbox, as messages
//! do, and is shown at once.

use tern_client::{Message, Outgoing};
use tern_types::ChatId;

use super::{Desk, Outcome, Update};

impl Desk {
    /// Answers the message that [`Self::target`] finds.
    pub(super) async fn reply(&mut self, typed: Option<u64>, text: String) -> Outcome {
        let Some((chat, message)) = self.written_about(typed, false) else {
            return self.kept("/reply", typed, text);
        };
        let reply = Outgoing::new(self.address(chat), text).replying_to(message.entry.seq);
        self.put(chat, reply).await;
        Outcome::Done
    }

    /// Writes into the thread that the message which [`Self::target`] finds is in, or that begins with it.
    pub(super) async fn thread(&mut self, typed: Option<u64>, text: String) -> Outcome {
        let Some((chat, message)) = self.written_about(typed, false) else {
            return self.kept("/thread", typed, text);
        };
        let root = message.thread_root().unwrap_or(message.entry.seq);
        let part = Outgoing::new(self.address(chat), text).in_thread(root);
        self.put(chat, part).await;
        Outcome::Done
    }

    /// Lets the screen show the thread that the message which [`Self::target`] finds is in, or that begins with it.
    pub(super) fn show_thread(&self, typed: Option<u64>) -> Outcome {
        let found = self.chat_open().and_then(|_| self.target(typed, false));
        found.map_or(Outcome::Done, |message| {
            Outcome::Thread(message.thread_root().unwrap_or(message.entry.seq))
        })
    }

    /// Replaces the text of an own message. If the message has files, that waits for the server, which gives new
    /// tickets for them.
    pub(super) async fn edit(&mut self, typed: Option<u64>, text: String) -> Outcome {
        let Some((chat, message)) = self.written_about(typed, true) else {
            return self.kept("/edit", typed, text);
        };
        if message.entry.sender != Some(self.view.me) {
            self.notice("only who wrote a message may edit it".to_owned());
            return self.kept("/edit", typed, text);
        }
        if message.entry.attached().is_none() {
            self.put(chat, Outgoing::edit(&message, text)).await;
            return Outcome::Done;
        }
        let seq = message.entry.seq;
        self.spawn(move |client, _| async move {
            client.edit(chat, seq, &text).await?;
            Ok(())
        });
        Outcome::Done
    }

    /// Deletes a message for everyone.
    pub(super) async fn delete(&mut self, typed: Option<u64>) {
        if let Some((chat, message)) = self.acted_on(typed, true) {
            let deletion = Outgoing::delete(self.address(chat), message.entry.seq);
            self.put(chat, deletion).await;
        }
    }

    /// Deletes a message for the user alone, on all their devices.
    pub(super) fn hide(&self, typed: Option<u64>) {
        let Some(chat) = self.chat_open() else { return };
        let Some(message) = self.target(typed, true) else {
            return;
        };
        let seqs = vec![message.entry.seq];
        self.spawn(move |client, updates| async move {
            client.hide_messages(chat, seqs.clone()).await?;
            let _ = updates.send(Update::Hidden { chat, seqs }).await;
            let told = "it is deleted for you, on all your devices; the others keep it".to_owned();
            let _ = updates.send(Update::Notice(told)).await;
            Ok(())
        });
    }

    /// Reacts to a message, or takes the user's equal reaction back.
    pub(super) async fn react(&mut self, typed: Option<u64>, reaction: String) {
        if let Some((chat, message)) = self.acted_on(typed, false) {
            let take_back = message.has_reaction(self.view.me, reaction.as_bytes());
            let (to, seq) = (self.address(chat), message.entry.seq);
            let reaction = Outgoing::reaction(to, seq, reaction, take_back);
            self.put(chat, reaction).await;
        }
    }

    /// Pins a message, or with `take_back` ends that it is pinned. Without a number and a selection, the newest pinned
    /// message is meant then.
    pub(super) async fn pin(&mut self, mut typed: Option<u64>, take_back: bool) {
        if take_back && typed.is_none() && self.view.selected.is_none() && self.view.open.is_some() {
            let Some(pinned) = self.view.newest_pinned() else {
                return self.notice("no message is pinned here".to_owned());
            };
            typed = Some(pinned.0);
        }
        if let Some((chat, message)) = self.acted_on(typed, false) {
            let pin = Outgoing::pin(self.address(chat), message.entry.seq, take_back);
            self.put(chat, pin).await;
        }
    }

    /// Returns the message that [`Self::target`] finds, with its chat, if the user may write there.
    fn written_about(&self, typed: Option<u64>, own: bool) -> Option<(ChatId, Message)> {
        let chat = self.writable()?;
        Some((chat, self.target(typed, own)?))
    }

    /// Returns the same if the user may do something there, such as react, although perhaps not write.
    fn acted_on(&self, typed: Option<u64>, own: bool) -> Option<(ChatId, Message)> {
        let chat = self.chat_open()?;
        if let Some(why) = self.view.closed(chat) {
            self.notice(why.to_owned());
            return None;
        }
        Some((chat, self.target(typed, own)?))
    }

    /// Returns the message of the open chat that a command is about: the one whose number was `typed`, or else the
    /// selected one, or else the newest one, and with `own` the user's newest one. Otherwise tells the user why there
    /// is none, and returns `None`. While a message of the user is not sent yet, it is the newest one, and nothing can
    /// be done to it.
    fn target(&self, typed: Option<u64>, own: bool) -> Option<Message> {
        let newest = typed.is_none() && self.view.selected.is_none();
        if newest && self.view.is_sending() {
            self.notice("your last message is not sent yet".to_owned());
            return None;
        }
        let message = self.view.target(typed, own);
        if message.is_none() {
            self.notice(match typed {
                Some(number) => format!("there is no message {number} here"),
                None if newest => "there is no such message here".to_owned(),
                None => "the message that you had selected is gone".to_owned(),
            });
        }
        message
    }

    /// Keeps what was typed for a message about which it cannot be. A selected message stays behind: only the text is
    /// kept, as one of its own. Otherwise the whole command is.
    fn kept(&self, command: &str, typed: Option<u64>, text: String) -> Outcome {
        Outcome::Kept(match typed {
            Some(number) => format!("{command} #{number} {text}"),
            None if self.view.selected.is_none() => format!("{command} {text}"),
            // A second slash keeps a text that begins with one from being a command.
            None if text.starts_with('/') => format!("/{text}"),
            None => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use tern_client::{Act, Entry};
    use tern_proto::v1::{self, entry_content::Content};
    use tern_types::{DeviceId, RequestId, Seq, Timestamp, UserId};

    use super::*;
    use crate::messenger::desk::testing::offline;

    /// Shows a message in the direct chat of the user and `peer`, which is opened.
    fn show(desk: &mut Desk, peer: UserId, seq: u64, sender: UserId) {
        let message = v1::Message {
            body: format!("message {seq}").into(),
            ..Default::default()
        };
        desk.open_direct(peer);
        desk.view.add(Entry {
            chat: ChatId::direct(desk.view.me, peer),
            seq: Seq(seq),
            sent_at: Timestamp(0),
            sender: Some(sender),
            device: Some(DeviceId::random()),
            request: Some(RequestId::random()),
            ordinal: seq,
            content: v1::EntryContent {
                content: Some(Content::Message(message)),
                ..Default::default()
            },
            unknown: bytes::Bytes::new(),
        });
    }

    /// Returns what waits in the outbox: the seq of the message that it is about, what it answers, and its body.
    async fn outbox(desk: &Desk) -> Vec<(Option<u64>, u64, String)> {
        let queued = desk.client.outbox().await.unwrap();
        let waits = |message: &Outgoing| {
            let target = message.act().target().map(|seq| seq.0);
            let body = String::from_utf8_lossy(&message.body).into_owned();
            (target, message.envelope.reply_to_seq, body)
        };
        queued.iter().map(|queued| waits(&queued.message)).collect()
    }

    #[tokio::test]
    async fn a_command_is_about_the_typed_the_selected_or_the_newest_message() {
        let (mut desk, _events) = offline().await;
        let (me, bob) = (desk.view.me, UserId::random());
        for (seq, sender) in [(1, me), (2, bob), (3, me), (4, bob)] {
            show(&mut desk, bob, seq, sender);
        }
        desk.submit("/edit new").await;
        desk.submit("/react #2 👍").await;
        desk.view.selected = Some(Seq(1));
        desk.submit("/edit newer").await;
        desk.submit("/pin").await;
        desk.view.selected = None;
        desk.submit("/delete").await;
        desk.submit("/delete #99").await;
        desk.submit("/reply yes").await;
        // The answer is not sent yet, and the message before it is not meant.
        desk.submit("/edit no").await;
        let expected = [
            (Some(3), 0, "new"),
            (Some(2), 0, "👍"),
            (Some(1), 0, "newer"),
            (Some(1), 0, ""),
            (Some(3), 0, ""),
            (None, 4, "yes"),
        ];
        let expected = expected.map(|(target, answers, body)| (target, answers, body.to_owned()));
        assert_eq!(outbox(&desk).await, expected);
    }

    #[tokio::test]
    async fn without_a_number_the_newest_pinned_message_is_unpinned() {
        let (mut desk, _events) = offline().await;
        let bob = UserId::random();
        show(&mut desk, bob, 1, bob);
        show(&mut desk, bob, 2, bob);
        desk.submit("/unpin").await;
        assert!(outbox(&desk).await.is_empty());
        desk.submit("/pin #1").await;
        desk.submit("/unpin").await;
        desk.submit("/unpin").await;
        let about_1 = (Some(1), 0, String::new());
        assert_eq!(outbox(&desk).await, [about_1.clone(), about_1]);
    }

    #[tokio::test]
    async fn what_is_written_into_a_thread_goes_to_its_root() {
        let (mut desk, _events) = offline().await;
        let bob = UserId::random();
        show(&mut desk, bob, 1, bob);
        let mut part = desk.view.target(None, false).unwrap().entry;
        part.seq = Seq(2);
        if let Some(Content::Message(message)) = &mut part.content.content {
            message.envelope.get_or_insert_default().thread_root_seq = 1;
        }
        desk.view.add(part);
        show(&mut desk, bob, 3, bob);
        desk.submit("/thread begins").await;
        desk.submit("/thread #2 goes on").await;
        let outbox = desk.client.outbox().await.unwrap();
        let roots = outbox
            .iter()
            .map(|queued| queued.message.envelope.thread_root_seq);
        assert_eq!(roots.collect::<Vec<_>>(), [3, 1]);
    }

    #[tokio::test]
    async fn what_was_typed_stays_if_it_cannot_be_about_its_message() {
        let (mut desk, _events) = offline().await;
        let (me, bob) = (desk.view.me, UserId::random());
        show(&mut desk, bob, 1, me);
        show(&mut desk, bob, 2, bob);
        let mut deletion = desk.view.target(None, false).unwrap().entry;
        deletion.seq = Seq(3);
        if let Some(Content::Message(message)) = &mut deletion.content.content {
            let envelope = message.envelope.get_or_insert_default();
            (envelope.kind, envelope.target_seq) = (v1::MessageKind::Delete.into(), 2);
        }
        desk.view.selected = Some(Seq(2));
        desk.view.add(deletion);
        for (line, kept) in [
            ("/reply yes", "yes"),
            ("/thread yes", "yes"),
            ("/edit yes", "yes"),
            ("/reply /yes", "//yes"),
            ("/reply #9 yes", "/reply #9 yes"),
        ] {
            let outcome = desk.submit(line).await;
            assert_eq!(outcome, Outcome::Kept(kept.to_owned()), "{line}");
        }
        show(&mut desk, bob, 4, bob);
        let theirs = "/edit #4 mine now";
        assert_eq!(desk.submit(theirs).await, Outcome::Kept(theirs.to_owned()));
        assert!(outbox(&desk).await.is_empty());
    }

    #[tokio::test]
    async fn nothing_is_done_to_the_message_before_one_that_is_not_sent() {
        let (mut desk, _events) = offline().await;
        let bob = UserId::random();
        show(&mut desk, bob, 1, bob);
        desk.submit("hello").await;
        for line in ["/pin", "/react 👍", "/delete", "/thread"] {
            assert_eq!(desk.submit(line).await, Outcome::Done, "{line}");
        }
        let reply = "/reply yes";
        assert_eq!(desk.submit(reply).await, Outcome::Kept(reply.to_owned()));
        let hello = (None, 0, "hello".to_owned());
        assert_eq!(outbox(&desk).await, std::slice::from_ref(&hello));
        desk.submit("/pin #1").await;
        assert_eq!(outbox(&desk).await, [hello, (Some(1), 0, String::new())]);
    }

    #[tokio::test]
    async fn while_a_thread_is_shown_messages_go_into_it() {
        let (mut desk, _events) = offline().await;
        let bob = UserId::random();
        show(&mut desk, bob, 7, bob);
        assert_eq!(desk.submit("/thread").await, Outcome::Thread(Seq(7)));
        desk.view.thread = Some(Seq(7));
        desk.submit("in it").await;
        desk.open_direct(bob);
        desk.submit("beside it").await;
        let outbox = desk.client.outbox().await.unwrap();
        let roots = outbox
            .iter()
            .map(|queued| queued.message.envelope.thread_root_seq);
        assert_eq!(roots.collect::<Vec<_>>(), [7, 0]);
    }

    #[tokio::test]
    async fn the_same_reaction_a_second_time_takes_it_back() {
        let (mut desk, _events) = offline().await;
        let bob = UserId::random();
        show(&mut desk, bob, 1, bob);
        for take_back in [false, true, false] {
            desk.submit("/react 👍").await;
            let last = desk.client.outbox().await.unwrap().pop().unwrap();
            assert_eq!(last.message.envelope.take_back, take_back);
            assert!(matches!(last.message.act(), Act::React { .. }));
        }
    }
}
