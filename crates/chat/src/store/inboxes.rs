//! Reads the inboxes of devices from all cells.

use std::collections::HashMap;
use std::sync::Arc;

use tern_store::{Gathered, Pools};
use tern_types::{ChatId, DeviceId, Seq, UserId};
use uuid::Uuid;

use super::people;

/// Selects the inbox rows of devices ($1; docs/delivery.md, step 11). A row from the future was written before the
/// store's clock was set back. Its age is its distance from now; otherwise it would count as young for as long as the
/// clock lags.
pub const INBOX: &str = "
SELECT i.device_id, i.chat_id, i.from_seq, abs(extract(epoch FROM now() - i.since) * 1000)::int8 AS age
FROM unnest($1::uuid[]) AS w(device_id) JOIN inbox i ON i.device_id = w.device_id
ORDER BY i.device_id, i.since";

/// The inbox of one device.
#[derive(Debug, Clone)]
pub struct Inbox {
    /// The device's user.
    pub user: UserId,
    /// The chat of each row, the first seq that the device lacks, and the row's age in milliseconds.
    pub rows: Vec<(ChatId, Seq, i64)>,
    /// True if the user turned read receipts off.
    pub read_receipts_off: bool,
    /// True if the user is suspended.
    pub suspended: bool,
}

/// The inboxes of several devices.
#[derive(Debug, Clone)]
pub struct Inboxes {
    /// The inboxes of those devices that are active.
    pub devices: Vec<(DeviceId, Inbox)>,
    /// True if a cell did not answer, so that the rows of its chats are missing.
    pub partial: bool,
}

/// Reads the inboxes of these devices, in all cells. The result leaves out a device that is not active.
pub async fn inboxes(pools: &Pools, devices: &[DeviceId]) -> sqlx::Result<Inboxes> {
    inboxes_of(pools, devices, None).await
}

/// Reads the inbox of this device in one chat, whose cell alone is asked. `None` if the device is not active.
pub async fn inbox_in(pools: &Pools, device: DeviceId, chat: ChatId) -> sqlx::Result<Option<Inbox>> {
    let read = inboxes_of(pools, &[device], Some(chat)).await?;
    let inbox = read.devices.into_iter().next().map(|(_, inbox)| inbox);
    Ok(inbox.map(|mut inbox| {
        inbox.rows.retain(|(row, ..)| *row == chat);
        inbox
    }))
}

/// Reads the inboxes of these devices in all cells, or in the cell of `chat`.
async fn inboxes_of(pools: &Pools, devices: &[DeviceId], chat: Option<ChatId>) -> sqlx::Result<Inboxes> {
    // A device becomes active in the transaction that writes its first rows. So these are read after that is known.
    let active = people::active(pools.people(), devices).await?;
    if active.is_empty() {
        return Ok(Inboxes {
            devices: Vec::new(),
            partial: false,
        });
    }
    let ids: Arc<[Uuid]> = active.iter().map(|active| active.device.0).collect();
    let of_cell = |pool| {
        let ids = ids.clone();
        async move {
            let rows = sqlx::query_as::<_, (Uuid, Uuid, i64, i64)>(INBOX);
            rows.bind(&ids[..]).fetch_all(&pool).await
        }
    };
    let Gathered { answers, partial } = match chat {
        None => pools.gather(of_cell).await?,
        Some(chat) => Gathered {
            answers: vec![of_cell(pools.of(chat).clone()).await?],
            partial: false,
        },
    };
    let mut by_device: HashMap<DeviceId, Vec<(ChatId, Seq, i64)>> = HashMap::new();
    for (device, chat, from, age) in answers.into_iter().flatten() {
        let row = (ChatId(chat), Seq::from_i64(from), age);
        by_device.entry(DeviceId(device)).or_default().push(row);
    }
    let inbox = |active: people::Active| {
        let mut rows = by_device.remove(&active.device).unwrap_or_default();
        // The rows of all cells are put into one order: the device catches up with the oldest first.
        rows.sort_by_key(|(_, _, age)| std::cmp::Reverse(*age));
        let inbox = Inbox {
            user: active.user,
            rows,
            read_receipts_off: active.read_receipts_off,
            suspended: active.suspended,
        };
        (active.device, inbox)
    };
    Ok(Inboxes {
        devices: active.into_iter().map(inbox).collect(),
        partial,
    })
}
