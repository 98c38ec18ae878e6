//! Reads the inboxes of devices from the chat nodes. Sessions that ask at about the same time share a query.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tern_cluster::links::{RetryWaits, gather};
use tern_cluster::{MapHandle, NodeContext, Role};
use tern_proto::ApiError;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::internal::{DeviceInbox, ReadInboxRequest, ReadInboxResponse};
use tern_types::{ChatId, DeviceId, SessionId, UserId};
use tokio::sync::{Mutex, mpsc};
use tonic::Status;
use tracing::Instrument;

use tern_gateway_core::session::{Inbox, InboxRow, Mail};

use crate::metrics;
use crate::registry::{Handle, Registry};

/// The most devices of one query: one index scan each, well below a millisecond for all together.
pub const DEVICES: usize = 64;
/// The most queries under way: enough to hide the round trip to the node, few enough to leave the store to the
/// messages.
const QUERIES: usize = 4;
/// The most sessions whose inboxes wait to be read. A gateway may hold more: a session that finds no room
/// asks again.
const QUEUE: usize = 65_536;
/// The time after which a query counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The number of times that a query for waiting sessions is tried. If all fail, its sessions are told, and
/// ask again later.
const TRIES: usize = 3;

/// The queue of sessions whose inboxes are to be read. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct InboxReader {
    asked: mpsc::Sender<(SessionId, DeviceId)>,
    source: Source,
}

/// The access to the chat nodes that read inboxes.
#[derive(Clone)]
struct Source {
    map: MapHandle,
    ctx: NodeContext,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The inboxes that one query read, by device.
pub type Inboxes = HashMap<DeviceId, Inbox>;

/// The answer to one query.
struct Read {
    inboxes: Inboxes,
    /// The number for the streams that this answer opens, or 0 if it opens none.
    number: u64,
    /// True if rows are missing because a part of the store did not answer.
    partial: bool,
}

impl InboxReader {
    /// Starts the tasks that read inboxes until the drain has ended.
    pub fn start(ctx: &NodeContext, registry: Arc<Registry>) -> Self {
        let (asked, queue) = mpsc::channel(QUEUE);
        let source = Source {
            map: ctx.map.clone(),
            ctx: ctx.clone(),
            registry: registry.clone(),
        };
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..QUERIES {
            let work = work(queue.clone(), source.clone(), registry.clone());
            tokio::spawn(work.instrument(tracing::info_span!("inbox_reader")));
        }
        Self { asked, source }
    }

    /// Asks for the session's inbox. The session gets [`Mail::Inbox`], or [`Mail::InboxFailed`] if the queue is full or
    /// the query fails.
    pub fn ask(&self, session: &Handle) {
        if self.asked.try_send((session.id, session.device)).is_err() {
            session.mailbox.push(Mail::InboxFailed);
        }
    }

    /// Reads the inboxes of at most [`DEVICES`] devices at once, in a query of their own. Devices that the answer does
    /// not name are missing from the result. `Err` if the query fails, or takes longer than [`TIMEOUT`].
    pub async fn read(&self, devices: &[DeviceId]) -> Result<Inboxes, Status> {
        Ok(self.source.read(devices, false).await?.inboxes)
    }
}

/// Reads the inboxes of the sessions in the queue, query by query.
async fn work(
    queue: Arc<Mutex<mpsc::Receiver<(SessionId, DeviceId)>>>,
    source: Source,
    registry: Arc<Registry>,
) {
    loop {
        let batch = {
            let mut queue = queue.lock().await;
            tokio::select! {
                batch = gather(&mut queue, DEVICES) => batch,
                () = source.ctx.drain.ended() => None,
            }
        };
        let Some(batch) = batch else { return };
        let devices: Vec<DeviceId> = batch.iter().map(|(_, device)| *device).collect();
        let opens = |(session, _): &(SessionId, DeviceId)| {
            registry
                .get(*session)
                .is_some_and(|session| session.number().is_none())
        };
        let opens = batch.iter().any(opens);
        let read = patiently(|| source.read(&devices, opens)).await;
        for (session, device) in batch {
            let Some(session) = registry.get(session) else {
                continue;
            };
            let inbox = read.as_ref().and_then(|read| read.inboxes.get(&device));
            if let (Some(read), Some(_)) = (&read, inbox) {
                session.set_number(read.number);
            }
            session
                .mailbox
                .push(inbox.map_or(Mail::InboxFailed, |inbox| Mail::Inbox(inbox.clone())));
        }
    }
}

/// Reads inboxes by calling `read`, and tries again after a pause if that fails. `None` if it has failed
/// [`TRIES`] times. After the last failure there is no pause.
async fn patiently<T, F>(mut read: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut waits = RetryWaits::default();
    for tried in 1..=TRIES {
        match read().await {
            Ok(read) => return Some(read),
            Err(status) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "inboxes cannot be read");
            }
        }
        if tried < TRIES {
            tokio::time::sleep(waits.next(Duration::ZERO)).await;
        }
    }
    None
}

impl Source {
    async fn read(&self, devices: &[DeviceId], opens: bool) -> Result<Read, Status> {
        let answer = tokio::time::timeout(TIMEOUT, self.query(devices, opens)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the chat node did not answer")));
        metrics::inbox_read(match &answer {
            Ok(read) if read.partial => "partial",
            Ok(_) => "ok",
            Err(_) => "failed",
        });
        answer
    }

    async fn query(&self, devices: &[DeviceId], opens: bool) -> Result<Read, Status> {
        let answer = self.answer(devices, opens).await?;
        self.make_sure_of(&answer.store_epoch).await?;
        let (number, partial) = (answer.stream_number, answer.partial);
        Ok(Read {
            inboxes: parsed(answer),
            number,
            partial,
        })
    }

    /// Makes the store of this epoch the one that sessions belong to. If the registry knows another one, or none yet,
    /// the answer at hand may be out of date, so a chat node is asked once more: `Err` if it names another store. When
    /// this returns, the links name the new store too, before a session is opened on it.
    async fn make_sure_of(&self, epoch: &str) -> Result<(), Status> {
        if self.registry.knows_store(epoch) {
            return Ok(());
        }
        if self.answer(&[], false).await?.store_epoch != epoch {
            return Err(Status::unavailable("the store is being changed"));
        }
        self.registry.store_is(epoch);
        Ok(())
    }

    async fn answer(&self, devices: &[DeviceId], opens: bool) -> Result<ReadInboxResponse, Status> {
        let map = self.map.current();
        let node = map
            .any(Role::Chat)
            .ok_or_else(|| ApiError::unavailable("no chat node is there"))?;
        let channel = self.ctx.channels.get(&node.address)?;
        let device_ids = devices.iter().map(|device| device.to_vec().into()).collect();
        let mut client = ChatNodeClient::new(channel)
            .max_decoding_message_size(tern_cluster::links::MAX_LINK_MESSAGE_BYTES);
        Ok(client
            .read_inbox(ReadInboxRequest {
                device_ids,
                opens,
                accept_partial: true,
            })
            .await?
            .into_inner())
    }
}

/// Reads the inboxes of an answer. Those of devices without a proper id are left out.
fn parsed(answer: ReadInboxResponse) -> Inboxes {
    let of_all = Inbox {
        partial: answer.partial,
        store_epoch: answer.store_epoch,
        edit_window_s: answer.edit_window_s,
        delete_window_s: answer.delete_window_s,
        ..Inbox::default()
    };
    let inboxes = answer.devices.into_iter();
    inboxes.filter_map(|inbox| of_device(inbox, &of_all)).collect()
}

/// Reads the inbox of one device. `of_all` has what is the same for all devices of the answer.
fn of_device(inbox: DeviceInbox, of_all: &Inbox) -> Option<(DeviceId, Inbox)> {
    let device = DeviceId::from_slice(&inbox.device_id).ok()?;
    let rows = inbox.rows.into_iter().filter_map(|row| {
        let age = Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0));
        Some(InboxRow {
            chat: ChatId::from_slice(&row.chat_id).ok()?,
            from: row.from_seq,
            age,
        })
    });
    Some((
        device,
        Inbox {
            active: inbox.active,
            unknown: inbox.unknown,
            suspended: inbox.suspended,
            user: UserId::from_slice(&inbox.user_id).ok(),
            rows: rows.collect(),
            read_receipts_off: inbox.read_receipts_off,
            ..of_all.clone()
        },
    ))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failing_query_is_tried_three_times_with_pauses_only_between_the_tries() {
        let mut tries = Vec::new();
        let read = patiently(|| {
            tries.push(Instant::now());
            std::future::ready(Err::<(), Status>(Status::unavailable("away")))
        });
        assert_eq!(read.await, None);
        assert!(tries[0] < tries[1] && tries[1] < tries[2], "{tries:?}");
        assert_eq!(tries[2], Instant::now(), "its sessions are told at once");
        assert_eq!(tries.len(), TRIES);
    }
}
