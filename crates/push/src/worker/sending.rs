//! Sends pushes, and notes what became of each as soon as it is known.

use std::collections::HashMap;
use std::time::Duration;

use tern_push_core::{Class, Why, asked, backoff};
use tern_types::{Cell, ChatId, DeviceId, Timestamp};
use tokio::task::{JoinError, JoinSet};

use super::batch::{Prepared, RESTED, shown};
use super::{Deliver, SEND_BY, Worker};
use crate::metrics;
use crate::provider::Delivery;
use crate::store::StoreClock;
use crate::store::claim::Claimed;
use crate::store::note::{Became, Note};
use crate::store::tokens;

impl<D: Deliver> Worker<D> {
    /// Sends the pushes, all of which are of this cell. A push whose service has no room, or does not answer, is put
    /// off without a try.
    pub(super) async fn send(&self, cell: Cell, pushes: Vec<Prepared>, clock: StoreClock) {
        let mut sending: JoinSet<(Prepared, Delivery)> = JoinSet::new();
        let mut open: HashMap<(ChatId, DeviceId), Claimed> = HashMap::new();
        let mut notes = Vec::new();
        for prepared in pushes {
            let row = prepared.row;
            let put_off = |wait: Duration| {
                let (until, tries) = (clock.now() + wait, row.tries);
                Note::of(&row, Became::Waits { until, tries })
            };
            if clock.elapsed() > SEND_BY {
                metrics::held("late");
                notes.push(put_off(Duration::ZERO));
                continue;
            }
            match self.lanes.enter(&prepared.push.token) {
                Ok(pass) => {
                    open.insert((row.chat, row.device), row);
                    let deliver = self.deliver.clone();
                    sending.spawn(async move {
                        let delivery = deliver.deliver(&prepared.push).await;
                        pass.done(&delivery);
                        (prepared, delivery)
                    });
                }
                Err(shut) => {
                    metrics::held("service");
                    notes.push(put_off(shut.put_off(clock.now().since(row.since))));
                }
            }
        }
        self.note(cell, notes, clock).await;
        loop {
            let joined = tokio::select! {
                joined = sending.join_next() => joined,
                () = self.cut.cancelled() => {
                    sending.abort_all();
                    return self.give_back(cell, open.into_values(), clock).await;
                }
            };
            let Some(joined) = joined else { return };
            let mut all = vec![joined];
            while let Some(joined) = sending.try_join_next() {
                all.push(joined);
            }
            // Ending a token takes a statement. The pushes that were sent do not wait for it, so that they are noted in
            // time.
            let (ends, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_end);
            for some in [others, ends] {
                let mut notes = Vec::new();
                for joined in some {
                    match joined {
                        Ok((prepared, delivery)) => {
                            open.remove(&(prepared.row.chat, prepared.row.device));
                            notes.push(self.after(&prepared, delivery, clock).await);
                        }
                        // Nothing is noted of it, so it is claimed again when the claim has run out.
                        Err(error) => tracing::error!(%error, "sending a push failed"),
                    }
                }
                self.note(cell, notes, clock).await;
            }
        }
    }

    /// Returns what became of a push, after its provider's answer.
    async fn after(&self, prepared: &Prepared, delivery: Delivery, clock: StoreClock) -> Note {
        let (row, provider) = (&prepared.row, prepared.push.token.provider);
        let now = clock.now();
        let became = match delivery {
            Delivery::Sent => {
                metrics::sent(provider, class_name(prepared.class), now.since(prepared.wanted));
                sent(prepared, now)
            }
            Delivery::TokenEnded { since, reason } => {
                tracing::debug!(device = %row.device, provider = provider.as_str(), reason, "a token has ended");
                self.token_ended(prepared, since, now).await
            }
            Delivery::Later {
                after,
                reason,
                detail,
            } => {
                metrics::failed(provider, reason);
                tracing::debug!(device = %row.device, provider = provider.as_str(), reason, detail, "a push failed");
                waits(row, after, now)
            }
            Delivery::Refused { reason, detail } => {
                metrics::failed(provider, reason);
                metrics::ended(Why::Refused);
                tracing::warn!(device = %row.device, provider = provider.as_str(), reason, detail, "a push is refused");
                ended(now)
            }
        };
        Note::of(row, became)
    }

    /// Ends the token, unless the device has named another one meanwhile, or first named it after the time from which
    /// the provider calls it invalid. Then the push is tried once more.
    async fn token_ended(&self, prepared: &Prepared, since: Option<Timestamp>, now: Timestamp) -> Became {
        let (row, token) = (&prepared.row, &prepared.push.token);
        match tokens::end(self.store.pools().people(), row.device, token, since).await {
            Ok(true) => {
                metrics::token_ended(token.provider);
                metrics::ended(Why::TokenEnded);
                ended(now)
            }
            Ok(false) => waits(row, None, now),
            Err(error) => {
                metrics::store_failed("token");
                tracing::warn!(%error, "cannot end a token");
                waits(row, None, now)
            }
        }
    }
}

/// Returns whether a push came to its end because its token had ended.
fn is_end(joined: &Result<(Prepared, Delivery), JoinError>) -> bool {
    matches!(joined, Ok((_, Delivery::TokenEnded { .. })))
}

/// Returns the name of what a push does, for metrics.
fn class_name(class: Class) -> &'static str {
    match class {
        Class::Alert => "alert",
        Class::Badge => "badge",
        Class::Withdraw => "withdraw",
        Class::Silent => "silent",
    }
}

/// Returns what is noted of a push that was sent. After an alert or a badge, an entry that has come meanwhile changes
/// nothing that the person sees, but the chat may have been read. After another push, an entry that has come may have
/// to be announced.
fn sent(prepared: &Prepared, at: Timestamp) -> Became {
    let (head, seq) = match prepared.class {
        Class::Alert | Class::Badge => (None, prepared.seq),
        Class::Withdraw | Class::Silent => (Some(prepared.head), None),
    };
    Became::Sent {
        at,
        shown: shown(prepared.class),
        head,
        seq,
    }
}

fn ended(now: Timestamp) -> Became {
    Became::Ended {
        pushed_at: Some(now - RESTED),
        head: None,
    }
}

/// Returns when a push that failed is tried again.
fn waits(row: &Claimed, after: Option<Duration>, now: Timestamp) -> Became {
    let tries = row.tries.saturating_add(1);
    let wait = match after {
        Some(after) => asked(after, rand::random()),
        None => backoff(tries, rand::random()),
    };
    Became::Waits {
        until: now + wait,
        tries,
    }
}
