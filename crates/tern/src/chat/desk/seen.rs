//! Who read what was written here, and that something is being written.

use tern_client::ClientError;
use tern_types::{ChatId, Seq};

use super::{Desk, Update};

impl Desk {
    /// A key was pressed: `writes`, and the line is a message in the making, or it is none any more.
    pub async fn typed(&self, writes: bool) {
        let Some(chat) = self.view.open else { return };
        let told = if writes {
            self.client.typing(chat).await
        } else {
            self.client.stopped_typing(chat).await
        };
        // The client has ended: the next event says so.
        drop::<Result<(), ClientError>>(told);
    }

    /// Asks whom an own message reached: the `nth` from the end.
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
