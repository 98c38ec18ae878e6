//! The full screen. The terminal is given back as it was, however this ends.
//!
//! - [`input`]: the line that is being typed; [`wrap`]: text to lines of a width
//! - [`draw`]: the view on the screen

mod draw;
mod input;
mod wrap;

use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event as TerminalEvent, KeyCode, KeyEvent,
    KeyEventKind, KeyModifiers,
};
use ratatui::crossterm::execute;
use tern_client::{Event, EventStream, StopReason};
use tern_types::ChatId;
use tokio::sync::mpsc;

use super::desk::{Desk, Outcome, Update};
use input::Input;

/// Keys typed ahead while the screen is drawn.
const KEYS: usize = 256;
/// How long the keyboard is listened to before looking whether this program ends.
const KEY_POLL: Duration = Duration::from_millis(200);
/// The clock of the status line.
const CLOCK: Duration = Duration::from_secs(1);
/// For a notice to be read.
const NOTICE: Duration = Duration::from_secs(8);
/// Lines of a page less one, when nothing was drawn yet.
const FIRST_PAGE: usize = 10;

/// What the screen needs beside the view.
pub struct Screen {
    pub input: Input,
    pub notice: Option<(String, tokio::time::Instant)>,
    pub help: bool,
    /// Lines scrolled up from the newest.
    pub scrolled: usize,
    /// What fits and what there is, as drawn last.
    pub page: usize,
    pub lines: usize,
}

/// Runs until the person leaves or the client ends.
pub async fn run(desk: Desk, events: EventStream, to: Option<String>) -> anyhow::Result<StopReason> {
    let mut terminal = ratatui::try_init()?;
    let paste = execute!(std::io::stdout(), EnableBracketedPaste);
    let result = match paste {
        Ok(()) => chat(&mut terminal, desk, events, to).await,
        Err(error) => Err(error.into()),
    };
    // The terminal may be gone already.
    let _ = execute!(std::io::stdout(), DisableBracketedPaste);
    ratatui::restore();
    result
}

async fn chat(
    terminal: &mut DefaultTerminal,
    mut desk: Desk,
    mut events: EventStream,
    to: Option<String>,
) -> anyhow::Result<StopReason> {
    let mut keys = keyboard();
    let mut clock = tokio::time::interval(CLOCK);
    let mut screen = Screen {
        input: Input::default(),
        notice: None,
        help: false,
        scrolled: 0,
        page: FIRST_PAGE,
        lines: 0,
    };
    let newest = desk.view.chats().first().map(|chat| chat.id);
    match (to, newest) {
        (Some(name), _) => {
            desk.submit(&format!("/chat {name}")).await;
        }
        (None, Some(chat)) => desk.open(chat),
        (None, None) => screen.help = true,
    }
    loop {
        terminal.draw(|frame| draw::screen(frame, &desk.view, &mut screen))?;
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Stopped(reason)) => return Ok(reason),
                Some(event) => {
                    if let Some(reason) = take_events(event, &mut events, &mut desk, &screen) {
                        return Ok(reason);
                    }
                }
                None => return Ok(StopReason::ByApp),
            },
            Some(update) = desk.update() => take_update(update, &mut desk, &mut screen),
            key = keys.recv() => {
                let leave = match key {
                    Some(key) => take_key(key, &mut desk, &mut screen).await,
                    None => true,
                };
                if leave {
                    desk.client.stop().await;
                    return Ok(StopReason::ByApp);
                }
            }
            _ = clock.tick() => {
                if screen.notice.as_ref().is_some_and(|(_, since)| since.elapsed() >= NOTICE) {
                    screen.notice = None;
                }
            }
        }
    }
}

/// All events at hand before the next drawing.
fn take_events(
    first: Event,
    events: &mut EventStream,
    desk: &mut Desk,
    screen: &Screen,
) -> Option<StopReason> {
    let mut next = Some(first);
    while let Some(event) = next {
        desk.apply_event(&event, screen.scrolled == 0);
        if let Event::Stopped(reason) = event {
            return Some(reason);
        }
        next = events.try_next();
    }
    None
}

fn take_update(update: Update, desk: &mut Desk, screen: &mut Screen) {
    match update {
        Update::Open(chat) => open(chat, desk, screen),
        Update::Notice(text) => screen.notice = Some((text, tokio::time::Instant::now())),
        update => desk.apply_update(&update),
    }
}

fn open(chat: ChatId, desk: &mut Desk, screen: &mut Screen) {
    screen.scrolled = 0;
    screen.help = false;
    desk.open_new(chat);
}

/// True: the person leaves.
async fn take_key(event: TerminalEvent, desk: &mut Desk, screen: &mut Screen) -> bool {
    match event {
        TerminalEvent::Paste(text) => {
            screen.input.insert(&text.replace(['\r', '\n'], " "));
            desk.typed(screen.input.is_message()).await;
        }
        TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => {
            return press(key, desk, screen).await;
        }
        _ => {}
    }
    false
}

async fn press(key: KeyEvent, desk: &mut Desk, screen: &mut Screen) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'q') if control => return true,
        KeyCode::Char('d') if control && screen.input.is_empty() => return true,
        KeyCode::Enter => return enter(desk, screen).await,
        KeyCode::Esc => {
            screen.help = false;
            screen.notice = None;
            screen.scrolled = 0;
        }
        KeyCode::Tab | KeyCode::Down => step(1, desk, screen),
        KeyCode::BackTab | KeyCode::Up => step(-1, desk, screen),
        KeyCode::Char('n') if control => step(1, desk, screen),
        KeyCode::Char('p') if control => step(-1, desk, screen),
        KeyCode::PageUp => {
            let most = screen.lines.saturating_sub(screen.page);
            screen.scrolled = (screen.scrolled + screen.page / 2 + 1).min(most);
            if screen.scrolled == most {
                desk.load_older();
            }
        }
        KeyCode::PageDown => {
            screen.scrolled = screen.scrolled.saturating_sub(screen.page / 2 + 1);
            if let (0, Some(chat)) = (screen.scrolled, desk.view.open) {
                desk.mark_read(chat);
            }
        }
        _ => {
            let before = screen.input.is_message();
            screen.input.key(key.code, control);
            // A command in the making is nobody's business.
            if before || screen.input.is_message() {
                desk.typed(screen.input.is_message()).await;
            }
        }
    }
    false
}

async fn enter(desk: &mut Desk, screen: &mut Screen) -> bool {
    let line = screen.input.take();
    screen.notice = None;
    screen.scrolled = 0;
    let before = desk.view.open;
    match desk.submit(&line).await {
        Outcome::Done => screen.help &= desk.view.open == before,
        Outcome::Help => screen.help = true,
        Outcome::Quit => return true,
    }
    false
}

/// To the chat below or above in the list.
fn step(by: isize, desk: &mut Desk, screen: &mut Screen) {
    let chats: Vec<ChatId> = desk.view.chats().iter().map(|chat| chat.id).collect();
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

/// Keys from a thread of their own: reading them blocks.
fn keyboard() -> mpsc::Receiver<TerminalEvent> {
    let (keys, queue) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while !keys.is_closed() {
            match event::poll(KEY_POLL) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { break };
                    if keys.blocking_send(event).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    });
    queue
}
