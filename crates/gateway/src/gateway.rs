//! What all streams of this gateway share.

use std::sync::Arc;

use tern_node::Drain;
use tern_node::shedding::{Level, Meter, Shedding};
use tern_node::token::Verifier;
use tern_types::{ChatId, Clock, DeviceId, SessionId, UserId};

use crate::chat_links::ChatLinks;
use crate::door::Door;
use crate::inbox_reader::InboxReader;
use crate::mailbox::Mailbox;
use crate::metrics;
use crate::presence_links::PresenceLinks;
use crate::registry::{Handle, Registration, Registry};
use crate::session::{CloseRequest, Settings};
use crate::traces::Traces;
use crate::watchdog::Watchdog;
use crate::watches::Watches;

/// See the module.
pub struct Gateway {
    pub settings: Settings,
    pub max_sessions: usize,
    pub registry: Arc<Registry>,
    pub chats: Arc<ChatLinks>,
    pub presence: Arc<PresenceLinks>,
    pub watches: Arc<Watches>,
    pub inboxes: InboxReader,
    pub verifier: Arc<Verifier>,
    pub watchdog: Arc<Watchdog>,
    pub traces: Traces,
    pub drain: Drain,
    pub door: Door,
    pub shedding: Shedding,
    /// How long a stream that waits for mail takes to get it.
    pub send_queue: Arc<Meter>,
}

/// A session that is known here and to presence. Dropped, presence is told of its end.
pub struct Registered {
    registration: Registration,
    presence: Arc<PresenceLinks>,
    chats: Arc<ChatLinks>,
    watches: Arc<Watches>,
}

impl Gateway {
    /// Makes the session known; says why not where that cannot be.
    pub fn register(
        &self,
        id: SessionId,
        user: UserId,
        device: DeviceId,
        mailbox: Arc<Mailbox>,
    ) -> Result<Registered, CloseRequest> {
        if self.drain.started() {
            return Err(CloseRequest::Draining);
        }
        if self.door.is_shut() {
            return Err(CloseRequest::Unavailable);
        }
        if self.shedding.level() >= Level::Streams {
            self.shedding.gave_up(Level::Streams);
            return Err(CloseRequest::Overloaded);
        }
        if self.registry.len() >= self.max_sessions {
            return Err(CloseRequest::Unavailable);
        }
        let (registration, replaced) = self.registry.register(id, user, device, Clock::wall(), mailbox);
        // In this order: the device is never away in between.
        self.presence.announce(registration.handle());
        if let Some(replaced) = replaced {
            self.presence.ended(&replaced);
        }
        if self.registry.get(id).is_none() {
            // Ended by others meanwhile, and presence may have heard of that first.
            self.presence.ended(registration.handle());
        }
        Ok(Registered {
            registration,
            presence: self.presence.clone(),
            chats: self.chats.clone(),
            watches: self.watches.clone(),
        })
    }

    /// Passes on that the person writes, unless that costs anything.
    pub fn typing(&self, from: &Handle, chat: ChatId, stopped: bool) {
        if self.shedding.level() >= Level::Typing {
            self.shedding.gave_up(Level::Typing);
            return metrics::typing_dropped("shed");
        }
        if let Err(reason) = self.chats.typing(from, chat, stopped) {
            metrics::typing_dropped(reason);
        }
    }
}

impl Registered {
    pub fn handle(&self) -> &Arc<Handle> {
        self.registration.handle()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // In this order: an announcement of everything never names a session whose end is on its way already.
        if self.registration.end() {
            self.presence.ended(self.registration.handle());
        }
        let id = self.registration.handle().id;
        self.chats.session_ended(id);
        self.watches.ended(id);
    }
}
