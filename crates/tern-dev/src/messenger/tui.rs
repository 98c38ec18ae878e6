//! Runs the conversation on the full screen. The terminal is restored however the program ends.
//!
//! - [`input`]: the line that is being typed; [`draft`]: keeps it when the user goes to another chat
//! - [`wrap`]: breaks text into lines
//! - [`draw`]: draws the view; [`help`]: draws the help; [`list`]: draws the messages that were found
//! - [`terminal`]: takes the terminal and restores it

mod draft;
mod draw;
mod help;
mod input;
mod list;
mod terminal;
mod wrap;

use std::time::Duration;

use crossterm::event::{
    Event as TerminalEvent, EventStream as TerminalEvents, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use futures::StreamExt as _;
use tern_client::{Act, Event, EventStream, StopReason};
use tern_types::{ChatId, Clock};

use input::Input;
use list::List;
use terminal::{FullScreen, Signals};

use super::desk::{Desk, Outcome, Update};

/// The interval between two calls of [`Desk::tick`], at which the screen is drawn at least.
const CLOCK: Duration = Duration::from_secs(1);
/// The time for which a notice stays on the screen.
const NOTICE: Duration = Duration::from_secs(8);
/// The height of the timeline in lines that is assumed until the timeline has been drawn once.
const FIRST_PAGE: usize = 10;

/// The state of the screen that is not part of the view.
pub struct Screen {
    /// The line that is being typed.
    pub input: Input,
    /// The notice that is shown, and the time since when.
    pub notice: Option<(String, tokio::time::Instant)>,
    /// The number of the first line of the help that is shown; `None` if the help is not shown.
    pub help: Option<usize>,
    /// The list of messages that is shown over the timeline.
    pub list: Option<List>,
    /// The number of lines by which the timeline is scrolled up from its end.
    pub scrolled: usize,
    /// The height of the timeline in lines, as it was drawn last.
    pub page: usize,
    /// The number of lines of the whole timeline, as it was drawn last.
    pub lines: usize,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            input: Input::default(),
            notice: None,
            help: None,
            list: None,
            scrolled: 0,
            page: FIRST_PAGE,
            lines: 0,
        }
    }
}

/// Runs until the user leaves, a signal ends the program, or the client ends for good. Returns why it ended.
pub async fn run(mut desk: Desk, events: EventStream, to: Option<String>) -> anyhow::Result<StopReason> {
    // Before the screen is taken, so that a signal never ends the program without restoring it.
    let signals = Signals::new()?;
    let mut terminal = FullScreen::open()?;
    let mut screen = Screen::default();
    let newest = desk.view.chats().first().map(|chat| chat.id);
    match (to, newest) {
        (Some(name), _) => {
            desk.submit(&format!("/chat {name}")).await;
        }
        (None, Some(chat)) => desk.open(chat),
        (None, None) => screen.help = Some(0),
    }
    draft::moved(None, &mut desk, &mut screen);
    chat(&mut terminal, signals, desk, events, screen).await
}

async fn chat(
    terminal: &mut FullScreen,
    mut signals: Signals,
    mut desk: Desk,
    events: EventStream,
    mut screen: Screen,
) -> anyhow::Result<StopReason> {
    let mut keys = TerminalEvents::new();
    let mut clock = tokio::time::interval(CLOCK);
    // The events are `None` after the client has ended, while the user can still type /connect.
    let mut events = Some(events);
    loop {
        terminal.draw(|frame| draw::screen(frame, &desk.view, &mut screen))?;
        let leave = tokio::select! {
            event = next(&mut events) => {
                let Some(event) = event else { return Ok(StopReason::ByApp) };
                if let Some(reason) = take_events(event, &mut events, &mut desk, &mut screen) {
                    if let Some(reason) = desk.ended(reason) {
                        return Ok(reason);
                    }
                    events = None;
                }
                false
            }
            Some(update) = desk.update() => {
                take_update(update, &mut desk, &mut screen);
                false
            }
            key = keys.next() => match key {
                Some(Ok(key)) => {
                    let leave = take_key(key, &mut desk, &mut screen).await;
                    events = desk.new_events().or(events);
                    leave
                }
                Some(Err(_)) | None => true,
            },
            () = signals.end() => true,
            _ = clock.tick() => {
                if desk.tick() {
                    take_from_list(&desk, &mut screen);
                }
                if screen.notice.as_ref().is_some_and(|(_, since)| since.elapsed() >= NOTICE) {
                    screen.notice = None;
                }
                false
            }
        };
        if leave {
            draft::ended(&mut desk, &mut screen).await;
            desk.client.stop().await;
            return Ok(StopReason::ByApp);
        }
    }
}

/// Waits for the next event of the client; without a client it waits for ever.
async fn next(events: &mut Option<EventStream>) -> Option<Event> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// Applies this event and all others that have arrived, so that the screen is drawn once for all of them. Returns the
/// reason if the client has stopped.
fn take_events(
    first: Event,
    events: &mut Option<EventStream>,
    desk: &mut Desk,
    screen: &mut Screen,
) -> Option<StopReason> {
    let mut next = Some(first);
    while let Some(event) = next {
        let watching = screen.scrolled == 0 && desk.view.thread.is_none();
        desk.apply_event(&event, watching);
        let deletes = matches!(&event, Event::Entry(entry) if matches!(entry.act(), Act::Delete { .. }));
        if deletes || matches!(event, Event::Gone { .. }) {
            take_from_list(desk, screen);
        }
        if let Event::Stopped(reason) = event {
            return Some(reason);
        }
        next = events.as_mut().and_then(EventStream::try_next);
    }
    None
}

/// Lets nothing of a message that is gone now stay on the screen in the list of what was found. The neighbours of
/// a message that is too far back are not shown any more.
fn take_from_list(desk: &Desk, screen: &mut Screen) {
    screen.list.take_if(|list| list.selected.is_none());
    if let Some(found) = &mut screen.list {
        found.renew(desk.view.found_lines(Clock::wall()));
    }
}

fn take_update(update: Update, desk: &mut Desk, screen: &mut Screen) {
    match update {
        Update::Open(chat) => open(chat, desk, screen),
        Update::Notice(text) => screen.notice = Some((text, tokio::time::Instant::now())),
        Update::Found { title, .. } => {
            desk.apply_update(&update);
            let lines = desk.view.found_lines(Clock::wall());
            screen.list = Some(List::new(title, lines, true));
        }
        Update::Lines { title, lines } => screen.list = Some(List::new(title, lines, false)),
        Update::Hidden { .. } => {
            desk.apply_update(&update);
            take_from_list(desk, screen);
        }
        Update::Show {
            seq, around, entries, ..
        } if entries.is_empty() => {
            let lines = desk.view.around_lines(&around, seq, Clock::wall());
            screen.list = Some(List::new("too far back for the screen", lines, false));
        }
        Update::Show {
            chat, seq, entries, ..
        } => {
            entries.into_iter().for_each(|entry| desk.view.add(entry));
            if desk.view.open != Some(chat) {
                open(chat, desk, screen);
            }
            screen.list = None;
            desk.view.selected = Some(seq);
        }
        update => desk.apply_update(&update),
    }
}

fn open(chat: ChatId, desk: &mut Desk, screen: &mut Screen) {
    screen.scrolled = 0;
    screen.help = None;
    screen.list = None;
    let before = desk.view.open;
    desk.open_new(chat);
    draft::moved(before, desk, screen);
}

/// Handles an event of the keyboard. Returns true if the user leaves.
async fn take_key(event: TerminalEvent, desk: &mut Desk, screen: &mut Screen) -> bool {
    match event {
        TerminalEvent::Paste(text) if takes(text.starts_with('/'), desk, screen) => {
            screen.input.insert(&text);
            desk.typed(screen.input.is_message()).await;
        }
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => {
            return press(key, desk, screen).await;
        }
        _ => {}
    }
    false
}

/// Handles a key. Returns true if the user leaves.
async fn press(key: KeyEvent, desk: &mut Desk, screen: &mut Screen) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'q') if control => return true,
        KeyCode::Char('d') if control && screen.input.is_empty() => return true,
        KeyCode::Enter if key.modifiers.contains(KeyModifiers::ALT) => screen.input.insert("\n"),
        KeyCode::Enter => return enter(desk, screen).await,
        KeyCode::Esc => escape(desk, screen),
        KeyCode::Down | KeyCode::Up | KeyCode::PageDown | KeyCode::PageUp if screen.help.is_some() => {
            scroll_help(key.code, screen);
        }
        KeyCode::Down | KeyCode::Up if screen.list.is_some() => {
            screen
                .list
                .iter_mut()
                .for_each(|list| list.step(key.code == KeyCode::Down));
        }
        KeyCode::Down => select(true, desk, screen),
        KeyCode::Up => select(false, desk, screen),
        KeyCode::Tab => step(1, desk, screen),
        KeyCode::BackTab => step(-1, desk, screen),
        KeyCode::Char('n') if control => step(1, desk, screen),
        KeyCode::Char('p') if control => step(-1, desk, screen),
        KeyCode::PageUp => {
            desk.view.selected = None;
            let most = screen.lines.saturating_sub(screen.page);
            screen.scrolled = (screen.scrolled + screen.page / 2 + 1).min(most);
            if screen.scrolled == most {
                desk.load_older();
            }
        }
        KeyCode::PageDown => {
            desk.view.selected = None;
            screen.scrolled = screen.scrolled.saturating_sub(screen.page / 2 + 1);
            seen(desk, screen);
        }
        KeyCode::Char(c) if !control && begin_command(c, desk, screen) => {}
        KeyCode::Char(c) if !control && !takes(c == '/', desk, screen) => {}
        _ => {
            let before = screen.input.is_message();
            screen.input.key(key.code, control);
            // Others are told of typing only for messages, not for commands.
            if before || screen.input.is_message() {
                desk.typed(screen.input.is_message()).await;
            }
        }
    }
    false
}

/// Takes away what lies over the newest messages. If that is nothing, it goes back from the thread to its chat.
fn escape(desk: &mut Desk, screen: &mut Screen) {
    let list = screen.list.take().is_some();
    let help = screen.help.take().is_some();
    let selected = desk.view.selected.take().is_some();
    let scrolled = std::mem::take(&mut screen.scrolled) > 0;
    screen.notice = None;
    if !(list || help || selected || scrolled) && desk.view.thread.take().is_some() {
        seen(desk, screen);
    }
}

/// Marks the open chat as read if its newest line is on the screen.
fn seen(desk: &mut Desk, screen: &Screen) {
    if let (0, Some(chat), None) = (screen.scrolled, desk.view.open, desk.view.thread) {
        desk.mark_read(chat);
    }
}

/// Selects the message above the selected one, or with `down` the one below, and scrolls to it when it is drawn.
fn select(down: bool, desk: &mut Desk, screen: &mut Screen) {
    if !desk.view.select(down) {
        desk.load_older();
    }
    if desk.view.selected.is_none() {
        screen.scrolled = 0;
        seen(desk, screen);
    }
}

/// Types the command for what this key does with the selected message, so that Enter carries it out. Does nothing and
/// returns false if no message is selected, if something is typed already, or if the key does nothing.
fn begin_command(key: char, desk: &Desk, screen: &mut Screen) -> bool {
    let selected = desk.view.selected.filter(|_| screen.input.is_empty());
    let Some(message) = selected.and_then(|_| desk.view.target(None, false)) else {
        return false;
    };
    match key {
        'r' => screen.input.insert("/reply "),
        't' => screen.input.insert("/thread "),
        'T' => screen.input.insert("/thread"),
        'e' if message.entry.sender != Some(desk.view.me) => {
            let why = "only who wrote a message may edit it".to_owned();
            screen.notice = Some((why, tokio::time::Instant::now()));
        }
        'e' => {
            screen.input.insert("/edit ");
            // A text that is too long for the input would be cut off.
            let text = message.entry.text().unwrap_or_default();
            if screen.input.has_room(&text) {
                screen.input.insert(&text);
            }
        }
        '+' => screen.input.insert("/react "),
        'p' if message.pinned => screen.input.insert("/unpin"),
        'p' => screen.input.insert("/pin"),
        'd' => screen.input.insert("/delete"),
        'h' => screen.input.insert("/hide"),
        _ => return false,
    }
    true
}

/// Returns whether the input takes more text. `command` says that the text begins with `/`. In a chat where the user
/// cannot write, only a command can be begun.
fn takes(command: bool, desk: &Desk, screen: &Screen) -> bool {
    let silent = desk.view.open.and_then(|chat| desk.view.silent(chat));
    silent.is_none() || command || !screen.input.is_empty()
}

/// Scrolls the help. Its first line may then lie too far down, which drawing corrects.
fn scroll_help(key: KeyCode, screen: &mut Screen) {
    let page = screen.page.max(2) - 1;
    screen.help = screen.help.map(|from| match key {
        KeyCode::Down => from + 1,
        KeyCode::Up => from.saturating_sub(1),
        KeyCode::PageDown => from + page,
        _ => from.saturating_sub(page),
    });
}

/// Carries out the line that was typed. Returns true if the user leaves.
async fn enter(desk: &mut Desk, screen: &mut Screen) -> bool {
    let mut line = screen.input.take();
    // With nothing typed, Enter goes to the message that is selected in the list.
    let list = screen.list.take().filter(|_| line.is_empty());
    if let Some(nth) = list.and_then(|list| list.selected) {
        line = format!("/hit {}", nth + 1);
    }
    screen.notice = None;
    screen.scrolled = 0;
    let before = desk.view.open;
    let outcome = desk.submit(&line).await;
    desk.view.selected = None;
    draft::moved(before, desk, screen);
    match outcome {
        Outcome::Done if desk.view.open != before => screen.help = None,
        Outcome::Done | Outcome::Connected => {}
        Outcome::Kept(text) => screen.input.insert(&text),
        Outcome::Thread(root) => desk.view.thread = Some(root),
        Outcome::Help => screen.help = Some(0),
        Outcome::Quit => return true,
    }
    false
}

/// Opens the chat below or above in the list (`by` is 1 or -1), going round at the ends.
fn step(by: isize, desk: &mut Desk, screen: &mut Screen) {
    let chats: Vec<ChatId> = desk.view.listed().chats.iter().map(|chat| chat.id).collect();
    if chats.is_empty() {
        return;
    }
    let at = chats.iter().position(|chat| Some(*chat) == desk.view.open);
    let count = chats.len().cast_signed();
    let next = at
        .map_or(0, |at| (at.cast_signed() + by).rem_euclid(count))
        .cast_unsigned();
    open(chats[next], desk, screen);
}

#[cfg(test)]
mod tests;
