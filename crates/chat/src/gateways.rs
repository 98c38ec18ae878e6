//! The gateways' links to this node: where answers, wakes and live events go.
//!
//! Answers and wakes are never dropped: a link whose queue is full is broken instead, and its gateway starts over. Live
//! events are a hint: dropped when the gateway does not keep up, not affecting other gateways.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tern_node::links::Peer;
use tern_proto::internal::{DownItem, FindSessions, FoundSession, Push, Wake, down_item};
use tern_types::{ChatId, IdMap, IdSet, Seq, SessionId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::fanout::Kind;
use crate::metrics;

/// Answers and wakes on their way to one gateway: several seconds of them.
const CONTROL: usize = 65_536;
/// Live events on their way to one gateway: a tenth of a second of them; older ones are no hint any more.
const LIVE: usize = 8_192;
/// Sessions of one gateway that are known to have missed receipts; with more, all of its sessions may have. Half a queue.
const MISSED: usize = 4_096;
/// Gateways without a link for which that is known: more than there are.
const MISSED_GATEWAYS: usize = 1_024;

/// Shared by the shards and the link service.
#[derive(Debug, Clone, Default)]
pub struct Gateways(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    links: IdMap<u64, Link>,
    /// The newest link of each gateway, by node name.
    by_name: IdMap<String, u64>,
    live: IdMap<String, (u64, mpsc::Sender<Push>)>,
    /// By gateway: who missed receipts since it was told last.
    missed: IdMap<String, Missed>,
    /// No live events any more: the node has handed over its chats.
    live_ended: bool,
    /// Each is there for as long as its [`Confirmation`] waits.
    wakes: IdMap<u64, (u64, oneshot::Sender<()>)>,
    /// Who waits for which gateway's sessions: as many as there are [`Question`]s.
    questions: IdMap<u64, (u64, oneshot::Sender<Vec<FoundSession>>)>,
}

/// A wake that its gateway has not confirmed yet. Dropped, nobody waits for it any more.
#[derive(Debug)]
pub struct Confirmation {
    wake: u64,
    confirmed: oneshot::Receiver<()>,
    gateways: Gateways,
}

impl Confirmation {
    /// False: the link has ended before.
    pub async fn came(&mut self) -> bool {
        (&mut self.confirmed).await.is_ok()
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        self.gateways.lock().wakes.remove(&self.wake);
    }
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    control: mpsc::Sender<DownItem>,
}

/// Sessions for which receipts found no way.
#[derive(Debug, Default)]
pub struct Missed {
    pub sessions: IdSet<u64>,
    /// Beside them any of the gateway's.
    pub any: bool,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A gateway's control stream is open; dropped, it is gone.
#[derive(Debug)]
pub struct ControlLink {
    pub number: u64,
    gateways: Gateways,
}

/// A gateway's live stream is open; dropped, it is gone.
#[derive(Debug)]
pub struct LiveLink {
    number: u64,
    name: String,
    gateways: Gateways,
}

/// A gateway was asked for its sessions of some users; dropped, nobody waits for the answer any more.
#[derive(Debug)]
pub struct Question {
    number: u64,
    answer: oneshot::Receiver<Vec<FoundSession>>,
    gateways: Gateways,
}

impl Question {
    /// `None`: the link broke.
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
    pub fn open_control(&self, peer: Peer) -> (ControlLink, mpsc::Receiver<DownItem>) {
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

    pub fn open_live(&self, peer: Peer) -> (LiveLink, mpsc::Receiver<Push>) {
        let (live, pushes) = mpsc::channel(LIVE);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut table = self.lock();
        if !table.live_ended {
            table.live.insert(peer.name.clone(), (number, live));
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

    /// Puts an answer on its way; an answer for a link that is gone is dropped, as its gateway has told the device to
    /// come again.
    pub fn answer(&self, link: u64, item: DownItem) {
        let mut table = self.lock();
        let full = table
            .links
            .get(&link)
            .is_some_and(|link| link.control.try_send(item).is_err());
        if full {
            tracing::error!(link, "a gateway does not take its answers, breaking its link");
            table.links.remove(&link);
        }
    }

    /// Hints one gateway at a live event. Receipts and typing go only where there is room for much more, so that they push
    /// no entry out; the gateway is told for whom there was no receipt.
    pub fn push(&self, gateway: &str, kind: Kind, push: Push) {
        let mut table = self.lock();
        let Some((_, live)) = table.live.get(gateway) else {
            metrics::push_dropped("no_link");
            return table.receipt_missed(gateway, kind, &push.sessions);
        };
        let room = matches!(kind, Kind::Entry(_)) || live.capacity() > LIVE / 2;
        let lost = if room {
            live.try_send(push).err().map(TrySendError::into_inner)
        } else {
            Some(push)
        };
        let Some(push) = lost else { return };
        match kind {
            Kind::Typing => metrics::typing_dropped("link"),
            Kind::Entry(_) | Kind::Receipt => metrics::push_dropped("link"),
        }
        table.receipt_missed(gateway, kind, &push.sessions);
    }

    /// Receipts for these sessions of a gateway found no way.
    pub fn missed(&self, gateway: &str, sessions: &[u64]) {
        let mut table = self.lock();
        table.receipt_missed(gateway, Kind::Receipt, sessions);
        if let Some((_, live)) = table.live.get(gateway) {
            nudge(live);
        }
    }

    /// Receipts were lost, for whom is not known.
    pub fn missed_any(&self) {
        let table = &mut *self.lock();
        for (gateway, (_, live)) in &table.live {
            table.missed.entry(gateway.clone()).or_default().any = true;
            nudge(live);
        }
    }

    /// Who missed receipts since this was asked last; the gateway is told.
    pub fn take_missed(&self, gateway: &str) -> Missed {
        self.lock().missed.remove(gateway).unwrap_or_default()
    }

    /// This node owns no chats any more: the live streams end when all is sent that waits, so that gateways know that they
    /// have missed nothing.
    pub fn end_live(&self) {
        let mut table = self.lock();
        table.live_ended = true;
        table.live.clear();
    }

    /// Asks a gateway to make these sessions responsible. `None`: it has no link, or does not take what is put on it.
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

    pub fn wake_done(&self, wake: u64) {
        if let Some((_, confirm)) = self.lock().wakes.remove(&wake) {
            let _gone = confirm.send(());
        }
    }

    /// The gateways that are linked, each once.
    pub fn linked(&self) -> Vec<Peer> {
        let table = self.lock();
        let newest = table
            .by_name
            .values()
            .filter_map(|number| table.links.get(number));
        newest.map(|link| link.peer.clone()).collect()
    }

    /// Asks a gateway which sessions of these users it has; `None`: it is not linked, or takes nothing.
    pub fn find_sessions(&self, gateway: &Peer, user_ids: Vec<Bytes>) -> Option<Question> {
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

    /// The answer to a question.
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

/// A frame goes out, also when there is nothing to push. In a queue that is full one does anyway.
fn nudge(live: &mpsc::Sender<Push>) {
    let _full = live.try_send(Push::default());
}

impl Table {
    /// Entries have the settle behind them, and typing is said again.
    fn receipt_missed(&mut self, gateway: &str, kind: Kind, sessions: &[u64]) {
        if kind != Kind::Receipt || self.missed.len() >= MISSED_GATEWAYS {
            return;
        }
        let missed = self.missed.entry(gateway.to_owned()).or_default();
        if missed.sessions.len() < MISSED {
            missed.sessions.extend(sessions);
        } else {
            missed.any = true;
        }
    }
}

impl Drop for ControlLink {
    fn drop(&mut self) {
        let mut table = self.gateways.lock();
        if let Some(link) = table.links.remove(&self.number)
            && table.by_name.get(&link.peer.name) == Some(&self.number)
        {
            table.by_name.remove(&link.peer.name);
        }
        table.wakes.retain(|_, (link, _)| *link != self.number);
        table.questions.retain(|_, (link, _)| *link != self.number);
        metrics::gateway_links(table.links.len());
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

    use tern_types::UserId;
    use tokio::time::timeout;

    use super::*;

    fn push(session: u64) -> Push {
        Push {
            sessions: vec![session],
            ..Push::default()
        }
    }

    fn peer() -> Peer {
        Peer {
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
        gateways.push("gateway-1", Kind::Typing, push(10));
        let missed = gateways.take_missed("gateway-1");
        assert_eq!(missed.sessions.len(), LIVE / 2);
        assert!(!missed.any || LIVE / 2 > MISSED);
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
