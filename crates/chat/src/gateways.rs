//! The gateways' links to this node: where answers, wakes and live events go.
//!
//! Answers and wakes are never dropped: a link whose queue is full is broken instead, and its gateway starts over. Live
//! events are a hint: dropped when the gateway does not keep up, not affecting other gateways.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tern_node::links::Peer;
use tern_proto::internal::{DownItem, FindSessions, FoundSession, Push, Wake, down_item};
use tern_types::{ChatId, IdMap, Seq, SessionId};
use tokio::sync::{mpsc, oneshot};

use crate::fanout::Kind;
use crate::metrics;

/// Answers and wakes on their way to one gateway: several seconds of them.
const CONTROL: usize = 65_536;
/// Live events on their way to one gateway: a tenth of a second of them; older ones are no hint any more.
const LIVE: usize = 8_192;

/// Shared by the shards and the link service.
#[derive(Debug, Clone, Default)]
pub struct Gateways(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    links: IdMap<u64, Link>,
    /// The newest link of each gateway, by node name.
    by_name: IdMap<String, u64>,
    live: IdMap<String, (u64, mpsc::Sender<Push>)>,
    wakes: IdMap<u64, (u64, oneshot::Sender<()>)>,
    /// Who waits for which gateway's sessions: as many as there are [`Question`]s.
    questions: IdMap<u64, (u64, oneshot::Sender<Vec<FoundSession>>)>,
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    control: mpsc::Sender<DownItem>,
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
        self.lock().live.insert(peer.name.clone(), (number, live));
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

    /// Hints one gateway at a live event. Typing goes only where there is room for much more.
    pub fn push(&self, gateway: &str, kind: Kind, push: Push) {
        let sent = self.lock().live.get(gateway).map(|(_, live)| {
            let room = kind != Kind::Typing || live.capacity() > LIVE / 2;
            room && live.try_send(push).is_ok()
        });
        match sent {
            Some(false) if kind == Kind::Typing => metrics::typing_dropped("link"),
            Some(true) => {}
            Some(false) => metrics::push_dropped("link"),
            None => metrics::push_dropped("no_link"),
        }
    }

    /// Asks a gateway to make these sessions responsible; the receiver gets its confirmation, or fails with the link.
    pub fn wake(
        &self,
        gateway: &str,
        chat: ChatId,
        range: (Seq, Seq),
        sessions: Vec<SessionId>,
    ) -> Option<oneshot::Receiver<()>> {
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
        Some(confirmed)
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
