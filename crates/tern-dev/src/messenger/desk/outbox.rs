//! Sends or deletes messages that were refused, and starts the client anew after the server has ended the connection.

use anyhow::Context as _;
use tern_client::{Client, EventStream, FailureCode, Outgoing, QueuedMessage, SendState, StopReason};
use tern_types::{ChatId, Clock};

use super::{Desk, Outcome, Update};
use crate::messenger::view::Connection;

impl Desk {
    /// Sends a refused message again: the `nth` from the end, counted from 1. It becomes a new message with a new
    /// request_id, because the server has stored nothing of the first. If that fails, the refused message stays.
    pub(super) async fn retry(&mut self, nth: usize) {
        let Some(refused) = self.refused(nth) else { return };
        if is_final(&refused) {
            return self.notice("the server takes that no more: /discard forgets it".to_owned());
        }
        let chat = refused.chat;
        let Outgoing {
            request,
            to,
            envelope,
            body,
        } = refused.message;
        let message = Outgoing {
            envelope,
            ..Outgoing::new(to, body)
        };
        let new = message.request;
        self.show(chat, message.clone());
        match self.client.send_again(request, message).await {
            Ok(_) => self.view.forget(chat, request),
            Err(error) => {
                self.view.forget(chat, new);
                self.fault(&error.into());
            }
        }
    }

    /// Deletes a refused message: the `nth` from the end, counted from 1.
    pub(super) async fn discard(&mut self, nth: usize) {
        let Some(refused) = self.refused(nth) else { return };
        let request = refused.message.request;
        match self.client.discard(request).await {
            Ok(()) => self.view.forget(refused.chat, request),
            Err(error) => self.fault(&error.into()),
        }
    }

    /// Returns the `nth` refused message of the open chat, counted from the end. Otherwise tells the user that there is
    /// none, and returns `None`.
    fn refused(&self, nth: usize) -> Option<QueuedMessage> {
        let Some(chat) = self.view.open else {
            self.notice("no chat is open: /chat bob opens one".to_owned());
            return None;
        };
        let refused = self.view.failed(chat, nth).cloned();
        if refused.is_none() {
            self.notice("no such message of yours was refused here".to_owned());
        }
        refused
    }

    /// Shows a message in the chat and puts it into the outbox. If that fails, the message leaves the view, and the
    /// user is told why.
    pub(super) async fn put(&mut self, chat: ChatId, message: Outgoing) {
        let request = message.request;
        self.show(chat, message.clone());
        if let Err(error) = self.client.send_message(message).await {
            self.view.forget(chat, request);
            self.fault(&error.into());
        }
    }

    /// Shows a message in the chat as one that waits in the outbox.
    fn show(&mut self, chat: ChatId, message: Outgoing) {
        self.view.queue(QueuedMessage {
            message,
            chat,
            created_at: Clock::wall(),
            state: SendState::Queued,
        });
    }

    /// Handles the end of the client. If the user can start it again with /connect, the view shows that there is no
    /// connection, and the result is `None`. Otherwise the result is the reason with which the program ends.
    pub fn ended(&mut self, reason: StopReason) -> Option<StopReason> {
        let why = match reason {
            StopReason::Suspended => "the operator keeps you out for now; /connect tries again",
            StopReason::Replaced => "this device was opened elsewhere; /connect brings it back here",
            _ => return Some(reason),
        };
        self.view.connection = Connection::Ended(why);
        None
    }

    /// Shows again what this device is still to send, after the view has forgotten it. The server's store was replaced
    /// then, and messages that it had already may have to be sent again.
    pub(super) fn load_outbox(&self) {
        self.spawn(|client, updates| async move {
            let outbox = client.outbox().await?;
            let _ = updates.send(Update::Outbox(outbox)).await;
            Ok(())
        });
    }

    /// Starts the client anew if it has ended. If that fails, the user is told why.
    pub(super) async fn connect_again(&mut self) -> Outcome {
        match self.connect().await {
            Ok(None) => Outcome::Done,
            Ok(events) => {
                self.new_events = events;
                Outcome::Connected
            }
            Err(error) => {
                self.fault(&error);
                Outcome::Done
            }
        }
    }

    /// Starts the client anew after [`Self::ended`] and returns its events, or `None` if the client had not ended.
    /// Fails if the device's store cannot be opened.
    pub async fn connect(&mut self) -> anyhow::Result<Option<EventStream>> {
        if !matches!(self.view.connection, Connection::Ended(_)) {
            self.notice("it is connected, or tries by itself".to_owned());
            return Ok(None);
        }
        let (client, events) = Client::start(self.config.clone())
            .await
            .context("this device does not open again")?;
        self.client = client;
        self.view.connection = Connection::Connecting;
        self.watch_again();
        Ok(Some(events))
    }
}

/// Returns whether the server refuses this in any case: what was to be done to a message that is not there any more, or
/// that is too old. After the server's store was replaced, another message may have the seq of the one that was meant.
fn is_final(refused: &QueuedMessage) -> bool {
    let SendState::Failed { code, .. } = &refused.state else {
        return false;
    };
    let is_final = matches!(code, FailureCode::TargetNotFound | FailureCode::TooLate);
    is_final && refused.message.act().target().is_some()
}

#[cfg(test)]
mod tests {
    use tern_client::Event;
    use tern_types::{Seq, UserId};

    use super::*;
    use crate::messenger::desk::testing::offline;

    #[tokio::test]
    async fn what_waits_is_shown_again_after_the_servers_store_was_replaced() {
        let (mut desk, _events) = offline().await;
        desk.open_direct(UserId::random());
        let chat = desk.view.open.unwrap();
        desk.submit("hello").await;
        desk.apply_event(&Event::Reset, true);
        assert_eq!(desk.view.lines(chat), []);
        loop {
            let update = desk.update().await.unwrap();
            let is_outbox = matches!(update, Update::Outbox(_));
            desk.apply_update(&update);
            // The same update is applied twice, and the message is still shown once.
            desk.apply_update(&update);
            if is_outbox {
                break;
            }
        }
        let texts: Vec<String> = desk.view.lines(chat).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["hello"]);
    }

    #[tokio::test]
    async fn what_the_server_takes_no_more_is_not_sent_again() {
        let (mut desk, _events) = offline().await;
        desk.open_direct(UserId::random());
        let chat = desk.view.open.unwrap();
        for (code, waiting) in [
            (FailureCode::TooLate, 0),
            (FailureCode::TargetNotFound, 0),
            (FailureCode::NotAllowed, 1),
        ] {
            desk.view.queue(QueuedMessage {
                message: Outgoing::delete(chat, Seq(1)),
                chat,
                created_at: Clock::wall(),
                state: SendState::Failed {
                    code,
                    message: String::new(),
                    retry_at: None,
                },
            });
            desk.submit("/retry").await;
            assert_eq!(desk.client.outbox().await.unwrap().len(), waiting, "{code:?}");
        }
    }
}
