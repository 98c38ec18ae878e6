//! Reads lines and prints lines, for scripts and simple terminals. A script that pipes its lines in may end its input
//! at once: the program goes on until everything is sent and every answer is printed.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use tern_client::{Entry, Event, EventStream, SendState, StopReason};
use tern_types::{ChatId, Clock, Seq};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::clock;
use super::command::Command;
use super::desk::{Desk, Outcome, Update, help};
use super::view::{Connection, Line, Tick, View};
use super::words::refusal;

/// The time without news from the server after which the program, once its input has ended, gives up on unfinished
/// work. It is longer than a failover takes, also on a busy machine.
const LAST_NEWS: Duration = Duration::from_secs(60);
/// The interval between two calls of [`Desk::tick`].
const CLOCK: Duration = Duration::from_secs(1);
/// The number of lines of history that are shown when a chat is opened.
const HISTORY: usize = 20;

/// The longest time for which a command about the last message waits until the messages before it are sent and loaded.
const HOLD: Duration = Duration::from_secs(10);
/// The interval at which the program checks, after the end of input, whether it still has work, and whether a command
/// may be carried out.
const CHECK: Duration = Duration::from_millis(100);

/// Runs until `/quit`, the end of input, or the end of the client. Returns why it ended. Fails if the input has ended
/// and the server does not answer.
pub async fn run(desk: Desk, events: EventStream, to: Option<String>) -> anyhow::Result<StopReason> {
    Session::begin(desk, events, to).await.talk().await
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
    /// A command about the last message that waits until the messages before it are sent and loaded, and the end of its
    /// patience. A script may type all of it at once.
    held: Option<(String, tokio::time::Instant)>,
    /// The time at which the program gives up on unfinished work. It is set after the end of input, and news from the
    /// server unset it.
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
            held: None,
            deadline: None,
        }
    }

    /// Talks until the end.
    async fn talk(mut self) -> anyhow::Result<StopReason> {
        let mut clock = tokio::time::interval(CLOCK);
        loop {
            self.carry_out_held().await;
            if let Some(end) = self.over().await {
                return end;
            }
            let reads = !self.opening && self.held.is_none();
            tokio::select! {
                event = next_event(&mut self.events) => {
                    if let Some(reason) = self.take_event(event) {
                        return Ok(reason);
                    }
                }
                Some(update) = self.desk.update() => self.take_update(&update),
                line = next_line(&mut self.input), if reads => self.take_line(line).await,
                _ = clock.tick() => { self.desk.tick(); }
                () = tokio::time::sleep(CHECK), if self.input.is_none() => self.set_deadline(),
                () = tokio::time::sleep(CHECK), if self.held.is_some() => {}
            }
        }
    }

    /// Returns how the program ends, or `None` if it goes on. Stops the client if that is still running.
    async fn over(&mut self) -> Option<anyhow::Result<StopReason>> {
        // After the end of input nobody can type /connect, so the end of the client is the end of the program.
        if let (Err(reason), None) = (&self.events, &self.input) {
            return Some(Ok(reason.clone()));
        }
        let finished = self.has_finished().await;
        let late = |at| tokio::time::Instant::now() >= at;
        if !finished && !self.deadline.is_some_and(late) {
            return None;
        }
        self.desk.client.stop().await;
        if finished {
            return Some(Ok(StopReason::ByApp));
        }
        Some(Err(anyhow::anyhow!(
            "the server does not answer; what was not sent is kept until this device connects again"
        )))
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
                // A connection that breaks is no news, nor is one that does not come about.
                if !matches!(event, Event::Disconnected { .. }) {
                    self.deadline = None;
                }
                self.desk.apply_event(&event, true);
                self.screen.event(&self.desk.view, &event);
                None
            }
            None => Some(StopReason::ByApp),
        }
    }

    fn take_update(&mut self, update: &Update) {
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

    /// Takes a typed line. `None` is the end of input.
    async fn take_line(&mut self, line: Option<String>) {
        let Some(line) = line else {
            self.input = None;
            return;
        };
        if Command::parse(&line).is_about_a_message() {
            self.held = Some((line, tokio::time::Instant::now() + HOLD));
        } else {
            self.carry_out(&line).await;
        }
    }

    /// Carries out the command that waits, if it need not wait any longer.
    async fn carry_out_held(&mut self) {
        let waits = self.desk.view.is_sending() || self.desk.is_busy();
        let now = tokio::time::Instant::now();
        if let Some((line, _)) = self.held.take_if(|(_, until)| !waits || *until <= now) {
            self.carry_out(&line).await;
        }
    }

    async fn carry_out(&mut self, line: &str) {
        match self.desk.submit(line).await {
            Outcome::Done => {}
            // The line still stands where it was typed; it says what was not sent.
            Outcome::Kept(text) => say(&format!("! not sent: {}", text.replace('\n', "\n        "))),
            Outcome::Thread(root) => self.screen.thread(&self.desk.view, root),
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
                request,
                chat,
                state:
                    SendState::Failed {
                        code,
                        message,
                        retry_at,
                    },
            } => {
                say(&format!(
                    "! not sent: {} (/retry sends it again, /discard forgets it)",
                    refusal(*code, message, *retry_at)
                ));
                // It may have waited for hours, and the person has to know which one it is.
                if let Some(unsent) = view.unsent(*chat, *request) {
                    say(&format!("        {}", unsent.replace('\n', "\n        ")));
                }
            }
            Event::Connected { .. } | Event::Disconnected { .. } => self.connection(view),
            Event::Presence { .. } => self.presence(view),
            _ => {}
        }
        self.named(view, false);
    }

    fn update(&mut self, view: &View, update: &Update) {
        match update {
            Update::Notice(text) => text.lines().for_each(said),
            Update::Found { .. } => view.found_lines(Clock::wall()).iter().for_each(|line| said(line)),
            Update::Lines { title, lines } => {
                said(&format!("{title}:"));
                lines.iter().for_each(|line| said(line));
            }
            Update::Show { seq, around, .. } => {
                let lines = view.around_lines(around, *seq, Clock::wall());
                lines.iter().for_each(|line| said(line));
            }
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

    /// Prints the thread of the open chat that begins with the message `root`.
    fn thread(&self, view: &View, root: Seq) {
        let chat = view.open;
        let lines = chat.map_or_else(Vec::new, |chat| view.lines_of(chat, Some(root)));
        lines.iter().for_each(|line| self.line(view, line, "(thread) "));
    }

    fn line(&self, view: &View, line: &Line, place: &str) {
        let who = line
            .who
            .map_or("*".to_owned(), |who| format!("{}:", view.name(who)));
        let number = line.seq.map_or(String::new(), |seq| format!(" #{seq}"));
        let quote = line.quote.as_ref();
        let quote = quote.map_or(String::new(), |quote| format!("(to {quote}) "));
        // Indent the further lines of a message, so that they do not look like messages of somebody else.
        let text = line.shown().replace('\n', "\n        ");
        let time = clock::time(line.at);
        say(&format!("[{time}{number}] {place}{who} {quote}{text}"));
    }

    fn entry(&mut self, view: &View, entry: &Entry) {
        let place = if view.open == Some(entry.chat) {
            String::new()
        } else {
            format!("({}) ", view.title(entry.chat))
        };
        let lines = view.lines(entry.chat);
        let Some(line) = lines.iter().rev().find(|line| line.seq == Some(entry.seq)) else {
            if let Some(deed) = view.deed(entry) {
                let (time, deed) = (clock::time(entry.sent_at), deed.replace('\n', "\n        "));
                say(&format!("[{time}] {place}* {deed}"));
            }
            return;
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

/// Prints a line that no person wrote.
fn said(line: &str) {
    say(&format!("* {line}"));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A write fails if nobody reads the output any more; then the input ends as well.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use tern_client::{Outgoing, To};
    use tern_types::UserId;

    use super::*;
    use crate::messenger::desk::testing::offline;

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_reached_after_the_end_of_input_is_said_to_be_so() {
        let (desk, events) = offline().await;
        let message = Outgoing::new(To::Peer(UserId::random()), "hello");
        desk.client.send_message(message).await.unwrap();
        let session = Session {
            desk,
            screen: Screen::default(),
            events: Ok(events),
            input: None,
            opening: false,
            held: None,
            deadline: None,
        };
        let error = session.talk().await.unwrap_err().to_string();
        assert!(error.contains("the server does not answer"), "{error}");
    }
}
