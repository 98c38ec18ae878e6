//! Takes the terminal for a full screen and restores it when the program ends, is ended by a signal, or panics.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A flag that is set when any thread has panicked. The panic hook restores the terminal then, so that the panic's
/// message can be read.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The full screen. Dropping it restores the terminal.
pub struct FullScreen(DefaultTerminal);

impl FullScreen {
    /// Takes the terminal. Fails if it cannot show a full screen.
    pub fn open() -> anyhow::Result<Self> {
        let screen =
            Self(ratatui::try_init().context("this terminal gives no full screen (--plain needs none)")?);
        // Pasted lines come as one event, not as keys that end in Enter.
        execute!(io::stdout(), EnableBracketedPaste)?;
        // This hook runs first, then the one that ratatui has set, which restores the screen and prints the panic.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !PANICKED.swap(true, Ordering::SeqCst) {
                paste_as_before();
            }
            hook(info);
        }));
        Ok(screen)
    }

    /// Draws a frame. Fails after a panic, because the terminal has been restored and there is nothing to draw on.
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

/// Turns bracketed paste off. An error is ignored, because the terminal may be gone already.
fn paste_as_before() {
    let _ = execute!(io::stdout(), DisableBracketedPaste);
}

/// The signals that end this program: SIGTERM, SIGHUP and SIGINT. Ctrl-C on the keyboard is a key event instead.
pub struct Signals([Signal; 3]);

impl Signals {
    /// Begins to listen for the signals.
    pub fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ]))
    }

    /// Waits for one of the signals.
    pub async fn end(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[ignore = "run by the test below, on a terminal of its own"]
    fn panics_on_a_full_screen() {
        let _screen = FullScreen::open().unwrap();
        panic!("this is a defect");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_what_happened() {
        let test = "messenger::tui::terminal::tests::panics_on_a_full_screen";
        let program = std::env::current_exe().unwrap();
        let program = program.display();
        // `script` runs the test in a pseudo-terminal.
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!(
                "stty rows 30 cols 120; {program} --exact {test} --ignored --nocapture; stty -a"
            ))
            .arg("/dev/null")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of util-linux");
        // Keep the input open until the end, so that the terminal does not hang up.
        let _typed = terminal.stdin.take();
        let output = terminal.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (full_screen, after) = text
            .rsplit_once("\u{1b}[?1049l")
            .expect("the screen is given back");
        assert!(
            full_screen.contains("\u{1b}[?1049h"),
            "there was a full screen: {text}"
        );
        assert!(
            full_screen.contains("\u{1b}[?2004l"),
            "pasting is as before: {text}"
        );
        assert!(
            after.contains("this is a defect"),
            "what happened can be read: {text}"
        );
        assert!(
            after.contains(" icanon") && after.contains(" echo "),
            "lines and echo as before: {after}"
        );
    }
}
