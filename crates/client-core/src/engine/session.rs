//! The stream as a whole: when to open it, what keeps it alive, what its end means. Also renews the tokens.

use std::time::Duration;

use tern_proto::Code;
use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item};
use tern_types::Timestamp;
use uuid::Uuid;

use super::{Call, Change, Engine, Settings, StreamOrder};
use crate::backoff::Backoff;
use crate::error::CallError;
use crate::model::{Event, StopReason};

/// Time between the order to open a stream and its `Opened`. The server itself gives up after 10 s without `Open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The server answers a heartbeat at once. If nothing comes for this long, the connection is dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// The heartbeat interval until the server names one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(45);
/// The heartbeat interval is never shorter, whatever the server names.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// After a stream that lived this long, the next delay is a first one again.
const STABLE: Duration = Duration::from_secs(10);
/// A token that expires sooner is renewed before a stream is opened with it.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// How far back own sends are offered again to a restored store: as long as it remembers request_ids.
const RECENT: Duration = Duration::from_secs(tern_types::limits::DEDUPE_WINDOW_DAYS as u64 * 24 * 3600);

#[derive(Debug)]
enum Phase {
    /// Waits for the next attempt.
    Waiting {
        until: Option<Timestamp>,
    },
    /// Waits for a new access token before it opens a stream.
    NeedsToken,
    Opening {
        since: Timestamp,
    },
    Open(Open),
    Stopped,
}

#[derive(Debug)]
struct Open {
    /// When the stream was opened.
    since: Timestamp,
    /// When anything came last.
    heard: Timestamp,
    /// When anything was sent last.
    spoke: Timestamp,
    /// The heartbeat interval.
    interval: Duration,
    /// When a heartbeat was sent after which nothing has come yet.
    asked: Option<Timestamp>,
    /// When to change to another stream, because the gateway is draining.
    reconnect_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Refresh {
    Idle,
    /// No call runs.
    Running,
    /// The call failed; it is made again at this time.
    Again(Timestamp),
}

/// The stream's state machine.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    backoff: Backoff,
    client_version: String,
    refresh: Refresh,
    /// The token was renewed and has not been accepted yet. On a device whose clock is wrong, each new token looks
    /// expired: it must not be renewed again and again.
    fresh_token: bool,
    closing: Option<v1::Closing>,
    max_in_flight: usize,
}

impl Session {
    /// Starts without a stream.
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

    /// Whether the server has answered `Opened` on the present stream.
    pub fn open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether the client has ended.
    pub fn stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// Ends the client for good.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
    }

    /// Notes that a frame came.
    pub fn heard(&mut self, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.heard = now;
            open.asked = None;
        }
    }

    /// Notes whether this apply sends anything.
    pub fn spoke(&mut self, anything: bool, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase
            && anything
        {
            open.spoke = now;
        }
    }

    /// Takes the heartbeat interval that the server named, in milliseconds.
    pub fn heartbeat_interval(&mut self, millis: u32) {
        if let Phase::Open(open) = &mut self.phase {
            open.interval = interval(millis);
        }
    }

    /// Notes that the gateway drains: the stream has to change after `after_ms` milliseconds.
    pub fn draining(&mut self, after_ms: u32, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.reconnect_at = Some(now + Duration::from_millis(after_ms.into()));
        }
    }

    /// The server accepted the new token on the running stream.
    pub fn reauthenticated(&mut self) {
        self.fresh_token = false;
    }

    /// Keeps the server's last event until the stream ends.
    pub fn closing(&mut self, closing: v1::Closing) {
        self.closing = Some(closing);
    }

    /// The time at which the session has to be ticked.
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
    /// A heartbeat is due after four fifths of the interval without a sign in one of the directions. The last fifth
    /// is left for the way.
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

/// What to do after the end of a stream.
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
            // The same attempt again would end in the same way.
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

    /// Compares the server's store epoch with the stored one, to which all cursors belong. If the epoch is another
    /// one, the device forgets its cursors, reads everything anew, and offers its recent sends again.
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
            // A token that was refused although it was new: another one at once would not help.
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

    /// A call was refused for this access token. If no newer one is known, the token is renewed.
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

    /// The tokens are stored before their first use: from then on the server no longer accepts the old refresh token.
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
