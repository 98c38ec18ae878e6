//! Reads lists of a member's chats: pages of the most recently active ones, and some chats that are named.

use futures::future::join_all;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::{Gathered, Pools};
use tern_types::{ChatId, DeviceId, Timestamp, UserId};
use uuid::Uuid;

use super::{ChatView, PAGE, SOME, view};
use crate::store::ReadError;
use crate::store::entries::{budget, more};
use crate::store::seal::{MasterKey, Turn};

/// The number of chats that a cell is asked for besides twice its part of a page. Chats fall on cells as if at random: of
/// 200 newest ones, some cell of 256 has 4 or 5.
const SPARE_CHATS: u32 = 8;

/// Returns how many chats each of `cells` cells is asked for when a page has at most `limit`. Of most people a cell has
/// fewer of the newest chats. If it has more, the page ends early: see [`newest`].
fn part_of_a_cell(limit: u32, cells: u16) -> u32 {
    (limit / u32::from(cells) * 2 + SPARE_CHATS).min(limit)
}

/// A page of a member's chats.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The chats, the most recently active first.
    pub chats: Vec<ChatView>,
    /// True if there may be more chats after these.
    pub more: bool,
    /// True if a cell did not answer, so that its chats are missing.
    pub partial: bool,
}

/// The choice of the chats that a list has. The default is all chats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Among {
    /// The chats that are left out.
    pub without: Vec<ChatId>,
    /// The chats of which those of the list are; `None` for all.
    pub only: Option<Vec<ChatId>>,
    /// If set, the list has only the chats with a last entry of this time or later, and those of these chats.
    pub changed: Option<(Timestamp, Vec<ChatId>)>,
}

/// A page that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The user whose chats they are.
    pub user: UserId,
    /// The device to which the answer goes, if it is one.
    pub device: Option<DeviceId>,
    /// The last chat of the page before: the time of its last entry, and its id. `None` for the first page.
    pub after: Option<(Timestamp, ChatId)>,
    /// The most chats.
    pub limit: u32,
    /// About the most bytes of last entries; the first chat always fits.
    pub max_bytes: usize,
    /// The choice of chats.
    pub among: &'a Among,
}

/// Reads a page of all chats of the user, as [`page`] does.
pub async fn chats(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    device: Option<DeviceId>,
    after: Option<(Timestamp, ChatId)>,
    limit: u32,
    max_bytes: usize,
) -> Result<Page, ReadError> {
    let asked = Asked {
        user,
        device,
        after,
        limit,
        max_bytes,
        among: &Among::default(),
    };
    page(pools, master, asked).await
}

/// Reads a page of the user's chats, the most recently active first. It has fewer chats than are asked for if most of
/// them are in one cell. The user's own log is not among them.
pub async fn page(pools: &Pools, master: &MasterKey, asked: Asked<'_>) -> Result<Page, ReadError> {
    let (user, limit, max_bytes) = (asked.user, asked.limit, asked.max_bytes);
    let (at, id) = asked.after.unwrap_or((Timestamp(i64::MAX), ChatId(Uuid::max())));
    let cells = usize::from(pools.count().count());
    let bytes_a_cell = (max_bytes / cells * 2).min(max_bytes);
    let limit_a_cell = part_of_a_cell(limit, pools.count().count());
    let among = asked.among;
    let without = ids(&among.without);
    let only = among.only.as_deref().map(ids);
    let since = among.changed.as_ref().map_or(i64::MIN, |(since, _)| since.0);
    let changed = among.changed.as_ref().map_or(Vec::new(), |(_, chats)| ids(chats));
    let (without, only, changed) = (&without, only.as_ref(), &changed);
    let of_cell = |pool| async move {
        let page = sqlx::query(PAGE)
            .bind(user.0)
            .bind(asked.device.map(|device| device.0))
            .bind(at.0)
            .bind(id.0)
            .bind(i64::from(limit_a_cell))
            .bind(budget(bytes_a_cell))
            .bind(without)
            .bind(only)
            .bind(since)
            .bind(changed);
        page.fetch_all(&pool).await
    };
    let Gathered { answers, partial } = pools.gather(of_cell).await?;
    let (rows, more) = newest(answers, limit_a_cell, limit, max_bytes)?;
    let (mut chats, mut turn) = (Vec::with_capacity(rows.len()), Turn::default());
    for row in rows {
        chats.push(opened(&row, master, user, &mut turn).await?);
    }
    Ok(Page { chats, more, partial })
}

/// Reads those of these chats of which the user is a member, in no particular order and without the user's own log. Also
/// returns whether a cell did not answer, so that its chats are missing.
pub async fn some(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    device: Option<DeviceId>,
    chats: &[ChatId],
) -> Result<(Vec<ChatView>, bool), ReadError> {
    let parts = pools.by_cell(chats.iter().copied(), |chat| *chat);
    let asked = parts.filter_map(|(_, chats)| {
        let first = *chats.first()?;
        let (user, device, chats) = (user.0, device.map(|device| device.0), ids(&chats));
        Some(pools.ask(first, move |pool| async move {
            let some = sqlx::query(SOME).bind(user).bind(device).bind(chats);
            some.fetch_all(&pool).await
        }))
    });
    let (mut views, mut partial, mut turn) = (Vec::with_capacity(chats.len()), false, Turn::default());
    for rows in join_all(asked).await {
        match rows {
            Ok(rows) => {
                for row in rows {
                    views.push(opened(&row, master, user, &mut turn).await?);
                }
            }
            Err(_) => partial = true,
        }
    }
    Ok((views, partial))
}

/// Opens the chat of a row, and yields to other tasks now and then.
async fn opened(
    row: &PgRow,
    master: &MasterKey,
    user: UserId,
    turn: &mut Turn,
) -> Result<ChatView, ReadError> {
    let view = view(row, master, user)?;
    let opened = view.last_entry.as_ref().map_or(0, |entry| entry.content.len());
    turn.worked(opened).await;
    Ok(view)
}

fn ids(chats: &[ChatId]) -> Vec<Uuid> {
    chats.iter().map(|chat| chat.0).collect()
}

/// Returns the newest chats among the pages of the cells, in the order of [`PAGE`] and within `limit` and `max_bytes`,
/// and whether there may be more. A page of `limit_a_cell` chats was cut. It says nothing of chats that are older than its
/// last one, so none of these is returned.
fn newest(
    pages: Vec<Vec<PgRow>>,
    limit_a_cell: u32,
    limit: u32,
    max_bytes: usize,
) -> sqlx::Result<(Vec<PgRow>, bool)> {
    let mut rows = Vec::new();
    let mut oldest = None;
    for page in pages {
        let cut = more(&page, limit_a_cell)?;
        let mut last = None;
        for row in page {
            let at: Option<i64> = row.try_get("sent_at")?;
            let body: Option<&[u8]> = row.try_get("body")?;
            let bytes = body.map_or(0, <[u8]>::len);
            let place = (at.unwrap_or(0), row.try_get::<Uuid, _>("chat_id")?);
            last = Some(place);
            rows.push((place, bytes, row));
        }
        oldest = oldest.max(last.filter(|_| cut));
    }
    rows.sort_unstable_by_key(|(place, ..)| std::cmp::Reverse(*place));
    let (found, mut bytes) = (rows.len(), 0);
    let within = rows
        .into_iter()
        .take(limit as usize)
        .take_while(|(place, size, _)| {
            let before = bytes;
            bytes += size;
            Some(*place) >= oldest && before < max_bytes.max(1)
        });
    let rows: Vec<PgRow> = within.map(|(.., row)| row).collect();
    let more = oldest.is_some() || rows.len() < found;
    Ok((rows, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_asked_for_more_than_their_parts_of_a_page_and_for_no_more_than_a_page() {
        let parts = [1, 4, 64, 256].map(|cells| part_of_a_cell(200, cells));
        assert_eq!(parts, [200, 108, 14, 8]);
        assert_eq!([1, 4, 256].map(|cells| part_of_a_cell(3, cells)), [3; 3]);
    }
}
