//! The stream as a whole: when to open it, what keeps it alive, what its end means, and the tokens.

use std::time::Duration;

use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item};
use tern_types::Timestamp;
use tonic::Code;
use uuid::Uuid;

use super::{Call, Change, Engine, Settings, StreamOrder};
use crate::backoff::Backoff;
use crate::error::CallError;
use crate::model::{Event, StopReason};

/// From the order to open a stream to its `Opened`: longer than the server's 10 s for `Open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// After a heartbeat the server answers at once; silence this long means that the connection is dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// Until the server names another.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(45);
/// No server needs to hear more often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// A stream that lived this long was a good one: the next delay is a first one.
const STABLE: Duration = Duration::from_secs(10);
/// A token that ends sooner is renewed before a stream is opened with it.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// Own sends offered again to another store: as far back as it knows request_ids.
const RECENT: Duration = Duration::from_secs(tern_types::limits::DEDUPE_WINDOW_DAYS as u64 * 24 * 3600);

#[derive(Debug)]
enum Phase {
    /// Waits for its next attempt.
    Waiting {
        until: Option<Timestamp>,
    },
    /// A new token first.
    NeedsToken,
    Opening {
        since: Timestamp,
    },
    Open(Open),
    Stopped,
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    heard: Timestamp,
    spoke: Timestamp,
    interval: Duration,
    /// A heartbeat went out, nothing came since.
    asked: Option<Timestamp>,
    reconnect_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Refresh {
    Idle,
    Running,
    Again(Timestamp),
}

/// The stream's state machine.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    backoff: Backoff,
    client_version: String,
    refresh: Refresh,
    /// The token is new: a clock that is wrong must not refresh it again and again.
    fresh_token: bool,
    closing: Option<v1::Closing>,
    max_in_flight: usize,
}

impl Session {
    pub fn new(settings: &Settings) -> Self {
        Self {
            phase: Phase::Waiting { until: None },
            backoff: Backoff::new(settings.seed),
            client_version: settings.client_version.clone(),
            refresh: Refresh::Idle,
            fresh_token: false,
            closing: None,
            max_in_flight: tern_types::limits::MAX_SENDS_IN_FLIGHT,
        }
    }

    pub fn open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    pub fn stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
    }

    pub fn heard(&mut self, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.heard = now;
            open.asked = None;
        }
    }

    pub fn spoke(&mut self, anything: bool, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase
            && anything
        {
            open.spoke = now;
        }
    }

    pub fn heartbeat_interval(&mut self, millis: u32) {
        if let Phase::Open(open) = &mut self.phase {
            open.interval = interval(millis);
        }
    }

    pub fn draining(&mut self, after_ms: u32, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.reconnect_at = Some(now + Duration::from_millis(after_ms.into()));
        }
    }

    /// The new token was taken on the running stream.
    pub fn reauthenticated(&mut self) {
        self.fresh_token = false;
    }

    pub fn closing(&mut self, closing: v1::Closing) {
        self.closing = Some(closing);
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        let phase = match &self.phase {
            Phase::Waiting { until } => *until,
            Phase::NeedsToken | Phase::Stopped => None,
            Phase::Opening { since } => Some(*since + OPEN_TIMEOUT),
            Phase::Open(open) => {
                let alive = open
                    .asked
                    .map_or_else(|| open.heartbeat_at(), |asked| asked + HEARTBEAT_TIMEOUT);
                Some(open.reconnect_at.map_or(alive, |at| at.min(alive)))
            }
        };
        let refresh = if let Refresh::Again(at) = self.refresh {
            Some(at)
        } else {
            None
        };
        [phase, refresh].into_iter().flatten().min()
    }
}

impl Open {
    /// Each side speaks once an interval: a fifth of it is left for the way.
    fn heartbeat_at(&self) -> Timestamp {
        self.spoke.min(self.heard) + self.interval * 4 / 5
    }
}

fn interval(millis: u32) -> Duration {
    if millis == 0 {
        DEFAULT_INTERVAL
    } else {
        Duration::from_millis(millis.into()).max(MIN_INTERVAL)
    }
}

/// What the end of a stream asks for.
#[derive(Debug, PartialEq)]
enum Verdict {
    Retry(Option<Duration>),
    NewToken,
    Stop(StopReason),
}

fn verdict(closing: Option<&v1::Closing>, error: &CallError) -> Verdict {
    if let Some(closing) = closing {
        match closing.code() {
            CloseCode::SessionReplaced => return Verdict::Stop(StopReason::Replaced),
            CloseCode::DeviceRevoked => return Verdict::Stop(StopReason::Revoked),
            CloseCode::UserSuspended => return Verdict::Stop(StopReason::Suspended),
            CloseCode::Unauthenticated => return Verdict::NewToken,
            // The same again would lead to the same end.
            _ if !closing.may_reconnect => {
                return Verdict::Stop(StopReason::Refused(closing.reason.clone()));
            }
            _ => return Verdict::Retry(Some(Duration::from_millis(closing.retry_after_ms.into()))),
        }
    }
    match (error.code, error.reason) {
        (_, ErrorReason::DeviceRevoked) => Verdict::Stop(StopReason::Revoked),
        (_, ErrorReason::UserSuspended) => Verdict::Stop(StopReason::Suspended),
        (_, ErrorReason::SessionReplaced) => Verdict::Stop(StopReason::Replaced),
        (_, ErrorReason::ProtocolError | ErrorReason::TooLarge) => {
            Verdict::Stop(StopReason::Refused(error.message.clone()))
        }
        (Code::Unauthenticated, _) => Verdict::NewToken,
        _ => Verdict::Retry(error.retry_after),
    }
}

impl Engine {
    pub(super) fn connect(&mut self, now: Timestamp) {
        if self.me.access_expires_at <= now + TOKEN_MARGIN && !self.session.fresh_token {
            self.session.phase = Phase::NeedsToken;
            self.refresh();
            return;
        }
        self.session.phase = Phase::Opening { since: now };
        self.session.closing = None;
        self.effects.items.clear();
        self.effects.stream = Some(StreamOrder::Open(v1::Open {
            access_token: self.me.access_token.clone(),
            client_version: self.session.client_version.clone(),
            active: self.presences.active(),
        }));
    }

    pub(super) fn opened(&mut self, opened: v1::Opened, now: Timestamp) {
        if !matches!(self.session.phase, Phase::Opening { .. }) {
            return;
        }
        self.session.fresh_token = false;
        self.session.phase = Phase::Open(Open {
            since: now,
            heard: now,
            spoke: now,
            interval: interval(opened.heartbeat_interval_ms),
            asked: None,
            reconnect_at: None,
        });
        let in_flight = opened.limits.map_or(0, |limits| limits.max_sends_in_flight);
        if in_flight > 0 {
            self.session.max_in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX);
        }
        self.effects.events.push(Event::Connected {
            session: opened.session_id,
            gateway: String::new(),
        });
        self.presence_opened(opened.activity_interval_ms, now);
        self.store_epoch(&opened.store_epoch, now);
        self.outbox.restart(self.session.max_in_flight);
        self.list_chats_if_needed(now);
        self.send_reads_again();
    }

    /// Cursors belong to an epoch. Another one: forget them, read everything anew, offer own recent sends again.
    fn store_epoch(&mut self, epoch: &str, now: Timestamp) {
        let Ok(epoch) = Uuid::try_parse(epoch) else { return };
        match self.epoch.replace(epoch) {
            Some(before) if before == epoch => {}
            None => self.effects.changes.push(Change::Epoch(epoch)),
            Some(_) => {
                self.forget_chats();
                self.forget_sends();
                self.effects.changes.push(Change::Reset {
                    epoch,
                    since: now - RECENT,
                });
                self.effects.calls.push(Call::ReloadOutbox);
                self.effects.events.push(Event::Reset);
            }
        }
    }

    pub(super) fn stream_lost(&mut self, error: &CallError, now: Timestamp) {
        match &self.session.phase {
            Phase::Open(open) if now.since(open.since) >= STABLE => self.session.backoff.reset(),
            Phase::Open(_) | Phase::Opening { .. } => {}
            _ => return,
        }
        (self.caught_up, self.caught_up_before) = (false, false);
        self.presences.lost();
        self.effects.items.clear();
        let closing = self.session.closing.take();
        let reason = closing
            .as_ref()
            .map_or(&error.message, |closing| &closing.reason)
            .clone();
        match verdict(closing.as_ref(), error) {
            Verdict::Retry(after) => self.retry(reason, after, now),
            // A token that was new when it was refused is not worth trying the next one at once.
            Verdict::NewToken if std::mem::take(&mut self.session.fresh_token) => {
                self.me.access_expires_at = now;
                self.retry(reason, None, now);
            }
            Verdict::NewToken => {
                self.session.phase = Phase::NeedsToken;
                self.effects.events.push(Event::Disconnected {
                    reason,
                    retry_in: Some(Duration::ZERO),
                });
                self.refresh();
            }
            Verdict::Stop(why) => {
                self.effects.events.push(Event::Disconnected {
                    reason,
                    retry_in: None,
                });
                self.stop(why);
            }
        }
    }

    fn retry(&mut self, reason: String, after: Option<Duration>, now: Timestamp) {
        let delay = self.session.backoff.next(after);
        self.session.phase = Phase::Waiting {
            until: Some(now + delay),
        };
        self.effects.stream = Some(StreamOrder::Close);
        self.effects.events.push(Event::Disconnected {
            reason,
            retry_in: Some(delay),
        });
    }

    pub(super) fn tick_session(&mut self, now: Timestamp) {
        if matches!(self.session.refresh, Refresh::Again(at) if at <= now) {
            self.refresh();
        }
        match &mut self.session.phase {
            Phase::Waiting { until: Some(until) } if *until <= now => self.connect(now),
            Phase::Opening { since } if *since + OPEN_TIMEOUT <= now => {
                self.stream_lost(&CallError::unavailable("no answer to open"), now);
            }
            Phase::Open(open) => match open.asked {
                _ if open.reconnect_at.is_some_and(|at| at <= now) => self.connect(now),
                Some(asked) if asked + HEARTBEAT_TIMEOUT <= now => {
                    self.stream_lost(&CallError::unavailable("no sign of life"), now);
                }
                None if open.heartbeat_at() <= now => {
                    open.asked = Some(now);
                    let token = u64::try_from(now.0).unwrap_or_default();
                    self.effects.items.push(Item::Heartbeat(v1::Heartbeat { token }));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A call was refused for this token: a newer one is made, if there is none yet.
    pub(super) fn token_rejected(&mut self, token: &str) {
        if token == self.me.access_token {
            self.refresh();
        }
    }

    pub(super) fn refresh(&mut self) {
        if self.session.refresh != Refresh::Running {
            self.session.refresh = Refresh::Running;
            self.effects.calls.push(Call::Refresh {
                refresh_token: self.me.refresh_token.clone(),
            });
        }
    }

    pub(super) fn refreshed(&mut self, result: Result<v1::TokenPair, CallError>, now: Timestamp) {
        self.session.refresh = Refresh::Idle;
        match result {
            Ok(pair) => self.new_tokens(pair, now),
            Err(error) => match error.reason {
                ErrorReason::RefreshTokenInvalid => self.stop(StopReason::SignedOut),
                ErrorReason::UserSuspended => self.stop(StopReason::Suspended),
                ErrorReason::RefreshTokenReused | ErrorReason::DeviceRevoked => {
                    self.stop(StopReason::Revoked)
                }
                _ => {
                    let delay = self.session.backoff.next(error.retry_after);
                    self.session.refresh = Refresh::Again(now + delay);
                }
            },
        }
    }

    /// Stored before it is first used: the server honours the old refresh token only until then.
    fn new_tokens(&mut self, pair: v1::TokenPair, now: Timestamp) {
        self.me.access_token = pair.access_token;
        self.me.access_expires_at = Timestamp(pair.access_expires_at_ms);
        self.me.refresh_token = pair.refresh_token;
        self.session.fresh_token = true;
        self.effects.changes.push(Change::Credentials(self.me.clone()));
        self.effects.access_token = Some(self.me.access_token.clone());
        match self.session.phase {
            Phase::NeedsToken => self.connect(now),
            Phase::Open(_) => {
                let access_token = self.me.access_token.clone();
                self.effects
                    .items
                    .push(Item::Reauthenticate(v1::Reauthenticate { access_token }));
            }
            _ => {}
        }
    }
}
