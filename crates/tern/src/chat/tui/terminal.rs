//! The terminal, taken for a full screen and given back as it was: when this program leaves, is told to end, or panics.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Something panicked, on whichever thread: the terminal was given back then, so that its message can be read.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The full screen. Dropped, the terminal is as before.
pub struct FullScreen(DefaultTerminal);

impl FullScreen {
    pub fn open() -> anyhow::Result<Self> {
        let screen =
            Self(ratatui::try_init().context("this terminal gives no full screen (--plain needs none)")?);
        // Pasted lines come as one event, not as keys that end in Enter.
        execute!(io::stdout(), EnableBracketedPaste)?;
        // In front of the hook that ratatui has set, which gives the screen back and then tells of the panic.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !PANICKED.swap(true, Ordering::SeqCst) {
                paste_as_before();
            }
            hook(info);
        }));
        Ok(screen)
    }

    /// Fails once something panicked: there is no full screen to draw on any more.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        anyhow::ensure!(
            !PANICKED.load(Ordering::SeqCst),
            "this program has a defect: see above"
        );
        self.0.draw(draw)?;
        Ok(())
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        if !PANICKED.load(Ordering::SeqCst) {
            paste_as_before();
            ratatui::restore();
        }
    }
}

/// The terminal may be gone already.
fn paste_as_before() {
    let _ = execute!(io::stdout(), DisableBracketedPaste);
}

/// What tells this program to end. Ctrl-C is a key here.
pub struct Signals([Signal; 3]);

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ]))
    }

    pub async fn end(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
