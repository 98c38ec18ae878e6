//! Reads lines and prints lines, for scripts and simple terminals. A script that pipes its lines in may end its input
//! at once: the program goes on until everything is sent and every answer is printed.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use tern_client::{Entry, Event, EventStream, SendState, StopReason};
use tern_types::{ChatId, Clock, Seq};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::clock;
use super::desk::{Desk, Outcome, Update, help};
use super::view::{Connection, Line, Tick, View};
use super::words::refusal;

/// The time without any event after which the program, once its input has ended, gives up on unfinished work.
const LAST_NEWS: Duration = Duration::from_secs(10);
/// The interval between two calls of [`Desk::tick`].
const CLOCK: Duration = Duration::from_secs(1);
/// The number of lines of history that are shown when a chat is opened.
const HISTORY: usize = 20;

/// The interval at which the program checks, after the end of input, whether it still has work.
const CHECK: Duration = Duration::from_millis(100);

/// Runs until `/quit`, the end of input, or the end of the client. Returns why it ended.
pub async fn run(desk: Desk, events: EventStream, to: Option<String>) -> anyhow::Result<StopReason> {
    let mut clock = tokio::time::interval(CLOCK);
    let mut session = Session::begin(desk, events, to).await;
    loop {
        if let Some(reason) = session.over().await {
            return Ok(reason);
        }
        tokio::select! {
            event = next_event(&mut session.events) => {
                if let Some(reason) = session.take_event(event) {
                    return Ok(reason);
                }
            }
            Some(update) = session.desk.update() => session.take_update(&update),
            line = next_line(&mut session.input), if !session.opening => session.take_line(line).await,
            _ = clock.tick() => session.desk.tick(),
            () = tokio::time::sleep(CHECK), if session.input.is_none() => session.set_deadline(),
        }
    }
}

/// The conversation and its input.
struct Session {
    desk: Desk,
    screen: Screen,
    /// The client's events, or the reason why the client has ended.
    events: Result<EventStream, StopReason>,
    /// The typed lines; `None` after `/quit` and after the end of input.
    input: Option<Lines<BufReader<Stdin>>>,
    /// True while typed lines wait, until the chat that --to names is open or cannot be opened.
    opening: bool,
    /// The time at which the program gives up on unfinished work. It is set after the end of input, and each event and
    /// each update unsets it.
    deadline: Option<tokio::time::Instant>,
}

impl Session {
    /// Begins with the chat that --to names, if it names one.
    async fn begin(mut desk: Desk, events: EventStream, to: Option<String>) -> Self {
        let mut opening = false;
        if let Some(name) = to {
            desk.submit(&format!("/chat {name}")).await;
            opening = desk.view.open.is_none();
        }
        Self {
            desk,
            screen: Screen::default(),
            events: Ok(events),
            input: Some(BufReader::new(tokio::io::stdin()).lines()),
            opening,
            deadline: None,
        }
    }

    /// Returns the reason why the program ends, or `None` if it goes on. Stops the client if that is still running.
    async fn over(&mut self) -> Option<StopReason> {
        // After the end of input nobody can type /connect, so the end of the client is the end of the program.
        if let (Err(reason), None) = (&self.events, &self.input) {
            return Some(reason.clone());
        }
        let late = |at| tokio::time::Instant::now() >= at;
        if self.has_finished().await || self.deadline.is_some_and(late) {
            self.desk.client.stop().await;
            return Some(StopReason::ByApp);
        }
        None
    }

    /// Returns whether the input has ended and all that it asked for is done.
    async fn has_finished(&self) -> bool {
        self.input.is_none()
            && !self.opening
            && !self.desk.transfers()
            && !self.desk.is_busy()
            && self.desk.client.outbox().await.is_ok_and(|outbox| sent(&outbox))
    }

    /// Applies and prints an event of the client. Returns the reason if the client has ended for good.
    fn take_event(&mut self, event: Option<Event>) -> Option<StopReason> {
        match event {
            Some(Event::Stopped(reason)) => {
                if let Some(reason) = self.desk.ended(reason.clone()) {
                    return Some(reason);
                }
                if let Connection::Ended(why) = &self.desk.view.connection {
                    say(&format!("* not connected: {why}"));
                }
                self.events = Err(reason);
                None
            }
            Some(event) => {
                self.deadline = None;
                self.desk.apply_event(&event, true);
                self.screen.event(&self.desk.view, &event);
                None
            }
            None => Some(StopReason::ByApp),
        }
    }

    fn take_update(&mut self, update: &Update) {
        self.deadline = None;
        if let Update::Open(chat) = update {
            self.desk.open_new(*chat);
        } else {
            self.desk.apply_update(update);
        }
        // A notice may say that the chat cannot be opened.
        if matches!(update, Update::Open(_) | Update::Notice(_)) {
            self.opening = false;
        }
        self.screen.update(&self.desk.view, update);
    }

    /// Carries out a typed line. `None` is the end of input.
    async fn take_line(&mut self, line: Option<String>) {
        let Some(line) = line else {
            self.input = None;
            return;
        };
        match self.desk.submit(&line).await {
            Outcome::Done => {}
            Outcome::Help => help().iter().for_each(|line| say(line)),
            Outcome::Quit => self.input = None,
            Outcome::Connected => {
                if let Some(events) = self.desk.new_events() {
                    self.events = Ok(events);
                }
            }
        }
    }

    /// Sets the deadline for unfinished work after the end of input, unless it is set. While transfers are running
    /// there is no deadline.
    fn set_deadline(&mut self) {
        if self.desk.transfers() {
            self.deadline = None;
        } else {
            self.deadline
                .get_or_insert_with(|| tokio::time::Instant::now() + LAST_NEWS);
        }
    }
}

/// Returns whether every message of the outbox has a result.
fn sent(outbox: &[tern_client::QueuedMessage]) -> bool {
    !outbox.iter().any(|queued| queued.state == SendState::Queued)
}

/// Waits for the next event. If the client has ended, which makes `events` an error, it waits for ever.
async fn next_event(events: &mut Result<EventStream, StopReason>) -> Option<Event> {
    match events {
        Ok(events) => events.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// Waits for the next typed line, and returns `None` at the end of input. Without an input it waits for ever.
async fn next_line(input: &mut Option<Lines<BufReader<Stdin>>>) -> Option<String> {
    match input {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Remembers what was printed, so that nothing is printed twice, and holds entries back until their names are known.
#[derive(Default)]
struct Screen {
    /// The tick that was printed last, and the seq of its message.
    tick: Option<(Seq, Tick)>,
    /// The state of the connection that was printed last.
    connected: Option<bool>,
    /// The entries that are not printed yet, because a name or their chat is not known.
    unnamed: Vec<Entry>,
    /// The chat whose history is to be printed when all names are known.
    history: Option<ChatId>,
    /// The chat whose history was printed last.
    history_shown: Option<ChatId>,
    /// The presence that was printed last.
    presence: Option<(ChatId, String)>,
    /// The quarter of the progress that was printed last, by the id of the transfer.
    quarters: HashMap<u64, u64>,
}

impl Screen {
    fn event(&mut self, view: &View, event: &Event) {
        match event {
            Event::Entry(entry) => self.unnamed.push(entry.clone()),
            Event::Receipt { chat, .. } if Some(*chat) == view.open => self.ticks(view, *chat),
            Event::Send {
                state: SendState::Failed { code, message },
                ..
            } => say(&format!(
                "! not sent: {} (/retry sends it again, /delete forgets it)",
                refusal(*code, message)
            )),
            Event::Connected { .. } | Event::Disconnected { .. } => self.connection(view),
            Event::Presence { .. } => self.presence(view),
            _ => {}
        }
        self.named(view, false);
    }

    fn update(&mut self, view: &View, update: &Update) {
        match update {
            Update::Notice(text) => text.lines().for_each(|line| say(&format!("* {line}"))),
            Update::Transfer(id, Some(transfer)) => {
                let quarter = transfer.percent() / 25;
                if self.quarters.insert(*id, quarter) != Some(quarter) {
                    say(&format!("  {}", transfer.line()));
                }
            }
            Update::Transfer(id, None) => drop(self.quarters.remove(id)),
            Update::Open(chat) => say(&format!("* chat with {}", view.title(*chat))),
            Update::History { chat, .. } if self.history_shown != Some(*chat) => {
                self.history = Some(*chat);
            }
            _ => {}
        }
        self.named(view, matches!(update, Update::Names(_)));
    }

    /// Prints the history and the entries that waited, if all names are known. With `all` it prints them even if names
    /// are missing, because the server has no more names for now.
    fn named(&mut self, view: &View, all: bool) {
        if !all && !view.nameless.is_empty() {
            return;
        }
        if let Some(chat) = self.history.take() {
            self.history_shown = Some(chat);
            let lines = view.lines(chat);
            for line in &lines[lines.len().saturating_sub(HISTORY)..] {
                self.line(view, line, "");
            }
            // Entries that were just printed as history are not printed again as news.
            self.unnamed.retain(|entry| entry.chat != chat);
        }
        let (known, unknown) = std::mem::take(&mut self.unnamed).into_iter().partition(|entry| {
            view.rooms
                .get(&entry.chat)
                .is_some_and(|room| room.chat.is_some())
        });
        self.unnamed = unknown;
        known.iter().for_each(|entry| self.entry(view, entry));
    }

    fn line(&self, view: &View, line: &Line, place: &str) {
        let who = line
            .who
            .map_or("*".to_owned(), |who| format!("{}:", view.name(who)));
        // Indent the further lines of a message, so that they do not look like messages of somebody else.
        let text = line.text.replace('\n', "\n        ");
        say(&format!("[{}] {place}{who} {text}", clock::time(line.at)));
    }

    fn entry(&mut self, view: &View, entry: &Entry) {
        let lines = view.lines(entry.chat);
        let Some(line) = lines.iter().rev().find(|line| line.seq == Some(entry.seq)) else {
            return;
        };
        let place = if view.open == Some(entry.chat) {
            String::new()
        } else {
            format!("({}) ", view.title(entry.chat))
        };
        self.line(view, line, &place);
        if line.tick.is_some() && view.open == Some(entry.chat) {
            self.ticks(view, entry.chat);
        }
    }

    /// Prints the tick of the last own message if it has changed.
    fn ticks(&mut self, view: &View, chat: ChatId) {
        let lines = view.lines(chat);
        let last = lines
            .iter()
            .rev()
            .find_map(|line| Some((line.seq?, line.tick.clone()?)));
        let Some((seq, tick)) = last else { return };
        if self.tick.as_ref() != Some(&(seq, tick.clone())) {
            let text = match &tick {
                Tick::Waiting | Tick::Failed(_) => return,
                Tick::Sent => "✓ sent",
                Tick::Delivered => "✓✓ delivered",
                Tick::Read => "✓✓ read",
            };
            say(&format!("  {text}"));
            self.tick = Some((seq, tick));
        }
    }

    /// Prints the presence of the other person of the open chat if it has changed.
    fn presence(&mut self, view: &View) {
        let Some(chat) = view.open else { return };
        let Some(presence) = view.presence(chat, Clock::wall()) else {
            return;
        };
        let presence = (chat, presence);
        if self.presence.as_ref() != Some(&presence) {
            say(&format!("* {} is {}", view.title(chat), presence.1)
                .replace(" is last seen", " was last seen"));
            self.presence = Some(presence);
        }
    }

    fn connection(&mut self, view: &View) {
        let connected = matches!(view.connection, Connection::Connected { .. });
        if self.connected.replace(connected) == Some(connected) {
            return;
        }
        match &view.connection {
            // A client that does not try again ends, and the reason is printed then.
            Connection::Waiting { until: None, .. } => {}
            Connection::Waiting { reason, .. } => {
                say(&format!("* not connected ({reason}); what you write is kept"))
            }
            Connection::Connected { gateway, .. } => say(&format!("* connected to {gateway}")),
            Connection::Connecting | Connection::Ended(_) => {}
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A write fails if nobody reads the output any more; then the input ends as well.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
