//! Lines in, lines out. A script that pipes its lines in may end its input at once: this leaves when everything is
//! sent.

use std::io::Write as _;
use std::time::Duration;

use tern_client::{Entry, Event, EventStream, SendState, StopReason};
use tern_types::{ChatId, Seq};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::clock;
use super::desk::{Desk, Outcome, Update, help};
use super::view::{Connection, Tick, View};

/// After the end of input: for what is on its way.
const LAST_SENDS: Duration = Duration::from_secs(10);
/// Lines of history shown when a chat is opened.
const HISTORY: usize = 20;

/// Runs until `/quit`, the end of input, or the end of the client.
pub async fn run(mut desk: Desk, mut events: EventStream, to: Option<String>) -> anyhow::Result<StopReason> {
    let mut screen = Screen::default();
    let mut input = Some(BufReader::new(tokio::io::stdin()).lines());
    // Typed lines wait until the chat that --to names is open.
    let mut opening = to.is_some();
    if let Some(name) = to {
        desk.submit(&format!("/chat {name}"));
        opening = desk.view.open.is_none();
    }
    let mut deadline = None;
    loop {
        let done =
            input.is_none() && !opening && desk.client.outbox().await.is_ok_and(|outbox| sent(&outbox));
        if done || deadline.is_some_and(|at| tokio::time::Instant::now() >= at) {
            desk.client.stop().await;
            return Ok(StopReason::ByApp);
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Stopped(reason)) => return Ok(reason),
                Some(event) => {
                    desk.apply_event(&event, true);
                    screen.event(&desk.view, &event);
                }
                None => return Ok(StopReason::ByApp),
            },
            Some(update) = desk.update() => {
                if let Update::Open(chat) = update {
                    desk.open_new(chat);
                    opening = false;
                } else {
                    desk.apply_update(&update);
                }
                if matches!(update, Update::Notice(_)) {
                    opening = false;
                }
                screen.update(&desk.view, &update);
            }
            line = next_line(&mut input), if !opening => match line {
                Some(line) => match desk.submit(&line) {
                    Outcome::Done => {}
                    Outcome::Help => help().iter().for_each(|line| say(line)),
                    Outcome::Quit => input = None,
                },
                None => input = None,
            },
            () = tokio::time::sleep(Duration::from_millis(100)), if input.is_none() => {
                deadline.get_or_insert_with(|| tokio::time::Instant::now() + LAST_SENDS);
            }
        }
    }
}

fn sent(outbox: &[tern_client::QueuedMessage]) -> bool {
    !outbox.iter().any(|queued| queued.state == SendState::Queued)
}

async fn next_line(input: &mut Option<Lines<BufReader<Stdin>>>) -> Option<String> {
    match input {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// What was printed last, so that nothing is printed twice.
#[derive(Default)]
struct Screen {
    shown: Option<ChatId>,
    history_of: Option<ChatId>,
    tick: Option<(Seq, Tick)>,
    connected: Option<bool>,
    /// Their senders' names are on their way.
    nameless: Vec<Entry>,
}

impl Screen {
    fn event(&mut self, view: &View, event: &Event) {
        match event {
            Event::Entry(entry) if entry.sender.is_some_and(|sender| view.nameless.contains(&sender)) => {
                self.nameless.push(entry.clone());
            }
            Event::Entry(entry) => self.entry(view, entry),
            Event::Receipt { chat, .. } if Some(*chat) == view.open => self.ticks(view, *chat),
            Event::Send {
                state: SendState::Failed { code, message },
                ..
            } => {
                say(&format!("! not sent: {} ({message})", code.as_str_name()));
            }
            Event::Connected { .. } | Event::Disconnected { .. } => self.connection(view),
            _ => {}
        }
    }

    fn update(&mut self, view: &View, update: &Update) {
        match update {
            Update::Names(_) => {
                for entry in std::mem::take(&mut self.nameless) {
                    self.entry(view, &entry);
                }
            }
            Update::Notice(text) => text.lines().for_each(|line| say(&format!("* {line}"))),
            Update::Open(chat) => {
                say(&format!("* chat with {}", view.title(*chat)));
                self.shown = Some(*chat);
            }
            Update::History { chat, .. } if self.history_of != Some(*chat) => {
                self.history_of = Some(*chat);
                let lines = view.lines(*chat);
                for line in &lines[lines.len().saturating_sub(HISTORY)..] {
                    let who = line
                        .who
                        .map_or("*".to_owned(), |who| format!("{}:", view.name(who)));
                    say(&format!("[{}] {who} {}", clock::time(line.at), line.text));
                }
            }
            _ => {}
        }
    }

    fn entry(&mut self, view: &View, entry: &Entry) {
        // The open chat's own lines come from its history until that is there.
        let lines = view.lines(entry.chat);
        let Some(line) = lines.iter().rev().find(|line| line.seq == Some(entry.seq)) else {
            return;
        };
        let who = line
            .who
            .map_or("*".to_owned(), |who| format!("{}:", view.name(who)));
        let place = if view.open == Some(entry.chat) {
            String::new()
        } else {
            format!("({}) ", view.title(entry.chat))
        };
        say(&format!("[{}] {place}{who} {}", clock::time(line.at), line.text));
        if line.tick.is_some() {
            self.ticks(view, entry.chat);
        }
    }

    /// How far the last own message got.
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

    fn connection(&mut self, view: &View) {
        let connected = matches!(view.connection, Connection::Connected { .. });
        if self.connected.replace(connected) == Some(connected) {
            return;
        }
        match &view.connection {
            Connection::Waiting { reason, .. } => {
                say(&format!("* not connected ({reason}); what you write is kept"))
            }
            Connection::Connected { gateway, .. } => say(&format!("* connected to {gateway}")),
            Connection::Connecting => {}
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the end of input follows.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
