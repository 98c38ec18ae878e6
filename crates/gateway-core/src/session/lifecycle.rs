//! This module takes a stream from Open to its end: tokens, heartbeats, draining, closing.

use std::time::Duration;

use tern_proto::v1::{self, CloseCode, ErrorReason, server_event};
use tern_proto::{ApiError, raw};
use tern_types::{Timestamp, UserId};

use super::settings::{LEAVE_WITHIN, MISSED_HEARTBEATS, SPEAK_AFTER, Settings, TOKEN_GRACE};
use super::{CloseRequest, Effect, Identity, Inbox, NEVER, Session};
use crate::gcra::Gcra;

/// The time that a client is told to wait before it reconnects, after an end that was no fault of its own.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The time that a client is told to wait if it sent far too many items. If the platform is overloaded, it is told to
/// wait this time and up to as much again.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// The time that a reading of the inbox takes at most. An inbox that arrives this long after a change of the user's
/// setting was read after the change.
const SETTING_TOLD: Duration = Duration::from_secs(10);
/// The longest name and version of a client, in bytes.
const MAX_CLIENT_VERSION_BYTES: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Open has not come yet.
    Waiting {
        until: Timestamp,
    },
    /// Open came and the session is being registered; the inbox has not been read yet.
    Opening {
        until: Timestamp,
    },
    Open,
    Ended,
}

/// The state of a stream's life: who opened it, when it is due to speak or to end, and why.
#[derive(Debug)]
pub(super) struct Life {
    phase: Phase,
    identity: Option<Identity>,
    /// The time at which the token expires, in the stream's monotonic time.
    token_ends: Timestamp,
    /// The wall clock's time minus the stream's monotonic time, in milliseconds.
    wall_lead: i64,
    active: bool,
    /// The time at which presence was last told that the user is active. `None`: not since the device became active.
    signed: Option<Timestamp>,
    /// True if TokenExpiring was sent for the present token.
    warned: bool,
    /// The time at which the last frame of the client came.
    heard: Timestamp,
    /// The time at which an event was last put. CaughtUp and the failure of a send do not count.
    spoke: Timestamp,
    items: Gcra,
    /// The time at which the stream ends at the latest, because the gateway drains or the client closed its side.
    ends: Option<(Timestamp, Ending)>,
    store_epoch: String,
    read_receipts_off: bool,
    /// The time of the last told change of `read_receipts_off`. An inbox that was read before may have the old setting.
    told_at: Option<Timestamp>,
}

/// The reason for which a stream ends at a set time: its gateway drains, or its client closed its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Drained,
    Left,
}

impl Life {
    pub(super) fn new(settings: &Settings, now: Timestamp) -> Self {
        let rate = settings.items_per_second();
        Self {
            phase: Phase::Waiting {
                until: now + settings.open_timeout,
            },
            identity: None,
            token_ends: NEVER,
            wall_lead: 0,
            active: false,
            signed: None,
            warned: false,
            heard: now,
            spoke: now,
            items: Gcra::new(rate, rate.saturating_mul(20)),
            ends: None,
            store_epoch: String::new(),
            read_receipts_off: false,
            told_at: None,
        }
    }

    /// Sets what the wall clock shows at `now`.
    pub(super) fn wall_is(&mut self, wall: Timestamp, now: Timestamp) {
        self.wall_lead = wall.0 - now.0;
    }

    /// Returns the wall clock's time when the stream's monotonic time is `now`.
    fn wall(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add(self.wall_lead))
    }

    /// Takes a verified token. Its end is converted to the stream's monotonic time once, so that a step of the wall
    /// clock neither ends the stream nor prolongs it.
    fn identify(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.token_ends = Timestamp(identity.expires_at.0.saturating_sub(self.wall_lead));
    }

    /// Returns whether the user has turned read receipts off.
    pub(super) fn read_receipts_off(&self) -> bool {
        self.read_receipts_off
    }

    /// Takes the setting from an inbox, unless a change that was told lately is newer.
    pub(super) fn read_receipts_off_read(&mut self, off: bool, now: Timestamp) {
        if self.told_at.is_none_or(|told| now >= told + SETTING_TOLD) {
            self.read_receipts_off = off;
        }
    }

    /// Takes a change of the setting.
    pub(super) fn told_read_receipts_off(&mut self, off: bool, now: Timestamp) {
        (self.read_receipts_off, self.told_at) = (off, Some(now));
    }

    pub(super) fn user(&self) -> Option<UserId> {
        self.identity.map(|identity| identity.user)
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub(super) fn sign_of_life(&mut self, now: Timestamp) {
        self.heard = now;
    }

    pub(super) fn spoke(&mut self, now: Timestamp) {
        self.spoke = now;
    }

    /// Returns the time at which the next timer of the stream's life is due.
    pub(super) fn due(&self, settings: &Settings) -> Timestamp {
        let ends = self.ends.map_or(NEVER, |(at, _)| at);
        let own = match self.phase {
            Phase::Waiting { until } | Phase::Opening { until } => until,
            Phase::Open => self
                .silent_until(settings)
                .min(self.speaks_at(settings))
                .min(self.token_due(settings)),
            Phase::Ended => NEVER,
        };
        own.min(ends)
    }

    /// Returns the time at which the stream ends unless the client sends a frame.
    fn silent_until(&self, settings: &Settings) -> Timestamp {
        self.heard + settings.heartbeat(self.active) * MISSED_HEARTBEATS
    }

    /// Returns the time at which the server sends a heartbeat unless it puts something else.
    fn speaks_at(&self, settings: &Settings) -> Timestamp {
        self.spoke + settings.heartbeat(self.active) + SPEAK_AFTER
    }

    /// Returns the time at which TokenExpiring is to be sent, or after that, the end of the token's grace.
    fn token_due(&self, settings: &Settings) -> Timestamp {
        if self.identity.is_none() {
            return NEVER;
        }
        if self.warned {
            self.token_ends + TOKEN_GRACE
        } else {
            self.token_ends - settings.token_warning
        }
    }
}

impl Session {
    pub(super) fn open(
        &mut self,
        token: Result<Identity, ApiError>,
        client_version: &str,
        active: bool,
        now: Timestamp,
    ) {
        if !matches!(self.life.phase, Phase::Waiting { .. }) {
            return self.protocol_error("Open came a second time");
        }
        if client_version.len() > MAX_CLIENT_VERSION_BYTES {
            let why = format!("Open.client_version has more than {MAX_CLIENT_VERSION_BYTES} bytes");
            return self.protocol_error(why);
        }
        let identity = match token {
            Ok(identity) => identity,
            Err(error) => return self.close(CloseCode::Unauthenticated, error),
        };
        self.life.identify(identity);
        self.life.active = active;
        self.life.phase = Phase::Opening {
            until: now + self.settings.open_timeout,
        };
        self.effects.push(Effect::Register {
            user: identity.user,
            device: identity.device,
        });
        self.reader.read_inbox_at(now + self.settings.announce_patience);
        self.wake_at(self.reader.due());
    }

    /// Sends Opened, after the device's inbox was read.
    pub(super) fn opened(&mut self, inbox: &Inbox, now: Timestamp) {
        debug_assert!(self.life.is_opening(), "Opened answers Open once");
        let Some(identity) = self.life.identity else {
            return;
        };
        self.life.phase = Phase::Open;
        self.life.heard = now;
        self.life.store_epoch = inbox.store_epoch.clone();
        let opened = v1::Opened {
            session_id: self.id.to_string(),
            store_epoch: inbox.store_epoch.clone(),
            heartbeat_interval_ms: Settings::millis(self.settings.heartbeat(self.life.active)),
            window: self.settings.window,
            limits: Some(self.settings.limits(inbox)),
            server_time_ms: self.life.wall(now).0,
            token_expires_at_ms: identity.expires_at.0,
            activity_interval_ms: Settings::millis(self.settings.activity_interval()),
        };
        self.put(server_event::Event::Opened(opened), now);
        // The device counts as active only from here on: the inbox has shown that it is not revoked.
        self.sign(now);
    }

    /// Ends an open stream if the store's epoch is not the one that it was opened on, so that the device notices the
    /// restore. Returns whether it ended the stream.
    pub(super) fn store_changed(&mut self, store_epoch: &str) -> bool {
        let changed = self.life.is_open() && self.life.store_epoch != store_epoch;
        if changed {
            self.close_on_request(CloseRequest::Restored);
        }
        changed
    }

    pub(super) fn reauthenticate(&mut self, token: Result<Identity, ApiError>, now: Timestamp) {
        let same = |new: &Identity| {
            self.life
                .identity
                .is_some_and(|old| old.user == new.user && old.device == new.device)
        };
        match token {
            Ok(identity) if same(&identity) => {
                self.life.identify(identity);
                self.life.warned = false;
                let renewed = v1::Reauthenticated {
                    token_expires_at_ms: identity.expires_at.0,
                };
                self.put(server_event::Event::Reauthenticated(renewed), now);
            }
            Ok(_) => {
                let error = ApiError::new(ErrorReason::TokenInvalid, "the token is another device's");
                self.close(CloseCode::Unauthenticated, error);
            }
            Err(error) => self.close(CloseCode::Unauthenticated, error),
        }
    }

    pub(super) fn heartbeat(&mut self, token: u64, now: Timestamp) {
        let ack = v1::HeartbeatAck {
            token,
            server_time_ms: self.life.wall(now).0,
            heartbeat_interval_ms: Settings::millis(self.settings.heartbeat(self.life.active)),
        };
        self.put(server_event::Event::HeartbeatAck(ack), now);
    }

    pub(super) fn set_active(&mut self, active: bool, now: Timestamp) {
        if active != self.life.active {
            self.life.active = active;
            self.life.signed = None;
            self.heartbeat(0, now);
            if !active {
                self.effects.push(Effect::Sign {
                    active,
                    at: now,
                    tell: true,
                });
            }
        }
        self.sign(now);
    }

    /// Notes that the user is at the device, if the device is active. Presence is told so at most once in
    /// [`Settings::sign_every`].
    pub(super) fn sign(&mut self, now: Timestamp) {
        let told = self
            .life
            .signed
            .is_some_and(|at| now.since(at) < self.settings.sign_every());
        if !self.life.active {
            return;
        }
        if !told {
            self.life.signed = Some(now);
        }
        self.effects.push(Effect::Sign {
            active: true,
            at: now,
            tell: !told,
        });
    }

    /// Counts an item. Returns false if that ended the stream, because the client sent far too many.
    pub(super) fn allow_item(&mut self, now: Timestamp) -> bool {
        let allowed = self.life.items.take(now).is_ok();
        if !allowed {
            let error = ApiError::new(ErrorReason::RateLimited, "far too many items").retry_after(COOL_DOWN);
            self.close(CloseCode::ResourceExhausted, error);
        }
        allowed
    }

    pub(super) fn protocol_error(&mut self, why: impl Into<String>) {
        let error = ApiError::new(ErrorReason::ProtocolError, why);
        self.close(CloseCode::ProtocolError, error);
    }

    pub(super) fn frame_too_large(&mut self, why: &'static str) {
        let error = ApiError::new(ErrorReason::TooLarge, why);
        self.close(CloseCode::ResourceExhausted, error);
    }

    /// Ends the stream of a client that closed its side once its sends are answered, or after [`LEAVE_WITHIN`].
    pub(super) fn leave(&mut self, now: Timestamp) {
        if matches!(self.life.phase, Phase::Waiting { .. }) {
            return self.protocol_error("the client closed its side before Open");
        }
        self.life.ends = Some((now + LEAVE_WITHIN, Ending::Left));
        self.leave_when_answered();
    }

    pub(super) fn leave_when_answered(&mut self) {
        let left = matches!(self.life.ends, Some((_, Ending::Left)));
        if left && self.sends.none_in_flight() {
            self.end(None);
        }
    }

    pub(super) fn drain(&mut self, reconnect_after: Duration, close_after: Duration, now: Timestamp) {
        if !self.life.is_open() {
            return self.close_on_request(CloseRequest::Draining);
        }
        if self.life.ends.is_none() {
            self.life.ends = Some((now + close_after, Ending::Drained));
            let draining = v1::Draining {
                reconnect_after_ms: Settings::millis(reconnect_after),
            };
            self.put(server_event::Event::Draining(draining), now);
        }
    }

    pub(super) fn close_on_request(&mut self, request: CloseRequest) {
        let error = |reason, message: &str| ApiError::new(reason, message);
        match request {
            CloseRequest::Replaced => self.close(
                CloseCode::SessionReplaced,
                error(
                    ErrorReason::SessionReplaced,
                    "a newer stream of this device was opened",
                ),
            ),
            CloseRequest::Revoked => {
                self.close(
                    CloseCode::DeviceRevoked,
                    error(ErrorReason::DeviceRevoked, "the device was revoked"),
                );
            }
            CloseRequest::Suspended => self.close(
                CloseCode::UserSuspended,
                error(ErrorReason::UserSuspended, "the user is suspended"),
            ),
            CloseRequest::Draining => self.close(
                CloseCode::Draining,
                error(ErrorReason::Draining, "this gateway is stopping").retry_after(RETRY_AFTER),
            ),
            CloseRequest::Unauthenticated => {
                self.close(
                    CloseCode::Unauthenticated,
                    error(ErrorReason::TokenInvalid, "the token is not valid"),
                );
            }
            CloseRequest::Unavailable => self.close(
                CloseCode::Unavailable,
                error(ErrorReason::Unavailable, "this gateway cannot serve now").retry_after(RETRY_AFTER),
            ),
            CloseRequest::Restored => self.close(
                CloseCode::Unavailable,
                ApiError::unavailable("the store was restored; open a new stream"),
            ),
            CloseRequest::Overloaded => self.close(
                CloseCode::Unavailable,
                error(
                    ErrorReason::Unavailable,
                    "no new streams for now: too much is going on",
                )
                .retry_after(self.overloaded_for()),
            ),
        }
    }

    /// Returns the time that a client waits which was refused under overload. It differs by session, so that clients
    /// which are refused together do not come back together.
    fn overloaded_for(&self) -> Duration {
        COOL_DOWN + Duration::from_millis(self.id.0 % 1000 * 10)
    }

    pub(super) fn tick_life(&mut self, now: Timestamp) {
        match self.life.phase {
            Phase::Waiting { until } if now >= until => {
                let error = ApiError::new(ErrorReason::TimedOut, "no Open came in time");
                return self.close(CloseCode::TimedOut, error);
            }
            Phase::Opening { until } if now >= until => {
                let error = ApiError::unavailable("the inbox cannot be read now").retry_after(RETRY_AFTER);
                return self.close(CloseCode::Unavailable, error);
            }
            _ => {}
        }
        match self.life.ends {
            Some((at, Ending::Drained)) if now >= at => return self.close_on_request(CloseRequest::Draining),
            Some((at, Ending::Left)) if now >= at => return self.end(None),
            _ => {}
        }
        if !self.life.is_open() {
            return;
        }
        if now >= self.life.silent_until(&self.settings) {
            let error = ApiError::new(
                ErrorReason::TimedOut,
                "no sign of life for three heartbeat intervals",
            );
            return self.close(CloseCode::TimedOut, error);
        }
        self.tick_token(now);
        if !self.life.has_ended() && now >= self.life.speaks_at(&self.settings) {
            self.heartbeat(0, now);
        }
    }

    fn tick_token(&mut self, now: Timestamp) {
        let Some(identity) = self.life.identity else {
            return;
        };
        if now >= self.life.token_ends + TOKEN_GRACE {
            let error = ApiError::new(ErrorReason::TokenExpired, "the access token has expired");
            self.close(CloseCode::Unauthenticated, error);
        } else if !self.life.warned && now >= self.life.token_ends - self.settings.token_warning {
            self.life.warned = true;
            let expiring = v1::TokenExpiring {
                expires_at_ms: identity.expires_at.0,
            };
            self.put(server_event::Event::TokenExpiring(expiring), now);
        }
    }

    /// Puts Closing, which tells the device why the stream ends, and ends the stream with the error's status.
    pub(super) fn close(&mut self, code: CloseCode, error: ApiError) {
        let may_reconnect = match code {
            CloseCode::TimedOut | CloseCode::Draining | CloseCode::Unavailable => true,
            CloseCode::ResourceExhausted => error.reason == ErrorReason::RateLimited,
            _ => false,
        };
        let closing = v1::Closing {
            code: code.into(),
            reason: error.message.clone(),
            retry_after_ms: error.retry_after.map_or(0, Settings::millis),
            may_reconnect,
        };
        self.effects
            .push(Effect::Put(raw::event(server_event::Event::Closing(closing))));
        self.end(Some(error));
    }

    fn end(&mut self, error: Option<ApiError>) {
        debug_assert!(!self.life.has_ended(), "a session ends once");
        self.life.phase = Phase::Ended;
        self.effects.push(Effect::End(error));
    }
}
