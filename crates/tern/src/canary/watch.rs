//! Runs round after round, and links new devices when the clients have ended.

use std::time::Duration;

use tern_client::{Event, StopReason};
use tern_transport::admin::Readiness;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::metrics;
use super::people::{People, Person};
use super::round::{Round, Step};

/// The body of the messages.
const BODY: &str = "tweet";

/// The step that did not come, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", step.as_str())]
pub struct Failure {
    step: Step,
    why: String,
    /// True if the clients cannot be used any more and new devices have to be linked.
    over: bool,
}

impl Failure {
    fn new(step: Step, why: impl Into<String>) -> Self {
        Self {
            step,
            why: why.into(),
            over: false,
        }
    }

    fn stopped(step: Step, reason: &StopReason) -> Self {
        Self {
            over: true,
            ..Self::new(step, format!("a device was stopped: {reason:?}"))
        }
    }
}

/// The two users, with clients that have been online.
struct Pair {
    /// The person at index 0 has sent the current message; the two swap places before each message.
    people: [Person; 2],
}

/// Runs a round in each interval `every`, for ever. A message that is not complete after the time `within` has failed.
/// The process is ready while the last round has succeeded.
pub async fn run(people: &People, every: Duration, within: Duration, readiness: &Readiness) {
    let mut ticks = interval(every);
    // After a slow round, wait for the next tick; rounds that were missed are not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pair: Option<Pair> = None;
    loop {
        let idle = match &mut pair {
            Some(pair) => pair.idle_until(&mut ticks).await,
            None => {
                ticks.tick().await;
                Ok(())
            }
        };
        let outcome = match idle {
            Ok(()) => round(&mut pair, people, within).await,
            Err(failure) => Err(failure),
        };
        readiness.set(outcome.is_ok());
        if let Err(failure) = outcome {
            tracing::warn!(step = failure.step.as_str(), why = failure.why, "message failed");
            metrics::failed(failure.step);
            if failure.over {
                pair = None;
            }
        }
    }
}

/// Runs one round and records its times. If there are no clients, it links new devices first.
async fn round(pair: &mut Option<Pair>, people: &People, within: Duration) -> Result<(), Failure> {
    let pair = match pair {
        Some(pair) => pair,
        None => pair.insert(Pair::new(people, within).await?),
    };
    let round = pair.exchange(within).await?;
    for (step, time) in round.times() {
        metrics::took(step, time);
    }
    metrics::ok();
    Ok(())
}

/// Exchanges one message each way and prints the time of each step.
///
/// # Errors
///
/// Returns the first step that did not come.
#[allow(clippy::print_stdout, reason = "a command speaks by standard output")]
pub async fn once(people: &People, within: Duration) -> anyhow::Result<()> {
    let mut pair = Pair::new(people, within).await?;
    for _ in 0..2 {
        let round = pair.exchange(within).await?;
        let steps: Vec<String> = round
            .times()
            .map(|(step, time)| format!("{} after {time:.1?}", step.as_str()))
            .collect();
        println!("message: {}", steps.join(", "));
    }
    Ok(())
}

impl Pair {
    /// Links two devices, then waits until both have caught up. Each of these two steps may take as long as `within`.
    async fn new(people: &People, within: Duration) -> Result<Self, Failure> {
        let linked = timeout(within, people.pair()).await;
        let people = linked
            .map_err(|_| Failure::new(Step::Linked, format!("not within {within:?}")))?
            .map_err(|error| Failure::new(Step::Linked, format!("{error:#}")))?;
        let mut pair = Self { people };
        let end = Instant::now() + within;
        let mut caught_up = [false; 2];
        while caught_up != [true; 2] {
            let (side, event) = pair.event_before(end, Step::Connected).await?;
            caught_up[side] |= matches!(event, Event::CaughtUp);
        }
        Ok(pair)
    }

    /// Swaps the two users, sends a message from the first to the second, and waits until the round is complete.
    async fn exchange(&mut self, within: Duration) -> Result<Round, Failure> {
        self.people.swap(0, 1);
        let [from, to] = &self.people;
        let (from, to) = (from, to.user);
        let (began, end) = (std::time::Instant::now(), Instant::now() + within);
        let request = from.client.send(to, BODY).await;
        // The client has stopped, or its outbox is full of messages that never went out: link new devices.
        let request = request.map_err(|error| Failure {
            over: true,
            ..Failure::new(Step::Accepted, format!("{error:#}"))
        })?;
        let mut round = Round::new(request, from.user, to, began);
        while let Some(step) = round.missing() {
            let (side, event) = self.event_before(end, step).await?;
            let now = std::time::Instant::now();
            match side {
                0 => round.sender_hears(&event, now),
                _ => round.recipient_hears(&event, now),
            }
            if let Some(why) = round.refused() {
                return Err(Failure::new(step, why));
            }
        }
        Ok(round)
    }

    /// Returns the next event, with the index of the person whose client has it. Fails with `step` if none
    /// comes before `end`, or if a client has stopped.
    async fn event_before(&mut self, end: Instant, step: Step) -> Result<(usize, Event), Failure> {
        let next = tokio::time::timeout_at(end, self.event()).await;
        match next.map_err(|_| Failure::new(step, "not in time"))? {
            (_, Some(Event::Stopped(reason))) => Err(Failure::stopped(step, &reason)),
            (side, Some(event)) => Ok((side, event)),
            (_, None) => Err(Failure::stopped(step, &StopReason::ByApp)),
        }
    }

    /// Waits for an event. Returns the index of the person whose client has it, and the event, or `None` if that client
    /// has ended.
    async fn event(&mut self) -> (usize, Option<Event>) {
        let [first, second] = &mut self.people;
        tokio::select! {
            event = first.events.next() => (0, event),
            event = second.events.next() => (1, event),
        }
    }

    /// Takes events until the next tick, because a client disconnects if its events are not taken. Fails at that tick
    /// if a client has stopped.
    async fn idle_until(&mut self, ticks: &mut tokio::time::Interval) -> Result<(), Failure> {
        loop {
            let reason = tokio::select! {
                _ = ticks.tick() => return Ok(()),
                (side, event) = self.event() => match event {
                    Some(Event::Disconnected { reason, .. }) => {
                        tracing::info!(side, reason, "disconnected");
                        continue;
                    }
                    Some(Event::Stopped(reason)) => reason,
                    Some(_) => continue,
                    None => StopReason::ByApp,
                },
            };
            ticks.tick().await;
            return Err(Failure::stopped(Step::Connected, &reason));
        }
    }
}
