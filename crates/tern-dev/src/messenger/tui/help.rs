//! Draws the help over the screen. It can be scrolled if it does not fit.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize as _;
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, Clear, Paragraph};

use super::wrap::wrap;
use crate::messenger::command::HELP;

/// The columns of a command's usage. The meaning stands beside it, or below it if the text has fewer than [`NARROW`]
/// columns.
const USAGE: usize = 34;
/// The width of the text, in columns, from which a command's meaning stands beside its usage.
const NARROW: usize = 64;
/// The greatest width of the help in columns, because longer lines are hard to read.
const WIDEST: u16 = 100;
/// The columns that the border and a blank on each side take.
const FRAME: u16 = 4;

/// Draws the help from line `from` on. If `from` lies too far down to fill the last page, it begins further up. Returns
/// the line at which it began.
pub fn draw(frame: &mut Frame<'_>, area: Rect, from: usize) -> usize {
    let width = area.width.min(WIDEST);
    let lines = lines(usize::from(width.saturating_sub(FRAME)));
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let page = usize::from(height.saturating_sub(2));
    let from = from.min(lines.len().saturating_sub(page));
    let place = Rect {
        x: area.x,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let keys = if lines.len() > page {
        " ↑ ↓ PgUp PgDn: more · Esc: close "
    } else {
        " Esc: close "
    };
    let block = Block::bordered().title(" help ".bold()).title_bottom(keys);
    let shown = lines.into_iter().skip(from).take(page);
    let shown: Vec<Text<'_>> = shown.map(|line| Text::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(shown).block(block), place);
    from
}

/// Returns the whole help in lines of at most `width` columns.
fn lines(width: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (usage, what) in HELP {
        if width < NARROW {
            out.extend(wrap(usage, width));
            let below = wrap(what, width.saturating_sub(4));
            out.extend(below.into_iter().map(|line| format!("    {line}")));
            continue;
        }
        let beside = wrap(what, width - USAGE);
        for (index, line) in beside.into_iter().enumerate() {
            let usage = if index == 0 { usage } else { "" };
            out.push(format!("{usage:<USAGE$}{line}"));
        }
    }
    out.push(String::new());
    let signs = "◷ waits   ✓ sent   ✓✓ delivered   ✓✓ in colour: read   ✗ not sent";
    let selected = "On a selected message: r reply, t write into its thread, T show the thread, e edit, + react, \
        p pin or unpin, d delete for everyone, h hide it from you. Enter carries it out.";
    let keys = "Alt-Enter begins a new line. ↑ ↓ select a message. Tab: next chat. PgUp: older messages. \
        Esc: back. Ctrl-C: leave.";
    let list = "In the list: @2 mentions you twice, • is marked as unread, ✎ has a draft.";
    out.extend(wrap(signs, width));
    out.extend(wrap(list, width));
    out.extend(wrap(selected, width));
    out.extend(wrap(keys, width));
    out
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn shown(width: u16, height: u16, from: usize) -> (usize, Vec<String>) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut at = 0;
        terminal
            .draw(|frame| at = draw(frame, frame.area(), from))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (at, (0..height).map(row).collect())
    }

    #[test]
    fn all_of_it_can_be_read_on_a_terminal_of_any_size() {
        for (width, height) in [(34, 8), (50, 12), (80, 24), (100, 30), (200, 100)] {
            let mut read = String::new();
            let mut from = 0;
            loop {
                let (at, rows) = shown(width, height, from);
                let inner = rows[1..rows.len() - 1]
                    .iter()
                    .map(|row| row.trim_matches([' ', '│']));
                read.extend(inner.flat_map(|row| [row, " "]));
                if at < from {
                    break;
                }
                from += 1;
            }
            for word in HELP
                .iter()
                .flat_map(|(usage, what)| usage.split(' ').chain(what.split(' ')))
            {
                assert!(read.contains(word), "{width}x{height}: no {word:?}");
            }
        }
    }

    #[test]
    fn its_last_line_is_the_bottom_one() {
        let (at, rows) = shown(80, 12, usize::MAX);
        assert!(at > 0 && rows[10].contains("leave."), "{rows:#?}");
        assert!(rows[11].contains("PgDn: more"), "{rows:#?}");
        assert!(!shown(120, 100, 0).1.join("").contains("PgDn: more"));
    }
}
