//! A [`Session`] is the state of the device's stream as a whole: when it is opened, how it is kept alive, and what
//! follows from its end. This module also renews the tokens.

use std::time::Duration;

use tern_proto::Code;
use tern_proto::v1::{self, CloseCode, ErrorReason, client_item::Item};
use tern_types::Timestamp;
use uuid::Uuid;

use super::{Call, Change, Engine, Settings, StreamOrder};
use crate::backoff::Backoff;
use crate::error::CallError;
use crate::model::{Event, StopReason};

/// The longest time between the order to open a stream and its `Opened`. The server itself gives up after 10 s without
/// `Open`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The time after a heartbeat within which something has to come. The server answers heartbeats at once, so if nothing
/// comes, the connection is dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
/// The heartbeat interval until the server names one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(45);
/// The shortest heartbeat interval that is used, whatever the server names.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The lifetime of a stream from which on the delay after its end is a first one again.
const STABLE: Duration = Duration::from_secs(10);
/// The time that an access token has to be valid for. One that expires sooner is renewed before a stream is opened.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);

/// The age up to which own sends are offered again to a restored store: it remembers request_ids for this long.
const RECENT: Duration = Duration::from_secs(tern_types::limits::DEDUPE_WINDOW_DAYS as u64 * 24 * 3600);

/// The stage that the client has reached with its stream.
#[derive(Debug)]
enum Phase {
    /// There is no stream. The next attempt is made at `until`, or if that is `None`, when the client starts.
    Waiting {
        until: Option<Timestamp>,
    },
    /// A stream is opened as soon as a new access token has come.
    NeedsToken,
    /// A stream was ordered at `since` and has not been answered with `Opened`.
    Opening {
        since: Timestamp,
    },
    Open(Open),
    Stopped,
}

/// The state of an open stream.
#[derive(Debug)]
struct Open {
    /// The time at which the stream was opened.
    since: Timestamp,
    /// The time at which anything came last.
    heard: Timestamp,
    /// The time at which anything was sent last.
    spoke: Timestamp,
    /// The heartbeat interval.
    interval: Duration,
    /// The time at which a heartbeat was sent after which nothing has come yet.
    asked: Option<Timestamp>,
    /// The time at which to change to another stream, because the gateway is draining.
    reconnect_at: Option<Timestamp>,
}

/// The state of the call that renews the tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refresh {
    /// No call is needed or under way.
    Idle,
    /// The call is under way.
    Running,
    /// The call failed, and is made again at this time.
    Again(Timestamp),
}

/// The state of the device's stream and of its tokens.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    backoff: Backoff,
    client_version: String,
    refresh: Refresh,
    /// True if the access token was renewed and no server has accepted it yet. On a device whose clock is wrong, each
    /// new token looks expired, and it must not be renewed again and again.
    fresh_token: bool,
    /// The server's last event on the present stream, which says why it ends.
    closing: Option<v1::Closing>,
    /// The number of sends that the server allows without a result at a time.
    max_in_flight: usize,
}

impl Session {
    /// Makes the state of a client that has no stream.
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

    /// Returns whether the server has answered `Opened` on the present stream.
    pub fn open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Returns whether the client has ended.
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

    /// Notes that the current `apply` sends something, if `anything` is true.
    pub fn spoke(&mut self, anything: bool, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase
            && anything
        {
            open.spoke = now;
        }
    }

    /// Takes the heartbeat interval that the server named, in milliseconds. 0 stands for the default of 45 s.
    pub(super) fn heartbeat_interval(&mut self, millis: u32) {
        if let Phase::Open(open) = &mut self.phase {
            open.interval = interval(millis);
        }
    }

    /// Notes that the gateway drains, so that another stream is opened after `after_ms` milliseconds.
    pub fn draining(&mut self, after_ms: u32, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.reconnect_at = Some(now + Duration::from_millis(after_ms.into()));
        }
    }

    /// Notes that the server accepted the new token on the running stream.
    pub(super) fn reauthenticated(&mut self) {
        self.fresh_token = false;
    }

    /// Keeps the server's last event on a stream until the stream ends.
    pub fn closing(&mut self, closing: v1::Closing) {
        self.closing = Some(closing);
    }

    /// Returns the time at which the session has to be ticked, or `None` if it waits for another input.
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
    /// Returns the time at which a heartbeat is due: when nothing was sent, or nothing came, for four fifths of the
    /// interval. The last fifth is left for the heartbeat's way to the server.
    fn heartbeat_at(&self) -> Timestamp {
        self.spoke.min(self.heard) + self.interval * 4 / 5
    }
}

/// Returns the heartbeat interval for the milliseconds that the server named.
fn interval(millis: u32) -> Duration {
    if millis == 0 {
        DEFAULT_INTERVAL
    } else {
        Duration::from_millis(millis.into()).max(MIN_INTERVAL)
    }
}

/// The consequence of the end of a stream.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Open another stream later, not before the time that the server asked for has passed.
    Retry(Option<Duration>),
    /// Renew the tokens, then open another stream.
    NewToken,
    Stop(StopReason),
}

/// Decides what follows from the end of a stream. The server's `closing` counts more than the status in `error`.
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
    /// Opens a stream. If the access token is about to expire, it is renewed first.
    pub(super) fn connect(&mut self, now: Timestamp) {
        debug_assert!(!self.session.stopped(), "a client that has ended opens no stream");
        if self.me.access_expires_at <= now + TOKEN_MARGIN && !self.session.fresh_token {
            self.session.phase = Phase::NeedsToken;
            self.refresh();
            return;
        }
        self.session.phase = Phase::Opening { since: now };
        self.session.closing = None;
        self.effects.stream = Some(StreamOrder::Open(v1::Open {
            access_token: self.me.access_token.clone(),
            client_version: self.session.client_version.clone(),
            active: self.presences.active(),
        }));
    }

    /// Takes the server's `Opened`. It counts only while the client waits for it.
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
        self.restart_gaps(now);
        self.list_chats_if_needed(now);
        self.send_reads_again();
    }

    /// Compares the server's store epoch with the stored one, to which all cursors belong. If they differ, the device
    /// forgets its cursors, reads everything anew, and offers its recent sends again.
    fn store_epoch(&mut self, epoch: &str, now: Timestamp) {
        let Ok(epoch) = Uuid::try_parse(epoch) else { return };
        match self.epoch.replace(epoch) {
            Some(before) if before == epoch => {}
            None => self.effects.changes.push(Change::Epoch(epoch)),
            Some(_) => {
                self.generation += 1;
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

    /// Drops the present stream and everything that counts only while it lasts. Every way off a stream leads through
    /// here, whether it was lost or is changed for another.
    fn leave_stream(&mut self, now: Timestamp) {
        if let Phase::Open(open) = &self.session.phase
            && now.since(open.since) >= STABLE
        {
            self.session.backoff.reset();
        }
        (self.caught_up, self.caught_up_before) = (false, false);
        self.presences.lost();
        self.effects.items.clear();
        self.effects.stream = Some(StreamOrder::Close);
    }

    /// Changes the stream of a draining gateway for another one.
    fn change_stream(&mut self, now: Timestamp) {
        self.leave_stream(now);
        self.connect(now);
        // There is no stream until the tokens are renewed, which may take long. The app is told so.
        if matches!(self.session.phase, Phase::NeedsToken) {
            self.effects.events.push(Event::Disconnected {
                reason: "the gateway drains".to_owned(),
                retry_in: Some(Duration::ZERO),
            });
        }
    }

    /// Decides what to do after the end of a stream: open another one later, renew the tokens first, or end the client.
    pub(super) fn stream_lost(&mut self, error: &CallError, now: Timestamp) {
        if !matches!(self.session.phase, Phase::Open(_) | Phase::Opening { .. }) {
            return;
        }
        self.leave_stream(now);
        let closing = self.session.closing.take();
        let reason = closing
            .as_ref()
            .map_or(&error.message, |closing| &closing.reason)
            .clone();
        match verdict(closing.as_ref(), error) {
            Verdict::Retry(after) => self.retry(reason, after, now),
            // The token was refused although it is new, so another one at once would not help.
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
                _ if open.reconnect_at.is_some_and(|at| at <= now) => self.change_stream(now),
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

    /// Renews the tokens because a call with this access token was refused, unless a newer one is known already.
    pub(super) fn token_rejected(&mut self, token: &str) {
        if token == self.me.access_token {
            self.refresh();
        }
    }

    /// Makes the call that renews the tokens, unless it is under way.
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

    /// Stores the new tokens and then uses them. They are stored first because the server no longer accepts the old
    /// refresh token once the new ones were used.
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
