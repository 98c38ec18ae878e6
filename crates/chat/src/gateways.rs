//! Holds the gateways' links to this node, on which answers, wakes and live events go out.
//!
//! Answers are never dropped: a link whose queue is full is broken instead, and its gateway starts over. A wake that
//! finds the queue full is not sent and counts as unconfirmed, so that its chat is settled again. Live events are a
//! hint: if a gateway does not keep up, its events are dropped, and those of other gateways are not affected.
//!
//! - `missed`: the sessions whose receipts were dropped

mod missed;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tern_cluster::links::NodeIdentity;
use tern_proto::internal::{DownItem, FindSessions, FoundSession, Push, Wake, down_item};
use tern_types::{ChatId, IdMap, NoticeKind, Seq, SessionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::metrics;

pub use missed::MissedOnGateway;
use missed::MissedReceipts;

/// The most answers, wakes and questions that wait for one gateway: several seconds of them.
const CONTROL: usize = 65_536;
/// The most live events that wait for one gateway: a tenth of a second of them. Older ones are of no use as a hint.
const LIVE: usize = 8_192;

/// The kind of an event, which decides what happens when it cannot be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An entry with this seq. Its settle delivers it all the same.
    Entry(Seq),
    /// A receipt. No settle makes up for it, so the sessions that missed one are noted, and their gateway is
    /// told.
    Receipt,
    /// A notice, such as that somebody is typing. It may be lost.
    Notice(NoticeKind),
}

impl Kind {
    /// Returns the seq of the entry; 0 if the event is not an entry.
    pub fn seq(self) -> Seq {
        match self {
            Self::Entry(seq) => seq,
            Self::Receipt | Self::Notice(_) => Seq::ZERO,
        }
    }

    /// Returns the kind as metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry(_) => "entry",
            Self::Receipt => "receipt",
            Self::Notice(kind) => kind.name(),
        }
    }
}

/// The table of the links. It is shared by the shards and the link service, and cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gateways(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// The control streams, by the number of their link.
    links: IdMap<u64, Link>,
    /// The newest link of each gateway, by node name.
    by_name: IdMap<String, u64>,
    /// The newest live stream of each gateway.
    live: IdMap<String, (u64, mpsc::Sender<Push>)>,
    /// The sessions that missed receipts since their gateway was told last, by gateway.
    missed: MissedReceipts,
    /// True once the node has handed over its chats. It then opens no live streams any more.
    live_ended: bool,
    /// The wakes that are not confirmed, each with the number of its link, for as long as its [`Confirmation`] exists.
    wakes: IdMap<u64, (u64, oneshot::Sender<()>)>,
    /// The questions that are not answered, each with the number of its link, for as long as its [`Question`] exists.
    questions: IdMap<u64, (u64, oneshot::Sender<Vec<FoundSession>>)>,
}

/// A wake that its gateway has not confirmed yet. Dropping it forgets the wake.
#[derive(Debug)]
pub struct Confirmation {
    wake: u64,
    confirmed: oneshot::Receiver<()>,
    gateways: Gateways,
}

impl Confirmation {
    /// Waits for the confirmation. Returns false if the link ended before.
    pub async fn came(&mut self) -> bool {
        (&mut self.confirmed).await.is_ok()
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        self.gateways.lock().wakes.remove(&self.wake);
    }
}

/// A gateway's open control stream.
#[derive(Debug)]
struct Link {
    peer: NodeIdentity,
    control: mpsc::Sender<DownItem>,
}

/// The next number of a link, a wake or a question.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The registration of a gateway's open control stream. Dropping it removes the link.
#[derive(Debug)]
pub struct ControlLink {
    /// The number of the link.
    pub number: u64,
    gateways: Gateways,
}

/// The registration of a gateway's open live stream. Dropping it removes the stream.
#[derive(Debug)]
pub struct LiveLink {
    number: u64,
    name: String,
    gateways: Gateways,
}

/// A question to a gateway: which sessions of some users it has. Dropping it forgets the question.
#[derive(Debug)]
pub struct Question {
    number: u64,
    answer: oneshot::Receiver<Vec<FoundSession>>,
    gateways: Gateways,
}

impl Question {
    /// Waits for the answer; `None` if the link broke.
    pub async fn answered(mut self) -> Option<Vec<FoundSession>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.gateways.lock().questions.remove(&self.number);
    }
}

impl Gateways {
    /// Registers a control stream, which from now on is the gateway's newest. Returns the items that are to go out on
    /// it.
    pub fn open_control(&self, peer: NodeIdentity) -> (ControlLink, mpsc::Receiver<DownItem>) {
        let (control, items) = mpsc::channel(CONTROL);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        table.by_name.insert(peer.name.clone(), number);
        table.links.insert(number, Link { peer, control });
        metrics::gateway_links(table.links.len());
        (
            ControlLink {
                number,
                gateways: self.clone(),
            },
            items,
        )
    }

    /// Registers a live stream, which from now on is the gateway's newest. Returns the pushes that are to go out on
    /// it.
    pub fn open_live(&self, peer: NodeIdentity) -> (LiveLink, mpsc::Receiver<Push>) {
        let (live, pushes) = mpsc::channel(LIVE);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        if !table.live_ended {
            table.live.insert(peer.name.clone(), (number, live));
            table.missed.opened(&peer.name);
        }
        drop(table);
        (
            LiveLink {
                number,
                name: peer.name,
                gateways: self.clone(),
            },
            pushes,
        )
    }

    /// Sends an answer on a link. If the link is gone the answer is dropped, because its gateway has told the device
    /// to send again. If the link's queue is full the link is broken.
    pub fn answer(&self, link: u64, item: DownItem) {
        let mut table = self.lock();
        let full = table
            .links
            .get(&link)
            .is_some_and(|link| link.control.try_send(item).is_err());
        if full {
            tracing::error!(link, "a gateway does not take its answers, breaking its link");
            table.close_control(link);
        }
    }

    /// Sends a live event to a gateway, if there is room. Receipts and notices may use only half of the queue, so that
    /// they displace no entry. The sessions of a receipt that is dropped are noted, and the gateway is told of them.
    pub fn push(&self, gateway: &str, kind: Kind, push: Push) {
        let mut table = self.lock();
        let Some((_, live)) = table.live.get(gateway) else {
            dropped(kind, "no_link");
            return table.receipt_missed(gateway, kind, &push.sessions);
        };
        let room = matches!(kind, Kind::Entry(_)) || live.capacity() > LIVE / 2;
        let lost = if room {
            live.try_send(push).err().map(TrySendError::into_inner)
        } else {
            Some(push)
        };
        let Some(push) = lost else { return };
        dropped(kind, "link");
        table.receipt_missed(gateway, kind, &push.sessions);
    }

    /// Notes that these sessions of a gateway missed receipts, and makes a frame go out that tells the gateway.
    pub fn missed(&self, gateway: &str, sessions: &[u64]) {
        let mut table = self.lock();
        table.receipt_missed(gateway, Kind::Receipt, sessions);
        if let Some((_, live)) = table.live.get(gateway) {
            nudge(live);
        }
    }

    /// Notes for every gateway with a live stream that any of its sessions may have missed receipts, and makes a frame
    /// go out that tells it.
    pub fn missed_any(&self) {
        let table = &mut *self.lock();
        for (gateway, (_, live)) in &table.live {
            table.missed.note_any(gateway);
            nudge(live);
        }
    }

    /// Takes the sessions of the gateway that missed receipts since the last call, so that the gateway can be told.
    pub fn take_missed(&self, gateway: &str) -> MissedOnGateway {
        self.lock().missed.take(gateway)
    }

    /// Ends the live streams once the events that wait on them are sent, because this node owns no chats any
    /// more. A stream that ends in this way, and does not break, tells its gateway that it has missed
    /// nothing.
    pub(crate) fn end_live(&self) {
        let mut table = self.lock();
        table.live_ended = true;
        table.live.clear();
    }

    /// Asks a gateway to make these sessions responsible for a range of the chat (first and last seq). `None` if it
    /// has no link, or the link's queue is full.
    pub fn wake(
        &self,
        gateway: &str,
        chat: ChatId,
        range: (Seq, Seq),
        sessions: Vec<SessionId>,
    ) -> Option<Confirmation> {
        let mut table = self.lock();
        let link = *table.by_name.get(gateway)?;
        let wake = NUMBER.fetch_add(1, Ordering::Relaxed);
        let item = down_item::Item::Wake(Wake {
            wake,
            chat_id: chat.to_vec().into(),
            from_seq: range.0.0,
            to_seq: range.1.0,
            sessions: sessions.into_iter().map(|session| session.0).collect(),
        });
        table
            .links
            .get(&link)?
            .control
            .try_send(DownItem { item: Some(item) })
            .ok()?;
        let (confirm, confirmed) = oneshot::channel();
        table.wakes.insert(wake, (link, confirm));
        Some(Confirmation {
            wake,
            confirmed,
            gateways: self.clone(),
        })
    }

    /// Notes that a gateway has confirmed a wake.
    pub fn wake_done(&self, wake: u64) {
        if let Some((_, confirm)) = self.lock().wakes.remove(&wake) {
            let _gone = confirm.send(());
        }
    }

    /// Returns the gateways that are linked, each once.
    pub fn linked(&self) -> Vec<NodeIdentity> {
        let table = self.lock();
        let newest = table
            .by_name
            .values()
            .filter_map(|number| table.links.get(number));
        newest.map(|link| link.peer.clone()).collect()
    }

    /// Asks a gateway which sessions of these users it has. `None` if it has no link, or the link's queue is full.
    pub(crate) fn find_sessions(&self, gateway: &NodeIdentity, user_ids: Vec<Bytes>) -> Option<Question> {
        let mut table = self.lock();
        let number = *table.by_name.get(&gateway.name)?;
        let link = table.links.get(&number).filter(|link| link.peer == *gateway)?;
        let question = NUMBER.fetch_add(1, Ordering::Relaxed);
        let item = down_item::Item::FindSessions(FindSessions { question, user_ids });
        link.control.try_send(DownItem { item: Some(item) }).ok()?;
        let (found, answer) = oneshot::channel();
        table.questions.insert(question, (number, found));
        Some(Question {
            number: question,
            answer,
            gateways: self.clone(),
        })
    }

    /// Notes a gateway's answer to a question.
    pub fn sessions_found(&self, question: u64, sessions: Vec<FoundSession>) {
        let asked = self.lock().questions.remove(&question);
        if let Some((_, found)) = asked {
            let _gone = found.send(sessions);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a live event that cannot be pushed, by place.
fn dropped(kind: Kind, at: &'static str) {
    match kind {
        Kind::Notice(kind) => metrics::notice_dropped(kind, at),
        Kind::Entry(_) | Kind::Receipt => metrics::push_dropped(at),
    }
}

/// Makes a frame go out although there is no event to push. If the queue is full, frames go out anyway.
fn nudge(live: &mpsc::Sender<Push>) {
    let _full = live.try_send(Push::default());
}

impl Table {
    /// Forgets a control stream, and the wakes and questions that went out on it: nobody confirms or answers them.
    fn close_control(&mut self, number: u64) {
        if let Some(link) = self.links.remove(&number)
            && self.by_name.get(&link.peer.name) == Some(&number)
        {
            self.by_name.remove(&link.peer.name);
        }
        self.wakes.retain(|_, (link, _)| *link != number);
        self.questions.retain(|_, (link, _)| *link != number);
        metrics::gateway_links(self.links.len());
    }

    /// Notes that these sessions missed a receipt. Nothing is noted for entries, which are settled, or for typing,
    /// which is repeated.
    fn receipt_missed(&mut self, gateway: &str, kind: Kind, sessions: &[u64]) {
        if kind == Kind::Receipt {
            let live = &self.live;
            self.missed
                .note(gateway, sessions, |name| live.contains_key(name));
        }
    }
}

impl Drop for ControlLink {
    fn drop(&mut self) {
        self.gateways.lock().close_control(self.number);
    }
}

impl Drop for LiveLink {
    fn drop(&mut self) {
        let mut table = self.gateways.lock();
        if table
            .live
            .get(&self.name)
            .is_some_and(|(number, _)| *number == self.number)
        {
            table.live.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tern_types::{IdSet, UserId};
    use tokio::time::timeout;

    use super::missed::MAX_SESSIONS;
    use super::*;

    fn push(session: u64) -> Push {
        Push {
            sessions: vec![session],
            ..Push::default()
        }
    }

    fn peer() -> NodeIdentity {
        NodeIdentity {
            name: "gateway-1".to_owned(),
            incarnation: 1,
        }
    }

    #[test]
    fn receipts_push_no_entry_out_and_whom_they_missed_is_known() {
        let gateways = Gateways::default();
        gateways.push("gateway-1", Kind::Receipt, push(7));
        let (_link, mut pushes) = gateways.open_live(peer());
        assert_eq!(gateways.take_missed("gateway-1").sessions, IdSet::from_iter([7]));
        for session in 0..LIVE as u64 {
            gateways.push("gateway-1", Kind::Receipt, push(session));
        }
        for seq in 1..=LIVE as u64 / 2 {
            gateways.push("gateway-1", Kind::Entry(Seq(seq)), push(1));
        }
        assert_eq!(pushes.len(), LIVE, "each entry found room");
        gateways.push("gateway-1", Kind::Entry(Seq(9)), push(10));
        gateways.push("gateway-1", Kind::Notice(NoticeKind::Typing), push(10));
        let missed = gateways.take_missed("gateway-1");
        assert_eq!(missed.sessions.len(), LIVE / 2);
        assert!(!missed.any || LIVE / 2 > MAX_SESSIONS);
        assert!(
            !missed.sessions.contains(&10),
            "entries are settled, typing is said again"
        );
        assert!(gateways.take_missed("gateway-1").sessions.is_empty(), "once");
        while pushes.try_recv().is_ok() {}
        gateways.missed_any();
        assert!(gateways.take_missed("gateway-1").any);
        assert!(pushes.try_recv().is_ok(), "a frame goes out");
    }

    #[test]
    fn when_the_node_has_handed_over_live_streams_end_after_what_waits() {
        let gateways = Gateways::default();
        let (_link, mut pushes) = gateways.open_live(peer());
        gateways.push("gateway-1", Kind::Entry(Seq(1)), push(1));
        gateways.end_live();
        assert!(pushes.try_recv().is_ok());
        assert_eq!(pushes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        let (_again, mut pushes) = gateways.open_live(peer());
        assert_eq!(pushes.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[tokio::test]
    async fn a_link_that_takes_no_answers_is_broken_and_nothing_of_it_stays() {
        let gateways = Gateways::default();
        let (link, _items) = gateways.open_control(peer());
        let chat = ChatId::own(UserId::random());
        let wake = gateways.wake("gateway-1", chat, (Seq(1), Seq(2)), vec![SessionId(1)]);
        let mut wake = wake.expect("a link");
        for _ in 0..CONTROL {
            gateways.answer(link.number, DownItem::default());
        }
        assert!(!wake.came().await, "nobody waits for it");
        let table = gateways.lock();
        assert!(table.links.is_empty() && table.by_name.is_empty() && table.wakes.is_empty());
    }

    #[tokio::test]
    async fn a_wake_that_nobody_waits_for_is_forgotten() {
        let gateways = Gateways::default();
        let (_link, _items) = gateways.open_control(peer());
        let wake = || {
            let chat = ChatId::own(UserId::random());
            gateways.wake("gateway-1", chat, (Seq(1), Seq(2)), vec![SessionId(1)])
        };
        let mut silent = wake().expect("a link");
        assert_eq!(gateways.lock().wakes.len(), 1);
        assert!(timeout(Duration::ZERO, silent.came()).await.is_err());
        drop(silent);
        assert!(gateways.lock().wakes.is_empty(), "it was given up");

        let mut confirmed = wake().expect("a link");
        gateways.wake_done(confirmed.wake);
        assert!(confirmed.came().await);
    }
}
