//! Reads entries from the server again of which an earlier version of this program has lost a part. The store knows which
//! ones they are since it was brought up to date.

use std::time::Duration;

use tern_proto::v1::{self, ErrorReason};
use tern_types::Seq;
use tokio::sync::mpsc;

use tern_client_core::engine::Input;
use tern_client_core::model::Entry;

use crate::api::Api;
use crate::driver::command::{Command, apply, on_store};
use crate::driver::{entries, malformed};
use crate::error::ClientError;

/// The largest page of ListEntries, in entries.
const PAGE: u32 = 256;
/// The pause between two pages, in which the server and the store are free for everything else.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause after a failure that may pass by itself, such as a start without a connection.
const RETRY: Duration = Duration::from_secs(60);

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Reads the lost entries page by page until all are complete or the client has ended. If the server does not answer, it
/// is asked again later. After any other failure the next start goes on.
pub(crate) async fn read_lost(commands: mpsc::WeakSender<Command>, api: Api) {
    loop {
        match read_page(&commands, &api).await {
            Ok(true) => tokio::time::sleep(PAUSE).await,
            Ok(false) | Err(ClientError::Stopped) => return,
            Err(ClientError::Call(error)) if error.is_transient() => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::warn!(%error, "entries of an earlier version not read again");
                return;
            }
        }
    }
}

/// Reads one page. Returns whether there may be more.
async fn read_page(commands: &mpsc::WeakSender<Command>, api: &Api) -> Result<bool> {
    let Some((chat, from)) = on_store(&upgraded(commands)?, |store| store.first_lost()).await? else {
        return Ok(false);
    };
    let request = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        from_seq: from.0,
        page_size: PAGE,
        ..Default::default()
    };
    // No sender is kept meanwhile: it would keep the client from ending when the app drops its last handle.
    let (found, to) = match api.list_entries(request).await {
        Ok(page) => (entries(page.entries)?, read_up_to(page.next_from_seq, from)?),
        // The person has left the chat.
        Err(error) if error.reason == ErrorReason::ChatNotFound => (Vec::new(), None),
        Err(error) => return Err(error.into()),
    };
    let sender = upgraded(commands)?;
    let seqs: Vec<Seq> = found.iter().map(|entry| entry.seq).collect();
    let lost = on_store(&sender, move |store| store.lost_of(chat, &seqs)).await?;
    let complete: Vec<Entry> = found
        .into_iter()
        .filter(|entry| entry.chat == chat && lost.contains(&entry.seq))
        .collect();
    apply(&sender, Input::History(complete)).await?;
    on_store(&sender, move |store| store.forget_lost(chat, to)).await?;
    Ok(true)
}

/// Returns the seq up to which a page that begins at `from` was read, or `None` if it was the last one.
fn read_up_to(next_from_seq: u64, from: Seq) -> Result<Option<Seq>> {
    match next_from_seq {
        0 => Ok(None),
        next if next > from.0 => Ok(Some(Seq(next).previous())),
        _ => Err(malformed("the next page begins before this one").into()),
    }
}

fn upgraded(commands: &mpsc::WeakSender<Command>) -> Result<mpsc::Sender<Command>> {
    commands.upgrade().ok_or(ClientError::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_brings_the_reading_forward() {
        for (next, expected) in [(0, Some(None)), (8, Some(Some(Seq(7)))), (7, None), (3, None)] {
            assert_eq!(read_up_to(next, Seq(7)).ok(), expected, "{next}");
        }
    }
}
