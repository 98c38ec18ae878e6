//! The parts of this gateway that all streams share, and the registration of a session with them.

use std::sync::Arc;

use tern_cluster::Drain;
use tern_cluster::shedding::{Level, Meter, Shedding};
use tern_identity::token::Verifier;
use tern_types::{ChatId, Clock, DeviceId, Notice, SessionId, UserId};

use tern_gateway_core::session::{CloseRequest, Settings};

use crate::chat_links::ChatLinks;
use crate::door::Door;
use crate::inbox_reader::InboxReader;
use crate::mailbox::Mailbox;
use crate::metrics;
use crate::presence_links::PresenceLinks;
use crate::registry::{Handle, Registration, Registry};
use crate::traces::Traces;
use crate::watchdog::Watchdog;
use crate::watches::Watches;

/// The parts of this gateway that all streams share.
pub struct Gateway {
    /// The settings of every session.
    pub settings: Settings,
    /// The most sessions that may be registered.
    pub max_sessions: usize,
    /// The sessions of this gateway.
    pub registry: Arc<Registry>,
    /// The links to the chat nodes.
    pub chats: Arc<ChatLinks>,
    /// The links to the presence nodes.
    pub presence: Arc<PresenceLinks>,
    /// The users whose presence the sessions watch.
    pub watches: Arc<Watches>,
    /// The queue of sessions whose inboxes are to be read.
    pub inboxes: InboxReader,
    /// The verifier of access tokens.
    pub verifier: Arc<Verifier>,
    /// The watchdog that cuts off streams whose clients take nothing.
    pub watchdog: Arc<Watchdog>,
    /// The policy that decides which messages are traced.
    pub traces: Traces,
    /// The drain of this node.
    pub drain: Drain,
    /// The flag that says whether new streams are turned away.
    pub door: Door,
    /// The state that says what this node gives up under load.
    pub shedding: Shedding,
    /// The meter of the time that a woken stream takes to take its mail.
    pub send_queue: Arc<Meter>,
}

/// A session that is registered here and announced to presence. Dropping it ends the session everywhere.
pub struct Registered {
    registration: Registration,
    presence: Arc<PresenceLinks>,
    chats: Arc<ChatLinks>,
    watches: Arc<Watches>,
}

impl Gateway {
    /// Registers a session and announces it to presence. `Err` says why the gateway takes no more sessions now.
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
        // A session that replaces an older one of its device needs no more room than that one, whose connection may be
        // dead.
        if self.registry.len() >= self.max_sessions && self.registry.of_device(device).is_none() {
            return Err(CloseRequest::Unavailable);
        }
        let (registration, replaced) = self.registry.register(id, user, device, Clock::wall(), mailbox);
        // The session is announced before the end of the older one, so that presence always knows a session of the
        // device.
        self.presence.announce(registration.handle());
        if let Some(replaced) = replaced {
            self.presence.ended(&replaced);
        }
        if self.registry.get(id).is_none() {
            // The session was ended by another task meanwhile, whose announcement of the end may have come first.
            self.presence.ended(registration.handle());
        }
        Ok(Registered {
            registration,
            presence: self.presence.clone(),
            chats: self.chats.clone(),
            watches: self.watches.clone(),
        })
    }

    /// Passes a notice on to the chat's owner. It is dropped under load, or if it would have to wait.
    pub fn notice(&self, from: &Handle, chat: ChatId, notice: &Notice) {
        let kind = notice.kind();
        let level = Level::drops(kind);
        if self.shedding.level() >= level {
            self.shedding.gave_up(level);
            return metrics::notice_dropped(kind, "shed");
        }
        if let Err(reason) = self.chats.notice(from, chat, notice) {
            metrics::notice_dropped(kind, reason);
        }
    }
}

impl Registered {
    /// Returns the registered session.
    pub fn handle(&self) -> &Arc<Handle> {
        self.registration.handle()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // The session is unregistered before its end is announced. So when all sessions are announced again, none is
        // named whose end was announced already.
        if self.registration.end() {
            self.presence.ended(self.registration.handle());
        }
        let id = self.registration.handle().id;
        self.chats.session_ended(id);
        self.watches.ended(id);
    }
}
