//! Performs the effects that a shard's state asks for. Nothing here waits: loads and wakes run as tasks, and their
//! results come back as events; answers and pushes go to bounded queues.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tern_cluster::shedding::Shedding;
use tern_proto::{notice, raw, v1};
use tern_types::{ChatId, UserId};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use tern_chat_core::chat::LookUp;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::{Effect, Event, Pushed, WakesDone};
use tern_chat_core::{Entry, Making, Origin, Outcome, Shown};

use crate::bell::Bell;
use crate::fanout::{Fanout, Outgoing, Pushes};
use crate::gateways::Gateways;
use crate::gateways::Kind;
use crate::metrics;
use crate::ownership::Ownership;
use crate::shard_loop::loader::Loader;
use crate::shard_loop::traces::Traces;
use crate::trimming::Trims;
use crate::{answer, wake};

/// The unary calls that wait for their answer, by the number in [`Origin::Call`].
#[derive(Debug, Default)]
pub struct Calls {
    next: std::sync::atomic::AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

/// A unary call that waits for its answer. Dropping it forgets the call.
#[derive(Debug)]
pub struct OpenCall {
    number: u64,
    answered: oneshot::Receiver<Outcome>,
    calls: Arc<Calls>,
}

impl OpenCall {
    /// Returns the origin of the call's command.
    pub fn origin(&self) -> Origin {
        Origin::Call(self.number)
    }

    /// Waits for the answer; `None` if the shard ended before.
    pub async fn answered(mut self) -> Option<Outcome> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.number);
    }
}

impl Calls {
    /// Opens a call, whose command is to be sent to the chat's shard.
    pub fn open(self: &Arc<Self>) -> OpenCall {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.lock().insert(number, answer);
        OpenCall {
            number,
            answered,
            calls: self.clone(),
        }
    }

    fn answer(&self, number: u64, outcome: Outcome) {
        if let Some(answer) = self.lock().remove(&number) {
            let _gone = answer.send(outcome);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts that all shards of a node share to perform effects.
#[derive(Clone)]
pub struct Effects {
    /// The loader, which reads chats from the store.
    pub loader: Loader,
    /// The unary calls that wait for their answer.
    pub calls: Arc<Calls>,
    /// The gateways' links, on which answers and wakes go out.
    pub gateways: Gateways,
    /// The starter of each shard's fan-out task, with the look-up that wakes use.
    pub fanout: Fanout,
    /// The slots that this node owns by the map.
    pub ownership: Ownership,
    /// The level of load, which says what this node gives up at present.
    pub shedding: Shedding,
    /// The way of hints to the trimmer.
    pub trims: Trims,
    /// The bell that wakes the push workers.
    pub bell: Bell,
}

/// The parts with which one shard performs effects.
pub struct ShardEffects {
    shared: Effects,
    pushes: Pushes,
    results: mpsc::Sender<Event>,
}

impl Effects {
    /// Returns the parts with which one shard performs effects, and starts its fan-out task. Loads and wakes send their
    /// events to `results`.
    pub(crate) fn for_shard(self, results: mpsc::Sender<Event>) -> ShardEffects {
        let pushes = self.fanout.spawn(self.gateways.clone());
        ShardEffects {
            shared: self,
            pushes,
            results,
        }
    }
}

impl ShardEffects {
    /// Performs the effects in order, and leaves `effects` empty.
    pub fn perform(&self, effects: &mut Vec<Effect>, traces: &mut Traces) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Load {
                    chat,
                    number,
                    create,
                    look_up,
                } => self.load(chat, number, create, look_up),
                Effect::Answer { origin, outcome } => {
                    traces.answered(origin, &outcome);
                    self.answer(origin, outcome);
                }
                Effect::Push {
                    chat,
                    users,
                    except,
                    what,
                } => self.push(chat, users, &except, &what, traces),
                Effect::Wake {
                    chat,
                    log,
                    upto,
                    missing,
                } => {
                    let (gateways, fanout) = (self.shared.gateways.clone(), self.shared.fanout.clone());
                    let results = self.results.clone();
                    let work = async move {
                        let woken = wake::wake(&fanout, &gateways, chat, upto, &missing).await;
                        let done = WakesDone {
                            chat,
                            log,
                            upto,
                            woken,
                        };
                        let _ended = results.send(Event::WakesDone(done)).await;
                    };
                    tokio::spawn(work.in_current_span());
                }
                Effect::Trim { chat } => self.shared.trims.hint(chat),
            }
        }
        traces.forget_answered();
    }

    fn answer(&self, origin: Origin, outcome: Outcome) {
        match origin {
            Origin::Call(number) => self.shared.calls.answer(number, outcome),
            Origin::Link {
                link,
                reference,
                session,
                request,
            } => {
                let item = answer::to_link(
                    reference,
                    session,
                    request,
                    &outcome,
                    self.shared.ownership.map_version(),
                );
                if let Some(item) = item {
                    self.shared.gateways.answer(link, item);
                }
                if let Outcome::Sent(Err(refusal)) = &outcome {
                    metrics::send_refused(answer::send_error_code(refusal));
                }
            }
        }
    }

    fn push(&self, chat: ChatId, users: Arc<[UserId]>, except: &[Origin], what: &Pushed, traces: &Traces) {
        let (kind, event, span) = match what {
            Pushed::Entry(entry) => (Kind::Entry(entry.seq), entry_event(entry), traces.fanout(entry)),
            Pushed::Added(seq) => (Kind::Entry(*seq), Bytes::new(), None),
            Pushed::Receipt { user, mark } => (Kind::Receipt, receipt_event(chat, *user, *mark), None),
            Pushed::Notice { user, notice } => (
                Kind::Notice(notice.kind()),
                notice::event(chat, *user, notice),
                None,
            ),
        };
        let except = except.iter().filter_map(|origin| origin.session()).collect();
        self.pushes.push(Outgoing {
            chat,
            kind,
            users,
            except,
            event,
            span,
        });
    }

    /// Notes that the shard lost receipts, and that nobody knows which users they were for.
    pub fn receipts_lost(&self) {
        self.pushes.receipts_lost();
    }

    fn load(&self, chat: ChatId, number: u64, create: Option<Making>, look_up: LookUp) {
        let (loader, results) = (self.shared.loader.clone(), self.results.clone());
        let work = async move {
            let result = loader.load(chat, create, &look_up).await;
            let loaded = Event::Loaded { chat, number, result };
            let _ended = results.send(loaded).await;
        };
        tokio::spawn(work.in_current_span());
    }
}

fn receipt_event(chat: ChatId, user: UserId, mark: Watermark) -> Bytes {
    raw::event(v1::server_event::Event::Receipt(v1::Receipt {
        chat_id: chat.to_string(),
        user_id: user.to_string(),
        delivered_seq: mark.delivered.0,
        read_seq: mark.read.0,
    }))
}

/// Encodes the server event of an entry, which is the same for every recipient.
pub fn entry_event(entry: &Entry) -> Bytes {
    raw::entry_event(&Shown::from(entry).into_wire())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_answered_or_forgotten_with_its_caller() {
        let calls = Arc::new(Calls::default());
        let (call, gone) = (calls.open(), calls.open());
        let (origin, late) = (call.origin(), gone.origin());
        drop(gone);
        for origin in [late, origin] {
            let Origin::Call(number) = origin else {
                panic!("{origin:?}")
            };
            calls.answer(number, Outcome::Noted(Ok(())));
        }
        assert_eq!(call.answered().await, Some(Outcome::Noted(Ok(()))));
        drop(calls.open());
        assert!(calls.lock().is_empty());
    }
}
