//! Looks at what was claimed, and decides what becomes of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tern_proto::v1::{Notification, NotificationReason, PushClass};
use tern_push_core::facts::{Announced, Facts, Presence, Reason, Row, Settings};
use tern_push_core::{Class, Decision, Hold, POINTLESS_AFTER, Tag, Why, decide, is_old, unreachable};
use tern_types::{Cell, ChatId, DeviceId, Seq, Timestamp, UserId};

use super::{Deliver, Worker};
use crate::metrics;
use crate::provider::{Outgoing, Token};
use crate::store::aged;
use crate::store::claim::{Batch, Claimed};
use crate::store::look::{self, Badge, Looked};
use crate::store::note::{Became, Note, Shown};
use crate::store::people::{self, Device};
use crate::store::settings;

/// The time for which a provider keeps a push for a device that is out of reach.
const LIFETIME: Duration = Duration::from_secs(3 * 24 * 3600);
/// The age of a push that was found to have nobody to go to: it counts as if it was sent that long ago. The next push
/// of the row is due a minute after that, so in 10 s at the earliest, and a row of a busy chat is not looked at for
/// each message. The push of a device without a token counts as sent now: there may be many such devices.
pub(super) const RESTED: Duration = Duration::from_secs(50);
/// The most bytes of a name or a title in a notification: see `Notification` in push.proto.
const MAX_NAME_BYTES: usize = 128;
/// The time between two pushes of a row, which the statement keeps that makes it due.
const APART: Duration = Duration::from_secs(60);

/// The plan for a batch.
#[derive(Default)]
pub(super) struct Plan {
    /// The notes that are written at once.
    pub notes: Vec<Note>,
    /// The pushes that are sent.
    pub pushes: Vec<Prepared>,
}

/// A push that is to be sent.
pub(super) struct Prepared {
    pub row: Claimed,
    pub class: Class,
    pub push: Outgoing,
    /// Since when it was to go out.
    pub wanted: Timestamp,
    /// The chat's head at the look.
    pub head: Seq,
    /// The newest entry that is announced.
    pub seq: Option<Seq>,
}

/// A claimed push to a device that can be pushed to, with what the look found out about it.
struct Open<'a> {
    row: Claimed,
    device: &'a Device,
    token: Arc<Token>,
    looked: Option<Looked>,
    settings: Option<Settings>,
    presence: Presence,
}

impl<'a> Open<'a> {
    fn new(row: Claimed, device: &'a Device, token: Arc<Token>) -> Self {
        Self {
            row,
            device,
            token,
            looked: None,
            settings: None,
            presence: Presence::Unsure,
        }
    }
}

impl Plan {
    /// Puts a push off without a try, because its service does not answer.
    fn put_off(&mut self, row: &Claimed, until: Timestamp) {
        metrics::held("service");
        let tries = row.tries;
        self.notes.push(Note::of(row, Became::Waits { until, tries }));
    }

    fn end(&mut self, row: &Claimed, why: Why, head: Option<Seq>, now: Timestamp) {
        metrics::ended(why);
        let rested = if why == Why::NoToken {
            Duration::ZERO
        } else {
            RESTED
        };
        let became = Became::Ended {
            pushed_at: why.lasts().then_some(now - rested),
            head: head.filter(|_| !why.lasts()),
        };
        self.notes.push(Note::of(row, became));
    }
}

impl<D: Deliver> Worker<D> {
    /// Looks at the batch, whose rows are of this cell, and decides.
    pub(super) async fn plan(&self, cell: Cell, batch: &Batch) -> sqlx::Result<Plan> {
        let mut plan = Plan::default();
        let rows = self.end_old(cell, batch, &mut plan).await?;
        let ids: HashSet<DeviceId> = rows.iter().map(|row| row.device).collect();
        if ids.is_empty() {
            return Ok(plan);
        }
        let devices = people::devices(self.store.pools().people(), &ids).await?;
        let mut open = Vec::new();
        for row in &rows {
            // A user without a device has rows under the reserved id.
            let Some(device) = devices.get(&row.device) else {
                plan.end(row, Why::NoToken, None, batch.clock.now());
                continue;
            };
            match (unreachable(device.recipient), device.token.clone()) {
                (None, Some(token)) => match self.lanes.closed(&token) {
                    Some(shut) => {
                        let now = batch.clock.now();
                        plan.put_off(row, now + shut.put_off(now.since(row.since)));
                    }
                    None => open.push(Open::new(*row, device, token)),
                },
                (why, _) => plan.end(row, why.unwrap_or(Why::NoToken), None, batch.clock.now()),
            }
        }
        if open.is_empty() {
            return Ok(plan);
        }
        let badges = self.look(cell, &mut open).await?;
        self.decide(open, badges, batch, &mut plan).await?;
        Ok(plan)
    }

    /// Ends what is old in chats in which everything is, and returns the others. This is all that the rows cost which have
    /// gathered on a platform without push nodes when it gets its first.
    async fn end_old(&self, cell: Cell, batch: &Batch, plan: &mut Plan) -> sqlx::Result<Vec<Claimed>> {
        let now = batch.clock.now();
        let rows = batch.rows.iter().copied();
        let (old, young): (Vec<Claimed>, Vec<Claimed>) = rows.partition(|row| is_old(now, row.since));
        if old.is_empty() {
            return Ok(young);
        }
        let heads = aged::heads(self.store.pools().cell(cell), &old, POINTLESS_AFTER).await?;
        let mut rest = Vec::new();
        for (row, head) in old.into_iter().zip(heads) {
            match head {
                Some(head) => plan.end(&row, Why::Pointless, Some(head), now),
                None => rest.push(row),
            }
        }
        rest.extend(young);
        Ok(rest)
    }

    /// Looks at everything that decides, and returns the badges of the devices.
    async fn look(&self, cell: Cell, open: &mut [Open<'_>]) -> sqlx::Result<HashMap<DeviceId, Badge>> {
        let pools = self.store.pools();
        let rows: Vec<Claimed> = open.iter().map(|open| open.row).collect();
        let devices: HashSet<(DeviceId, UserId)> = rows.iter().map(|row| (row.device, row.user)).collect();
        let devices: Vec<(DeviceId, UserId)> = devices.into_iter().collect();
        let chats: HashSet<(UserId, ChatId)> = rows.iter().map(|row| (row.user, row.chat)).collect();
        let chats: Vec<(UserId, ChatId)> = chats.into_iter().collect();
        let users: HashSet<UserId> = rows.iter().map(|row| row.user).collect();
        let (badges, settings, found) = tokio::join!(
            look::badges(pools, &devices),
            settings::settings(pools, &chats),
            self.sessions.of(users),
        );
        // The chats come last: another cell may have been waited for, and what was acknowledged meanwhile is not sent.
        let looked = look::look(pools.cell(cell), &rows).await?;
        for (open, looked) in open.iter_mut().zip(looked) {
            open.looked = looked;
            open.settings = settings.get(&(open.row.user, open.row.chat)).copied();
            open.presence = found.presence(open.row.user, open.row.device);
        }
        self.find_blocked(open).await?;
        badges
    }

    /// Finds out which senders are blocked by the users to whom they are announced.
    async fn find_blocked(&self, open: &mut [Open<'_>]) -> sqlx::Result<()> {
        let mut pairs = HashSet::new();
        for open in open.iter() {
            let announced = open.looked.iter().flat_map(|looked| &looked.waiting.announced);
            let senders = announced.map(|announced| announced.sender);
            let others = senders.filter(|sender| *sender != UserId::SYSTEM && *sender != open.row.user);
            pairs.extend(others.map(|sender| (open.row.user, sender)));
        }
        let blocked = people::blocked(self.store.pools().people(), &pairs).await?;
        for open in open {
            let user = open.row.user;
            let announced = open
                .looked
                .iter_mut()
                .flat_map(|looked| &mut looked.waiting.announced);
            for announced in announced {
                announced.blocked = blocked.contains(&(user, announced.sender));
            }
        }
        Ok(())
    }

    /// Decides about each push, the one that has been due for the longest first.
    async fn decide(
        &self,
        open: Vec<Open<'_>>,
        mut badges: HashMap<DeviceId, Badge>,
        batch: &Batch,
        plan: &mut Plan,
    ) -> sqlx::Result<()> {
        let now = batch.clock.now();
        let mut sends = Vec::new();
        for open in open {
            let badge = badges.entry(open.row.device).or_default();
            match decide(now, row_of(&open), &facts(&open, badge.pushed_lately)) {
                Decision::Send(send) => {
                    badge.pushed_lately += 1;
                    sends.push((open, send, badge.chats));
                }
                Decision::Wait { until, hold } => {
                    metrics::held(hold_name(hold));
                    let tries = open.row.tries;
                    plan.notes
                        .push(Note::of(&open.row, Became::Waits { until, tries }));
                }
                Decision::End(why) => {
                    let head = open.looked.as_ref().map(|looked| looked.head);
                    plan.end(&open.row, why, head, now);
                }
            }
        }
        let senders = sends
            .iter()
            .filter_map(|(_, send, _)| Some(send.announced?.sender));
        let senders: HashSet<UserId> = senders.filter(|sender| *sender != UserId::SYSTEM).collect();
        let names = people::names(self.store.pools().people(), &senders).await?;
        let prepared = sends
            .into_iter()
            .filter_map(|(open, send, badge)| prepare(open, send, badge, &names));
        plan.pushes.extend(prepared);
        Ok(())
    }
}

/// Returns the row as it is decided about. Whether something is shown is what the look found.
fn row_of(open: &Open<'_>) -> Row {
    let looked = open.looked.as_ref();
    Row {
        since: open.row.since,
        notified: looked.map_or(open.row.notified, |looked| looked.notified),
    }
}

fn facts(open: &Open<'_>, pushed_lately: u32) -> Facts {
    Facts {
        recipient: open.device.recipient,
        waiting: open.looked.as_ref().map(|looked| looked.waiting.clone()),
        settings: open.settings,
        quiet: open.device.quiet.clone(),
        presence: open.presence,
        pushed_lately,
    }
}

/// Returns the name of why a push waits, for metrics.
fn hold_name(hold: Hold) -> &'static str {
    match hold {
        Hold::Live => "live",
        Hold::Active => "active",
        Hold::QuietHours => "quiet_hours",
        Hold::Crowded => "crowded",
        Hold::Unknown => "unknown",
    }
}

/// Makes a push of what was decided. It never returns `None`, because a push is only sent after a look.
fn prepare(
    open: Open<'_>,
    send: tern_push_core::Send,
    badge: u32,
    names: &HashMap<UserId, String>,
) -> Option<Prepared> {
    let looked = open.looked?;
    let (class, notification) = match send.class {
        Class::Alert => {
            let notification = send
                .announced
                .map(|announced| notification(open.row.chat, &looked, &announced, names));
            (PushClass::Alert, notification.map(Arc::new))
        }
        Class::Badge => (PushClass::Badge, None),
        Class::Withdraw => (PushClass::Withdraw, None),
        Class::Silent => (PushClass::Silent, None),
    };
    let push = Outgoing {
        device: open.row.device,
        token: open.token,
        class,
        tag: Tag::of(open.row.device, open.row.chat),
        badge,
        notification,
        lifetime: LIFETIME,
    };
    Some(Prepared {
        wanted: wanted(&open.row, open.device.quiet.as_ref()),
        row: open.row,
        class: send.class,
        push,
        head: looked.head,
        seq: send.announced.map(|announced| announced.seq),
    })
}

fn notification(
    chat: ChatId,
    looked: &Looked,
    announced: &Announced,
    names: &HashMap<UserId, String>,
) -> Notification {
    let is_person = announced.sender != UserId::SYSTEM;
    let name = names.get(&announced.sender).map_or("", String::as_str);
    let title = if looked.group { looked.title.as_str() } else { "" };
    let reason = match announced.reason {
        Reason::Silent => NotificationReason::Unspecified,
        Reason::Message => NotificationReason::Message,
        Reason::Mention => NotificationReason::Mention,
        Reason::Reaction => NotificationReason::Reaction,
        Reason::Added => NotificationReason::Added,
        Reason::OwnLog => NotificationReason::OwnLog,
    };
    Notification {
        chat_id: chat.to_string(),
        group: looked.group,
        chat_title: cut(title),
        sender_user_id: if is_person {
            announced.sender.to_string()
        } else {
            String::new()
        },
        sender_name: cut(name),
        seq: announced.seq.0,
        reason: reason.into(),
        sent_at_ms: announced.sent_at.0,
    }
}

/// Returns since when a push was to go out: since it became due, but not within quiet hours, and not within a minute
/// after the last push of its row. So the age of pushes tells how late workers and providers are.
fn wanted(row: &Claimed, quiet: Option<&tern_push_core::quiet::QuietHours>) -> Timestamp {
    let apart = row
        .pushed
        .map_or(row.since, |pushed| row.since.max(pushed + APART));
    quiet.and_then(|quiet| quiet.end(apart)).unwrap_or(apart)
}

/// Cuts a text to as many bytes as a notification has room for, at the end of a character.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

/// Returns what a push that was sent changed of what the device shows.
pub(super) fn shown(class: Class) -> Shown {
    match class {
        Class::Alert => Shown::Now,
        Class::Withdraw => Shown::Withdrawn,
        Class::Badge | Class::Silent => Shown::Same,
    }
}

#[cfg(test)]
mod tests {
    use tern_push_core::quiet::QuietHours;

    use super::*;

    #[test]
    fn a_name_is_cut_at_the_end_of_a_character() {
        let long = format!("{}é", "x".repeat(127));
        assert_eq!(cut(&long), "x".repeat(127));
        assert_eq!(cut("Zoë"), "Zoë");
        assert_eq!(cut(&"y".repeat(129)).len(), 128);
    }

    /// Otherwise every morning would look as if the workers had slept.
    #[test]
    fn quiet_hours_and_the_minute_between_two_pushes_make_no_push_late() {
        const HOUR: i64 = 3_600_000;
        let id = uuid::Uuid::nil();
        let row = |since: i64, pushed: Option<i64>| Claimed {
            chat: ChatId(id),
            device: DeviceId(id),
            user: UserId(id),
            claim: Timestamp(0),
            since: Timestamp(since),
            pushed: pushed.map(Timestamp),
            tries: 0,
            notified: false,
            repeated: false,
        };
        let night = QuietHours {
            from_minute: 22 * 60,
            to_minute: 7 * 60,
            time_zone: "UTC".to_owned(),
        };
        for (since, pushed, quiet, expected) in [
            (12 * HOUR, None, None, 12 * HOUR),
            (12 * HOUR, None, Some(&night), 12 * HOUR),
            (12 * HOUR, Some(HOUR), Some(&night), 12 * HOUR),
            (12 * HOUR, Some(12 * HOUR - 1_000), None, 12 * HOUR + 59_000),
            (23 * HOUR, None, Some(&night), 31 * HOUR),
            (
                22 * HOUR - 1_000,
                Some(22 * HOUR - 2_000),
                Some(&night),
                31 * HOUR,
            ),
        ] {
            assert_eq!(wanted(&row(since, pushed), quiet), Timestamp(expected), "{since}");
        }
    }
}
