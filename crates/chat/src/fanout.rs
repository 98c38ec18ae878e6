//! Live delivery: who of the recipients is online, and on which gateway. A hint: the settle is what guarantees.
//!
//! One task a shard gathers what its commits left meanwhile, asks each presence node once, and puts each event, encoded
//! once, with the list of its sessions on the link of each gateway concerned. Pushes that find the queue full are dropped.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use tern_node::links::gather;
use tern_proto::internal::Push;
use tern_types::{ChatId, Seq, SessionId, UserId};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::gateways::Gateways;
use crate::lookup::{Found, Lookup};
use crate::metrics;

/// Events that wait for their look-up: a busy shard's commit twice over.
const QUEUE: usize = 4096;
/// Events looked up together.
const GATHER: usize = 1024;

/// An event for whoever of `users` is online.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub chat: ChatId,
    /// 0: the event is no entry.
    pub seq: Seq,
    pub users: Vec<UserId>,
    /// Sessions that get an answer instead.
    pub except: Vec<SessionId>,
    pub event: Bytes,
}

#[derive(Debug, Clone)]
pub struct Fanout {
    pub lookup: Lookup,
}

impl Fanout {
    /// A task for one shard; its events keep their order.
    pub fn spawn(&self, gateways: Gateways) -> mpsc::Sender<Outgoing> {
        let (pushes, mut queue) = mpsc::channel(QUEUE);
        let lookup = self.lookup.clone();
        let run = async move {
            while let Some(outgoing) = gather(&mut queue, GATHER).await {
                deliver(&lookup, &gateways, outgoing).await;
            }
        };
        tokio::spawn(run.in_current_span());
        pushes
    }
}

async fn deliver(lookup: &Lookup, gateways: &Gateways, outgoing: Vec<Outgoing>) {
    let users: BTreeSet<UserId> = outgoing
        .iter()
        .flat_map(|event| event.users.iter().copied())
        .collect();
    let found = lookup.sessions(users.into_iter().collect()).await;
    if found.failed {
        metrics::lookup_failed("push");
    }
    group(&found.sessions, outgoing, |gateway, push| {
        metrics::pushed(push.sessions.len());
        gateways.push(gateway, push);
    });
}

/// One push for each event and gateway that has sessions of its users: pure.
pub fn group(sessions: &[Found], outgoing: Vec<Outgoing>, mut push: impl FnMut(&str, Push)) {
    let mut by_user: HashMap<UserId, Vec<&Found>> = HashMap::new();
    for session in sessions {
        by_user.entry(session.user).or_default().push(session);
    }
    for event in outgoing {
        let except: HashSet<SessionId> = event.except.into_iter().collect();
        let mut by_gateway: HashMap<&str, Vec<u64>> = HashMap::new();
        for session in event.users.iter().filter_map(|user| by_user.get(user)).flatten() {
            if !except.contains(&session.session) {
                by_gateway
                    .entry(&session.gateway)
                    .or_default()
                    .push(session.session.0);
            }
        }
        for (gateway, sessions) in by_gateway {
            let chat_id = event.chat.to_vec().into();
            push(
                gateway,
                Push {
                    sessions,
                    event: event.event.clone(),
                    chat_id,
                    seq: event.seq.0,
                },
            );
        }
    }
}
