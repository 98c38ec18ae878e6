//! Lets a person answer, edit, delete and pin messages, react to them and pass them on, and gives an app the messages
//! as they are after that. Each deed is a send like any other: it waits in the outbox until the server has taken it,
//! [`crate::Event::Send`] tells its state, and an entry of the log tells it to all devices. An app that has a form of
//! its own for its bodies makes such sends itself, by the functions of [`Outgoing`].

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq};

use tern_client_core::model::{Message, Only, Outgoing, To};

use crate::client::Client;
use crate::error::ClientError;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Client {
    /// Returns at most `limit` messages of a chat as they are now, ascending by seq: the newest ones that this device
    /// has, or with `before` the newest ones below that seq. What is about an earlier message, and changes of the chat,
    /// are not among them. [`Client::load_history`] gets older messages from the server. Fails as [`Client::chats`]
    /// does.
    pub async fn messages(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        self.read(move |store| store.messages(chat, before, limit)).await
    }

    /// Returns the same as [`Client::messages`], of the messages that `only` chooses among those that this device has.
    /// Older ones are found by `ListMessages` of [`Client::api`], or once [`Client::load_history`] has brought them. Fails
    /// as [`Client::chats`] does.
    pub async fn messages_only(
        &self,
        chat: ChatId,
        only: Only,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.read(move |store| store.messages_only(chat, only, before, limit))
            .await
    }

    /// Returns a message as it is now, or `None` if this device does not have it. An app calls this again when an
    /// [`crate::Event::Entry`] comes whose [`crate::Entry::target`] is the message. Fails as [`Client::chats`] does.
    pub async fn message(&self, chat: ChatId, seq: Seq) -> Result<Option<Message>> {
        self.read(move |store| store.message(chat, seq)).await
    }

    /// Returns the pinned messages of a chat that this device has, ascending by seq. Fails as [`Client::chats`] does.
    pub async fn pinned(&self, chat: ChatId) -> Result<Vec<Message>> {
        self.read(move |store| store.pinned(chat)).await
    }

    /// Sends a message that replies to an earlier one. Returns and fails as [`Client::send`] does.
    pub async fn reply(&self, chat: ChatId, message: Seq, body: impl Into<Bytes>) -> Result<RequestId> {
        self.send_message(Outgoing::new(chat, body).replying_to(message))
            .await
    }

    /// Sends a message in the thread that begins with the message `root`. Returns and fails as [`Client::send`] does.
    pub async fn send_in_thread(&self, chat: ChatId, root: Seq, body: impl Into<Bytes>) -> Result<RequestId> {
        self.send_message(Outgoing::new(chat, body).in_thread(root)).await
    }

    /// Replaces the text of the person's own message, or the text beside its attachments. The server takes it for 15
    /// minutes after the message was sent, unless the operator chose another time; after that the send fails with
    /// TOO_LATE. Returns when the edit is durable in the outbox.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoSuchMessage`] if this device does not have the message or the message was deleted,
    /// [`ClientError::Call`] if the message has attachments and the server does not allow them to this person or does
    /// not answer, and the errors of [`Client::send`].
    pub async fn edit(&self, chat: ChatId, message: Seq, text: &str) -> Result<RequestId> {
        let message = self.present(chat, message).await?;
        let body = match message.entry.attached() {
            Some(attached) => {
                let text = text.to_owned();
                v1::AttachmentBody { text, ..attached }.encode_to_vec()
            }
            None => text.as_bytes().to_vec(),
        };
        let mut edit = Outgoing::edit(&message, body);
        self.renew_tickets(Some(chat), &mut edit.envelope).await?;
        self.send_message(edit).await
    }

    /// Deletes a message for everyone: the server and all devices erase its content. The server takes it from the
    /// message's sender for 48 hours, unless the operator chose another time (TOO_LATE), and from admins and owners of
    /// a group at any time. Returns and fails as [`Client::send`] does.
    pub async fn delete(&self, chat: ChatId, message: Seq) -> Result<RequestId> {
        self.send_message(Outgoing::delete(chat, message)).await
    }

    /// Adds a reaction of 1 to 64 bytes to a message, such as an emoji; with `take_back` it takes this person's equal
    /// reaction back. A person may have several reactions to one message. Returns and fails as [`Client::send`] does.
    pub async fn react(
        &self,
        chat: ChatId,
        message: Seq,
        key: impl Into<Bytes>,
        take_back: bool,
    ) -> Result<RequestId> {
        self.send_message(Outgoing::reaction(chat, message, key, take_back))
            .await
    }

    /// Pins a message for all members of the chat; with `take_back` it ends that the message is pinned. In a group the
    /// server takes it from admins and owners only (NOT_ALLOWED). Returns and fails as [`Client::send`] does.
    pub async fn pin(&self, chat: ChatId, message: Seq, take_back: bool) -> Result<RequestId> {
        self.send_message(Outgoing::pin(chat, message, take_back)).await
    }

    /// Sends a message on to another chat, with its attachments, whose bytes are not uploaded again. Returns when the
    /// new message is durable in the outbox. Fails as [`Client::edit`] does.
    pub async fn forward_message(&self, chat: ChatId, message: Seq, to: impl Into<To>) -> Result<RequestId> {
        let message = self.present(chat, message).await?;
        let mut forward = Outgoing::forward(&message, to).ok_or(ClientError::NoSuchMessage)?;
        self.renew_tickets(Some(chat), &mut forward.envelope).await?;
        self.send_message(forward).await
    }

    /// Returns a message that this device has and that was not deleted.
    async fn present(&self, chat: ChatId, seq: Seq) -> Result<Message> {
        let message = self.message(chat, seq).await?;
        message
            .filter(|message| message.deleted.is_none())
            .ok_or(ClientError::NoSuchMessage)
    }
}

#[cfg(test)]
mod tests {
    use tern_client_core::engine::Change;
    use tern_client_core::testing::{credentials, entry};
    use tern_proto::v1::MessageKind as Kind;

    use super::*;
    use crate::config::{ClientConfig, StoreLocation};

    #[tokio::test]
    async fn what_is_done_to_a_message_waits_in_the_outbox() {
        // Nothing listens at this address, and nothing has to.
        let config = ClientConfig::new(vec!["http://127.0.0.1:1".into()], StoreLocation::Memory);
        let (client, _events) = Client::start(config.credentials(credentials())).await.unwrap();
        let chat = |number| ChatId(uuid::Uuid::from_u128(number));
        let (here, there, seq) = (chat(1), chat(2), Seq(7));
        let known = Change::Entry(entry(here, 7));
        client.read(move |store| store.commit(&[known])).await.unwrap();

        client.edit(here, seq, "new").await.unwrap();
        client.react(here, seq, "👍", true).await.unwrap();
        client.pin(here, seq, false).await.unwrap();
        client.delete(here, seq).await.unwrap();
        client.reply(here, seq, "yes").await.unwrap();
        client.send_in_thread(here, seq, "and so").await.unwrap();
        client.forward_message(here, seq, there).await.unwrap();
        let outbox = client.outbox().await.unwrap();
        let said: Vec<_> = outbox
            .iter()
            .map(|queued| {
                let envelope = &queued.message.envelope;
                let seqs = (
                    envelope.target_seq,
                    envelope.reply_to_seq,
                    envelope.thread_root_seq,
                );
                (envelope.kind(), seqs, &queued.message.body[..])
            })
            .collect();
        let expected = [
            (Kind::Edit, (7, 0, 0), &b"new"[..]),
            (Kind::Reaction, (7, 0, 0), "👍".as_bytes()),
            (Kind::Pin, (7, 0, 0), b""),
            (Kind::Delete, (7, 0, 0), b""),
            (Kind::Message, (0, 7, 0), b"yes"),
            (Kind::Message, (0, 0, 7), b"and so"),
            (Kind::Message, (0, 0, 0), b"message 7"),
        ];
        assert_eq!(said, expected);
        assert!(outbox[1].message.envelope.take_back && !outbox[2].message.envelope.take_back);
        assert_eq!(outbox[6].message.envelope.times_forwarded, 1);

        for missing in [
            client.edit(here, Seq(8), "new").await,
            client.forward_message(here, Seq(8), there).await,
        ] {
            assert!(matches!(missing, Err(ClientError::NoSuchMessage)), "{missing:?}");
        }
    }
}
